"""Reading a recipe: TOML to records, strictly.

Every key has to be there, has to be known and has to have its type; the error names the file, the
key and the nearest valid name. Before: a ``.toml`` file. After: a ``schema.Recipe``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy.codec import Number, OnError, decode, sentence
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.families.base import ModelConfig
from vim_deploy.files import require_file
from vim_deploy.ranges import MEAN, STD, require_all
from vim_deploy.recipe.dense_config import DenseConfig
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
from vim_deploy.untrusted import parse_json, read_text, read_toml

#: A recipe is a page of text; anything larger is another kind of file.
MAX_BYTES = 1 << 20
#: Bytes of one name and of a whole path that file systems take (Linux: 255 and 4096, of which some
#: are the folder's).
_LONGEST_STEP, _LONGEST_PATH = 255, 1024
#: Names of ImageNet's 21,841 classes take one; so many names stay small in memory.
_MAX_LABELS_BYTES = 4 << 20
_ONE_NAME_A_LINE = "write one class name on each line, in the order of the model's outputs"
_LINE_END = re.compile(r"\r\n|\r|\n")
_NUMBER_FIRST = re.compile(r"(?P<number>\d{1,9})[\s.:,;=)]+(?P<name>[^\s.:,;=)].*)")
_NUMBER_LAST = re.compile(r"(?P<name>.*[^\s:,;=])[\s:,;=]+(?P<number>\d{1,9})")
#: Where JSON that says more than the names keeps them.
_LABEL_KEYS = ("id2label", "label2id", "class_to_idx", "label_names")
#: Figures of all tasks.
_FIGURES = tuple(name for names in FIGURES.values() for name in names)
#: Address prefix of a model hub.
HUB_PREFIX = "hf://"


@dataclass(frozen=True)
class _Image:
    """``[image]``: size and channels are those of the model."""

    mean: tuple[Number, ...]
    std: tuple[Number, ...]
    crop_ratio: Number
    interpolation: str


@dataclass(frozen=True)
class _File:
    """A recipe file; the records say what belongs into its tables."""

    name: str
    title: str
    task: str
    model: str
    labels: str
    checkpoint: CheckpointSource
    image: _Image
    published: Published
    tolerances: Tolerances
    model_config: ModelConfig
    dense: DenseConfig | None = None


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
        VimDeployError: VIM-401 when the file is missing, VIM-412 when it is not as ``labels_of``
            reads it or does not have a name for each class.
    """
    if recipe.labels == NONE:
        return ()
    path = recipe.path.parent / recipe.labels
    found = labels_of(path, lambda why: _invalid(path, why, _ONE_NAME_A_LINE))
    if len(found) != recipe.num_classes:
        why = f"{len(found)} names for {recipe.num_classes} classes"
        raise _invalid(path, why, _ONE_NAME_A_LINE)
    return found


def labels_of(path: Path, on_error: OnError) -> tuple[str, ...]:
    """The class names of a file, in the order of the model's outputs.

    Text has one name a line, or all lines a number as well, before the name (from 0 or 1) or behind
    it (from 0); JSON a list, names by their numbers, numbers by their names, or an object that has
    one of these as ``id2label``, ``label2id``, ``class_to_idx`` or ``label_names``.

    Raises:
        VimDeployError: VIM-401 when there is no such file; what ``on_error`` makes of a sentence
            for one without names, with an empty line between them, or with numbers left out.
    """
    text = read_text(require_file(path, "label file"), on_error, max_bytes=_MAX_LABELS_BYTES)
    text = text.removeprefix("\ufeff").strip()
    if text[:1] in ("{", "["):
        try:
            return _json_labels(parse_json(text), on_error)
        except ValueError as error:
            # A label may begin with a bracket, but a brace is that of an object.
            if text[0] == "{" or path.suffix.lower() == ".json":
                raise on_error(str(error)) from error
    lines = [line.strip() for line in _LINE_END.split(text)]
    if not all(lines):
        before = lines[lines.index("") - 1]
        raise on_error(f"an empty line follows {before!r}" if before else "it holds no names")
    return _numbered_lines(lines) or tuple(lines)


def _numbered_lines(lines: Sequence[str]) -> tuple[str, ...]:
    """Names by the numbers beside them; none where the numbers are part of the names."""
    for pattern, firsts in ((_NUMBER_FIRST, (0, 1)), (_NUMBER_LAST, (0,))):
        matches = [pattern.fullmatch(line) for line in lines]
        found = {int(match["number"]): match["name"] for match in matches if match}
        names = set(found.values())
        for first in firsts:
            # Of "1 year", "2 years", "3 years" the names would be few.
            most = len(names) > 0.9 * len(lines) and (first == 0 or len(lines) > 2)
            if most and sorted(found) == list(range(first, first + len(lines))):
                return tuple(found[number] for number in sorted(found))
    return ()


def _json_labels(value: Any, on_error: OnError) -> tuple[str, ...]:  # noqa: ANN401 - JSON
    """The names by their numbers from 0."""
    if isinstance(value, dict):
        inner = (value[key] for key in _LABEL_KEYS if isinstance(value.get(key), dict | list))
        if (nested := next(inner, None)) is not None:
            return _json_labels(nested, on_error)
        wanted = [str(number) for number in range(len(value))]
        if all(isinstance(number, int) for number in value.values()):
            value = {str(number): name for name, number in value.items()}
        if missing := [number for number in wanted if number not in value]:
            raise on_error(f"of {len(wanted)} names none has the number {missing[0]}")
        value = [value[number] for number in wanted]
    if not isinstance(value, list) or not value:
        raise on_error("it holds no names")
    # ImageNet's class index has a WordNet number and a name for each class.
    names = [" ".join(map(str, name)) if isinstance(name, list) else name for name in value]
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise on_error(f"the name of class {number} is {name!r}")
    return tuple(name.strip() for name in names)


def checkpoint_address(recipe: Recipe) -> str:
    """The address of the weights: ``hf://...`` as it stands, a path made absolute.

    ``none`` means that no weights were published. A relative path is looked for beside the recipe.
    Example checkpoints lie with the test data of the repository, because they are test data too.

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
        fix=fix
        or "recipes are complete, there are no defaults: compare it with a shipped one: vim-deploy "
        "recipes show vim-tiny",
    )


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
    found = decode(
        _plain_table(table, path),
        _File,
        lambda why: _invalid(path, why),
        on_unknown=lambda key, fix: _invalid(path, f"unknown key {key!r}", fix),
        on_own=lambda error: _invalid(path, sentence(error), error.fix),
    )
    if found.name != path.stem:
        raise _invalid(
            path,
            f"name = {found.name!r} in a file called {path.name}",
            "give the recipe the name of its file",
        )
    _check_checkpoint(found.checkpoint, path)
    _path(path, "labels", found.labels)
    _check_figures(found.published, found.task, path)
    _check_tolerances(found.tolerances, path)
    if found.dense is not None:
        try:
            found.model_config.require_dense(found.dense)
        except VimDeployError as error:
            raise _invalid(path, f"[dense] {sentence(error)}", error.fix) from error
    image = _image(found.image, found.model_config, path)
    return Recipe(**{**vars(found), "image": image, "path": path})


def _plain_table(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """``table`` as ``_File`` has it: the words ``none`` gone, every key of its task there."""
    task = table.get("task")
    if isinstance(task, str):
        _one_of(path, "task", task, TASKS)
    known = {**table}
    for name, keys in (("published", _FIGURES), ("tolerances", ("top1_agreement",))):
        if isinstance(known.get(name), Mapping):
            part = known[name]
            known[name] = {k: None if k in keys and v == NONE else v for k, v in part.items()}
    if isinstance(task, str) and isinstance(known.get("published"), Mapping):
        figures = FIGURES[task]
        for key in (*figures, *known["published"]):
            if key not in known["published"]:
                raise _invalid(path, f"missing: published.{key}")
            if key in _FIGURES and key not in figures:
                raise _invalid(path, f"unknown key 'published.{key}'", nearest(key, figures))
        known["published"] = {"top1": None, "top5": None, **known["published"]}
    if task in ("segmentation", "detection"):
        if not isinstance(known.get("dense"), Mapping):
            raise _invalid(path, "missing: dense")
        known["dense"] = {"task": task, **known["dense"]}
    elif "dense" in known:
        raise _invalid(path, f"unknown key 'dense' for the task {task!r}")
    return known


def _check_checkpoint(found: CheckpointSource, path: Path) -> None:
    address = _path(path, "checkpoint.address", found.address)
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
    _one_of(path, "checkpoint.part", found.part, CHECKPOINT_PARTS)


def _image(found: _Image, config: ModelConfig, path: Path) -> ImagePreparation:
    # It brings NumPy, which nobody needs who only asks for names: a shell that completes a line.
    from vim_deploy.images import check_preparation

    height, width = config.image_hw
    image = ImagePreparation(
        height=height,
        width=width,
        channels=config.channels,
        mean=tuple(map(float, found.mean)),
        std=tuple(map(float, found.std)),
        crop_ratio=float(found.crop_ratio),
        interpolation=found.interpolation,
    )
    try:
        check_preparation(image)
        require_all(image, mean=MEAN, std=STD)
    except ValueError as error:
        raise _invalid(path, f"[image] {error}") from error
    except VimDeployError as error:
        raise _invalid(path, f"[image] {sentence(error)}", error.fix) from error
    return image


def _check_figures(found: Published, task: str, path: Path) -> None:
    for key in FIGURES[task]:
        value = getattr(found, key)
        if value is not None and not 0 <= value <= 100:
            raise _invalid(path, f"published.{key} = {value!r}: expected a percentage or 'none'")


def _check_tolerances(found: Tolerances, path: Path) -> None:
    for key, value in (("atol", found.atol), ("rtol", found.rtol)):
        if not 0 <= value < 1:
            raise _invalid(path, f"tolerances.{key} = {value!r}: expected 0 to below 1")
    for key, share in (("cosine", found.cosine), ("top1_agreement", found.top1_agreement)):
        if share is not None and not 0 < share <= 1:
            raise _invalid(path, f"tolerances.{key} = {share!r}: expected above 0, up to 1")
    if not found.origin.strip():
        raise _invalid(path, "tolerances.origin is empty", "say where the values come from")
