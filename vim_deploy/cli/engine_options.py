"""Options of engine builds that full TensorRT takes, and the precision, for every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vim_deploy.cli.number_types import WholeNumber
from vim_deploy.errors import VimDeployError
from vim_deploy.ranges import OPT_LEVEL, WORKSPACE_MIB

if TYPE_CHECKING:
    from vim_deploy.runtimes.tensorrt.options import TrtOptions

Command = TypeVar("Command", bound=Callable[..., Any])

_TENSORRT_OPTIONS = (
    click.option(
        "--plugin",
        default="auto",
        show_default=True,
        metavar="PATH",
        help="Plugin library; auto finds or builds one, none takes the ops' local functions.",
    ),
    click.option(
        "--timing-cache",
        default="on",
        show_default=True,
        metavar="on|off|FILE",
        help="Reuse kernel timings of earlier builds on this GPU with this TensorRT.",
    ),
    click.option("--opt-level", type=WholeNumber(OPT_LEVEL), help="Builder optimisation level."),
    click.option(
        "--workspace",
        "workspace_mib",
        type=WholeNumber(WORKSPACE_MIB),
        metavar="MIB",
        help="Limit of the builder's workspace.  [default: the GPU's memory]",
    ),
    click.option(
        "--hardware-compat",
        type=click.Choice(["none", "ampere+", "same-cc"]),
        default="none",
        show_default=True,
        help="GPUs the engine runs on besides this one.",
    ),
    click.option(
        "--version-compatible", is_flag=True, help="Runs on later versions of TensorRT, slower."
    ),
    click.option(
        "--embed-plugin",
        is_flag=True,
        help="Put the plugin library into the engine (needs --version-compatible).",
    ),
    click.option("--refit", is_flag=True, help="Weights can be exchanged: vim-deploy refit."),
    click.option(
        "--strip-weights", is_flag=True, help="Leave the weights out; refit before it is used."
    ),
    click.option("--tf32", is_flag=True, help="Round factors of float32 matrix products to TF32."),
    click.option(
        "--tactic-sources",
        default="",
        metavar="LIST",
        help="As trtexec: -CUDNN,-CUBLAS,+JIT_CONVOLUTIONS.",
    ),
    click.option(
        "--export-layers",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write the engine inspector's full description as JSON.",
    ),
    click.option(
        "--inner-tensors",
        is_flag=True,
        help="For diagnosis: give out inner tensors, for verify --per-block.",
    ),
)

_PRECISION_OPTIONS = (
    click.option(
        "--precision",
        type=click.Choice(["fp32", "fp16", "bf16"]),
        help="Types a float32 file in memory; else must match.  [default: the graph's]",
    ),
    click.option("--fp16", is_flag=True, help="Short for --precision fp16."),
)


def _apply(options: tuple[Callable[[Command], Command], ...]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


tensorrt_options = _apply(_TENSORRT_OPTIONS)
precision_options = _apply(_PRECISION_OPTIONS)


def take_tensorrt_options(options: dict[str, Any]) -> TrtOptions:
    """Take ``tensorrt_options``'s values out of a command's keywords."""
    import dataclasses

    from vim_deploy.runtimes.tensorrt.options import TrtOptions

    names = [entry.name for entry in dataclasses.fields(TrtOptions)]
    return TrtOptions(**{name: options.pop(name) for name in names})


def take_precision(options: dict[str, Any]) -> str:
    """Take ``precision_options``'s values; empty when nothing was asked for.

    Raises:
        VimDeployError: VIM-203 when ``--fp16`` contradicts ``--precision``.
    """
    precision: str = options.pop("precision") or ""
    if not options.pop("fp16"):
        return precision
    if precision not in ("", "fp16"):
        raise VimDeployError(
            "VIM-203",
            f"--fp16 contradicts --precision {precision}",
            fix="leave out one of the two",
        )
    return "fp16"
