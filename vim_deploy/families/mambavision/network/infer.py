"""``--model auto``: the architecture from the checkpoint, and how sure each part of it is.

Sizes come from shapes. The sides of windows and the number of heads stand in no weight: a
``config.json`` beside the checkpoint says them, or the official name in the stored training
arguments; else the published model of these shapes does, and that is stated as an assumption. Of
other shapes nothing is assumed: wrong windows would give wrong answers without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vim_deploy.errors import VimDeployError
from vim_deploy.families.mambavision.config import MambaVisionConfig, own_keywords, read_config
from vim_deploy.families.mambavision.names import VARIANTS, short_of
from vim_deploy.families.mambavision.network.shapes import Shapes, measure
from vim_deploy.model.keys import cannot_infer

ImageSize = int | tuple[int, int]
#: Keywords that no shape tells.
_UNTOLD = ("window_size", "num_heads")


@dataclass(frozen=True)
class Inferred:
    """An inferred architecture.

    Attributes:
        config: at the checkpoint's own size of pictures, as far as anything tells it.
        statements: sentences on what was inferred from what; assumptions start with "assumed".
    """

    config: MambaVisionConfig
    statements: tuple[str, ...]


def infer_config(
    tensors: Mapping[str, Tensor],
    args: Mapping[str, Any],
    stored: Mapping[str, Any],
    *,
    model: str | None = None,
    image_size: ImageSize | None = None,
) -> Inferred:
    """The architecture of a checkpoint.

    Args:
        tensors: weights by official keys.
        args: training arguments from the file (``model``, ``input_size``, ...).
        stored: what ``config.json`` beside it holds, unchecked.
        model: named variant that the user says it is.
        image_size: that is asked for: it tells variants of the same shapes apart.

    Raises:
        VimDeployError: VIM-404 when the weights are not those of ``model``, VIM-407 when something
            is missing that nothing tells, VIM-408 when what ``config.json`` says cannot run.
    """
    shapes = measure(tensors)
    statements: list[str] = []
    if model is not None:
        named = _named(model, shapes)
        return _of_variant(named, f"architecture {named}, as asked", shapes, args, statements)
    if written := own_keywords(stored):
        config = _written(written, shapes, statements)
        if config is not None:
            return Inferred(config, tuple(statements))
    factory = args.get("model")
    said = short_of(factory) if isinstance(factory, str) else None
    if said is not None:
        found = shapes.differences(VARIANTS[said].config)
        if not found:
            text = f"architecture {said}: the stored training arguments name it ({factory})"
            return _of_variant(said, text, shapes, args, statements)
        statements.append(
            f"the stored training arguments name {factory}, but the shapes are not its own "
            f"({'; '.join(found)}); the name is not used"
        )
    named = _by_shapes(shapes, args, image_size)
    untold = {name: getattr(VARIANTS[named].config, name) for name in _UNTOLD}
    listed = ", ".join(f"{name}={list(value)}" for name, value in untold.items())
    statements.append(f"assumed {listed}: shapes do not tell, and {named} has these")
    return _of_variant(named, f"shapes are those of {named}", shapes, args, statements)


def _of_variant(
    name: str, said: str, shapes: Shapes, args: Mapping[str, Any], statements: list[str]
) -> Inferred:
    """The variant with the classes and channels of the weights."""
    config = VARIANTS[name].config.replace(num_classes=shapes.num_classes, in_chans=shapes.in_chans)
    own = args.get("input_size")
    size = ""
    if type(own) is int and own != config.img_size:
        config = config.at_size(own)
        size = f"; img_size={own}: input_size in the stored training arguments"
    text = f"{said}: dim {shapes.dim}, depths {list(shapes.depths)}; num_classes="
    classes = f"{shapes.num_classes} from head.weight" if shapes.num_classes else "0: no head"
    return Inferred(config, (f"{text}{classes}{size}", *statements))


def _written(
    values: dict[str, Any], shapes: Shapes, statements: list[str]
) -> MambaVisionConfig | None:
    """What ``config.json`` says; None, and a sentence, where it is another model's."""
    told = shapes.keywords
    own = {name: value for name, value in values.items() if name in _UNTOLD}
    missing = [name for name in _UNTOLD if name not in values]
    if missing:
        statements.append(f"config.json beside the checkpoint does not say {missing[0]}: not used")
        return None
    config = read_config({**told, **values, "num_classes": shapes.num_classes})
    found = shapes.differences(config)
    if found:
        statements.append(
            "config.json beside the checkpoint is of another model, and is not used: "
            + "; ".join(found)
        )
        return None
    listed = ", ".join(f"{name}={value}" for name, value in own.items())
    statements.append(f"{listed} from config.json beside the checkpoint")
    statements.append(
        "from the shapes of the weights: "
        + ", ".join(f"{name}={value!r}" for name, value in told.items())
    )
    return config


def _named(model: str, shapes: Shapes) -> str:
    """The short name of ``model``; VIM-404 when the weights are of another one."""
    name = short_of(model)
    if name is None:
        raise cannot_infer(f"{model!r} is no MambaVision", f"known are {', '.join(VARIANTS)}")
    found = shapes.differences(VARIANTS[name].config)
    if found:
        fitting = _fitting(shapes)
        raise VimDeployError(
            "VIM-404",
            f"these are not the weights of {model}",
            why="; ".join(found),
            fix=f"--model {fitting[0]}, or --model auto"
            if fitting
            else "--config FILE.json with the keywords the model was trained with",
        )
    return name


def _fitting(shapes: Shapes) -> list[str]:
    return [name for name, variant in VARIANTS.items() if not shapes.differences(variant.config)]


def _by_shapes(shapes: Shapes, args: Mapping[str, Any], image_size: ImageSize | None) -> str:
    """The published model that has these shapes, and pictures of that size where two have them."""
    fitting = _fitting(shapes)
    if not fitting:
        raise cannot_infer(
            "the architecture cannot be inferred: window_size and num_heads",
            f"no published model has dim {shapes.dim} and depths {list(shapes.depths)}, and the "
            "sides of windows and the number of heads stand in no weight",
            "--config FILE.json with the keywords the model was trained with",
        )
    if len(fitting) == 1:
        return fitting[0]
    sizes = {name: VARIANTS[name].config.img_size for name in fitting}
    for known in (args.get("input_size"), image_size):
        told = [name for name, size in sizes.items() if size == known]
        if told:
            return told[0]
    each = " and ".join(f"{name} at {size} pixels" for name, size in sizes.items())
    raise cannot_infer(
        "the architecture cannot be inferred: two models have these shapes",
        f"they are those of {each}, whose windows differ",
        f"--model {' or --model '.join(fitting)}",
    )
