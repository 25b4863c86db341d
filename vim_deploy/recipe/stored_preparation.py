"""How pictures were prepared when a model was evaluated, in the words of whoever trained it.

Read are the arguments of the official script and of timm, timm's ``pretrained_cfg``, Hugging Face's
``preprocessor_config.json``, configurations of mmsegmentation and mmpretrain, and detectron2's
``pixel_mean``. They may be anybody's: nothing here is checked against a range (``model.load`` does
that for what is used), and what cannot be done here as it is said there becomes a note.

Mean and standard deviation are returned for values in [0, 1] and red first, whatever they were
stored for; ``bgr`` says that the model itself takes blue first.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.recipe.stored_config import read_assignments
from vim_deploy.specs import Interpolation
from vim_deploy.untrusted import read_json, read_text

Table = Mapping[str, Any]
Values = dict[str, Any]

#: Files beside a checkpoint that say how pictures are prepared, the more exact ones first.
BESIDE = ("preprocessor_config.json", "config.json", "config.yaml")
#: What ``tables_beside`` calls that of Hugging Face which says whose model it is.
CONFIG_BESIDE = "config.json beside the checkpoint"
#: Entries of a training file, and of each other, that hold such tables.
_ENTRIES = ("args", "hyper_parameters", "hparams", "preprocessor_config", "pretrained_cfg",
            "default_cfg", "data_config", "config", "cfg")  # fmt: skip
#: A configuration is some pages; anything larger is another kind of file.
_MAX_BYTES = 1 << 20
#: Up to this size the official evaluation takes pictures as they are (vim/datasets.py, CIFAR).
UNRESIZED = 32
#: Numbers of PIL.Image.Resampling, which Hugging Face stores.
_PIL_NUMBERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
#: More channels, or steps of a pipeline, than any model or configuration has.
_MOST_CHANNELS, _MOST_STEPS = 64, 200
#: A list behind a key of YAML, in one line or one item a line; and a word.
_YAML_LIST = r"(?mi)^\s*{}:\s*(?:\[([^\]\n]*)\]|((?:\n[ ]*-[ ]*[0-9.eE+-]+)+))"
_YAML_ORDER = re.compile(r"(?mi)^\s*(?:input_format|image_format|format):\s*['\"]?(rgb|bgr)\b")


@dataclass(frozen=True)
class StoredPreparation:
    """What is said of pictures, and by whom.

    Attributes:
        values: those of ``mean``, ``std``, ``crop_ratio``, ``interpolation``, ``image_size``
            (height, width), ``scale`` (of a segmentation model, as in ``SceneTest``), ``bgr`` and
            ``unresized`` (pictures of up to ``UNRESIZED`` pixels are taken as they are) that are
            stored.
        sources: who says each of them, as messages call it.
        notes: sentences on what is stored and cannot be done here.
    """

    values: Table = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def bgr(self) -> bool:
        """Whether the model takes blue, green and red."""
        return bool(self.values.get("bgr", False))


def read_tables(tables: Iterable[tuple[str, object]]) -> StoredPreparation:
    """What tables of names and values say of pictures; of two, the first is believed.

    Args:
        tables: what messages call each, and the table; a text says why it could not be read,
            and anything else is passed over.
    """
    values: Values = {}
    sources: dict[str, str] = {}
    notes: list[str] = []
    for source, table in tables:
        if isinstance(table, str):
            notes.append(f"{source} is not read: {table}")
        for part in _parts(table):
            for reader in (_timm, _hugging_face, _mmengine, _detectron2):
                said: list[str] = []
                found = reader(part, said)
                new = {name: value for name, value in found.items() if name not in values}
                values |= new
                sources |= dict.fromkeys(new, source)
                # Of a table that adds nothing, nothing has to be said.
                notes += [f"{source}: {text}" for text in said if new or not found]
    return StoredPreparation(values, sources, tuple(notes))


def tables_in(loaded: Mapping[Any, Any]) -> Iterator[tuple[str, object]]:
    """The tables in a checkpoint."""
    for name in _ENTRIES:
        yield f"the checkpoint's {name}", _plain(loaded.get(name))
    meta = loaded.get("meta")
    if isinstance(meta, Mapping):
        for name in ("config", "cfg"):
            yield "the configuration in the checkpoint", _plain(meta.get(name))


def tables_beside(path: Path) -> Iterator[tuple[str, object]]:
    """The tables in files beside a checkpoint."""
    for name in BESIDE:
        file = path.parent / name
        if file.is_file():
            yield f"{name} beside the checkpoint", _beside(file)


def _beside(file: Path) -> object:
    """The values of a file that nobody named, or why it cannot be read."""

    def unreadable(why: str) -> VimDeployError:
        return VimDeployError("VIM-416", why)

    try:
        if file.suffix == ".json":
            return read_json(file, unreadable, max_bytes=_MAX_BYTES)
        return _yaml_values(read_text(file, unreadable, max_bytes=_MAX_BYTES))
    except VimDeployError as error:
        return error.message


def _yaml_values(text: str) -> Values:
    """What detectron2 writes of pixels, found by name: the rest is not parsed."""
    found: Values = {}
    for name in ("pixel_mean", "pixel_std"):
        match = re.search(_YAML_LIST.format(name), text)
        if match:
            found[name] = re.findall(r"[^\s,\-][^\s,]*|-[0-9][^\s,]*", match[1] or match[2])
    order = _YAML_ORDER.search(text)
    if order:
        found["input_format"] = order[1]
    return found


def _plain(value: object) -> object:
    """A table in any of the forms in which training files hold one."""
    if isinstance(value, str):
        return read_assignments(value)
    return vars(value) if isinstance(value, argparse.Namespace) else value


def _parts(table: object) -> Iterator[Table]:
    if isinstance(table, Mapping):
        yield table
        for name in _ENTRIES:
            if isinstance(table.get(name), Mapping):
                yield table[name]


def _timm(table: Table, notes: list[str]) -> Values:
    """Arguments of the official script and of timm's, and timm's own data configurations."""
    found = _normalization(table.get("mean"), table.get("std"), 1.0)
    official = table.get("eval_crop_ratio")
    ratio = official if official is not None else table.get("crop_pct")
    if ratio is not None:
        found["crop_ratio"] = _number(ratio)
    if official is not None or ("crop_pct" not in table and type(table.get("input_size")) is int):
        found["unresized"] = True
    found |= _filter(table.get("interpolation"), notes)
    for name in ("image_size", "img_size", "input_size"):
        found |= _image_size(table.get(name))
    if table.get("crop_mode") not in (None, "", "center"):
        notes.append(
            f"crop_mode {str(table['crop_mode'])[:20]!r} is not done here: pictures are resized by "
            "their short side and cropped"
        )
    return found


def _hugging_face(table: Table, notes: list[str]) -> Values:
    """An image processor of Hugging Face transformers."""
    if not any(name in table for name in ("image_mean", "do_normalize", "do_rescale", "resample")):
        return {}
    factor = (
        255 * _number(table.get("rescale_factor", 1 / 255))
        if _on(table, "do_rescale", True)
        else 255
    )
    if _on(table, "do_normalize", True):
        found = _normalization(table.get("image_mean"), table.get("image_std"), factor)
    else:
        found = _normalization([0.0], [1.0], factor)
    if _on(table, "do_flip_channel_order", False):
        found = _blue_first(found)
    found |= _filter(table.get("resample"), notes) | _image_size(
        table.get("crop_size", table.get("size"))
    )
    return found | _processor_crop(table, notes)


def _processor_crop(table: Table, notes: list[str]) -> Values:
    size, crop = table.get("size"), _side(table.get("crop_size"))
    edge = _side(size)
    if table.get("crop_pct") is not None:
        return {"crop_ratio": _number(table["crop_pct"])}
    if not _on(table, "do_resize", True):
        return {"crop_ratio": 1.0}
    if edge is None:
        return {}
    exact = isinstance(size, Mapping) and "height" in size
    if crop is not None and _on(table, "do_center_crop", True):
        if exact:
            notes.append("pictures are squeezed to a square there, and keep their shape here")
        return {"crop_ratio": ratio_of(crop, edge)}
    notes.append(
        "pictures are resized whole there; here they keep their shape, and the centre is cropped"
    )
    return {"crop_ratio": 1.0}


def _mmengine(table: Table, notes: list[str]) -> Values:
    """A configuration of mmsegmentation or mmpretrain, of before and after mmengine."""
    model = table.get("model")
    preprocessor = model.get("data_preprocessor") if isinstance(model, Mapping) else None
    if not isinstance(preprocessor, Mapping):
        preprocessor = table.get("data_preprocessor")
    steps = _steps(_pipeline(table))
    normalize = steps.get("Normalize", table.get("img_norm_cfg"))
    found: Values = {}
    if isinstance(preprocessor, Mapping):
        if preprocessor.get("mean") is not None or not isinstance(normalize, Mapping):
            # Without a mean, the network takes the values 0 to 255.
            mean, std = preprocessor.get("mean"), preprocessor.get("std")
            plain = mean is None or std is None
            found = _normalization([0.0], [1.0], 255) if plain else _normalization(mean, std, 255)
            turned = ("bgr_to_rgb", "rgb_to_bgr", "to_rgb")
            normalize = {"to_rgb": any(_on(preprocessor, name, False) for name in turned)}
        if _on(preprocessor, "test_cfg", False):
            notes.append("data_preprocessor.test_cfg pads pictures, which is not done here")
    if isinstance(normalize, Mapping):
        found = found or _normalization(normalize.get("mean"), normalize.get("std"), 255)
        # mmcv reads pictures with blue first.
        found = (
            _blue_first(found) if not _on(normalize, "to_rgb", True) else {**found, "bgr": False}
        )
    return found | _resizes(steps, notes)


def _pipeline(table: Table) -> object:
    for names in (("test_pipeline",), ("test_dataloader", "dataset", "pipeline"),
                  ("data", "test", "pipeline")):  # fmt: skip
        value: object = table
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def _steps(pipeline: object) -> dict[str, Table]:
    """The steps of a pipeline by their type, those within others included."""
    found: dict[str, Table] = {}
    waiting = [pipeline]
    for _ in range(_MOST_STEPS):
        step = waiting.pop(0) if waiting else None
        if isinstance(step, list | tuple):
            waiting = [*step, *waiting]
        elif isinstance(step, Mapping):
            found.setdefault(str(step.get("type")).rpartition(".")[2], step)
            waiting = [step.get("transforms"), *waiting]
    return found


def _resizes(steps: Mapping[str, Table], notes: list[str]) -> Values:
    """The size before the crop, or the one that a segmentation model fits pictures into."""
    found: Values = {}
    edge, crop, resize = (steps.get(name) for name in ("ResizeEdge", "CenterCrop", "Resize"))
    if resize is not None:
        outer = steps.get("MultiScaleFlipAug", {})
        size = resize.get("scale", resize.get("size", outer.get("img_scale")))
        if _is_pair(size) and -1 in size:
            # mmcls: the short side alone.
            edge = {**resize, "scale": max(size)}
        elif _is_pair(size) and _on(resize, "keep_ratio", bool(outer)):
            found["scale"] = (max(size), min(size))
        elif size is not None:
            notes.append(
                f"pictures are resized to exactly {str(size)[:40]} there, and keep their shape here"
            )
            edge = {**resize, "scale": size}
    short = None if edge is None else _side(edge.get("scale"))
    if edge is not None and short is not None:
        side = short if crop is None else _side(crop.get("crop_size"))
        found |= {"crop_ratio": ratio_of(side, short)} if side else {}
        found |= _filter(edge.get("interpolation"), notes)
        if edge.get("backend", "cv2") == "cv2":
            notes.append("pictures are resized with OpenCV there, and with Pillow here")
    if "Pad" in steps or "LetterResize" in steps:
        notes.append("pictures are padded there, which is not done here")
    return found


def _detectron2(table: Table, notes: list[str]) -> Values:
    """``pixel_mean``, ``pixel_std`` and ``input_format`` of a detector, values 0 to 255."""
    model = table.get("model")
    values = {**(model if isinstance(model, Mapping) else {}), **table}
    known = {str(name).lower(): value for name, value in values.items()}
    found = _normalization(known.get("pixel_mean"), known.get("pixel_std"), 255)
    if found and "input_format" in known:
        blue = str(known["input_format"]).upper() == "BGR"
        return _blue_first(found) if blue else {**found, "bgr": False}
    if found:
        notes.append("the order of the channels is not stored: red, green and blue are assumed")
    return found


def _normalization(mean: object, std: object, factor: float) -> Values:
    """Mean and standard deviation of values that are ``factor`` times those in [0, 1].

    One number alone is none: ``std`` is also how training scripts call the spread of new weights.
    """
    given = {"mean": mean, "std": std}
    both = mean is not None and std is not None
    return {
        name: tuple(_number(number) / factor if factor else math.nan for number in _several(value))
        for name, value in given.items()
        if isinstance(value, list | tuple) or (both and value is not None)
    }


def _blue_first(found: Values) -> Values:
    turned: Values = {name: found[name][::-1] for name in ("mean", "std") if name in found}
    return {**found, **turned, "bgr": True}


def _several(value: object) -> list[object]:
    return list(value)[:_MOST_CHANNELS] if isinstance(value, list | tuple) else [value]


def _number(value: object) -> float:
    """The number; NaN, which no range has, for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _on(table: Table, name: str, default: bool) -> bool:
    """A switch, or whether a table has entries; a tensor, say, is neither."""
    value = table.get(name, default)
    return bool(value) if isinstance(value, int | Mapping) else default


def _filter(value: object, notes: list[str]) -> Values:
    """The filter's name, of a number or a name of PIL, timm or mmcv."""
    if value in (None, ""):
        return {}
    known = get_args(Interpolation)
    if type(value) is int and 0 <= value < len(_PIL_NUMBERS):
        return {"interpolation": _PIL_NUMBERS[value]}
    name = str(value).rpartition(".")[2].lower()[:20]
    if name in known:
        return {"interpolation": name}
    notes.append(f"its interpolation is {name!r}, which is none of ours: {nearest(name, known)}")
    return {}


def _image_size(value: object) -> Values:
    """Height and width, of a side, a pair, (channels, height, width) or a table of them."""
    if isinstance(value, Mapping):
        value = [value.get("height"), value.get("width")]
    sides = [value, value] if type(value) is int else value
    sides = list(sides)[-2:] if isinstance(sides, list | tuple) else []
    if len(sides) == 2 and all(type(side) is int and side > 0 for side in sides):
        return {"image_size": (sides[0], sides[1])}
    return {}


def _side(value: object) -> int | None:
    """One side of a size: the short one, that of a square."""
    if isinstance(value, Mapping):
        value = value.get("shortest_edge", value.get("height"))
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return value if type(value) is int and 0 < value < 1 << 16 else None


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == 2 and all(type(v) is int for v in value)
    )


def ratio_of(crop: int, edge: int) -> float:
    """The crop ratio that resizes the short side to ``edge`` pixels where ``crop`` are kept."""
    ratio = crop / edge
    # 224 / (224 / 247) is a little below 247, and sizes are rounded down.
    while int(crop / ratio) < edge:
        ratio = math.nextafter(ratio, 0)
    return ratio
