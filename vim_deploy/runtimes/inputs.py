"""What a model is given: its picture input, the sizes of pictures where it takes them, arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vim_deploy.artifact.metadata import ExportInfo, ModelInputs, extents, require_inputs
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import of_file
from vim_deploy.images import batch_from_crops, fit_from, load_batch
from vim_deploy.specs import TensorSpec

if TYPE_CHECKING:
    from vim_deploy.artifact import Artifact

Array = NDArray[Any]


class PictureBatch(NamedTuple):
    """Pictures in the graph's own input format.

    Attributes:
        images: float32 NCHW or uint8 NHWC (``images.batch_from_crops``).
        sizes: height and width of the picture in each image, int64 [images, 2], of a model that
            takes them; else None.
    """

    images: Array
    sizes: Array | None = None


def picture_batch(paths: Sequence[Path], info: ExportInfo) -> PictureBatch:
    """Picture files as the model that ``info`` describes takes them.

    Raises:
        VimDeployError: VIM-401, VIM-411, VIM-415 (no files, or not square for a detector).
    """
    if not of_file(info).takes_size:
        return PictureBatch(load_batch(paths, info.image, info.preprocess))
    made = [fit_from(path, info.image) for path in paths]
    images = batch_from_crops([pixels for pixels, _ in made], info.image, info.preprocess)
    return PictureBatch(images, np.array([size for _, size in made], np.int64))


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


def picture_inputs(artifact: Artifact) -> ModelInputs:
    """The image input of an ONNX file, and that for the sizes of pictures, which most have not.

    Raises:
        VimDeployError: VIM-415 for a file with other inputs.
    """
    return require_inputs(
        artifact.inputs, str(artifact.path), "give a model made by vim-deploy export"
    )


def full_sizes(image: TensorSpec, batch: int) -> NDArray[np.int64]:
    """Sizes [batch, 2] of pictures that fill the input ``image``, NCHW or (uint8) NHWC."""
    sides = extents(image)
    if sides is None:
        raise VimDeployError(
            "VIM-415",
            f"the model's input {image.name!r} has no fixed size",
            why=f"its shape is {list(image.shape)}",
            fix="export the model again with vim-deploy",
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
    return {spec.name: image, **given_sizes(spec, size_spec, len(image), size)}


def given_sizes(
    spec: TensorSpec, size_spec: TensorSpec | None, batch: int, size: Array | None
) -> dict[str, Array]:
    """The part of ``given_inputs`` that holds sizes, for a batch of images that fit."""
    if size_spec is None:
        if size is not None:
            raise VimDeployError(
                "VIM-415",
                "the model takes no sizes of pictures",
                why=f"its only input is {spec.name!r}",
                fix="give the images alone",
            )
        return {}
    full = full_sizes(spec, batch)
    if size is None:
        size = full
    if not isinstance(size, np.ndarray) or size.shape != full.shape or size.dtype.kind not in "iu":
        kind = type(size).__name__
        is_array = isinstance(size, np.ndarray)
        raise _wrong_sizes(
            f"the model's input {size_spec.name!r} does not take this array",
            f"found {f'{size.dtype} {list(size.shape)}' if is_array else kind}, "
            f"expected {size_spec.dtype} {list(full.shape)}",
        )
    beyond = ((size < 0) | (size > full)).any(axis=1)
    if beyond.any():
        raise _wrong_sizes(
            f"sizes in {size_spec.name!r} are not within the input",
            f"found {size[beyond][0].tolist()}, the input has {full[0].tolist()}",
        )
    return {size_spec.name: np.ascontiguousarray(size, size_spec.dtype)}


def _wrong_sizes(message: str, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-415",
        message,
        why=why,
        fix="give whole numbers: height and width of each picture within the input",
    )
