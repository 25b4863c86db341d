"""Stored input and output of a model: what every later run of the package is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vim_deploy.errors import VimDeployError
from vim_deploy.images import batch_from_crops
from vim_deploy.npz import opened_npz
from vim_deploy.packaging.servable import Servable
from vim_deploy.parity.metrics import Tolerance, compare
from vim_deploy.runtimes.base import Array, Runner, require_fit, run_padded

GOLDEN_NAME = "golden.npz"
#: Pictures stored: enough that a mixed-up order of rows shows.
ROWS = 3
#: Most bytes of stored outputs of one row and more: those of dense models are large.
_MOST_BYTES = 64_000_000
_SEED = 0
INPUT_KEY, OUTPUT_PREFIX = "input", "output."


def golden_input(servable: Servable, most: int) -> Array:
    """Seeded pictures, prepared as the model takes them: [rows, ...] in the runner's dtype.

    Rows are ``ROWS``, or fewer when the model takes fewer at once or its outputs are large, or its
    fixed batch.
    """
    fixed = servable.input.shape[0]
    fitting = max(_MOST_BYTES // max(_row_bytes(servable), 1), 1)
    rows = fixed if isinstance(fixed, int) else min(ROWS, most, fitting)
    how = servable.info.image
    generator = np.random.default_rng(_SEED)
    shape = (rows, how.height, how.width, how.channels)
    pixels = generator.integers(0, 256, shape, dtype=np.uint8)
    return batch_from_crops(pixels, how, servable.info.preprocess)


def _row_bytes(servable: Servable) -> int:
    """Of all outputs for one picture, as far as their sizes are fixed."""
    return sum(
        np.dtype(spec.dtype).itemsize
        * math.prod(size for size in spec.shape[1:] if isinstance(size, int))
        for spec in servable.file.outputs
    )


def golden_outputs(runner: Runner, images: Array) -> dict[str, Array]:
    """What ``runner`` gives for the stored input; VIM-430 when that is no answer."""
    outputs = run_padded(runner, images)
    require_fit(outputs, "the package's stored pictures")
    return outputs


def write_golden(path: Path, images: Array, outputs: Mapping[str, Array]) -> None:
    """Store both; the same arrays give the same bytes."""
    named = {f"{OUTPUT_PREFIX}{name}": outputs[name] for name in sorted(outputs)}
    arrays: dict[str, Any] = {INPUT_KEY: images, **named}
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def read_golden(path: Path) -> tuple[Array, dict[str, Array]]:
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
    images = arrays.pop(INPUT_KEY)
    return images, {name.removeprefix(OUTPUT_PREFIX): arrays[name] for name in arrays}


def differences(
    wanted: Mapping[str, Array], found: Mapping[str, Array], tolerance: Tolerance
) -> list[str]:
    """One sentence for each output that is further away than ``tolerance`` allows.

    Nothing to compare, or a tolerance that limits nothing, is a difference as well.
    """
    sentences = []
    if not wanted:
        sentences.append("there are no stored outputs to compare with")
    if tolerance.atol is None and tolerance.relative_l2 is None:
        sentences.append("the tolerance of the package limits no difference")
    for name, value in wanted.items():
        if name not in found:
            sentences.append(f"{name}: there is no such output")
            continue
        result = compare(name, value, found[name], tolerance)
        sentences += [f"{name}: {failure}" for failure in result.failures]
    return sentences
