"""Reading a recipe: TOML to records, strictly.

Every key has to be there, has to be known and has to have its type; the error names the file, the
key and the nearest valid name. Before: a ``.toml`` file. After: a ``schema.Recipe``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.files import require_file
from vim_deploy.images import INTERPOLATIONS, check_preparation
from vim_deploy.recipe.dense_config import DenseConfig, read_dense
from vim_deploy.recipe.model_config import ModelConfig, read_config
from vim_deploy.recipe.schema import (
    CHECKPOINT_PARTS,
    FIGURES,
    NONE,
    TASKS,
    CheckpointSource,
    Published,
    Recipe,
    Tolerances,
)
from vim_deploy.specs import ImagePreparation
from vim_deploy.untrusted import read_text, read_toml

#: A recipe is a page of text; anything larger is another kind of file.
MAX_BYTES = 1 << 20
#: Bytes of one name and of a whole path that file systems take (Linux: 255 and 4096, of which some
#: are the folder's).
_LONGEST_STEP, _LONGEST_PATH = 255, 1024
#: Address prefix of a model hub.
HUB_PREFIX = "hf://"

_Kind = tuple[type, ...]
_TEXT: _Kind = (str,)
_NUMBER: _Kind = (int, float)
_LIST: _Kind = (list,)
_TABLE: _Kind = (dict,)
#: A percentage, or the word ``none``.
_FIGURE: _Kind = (int, float, str)

_TOP = {
    "name": _TEXT,
    "title": _TEXT,
    "task": _TEXT,
    "model": _TEXT,
    "labels": _TEXT,
    "checkpoint": _TABLE,
    "image": _TABLE,
    "published": _TABLE,
    "tolerances": _TABLE,
    "model_config": _TABLE,
}
_CHECKPOINT = {"address": _TEXT, "part": _TEXT}
_IMAGE = {"mean": _LIST, "std": _LIST, "crop_ratio": _NUMBER, "interpolation": _TEXT}
_PUBLISHED = {"dataset": _TEXT, "source": _TEXT, "paper": _TEXT}
_TOLERANCES = {
    "atol": _NUMBER,
    "rtol": _NUMBER,
    "cosine": _NUMBER,
    "top1_agreement": _FIGURE,
    "origin": _TEXT,
}
_KIND_NAMES = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a table"}


def load_recipe(path: Path) -> Recipe:
    """Read and check one recipe file.

    Raises:
        VimDeployError: VIM-401 when there is no such file, VIM-412 for anything wrong in it.
    """
    require_file(path, "recipe")
    table = read_toml(path, lambda why: _invalid(path, why), max_bytes=MAX_BYTES)
    return _recipe(table, path)


def read_labels(recipe: Recipe) -> tuple[str, ...]:
    """The class names a recipe's ``labels`` file holds, in order; empty for ``none``.

    Raises:
        VimDeployError: VIM-401 when the file is missing, VIM-412 when it is not text or does not
            have one line for each class.
    """
    if recipe.labels == NONE:
        return ()
    path = require_file(recipe.path.parent / recipe.labels, "label file")
    text = read_text(path, lambda why: _invalid(path, why))
    lines = tuple(line.strip() for line in text.splitlines())
    classes = recipe.num_classes
    if len(lines) != classes or not all(lines):
        raise _invalid(
            path,
            f"{len(lines)} lines, {sum(map(bool, lines))} of them with a name, "
            f"for {classes} classes",
            "write one class name on each line, in the order of the model's outputs",
        )
    return lines


def checkpoint_address(recipe: Recipe) -> str:
    """The address of the weights: ``hf://...`` as it stands, a path made absolute.

    ``none`` means that no weights were published. A relative path is looked for beside the recipe.
    Example checkpoints of the source checkout lie with the test data there, because they are test
    data too; an installed package has them beside its recipes.

    Raises:
        VimDeployError: VIM-401 when a local file is in none of these places, or none is named.
    """
    address = recipe.checkpoint.address
    if address == NONE:
        raise VimDeployError(
            "VIM-401",
            f"recipe {recipe.name!r} has no checkpoint: none was published",
            fix=f"name your own: vim-deploy export CHECKPOINT --model {recipe.name}; or try it "
            "with --random-weights 0",
        )
    if address.startswith(HUB_PREFIX):
        return address
    beside = recipe.path.parent / address
    if not beside.is_file():
        example = recipe.path.resolve().parents[1] / "tests" / "data" / "reference" / address
        if example.is_file():
            return str(example)
    return str(require_file(beside, f"checkpoint of recipe {recipe.name!r}").resolve())


def _invalid(path: Path, why: str, fix: str = "") -> VimDeployError:
    return VimDeployError(
        "VIM-412",
        f"{path} is not a valid recipe" if path.suffix == ".toml" else f"{path} is not valid",
        why=why,
        fix=fix or "compare it with a shipped one: vim-deploy recipes show vim-tiny",
    )


def _checked(
    path: Path, where: str, table: Mapping[str, Any], keys: Mapping[str, _Kind]
) -> Mapping[str, Any]:
    """``table`` when it holds exactly ``keys``, each of its kind."""
    for key, value in table.items():
        if key not in keys:
            raise _invalid(path, f"unknown key {where}{key!r}", nearest(key, keys))
        # bool is an int to Python, and not a number to anybody else.
        if not isinstance(value, keys[key]) or isinstance(value, bool):
            wanted = " or ".join(dict.fromkeys(_KIND_NAMES[kind] for kind in keys[key]))
            raise _invalid(path, f"{where}{key} = {value!r}: expected {wanted}")
    missing = [key for key in keys if key not in table]
    if missing:
        raise _invalid(
            path,
            "missing: " + ", ".join(where + key for key in missing),
            "recipes are complete: write every key, there are no defaults",
        )
    return table


def _one_of(path: Path, key: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise _invalid(path, f"{key} = {value!r}", nearest(value, valid))
    return value


def _path(path: Path, key: str, value: str) -> str:
    """``value`` when a file system can be asked for it; VIM-412 otherwise."""
    longest = max(len(step.encode()) for step in value.split("/"))
    if "\0" in value or longest > _LONGEST_STEP or len(value.encode()) > _LONGEST_PATH:
        raise _invalid(path, f"{key} = {value[:40]!r}... is no path that a file can have")
    return value


def _recipe(table: Mapping[str, Any], path: Path) -> Recipe:
    is_dense = table.get("task") in ("segmentation", "detection")
    top = _checked(path, "", table, {**_TOP, "dense": _TABLE} if is_dense else _TOP)
    if top["name"] != path.stem:
        raise _invalid(
            path,
            f"name = {top['name']!r} in a file called {path.name}",
            "give the recipe the name of its file",
        )
    try:
        config = read_config(top["model_config"])
    except VimDeployError as error:
        raise _invalid(path, f"[model_config] {error.message}: {error.why}", error.fix) from error
    return Recipe(
        name=top["name"],
        title=top["title"],
        task=_one_of(path, "task", top["task"], TASKS),
        model=top["model"],
        model_config=config,
        checkpoint=_checkpoint(top["checkpoint"], path),
        image=_image(top["image"], config, path),
        labels=_path(path, "labels", top["labels"]),
        published=_published(top["published"], top["task"], path),
        tolerances=_tolerances(top["tolerances"], path),
        path=path,
        dense=_dense(top, config, path) if is_dense else None,
    )


def _dense(top: Mapping[str, Any], config: ModelConfig, path: Path) -> DenseConfig:
    try:
        dense = read_dense({"task": top["task"], **top["dense"]})
        dense.require_backbone(config)
    except VimDeployError as error:
        raise _invalid(path, f"[dense] {error.message}: {error.why}", error.fix) from error
    return dense


def _checkpoint(table: Mapping[str, Any], path: Path) -> CheckpointSource:
    values = _checked(path, "checkpoint.", table, _CHECKPOINT)
    address = _path(path, "checkpoint.address", values["address"])
    if address.startswith(HUB_PREFIX):
        parts = address.removeprefix(HUB_PREFIX).split("/")
        if len(parts) < 2 or not all(parts):
            raise _invalid(
                path,
                f"checkpoint.address = {address!r}",
                "write hf://owner/name/FILE, or hf://owner/name@revision/FILE",
            )
    elif not address or "://" in address:
        raise _invalid(path, f"checkpoint.address = {address!r}", "write hf://... or a path")
    part = _one_of(path, "checkpoint.part", values["part"], CHECKPOINT_PARTS)
    return CheckpointSource(address, part)


def _image(table: Mapping[str, Any], config: ModelConfig, path: Path) -> ImagePreparation:
    values = _checked(path, "image.", table, _IMAGE)
    for key in ("mean", "std"):
        numbers = values[key]
        good = all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
        if not good or len(numbers) != config.channels:
            raise _invalid(path, f"image.{key} = {numbers!r}: expected {config.channels} numbers")
    if min(values["std"]) <= 0:
        raise _invalid(path, f"image.std = {values['std']!r}: expected positive numbers")
    if not 0 < values["crop_ratio"] <= 1:
        raise _invalid(path, f"image.crop_ratio = {values['crop_ratio']!r}: expected 0 to 1")
    height, width = config.image_hw
    image = ImagePreparation(
        height=height,
        width=width,
        channels=config.channels,
        mean=tuple(float(n) for n in values["mean"]),
        std=tuple(float(n) for n in values["std"]),
        crop_ratio=float(values["crop_ratio"]),
        interpolation=_one_of(path, "image.interpolation", values["interpolation"], INTERPOLATIONS),
    )
    try:
        check_preparation(image)
    except ValueError as error:
        raise _invalid(path, f"[image] {error}") from error
    return image


def _published(table: Mapping[str, Any], task: str, path: Path) -> Published:
    figures = FIGURES.get(task, ())
    keys = {**dict.fromkeys(figures, _FIGURE), **_PUBLISHED}
    values = {"top1": None, "top5": None, **_checked(path, "published.", table, keys)}
    for key in figures:
        value = values[key]
        if value == NONE:
            values[key] = None
        elif isinstance(value, str) or not 0 <= value <= 100:
            raise _invalid(path, f"published.{key} = {value!r}: expected a percentage or 'none'")
    return Published(**values)


def _tolerances(table: Mapping[str, Any], path: Path) -> Tolerances:
    values = dict(_checked(path, "tolerances.", table, _TOLERANCES))
    for key in ("atol", "rtol"):
        if not 0 <= values[key] < 1:
            raise _invalid(path, f"tolerances.{key} = {values[key]!r}: expected 0 to below 1")
    if values["top1_agreement"] == NONE:
        values["top1_agreement"] = None
    for key in ("cosine", "top1_agreement"):
        value = values[key]
        if value is not None and (isinstance(value, str) or not 0 < value <= 1):
            raise _invalid(path, f"tolerances.{key} = {values[key]!r}: expected above 0, up to 1")
    if not values["origin"].strip():
        raise _invalid(path, "tolerances.origin is empty", "say where the values come from")
    return Tolerances(**values)
