"""What can be exported by name: the published architectures and the shipped recipes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vim_deploy import installation
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.families import FAMILIES, family_of
from vim_deploy.families.base import ModelConfig
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.load import checkpoint_address, load_recipe
from vim_deploy.recipe.schema import CUSTOM, Recipe


def variants() -> dict[str, ModelConfig]:
    """Every named architecture: of each family the short names, then the official ones."""
    return {name: config for names in _names() for name, config in names.variants().items()}


def _names() -> Iterator[Any]:
    """The module ``names`` of each family."""
    return (family.part("names") for family in FAMILIES)


def find_variant(name: str) -> ModelConfig:
    """The architecture called ``name``.

    Raises:
        VimDeployError: VIM-201 for an unknown name, with the nearest one.
    """
    known = variants()
    if name not in known:
        # --model takes the recipes of dense models as well.
        names = (*known, *(recipe for recipe in recipe_names() if find_dense_recipe(recipe)))
        raise VimDeployError("VIM-201", f"unknown model {name!r}", fix=nearest(name, names))
    return known[name]


def short_name(config: ModelConfig) -> str:
    """Short name of the variant that ``config`` is, whatever its image size and classes.

    ``custom`` when it is none of them.
    """
    names = family_of(config).part("names").SHORT
    return next((name for name in names if _is_variant(config, name)), CUSTOM)


def model_name(config: ModelConfig, dense: DenseConfig | None) -> str:
    """Short name of a model: a classifier's variant, or the recipe of a dense one.

    Image size, classes and what only the evaluation uses make no other model. ``custom`` when it
    is none of them.
    """
    if dense is None:
        return short_name(config)
    for name in recipe_names():
        recipe = load_recipe(recipes_folder() / f"{name}.toml")
        if recipe.dense is not None and _same_dense(recipe, config, dense):
            return name
    return CUSTOM


def _same_dense(recipe: Recipe, config: ModelConfig, dense: DenseConfig) -> bool:
    assert recipe.dense is not None
    names = family_of(config).part("names")
    left_out = (*names.FREE, *names.TRAINING, *names.NO_EFFECT)
    own, named = encode(config), encode(recipe.model_config)
    if any(own.get(key) != named[key] for key in named if key not in left_out):
        return False
    return dense.structure() == recipe.dense.structure()


def _is_variant(config: ModelConfig, name: str) -> bool:
    names = family_of(config).part("names")
    variant = names.variants().get(name)
    if variant is None:
        return False
    own, named = encode(config), encode(variant)
    ignored = (*names.FREE, *names.TRAINING)
    return all(own[key] == named[key] for key in named if key not in ignored)


def recipes_folder() -> Path:
    """Where the shipped recipes are."""
    return installation.SHIPPED / "export"


def recipe_names() -> tuple[str, ...]:
    """Names of the shipped recipes, sorted."""
    return tuple(sorted(path.stem for path in recipes_folder().glob("*.toml")))


def names_recipe(text: str) -> bool:
    """Whether a command's argument means a recipe rather than a checkpoint."""
    return text.endswith(".toml") or text in recipe_names()


def find_recipe(text: str) -> Recipe:
    """The recipe in the file ``text``, or the shipped one of that name.

    Raises:
        VimDeployError: VIM-201 for an unknown name, VIM-401 or VIM-412 for a file.
    """
    if text.endswith(".toml"):
        recipe = load_recipe(Path(text))
    elif text in recipe_names():
        recipe = load_recipe(recipes_folder() / f"{text}.toml")
    else:
        raise VimDeployError(
            "VIM-201", f"unknown recipe {text!r}", fix=nearest(text, recipe_names())
        )
    _check_model(recipe)
    return recipe


def checkpoint_of(source: str) -> str:
    """The address that ``source``, a recipe or an address itself, takes its weights from."""
    return checkpoint_address(find_recipe(source)) if names_recipe(source) else source


def find_dense_recipe(name: str) -> Recipe | None:
    """The shipped recipe of a dense model of that name; None for every other text."""
    if name not in recipe_names():
        return None
    recipe = find_recipe(name)
    return recipe if recipe.dense is not None else None


def _check_model(recipe: Recipe) -> None:
    """A recipe that names a variant has to be one; otherwise the name would mislead."""
    if recipe.model == CUSTOM:
        return
    short = [name for names in _names() for name in names.SHORT]
    if recipe.model not in short:
        raise VimDeployError(
            "VIM-412",
            f"{recipe.path} is not a valid recipe",
            why=f"model = {recipe.model!r}",
            fix=nearest(recipe.model, (*short, CUSTOM)),
        )
    if not _is_variant(recipe.model_config, recipe.model):
        own, named = encode(recipe.model_config), encode(find_variant(recipe.model))
        free = family_of(recipe.model_config).part("names").FREE
        differing = [k for k in named if own.get(k) != named[k] and k not in free]
        raise VimDeployError(
            "VIM-412",
            f"{recipe.path} is not a valid recipe",
            why=f"[model_config] is not {recipe.model}: "
            + ", ".join(f"{k} is {own.get(k)!r} instead of {named[k]!r}" for k in differing),
            fix=f"mend these keys, or write model = {CUSTOM!r}",
        )
