"""What is compared: images in the graph's own input format, random, from pictures, or stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file
from vim_deploy.heads import outputs_called
from vim_deploy.heads.base import Head
from vim_deploy.npz import opened_npz
from vim_deploy.precisions import TABLE
from vim_deploy.runtimes.base import Array
from vim_deploy.runtimes.inputs import full_sizes, given_inputs, picture_batch
from vim_deploy.scene.pictures import find_images
from vim_deploy.specs import ImagePreparation, TensorSpec

#: Rows of a stored file are one input each; more than this is a data set, not a parity case.
_MAX_ROWS = 100_000
#: A batch and something in it.
_LEAST_AXES = 2
#: Of random images: outputs and the runtime need as much again on a machine with 16 GB.
_MOST_BYTES = 4 << 30


@dataclass(frozen=True)
class Case:
    """Images in the graph's own input format, with stored outputs when there are any.

    Attributes:
        sizes: height and width of the picture in each image, int64 [images, 2], for a model that
            takes them.
        pictures: whether the images are photographs.
    """

    name: str
    images: Array
    stored: Mapping[str, Array] = field(default_factory=dict)
    sizes: Array | None = None
    pictures: bool = False


def random_case(
    spec: TensorSpec,
    preprocess: str,
    count: int,
    seed: int = 0,
    *,
    sized: bool = False,
    image: ImagePreparation | None = None,
) -> Case:
    """``count`` repeatable random images: normal for normalised input, else uniform.

    ``image``: for normalised input whose values have to be those of pictures, how these are
    prepared (``prepared_noise``); pixels are uniform then.

    ``sized``: for a model that takes the sizes of pictures. One in three then fills its input, the
    others leave a quarter of it free below, or on the right.

    Raises:
        VimDeployError: VIM-202 for more than fit into memory; VIM-415 for an input whose size is
            not fixed.
    """
    if len(spec.shape) < _LEAST_AXES or not all(
        isinstance(size, int) and size > 0 for size in spec.shape[1:]
    ):
        raise VimDeployError(
            "VIM-415",
            f"no random images can be made for the input {spec.name!r}",
            why=f"its shape is {list(spec.shape)}, and only the first size may be free",
            fix="give a model made by vim-deploy export",
        )
    shape = (count, *(int(size) for size in spec.shape[1:]))
    needed = math.prod(shape) * np.dtype(np.float32).itemsize
    if needed > _MOST_BYTES:
        raise VimDeployError(
            "VIM-202",
            f"{count} random images of this model are too many",
            why=f"they take {needed / 1e9:.1f} GB, and all are in memory at once",
            fix="give fewer; pictures of a folder are not made up: --dataset, or --images with "
            "--image-limit",
        )
    generator = np.random.default_rng(seed)
    if preprocess == "uint8":
        images: Array = generator.integers(0, 256, shape, dtype=np.uint8)
    elif preprocess == "normalize":
        images = generator.random(shape, dtype=np.float32)
    elif image is not None:
        pixels = generator.random(shape, dtype=np.float32)
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (image.mean, image.std))
        images = (pixels - mean) / std
    else:
        images = generator.standard_normal(shape, dtype=np.float32)
    sizes = _random_sizes(spec, count) if sized else None
    return Case(f"random (seed {seed})", images, sizes=sizes)


def prepared_noise(info: ExportInfo | None) -> ImagePreparation | None:
    """What ``random_case`` takes as ``image`` for a model.

    Scales of a quantized one are those of pictures, and cut off what no picture holds.
    """
    quantized = info is not None and TABLE[info.precision].quantized
    return info.image if info is not None and quantized else None


def _random_sizes(spec: TensorSpec, count: int) -> Array:
    sizes = full_sizes(spec, count)
    for side in (0, 1):
        sizes[side + 1 :: 3, side] -= sizes[side + 1 :: 3, side] // 4
    return sizes


def image_case(path: Path, info: ExportInfo, limit: int) -> Case:
    """Pictures from a file or folder, prepared as the model's metadata says."""
    return files_case(f"images ({path.name})", find_images(path)[:limit], info)


def files_case(name: str, files: Sequence[Path], info: ExportInfo) -> Case:
    """These pictures, prepared as the model's metadata says."""
    images, sizes = picture_batch(files, info)
    return Case(name, images, sizes=sizes, pictures=True)


def stored_case(
    path: Path,
    spec: TensorSpec,
    outputs: tuple[str, ...],
    head: Head | None = None,
    size: TensorSpec | None = None,
) -> Case:
    """An .npz with the input under the graph's input name and outputs under theirs.

    Logits may also be stored as ``output``, those of the picture's size as ``whole_output``, those
    of the auxiliary head as ``aux_output``, and feature maps as ``output_0`` or ``output_p2``; for
    a graph that takes uint8, ``image_uint8`` is preferred to ``image``. Sizes of pictures within
    the images, where there is no picture that fills its input, stand under that input's name.

    Args:
        path: of the file.
        spec: the graph's input.
        outputs: names of the graph's outputs.
        head: of the graph, where it is known.
        size: the graph's input for sizes, if it has one.

    Raises:
        VimDeployError: VIM-401, VIM-414 (not an .npz, no matching input or output), VIM-415.
    """
    require_file(path, "stored outputs")
    names = [spec.name] if spec.dtype != "uint8" else [f"{spec.name}_uint8", spec.name]

    def unreadable(why: str) -> VimDeployError:
        return VimDeployError(
            "VIM-414",
            f"{path} is not a readable .npz file",
            why=why,
            fix="store arrays with numpy.savez(path, image=..., logits=...)",
        )

    with opened_npz(path, unreadable) as archive:
        found_keys = sorted(archive.names)
        key = next((name for name in names if name in archive), None)
        keys = {name: _stored_name(name, head, archive.names) for name in outputs}
        images = None if key is None else archive.read(key)
        sizes = archive.read(size.name) if size is not None and size.name in archive else None
        stored = {name: archive.read(found) for name, found in keys.items() if found is not None}
    if images is None or not stored:
        raise VimDeployError(
            "VIM-414",
            f"{path} holds no input or no output of this model",
            why=f"found {found_keys}; wanted input {names} and outputs {list(outputs)}",
            fix="store arrays with numpy.savez(path, image=..., logits=...)",
        )
    first = None if sizes is None else sizes[:1]
    given_inputs(spec, size, images[:1], first)
    rows = [*stored.values(), *([] if sizes is None else [sizes])]
    if len(images) > _MAX_ROWS or any(len(value) != len(images) for value in rows):
        raise VimDeployError(
            "VIM-414",
            f"{path} does not hold one output row for each input row",
            why=f"{len(images)} inputs; outputs "
            + ", ".join(f"{name} {list(value.shape)}" for name, value in stored.items()),
            fix="store inputs and outputs of the same run",
        )
    return Case(f"stored ({path.name})", images, stored, sizes)


def _stored_name(output: str, head: Head | None, keys: list[str]) -> str | None:
    known, match = next(outputs_called(output, head), (None, None))
    others = [match.expand(name) for name in known.stored_as] if known and match else []
    return next((name for name in (output, *others) if name in keys), None)
