"""What every runner offers: arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vim_deploy.errors import VimDeployError
from vim_deploy.specs import TensorSpec

Array = NDArray[Any]


class Runner(Protocol):
    """Runs one model in one runtime."""

    @property
    def name(self) -> str:
        """Runtime and version, for reports."""

    @property
    def input(self) -> TensorSpec:
        """The image input; a str in the shape is a dynamic size."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Output names in order."""

    def run(self, image: Array) -> Mapping[str, Array]:
        """Outputs for one batch of images of the input's dtype and shape."""


def check_input(spec: TensorSpec, image: Array) -> None:
    """Refuse an array that the model does not take (VIM-415), before a runtime does it worse."""
    fits = len(spec.shape) == image.ndim and all(
        isinstance(wanted, str) or wanted == found
        for wanted, found in zip(spec.shape, image.shape, strict=True)
    )
    if image.dtype != np.dtype(spec.dtype) or not fits or 0 in image.shape:
        raise VimDeployError(
            "VIM-415",
            f"the model's input {spec.name!r} does not take this array",
            why=f"found {image.dtype} {list(image.shape)}, expected {spec.dtype} "
            f"{list(spec.shape)}",
            fix="prepare images as the model's metadata says: vim-deploy inspect MODEL.onnx",
        )


def batch_for(runner: Runner, count: int) -> int:
    """The batch to run ``count`` images in: that many, or the next that the runner takes.

    A runner says so by a fixed batch in its input's shape, or by a method ``batch_for``.
    """
    fixed = runner.input.shape[0]
    if isinstance(fixed, int):
        return max(fixed, count)
    chosen = getattr(runner, "batch_for", None)
    return count if chosen is None else int(chosen(count))


def largest_batch(runner: Runner, wanted: int) -> int:
    """``wanted``, or the most images that the runner takes at once when that is less."""
    fixed = runner.input.shape[0]
    return fixed if isinstance(fixed, int) else min(wanted, getattr(runner, "most", wanted))


def run_padded(runner: Runner, images: Array) -> dict[str, Array]:
    """Outputs for ``images``, also where the runner takes no batch of that size, but a larger one.

    The last image is repeated to fill the batch, and the rows of the copies are dropped. VIM-415
    when an output does not have one row for each image.
    """
    count = len(images)
    wanted = batch_for(runner, count)
    if count < wanted:
        images = np.concatenate([images, np.repeat(images[-1:], wanted - count, axis=0)])
    outputs = runner.run(images)
    if not outputs:
        raise VimDeployError(
            "VIM-415", "the model has no outputs", fix="export the model again with vim-deploy"
        )
    for name, value in outputs.items():
        _require_rows(name, value, len(images))
    return {name: value[:count] for name, value in outputs.items()}


def _require_rows(name: str, value: Array, rows: int) -> None:
    """VIM-415 for an output that is not one answer for each image; else one would be shared."""
    if value.ndim == 0 or len(value) != rows or not value.size:
        raise VimDeployError(
            "VIM-415",
            f"the model's output {name!r} does not answer each image",
            why=f"its shape is {list(value.shape)} for {rows} images",
            fix="export the model again with vim-deploy",
        )


def run_in_batches(runner: Runner, images: Array, batch: int) -> dict[str, Array]:
    """Run ``images`` in batches of ``batch`` (the last may be smaller) and join the outputs."""
    parts = [
        run_padded(runner, images[start : start + batch]) for start in range(0, len(images), batch)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in runner.outputs}
