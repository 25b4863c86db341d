"""Stored input and output of a model: what every later run of the package is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vim_deploy.errors import VimDeployError
from vim_deploy.images import batch_from_crops
from vim_deploy.npz import opened_npz
from vim_deploy.packaging.servable import Servable
from vim_deploy.parity.detections import compare_detections
from vim_deploy.parity.limits import DetectionLimits
from vim_deploy.parity.metrics import Tolerance, compare
from vim_deploy.runtimes.base import Array, Runner, require_fit, run_padded

GOLDEN_NAME = "golden.npz"
#: Pictures stored: enough that a mixed-up order of rows shows.
ROWS = 3
#: Most bytes of stored outputs of one row and more: those of dense models are large.
_MOST_BYTES = 64_000_000
_SEED = 0
INPUT_KEY, SIZE_KEY, OUTPUT_PREFIX = "input", "size", "output."


@dataclass(frozen=True)
class Pictures:
    """What a model is given.

    Attributes:
        images: [rows, ...] in the runner's dtype.
        sizes: height and width of each picture inside its image, int64 [rows, 2]; None for a model
            that does not take them.
    """

    images: Array
    sizes: Array | None = None


def golden_input(servable: Servable, most: int) -> Pictures:
    """Seeded pictures, prepared as the model takes them.

    Rows are ``ROWS``, or fewer when the model takes fewer at once or its outputs are large, or its
    fixed batch. Of a detector's pictures the first does not fill the input, the second does.
    """
    fixed = servable.input.shape[0]
    fitting = max(_MOST_BYTES // max(_row_bytes(servable), 1), 1)
    rows = fixed if isinstance(fixed, int) else min(ROWS, most, fitting)
    how = servable.info.image
    generator = np.random.default_rng(_SEED)
    shape = (rows, how.height, how.width, how.channels)
    pixels = generator.integers(0, 256, shape, dtype=np.uint8)
    sizes = None if servable.size is None else _sizes(servable, rows)
    for picture, (height, width) in zip(pixels, [] if sizes is None else sizes, strict=False):
        picture[height:] = 0
        picture[:, width:] = 0
    return Pictures(batch_from_crops(pixels, how, servable.info.preprocess), sizes)


def _sizes(servable: Servable, rows: int) -> Array:
    """A wide one, a whole one, a high one, and again."""
    height, width = servable.info.image.height, servable.info.image.width
    shapes = ((max(height // 2, 1), width), (height, width), (height, max(width * 3 // 4, 1)))
    return np.array([shapes[row % len(shapes)] for row in range(rows)], np.int64)


def _row_bytes(servable: Servable) -> int:
    """Of all outputs for one picture, as far as their sizes are fixed."""
    return sum(
        np.dtype(spec.dtype).itemsize
        * math.prod(size for size in spec.shape[1:] if isinstance(size, int))
        for spec in servable.file.outputs
    )


def golden_outputs(runner: Runner, given: Pictures) -> dict[str, Array]:
    """What ``runner`` gives for the stored input; VIM-430 when that is no answer."""
    outputs = run_padded(runner, given.images, given.sizes)
    require_fit(outputs, "the package's stored pictures")
    return outputs


def write_golden(path: Path, given: Pictures, outputs: Mapping[str, Array]) -> None:
    """Store both; the same arrays give the same bytes."""
    named = {f"{OUTPUT_PREFIX}{name}": outputs[name] for name in sorted(outputs)}
    arrays: dict[str, Any] = {INPUT_KEY: given.images, **named}
    if given.sizes is not None:
        arrays[SIZE_KEY] = given.sizes
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def read_golden(path: Path) -> tuple[Pictures, dict[str, Array]]:
    """Input and outputs by name.

    Raises:
        VimDeployError: VIM-414 when the file is not one that ``write_golden`` made.
    """

    def unreadable(why: str) -> VimDeployError:
        return VimDeployError(
            "VIM-414",
            f"the stored outputs {path} cannot be read",
            why=why,
            fix="make the package again: vim-deploy package ARTIFACT",
        )

    with opened_npz(path, unreadable) as archive:
        arrays = {name: archive.read(name) for name in archive.names}
    if INPUT_KEY not in arrays:
        raise unreadable(f"it holds no {INPUT_KEY!r}")
    given = Pictures(arrays.pop(INPUT_KEY), arrays.pop(SIZE_KEY, None))
    return given, {name.removeprefix(OUTPUT_PREFIX): arrays[name] for name in arrays}


def differences(
    wanted: Mapping[str, Array],
    found: Mapping[str, Array],
    tolerance: Tolerance,
    detections: DetectionLimits | None = None,
) -> list[str]:
    """One sentence for each output that is further away than ``tolerance`` allows.

    Nothing to compare, or a tolerance that limits nothing, is a difference as well. Of a detector,
    ``detections`` limits what was found, in whichever order.
    """
    sentences = []
    if not wanted:
        sentences.append("there are no stored outputs to compare with")
    if tolerance.atol is None and tolerance.relative_l2 is None:
        sentences.append("the tolerance of the package limits no difference")
    missing = [name for name in wanted if name not in found]
    if missing and detections is not None:
        return [*sentences, f"{', '.join(missing)}: there is no such output"]
    if wanted and detections is not None:
        compared = compare_detections(wanted, found, detections)
        return [f"{item.output}: {failure}" for item in compared for failure in item.failures]
    for name, value in wanted.items():
        if name in missing:
            sentences.append(f"{name}: there is no such output")
            continue
        result = compare(name, value, found[name], tolerance)
        sentences += [f"{name}: {failure}" for failure in result.failures]
    return sentences
