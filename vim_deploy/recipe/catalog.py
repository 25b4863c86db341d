"""What can be exported by name: the published architectures and the shipped recipes.

The architectures are those of the five published classification checkpoints, under a short name
and under the name of the official factory function (hustvl/Vim, vim/models_mamba.py), whose
keywords they repeat. The base factory's misspelt ``if_devide_out`` has no effect there and is left
out here; the default of ``if_divide_out`` is the same.
"""

from __future__ import annotations

from pathlib import Path

from vim_deploy import installation
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.load import checkpoint_address, load_recipe
from vim_deploy.recipe.model_config import ModelConfig
from vim_deploy.recipe.schema import CUSTOM, Recipe

_POOL = "bimambav2_final_pool_mean_abs_pos_embed"
#: Short name to official factory name.
FACTORY_NAMES = {
    "vim-tiny": f"vim_tiny_patch16_224_{_POOL}_with_midclstok_div2",
    "vim-tiny-plus": f"vim_tiny_patch16_stride8_224_{_POOL}_with_midclstok_div2",
    "vim-small": f"vim_small_patch16_224_{_POOL}_with_midclstok_div2",
    "vim-small-plus": f"vim_small_patch16_stride8_224_{_POOL}_with_midclstok_div2",
    "vim-base": f"vim_base_patch16_224_{_POOL}_with_middle_cls_token_div2",
}
#: Embedding width and patch stride; everything else is the same in all five.
_SIZES = {
    "vim-tiny": (192, 16),
    "vim-tiny-plus": (192, 8),
    "vim-small": (384, 16),
    "vim-small-plus": (384, 8),
    "vim-base": (768, 16),
}
#: A recipe for a fine-tuned checkpoint may change these and still name its variant.
FREE_KEYWORDS = ("img_size", "num_classes")
#: They do not make another architecture.
_TRAINING_KEYWORDS = ("drop_rate", "drop_path_rate", "initializer_cfg", "ft_seq_len")


def _published_config(embed_dim: int, stride: int) -> ModelConfig:
    return ModelConfig(
        img_size=224,
        patch_size=16,
        stride=stride,
        embed_dim=embed_dim,
        depth=24,
        rms_norm=True,
        residual_in_fp32=True,
        fused_add_norm=True,
        final_pool_type="mean",
        if_abs_pos_embed=True,
        if_rope=False,
        if_rope_residual=False,
        bimamba_type="v2",
        if_cls_token=True,
        if_divide_out=True,
        use_middle_cls_token=True,
    )


def variants() -> dict[str, ModelConfig]:
    """Every named architecture: the five short names, then the five official factory names."""
    short = {name: _published_config(*size) for name, size in _SIZES.items()}
    return short | {FACTORY_NAMES[name]: config for name, config in short.items()}


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
    return next((name for name in _SIZES if _is_variant(config, name)), CUSTOM)


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
    left_out = (*FREE_KEYWORDS, *_TRAINING_KEYWORDS, "fused_add_norm", "residual_in_fp32")
    own, named = encode(config), encode(recipe.model_config)
    if any(own[key] != named[key] for key in named if key not in left_out):
        return False
    return dense.structure() == recipe.dense.structure()


def _is_variant(config: ModelConfig, name: str) -> bool:
    own, named = encode(config), encode(find_variant(name))
    ignored = (*FREE_KEYWORDS, *_TRAINING_KEYWORDS)
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
    if recipe.model not in _SIZES:
        raise VimDeployError(
            "VIM-412",
            f"{recipe.path} is not a valid recipe",
            why=f"model = {recipe.model!r}",
            fix=nearest(recipe.model, (*_SIZES, CUSTOM)),
        )
    if not _is_variant(recipe.model_config, recipe.model):
        own, named = encode(recipe.model_config), encode(find_variant(recipe.model))
        differing = [k for k in named if own[k] != named[k] and k not in FREE_KEYWORDS]
        raise VimDeployError(
            "VIM-412",
            f"{recipe.path} is not a valid recipe",
            why=f"[model_config] is not {recipe.model}: "
            + ", ".join(f"{k} is {own[k]!r} instead of {named[k]!r}" for k in differing),
            fix=f"mend these keys, or write model = {CUSTOM!r}",
        )
