"""What a comparison of a quantized model is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.precisions import TYPED_IN_WORDS

if TYPE_CHECKING:
    from vim_deploy.stages.verifying import VerifyOptions


def require_pictures(
    info: ExportInfo, options: VerifyOptions, pictures: Sequence[Path] = ()
) -> None:
    """VIM-203 for noise where scales were found on pictures.

    Args:
        info: of the model that a policy is looked for.
        options: what the user asked for.
        pictures: that are there without being asked for.
    """
    if info.quantization is None or info.quantization.activations != "static":
        return
    if options.random is not None or (options.images is None and not pictures):
        raise VimDeployError(
            "VIM-203",
            f"random images do not tell which products {info.precision} can have",
            why="static scales were found on pictures, and each product is off by other amounts in "
            "noise",
            fix="--images PICTURES" + ("" if options.random is None else " in place of --random"),
        )


def no_twin(info: ExportInfo) -> VimDeployError:
    """VIM-203: PyTorch computes in no 8 bits."""
    return VimDeployError(
        "VIM-203",
        f"--twin: PyTorch has no twin of a model in {info.precision}",
        why="only the runtimes of the file multiply 8 bits; a twin is PyTorch typed in "
        f"{TYPED_IN_WORDS}",
        fix="leave it out; --ladder tells what weights in 8 bits cost, and what activations do",
    )
