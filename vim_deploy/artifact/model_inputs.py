"""The inputs of a model: the picture, and in models that are told of padding the picture's size.

``size`` holds height and width of each picture within its input, in whole pixels; the graph takes
what lies right of it and below for padding. All other inputs are none that vim-deploy exports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vim_deploy.artifact.metadata import IMAGE_INPUT, SIZE_INPUT
from vim_deploy.errors import VimDeployError
from vim_deploy.specs import TensorSpec

#: Height and width.
_EXTENTS = 2
#: Of ``size``: as exported, and as TensorRT 8.6 has it, which knows no 64-bit integers.
_INTEGERS = ("int64", "int32")


class ModelInputs(NamedTuple):
    """``image``, and ``size`` where the model takes one."""

    image: TensorSpec
    size: TensorSpec | None = None


def model_inputs(inputs: Sequence[TensorSpec]) -> ModelInputs | None:
    """Which input is which, in any order; None when they are others.

    A single input is the picture, whatever it is called.
    """
    if len(inputs) == 1:
        return ModelInputs(inputs[0])
    by_name = {spec.name: spec for spec in inputs}
    if len(inputs) != 2 or set(by_name) != {IMAGE_INPUT, SIZE_INPUT}:
        return None
    image, size = by_name[IMAGE_INPUT], by_name[SIZE_INPUT]
    return None if size_flaw(size, image) else ModelInputs(image, size)


def require_inputs(inputs: Sequence[TensorSpec], name: str, fix: str) -> ModelInputs:
    """``model_inputs``; VIM-415 for a file called ``name`` that has others."""
    found = model_inputs(inputs)
    if found is not None:
        return found
    known = {spec.name: spec for spec in inputs}
    flaw = ""
    if set(known) == {IMAGE_INPUT, SIZE_INPUT}:
        flaw = size_flaw(known[SIZE_INPUT], known[IMAGE_INPUT])
    raise VimDeployError(
        "VIM-415",
        f"{name} has {len(inputs)} inputs; {IMAGE_INPUT}, or {IMAGE_INPUT} and {SIZE_INPUT}, "
        "are expected",
        why=flaw or ", ".join(spec.name for spec in inputs),
        fix=fix,
    )


def size_flaw(size: TensorSpec, image: TensorSpec) -> str:
    """How ``size`` is no input of the pictures' sizes, in words; empty when it is one."""
    found = f"{size.name!r} is {size.dtype} {list(size.shape)}"
    batch = image.shape[0] if image.shape else "?"
    wanted = f"{found}, where {_INTEGERS[0]} {[batch, _EXTENTS]} is expected"
    if size.dtype not in _INTEGERS or len(size.shape) != _EXTENTS or size.shape[1] != _EXTENTS:
        return wanted
    # A tool may have fixed the batch of one alone.
    fixed = {axis for axis in (size.shape[0], batch) if isinstance(axis, int)}
    return wanted if len(fixed) > 1 else ""


def extents(image: TensorSpec) -> tuple[int, int] | None:
    """Height and width of a picture input; None where they are not fixed, or it is none.

    Pictures of bytes lie with their channels last, others with them first.
    """
    sides = image.shape[1:3] if image.dtype == "uint8" else image.shape[2:4]
    if len(image.shape) != 4:
        return None
    height, width = sides
    if isinstance(height, str) or isinstance(width, str):
        return None
    return height, width
