"""What a model is given: its picture input, the sizes of pictures where it takes them, arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vim_deploy.artifact.metadata import SIZE_INPUT
from vim_deploy.errors import VimDeployError
from vim_deploy.specs import TensorSpec

if TYPE_CHECKING:
    from vim_deploy.artifact import Artifact

Array = NDArray[Any]


def fits(spec: TensorSpec, shape: Sequence[int]) -> bool:
    """Whether ``shape`` is one of ``spec``'s, and holds something."""
    return (
        len(spec.shape) == len(shape)
        and 0 not in shape
        and all(
            isinstance(wanted, str) or wanted == found
            for wanted, found in zip(spec.shape, shape, strict=True)
        )
    )


def check_input(spec: TensorSpec, image: Array) -> None:
    """Refuse an array that the model does not take (VIM-415), before a runtime does it worse."""
    if not isinstance(image, np.ndarray):
        raise VimDeployError(
            "VIM-415",
            f"the model's input {spec.name!r} takes a NumPy array",
            why=f"found {type(image).__name__}",
            fix="numpy.asarray makes one",
        )
    if image.dtype != np.dtype(spec.dtype) or not fits(spec, image.shape):
        raise VimDeployError(
            "VIM-415",
            f"the model's input {spec.name!r} does not take this array",
            why=f"found {image.dtype} {list(image.shape)}, expected {spec.dtype} "
            f"{list(spec.shape)}",
            fix="prepare images as the model's metadata says: vim-deploy inspect MODEL.onnx",
        )


def picture_inputs(artifact: Artifact) -> tuple[TensorSpec, TensorSpec | None]:
    """The image input of an ONNX file, and that for the sizes of pictures, which most have not.

    Raises:
        VimDeployError: VIM-415 for a file with other inputs.
    """
    inputs = artifact.inputs
    sizes = [spec for spec in inputs if spec.name == SIZE_INPUT]
    images = [spec for spec in inputs if spec.name != SIZE_INPUT]
    if len(images) != 1 or not all(_holds_sizes(spec) for spec in sizes):
        raise VimDeployError(
            "VIM-415",
            f"{artifact.path} has {len(inputs)} inputs; one image input is expected",
            why=", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in inputs),
            fix="give a model made by vim-deploy export",
        )
    return images[0], next(iter(sizes), None)


def _holds_sizes(spec: TensorSpec) -> bool:
    """Whether it takes height and width of each picture of a batch."""
    return spec.dtype in ("int64", "int32") and len(spec.shape) == 2 and spec.shape[1] == 2


def full_sizes(image: TensorSpec, batch: int) -> NDArray[np.int64]:
    """Sizes [batch, 2] of pictures that fill the input ``image``, NCHW or (uint8) NHWC."""
    sides = image.shape[1:3] if image.dtype == "uint8" else image.shape[2:4]
    if len(image.shape) != 4 or not all(isinstance(side, int) for side in sides):
        raise VimDeployError(
            "VIM-415",
            f"the model's input {image.name!r} has no fixed size",
            why=f"its shape is {list(image.shape)}",
            fix="give the size of each picture",
        )
    return np.tile(np.array(sides, np.int64), (batch, 1))


def given_inputs(
    spec: TensorSpec, size_spec: TensorSpec | None, image: Array, size: Array | None
) -> dict[str, Array]:
    """Arrays by input name, as ``Runner.run`` takes them.

    Args:
        spec, size_spec: ``Runner.input`` and ``Runner.size``.
        image, size: as they were given to ``Runner.run``.

    Raises:
        VimDeployError: VIM-415 for what the model does not take: other arrays, sizes that are not
            within the input, sizes for a model without that input.
    """
    check_input(spec, image)
    if size_spec is None:
        if size is not None:
            raise VimDeployError(
                "VIM-415",
                "the model takes no sizes of pictures",
                why=f"its only input is {spec.name!r}",
                fix="give the images alone",
            )
        return {spec.name: image}
    full = full_sizes(spec, len(image))
    if size is None:
        size = full
    if not isinstance(size, np.ndarray) or size.shape != full.shape or size.dtype.kind not in "iu":
        found = (
            f"{size.dtype} {list(size.shape)}"
            if isinstance(size, np.ndarray)
            else type(size).__name__
        )
        raise VimDeployError(
            "VIM-415",
            f"the model's input {size_spec.name!r} does not take this array",
            why=f"found {found}, expected {size_spec.dtype} {list(full.shape)}",
            fix="give height and width of each picture within the input",
        )
    if (size < 0).any() or (size > full).any():
        raise VimDeployError(
            "VIM-415",
            f"sizes in {size_spec.name!r} are not within the input",
            why=f"found {size[((size < 0) | (size > full)).any(1)][0].tolist()}, the input has "
            f"{full[0].tolist()}",
            fix="give height and width of each picture within the input",
        )
    return {spec.name: image, size_spec.name: np.ascontiguousarray(size, size_spec.dtype)}
