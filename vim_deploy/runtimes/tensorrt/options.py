"""Whether the installed TensorRT has what is asked of it, and by which flags it is told.

A flag that a version lacks is an error (VIM-309) that names the first version that has it. Nothing
is ever passed over.
"""

from __future__ import annotations

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.runtimes.building.request import NONE, TrtOptions
from vim_deploy.runtimes.tensorrt.capability import Capabilities

#: ``--hardware-compat`` -> member of HardwareCompatibilityLevel.
HARDWARE_LEVELS = {
    "none": "NONE",
    "ampere+": "AMPERE_PLUS",
    "same-cc": "SAME_COMPUTE_CAPABILITY",
}
#: Name of a capability -> first release that has it (TensorRT's changelog and headers).
_SINCE = {
    "STRIP_PLAN": "10.0",
    "SAME_COMPUTE_CAPABILITY": "10.9",
    "BF16": "10.0",
    "REFIT": "8.0",
    "VERSION_COMPATIBLE": "8.6",
    "AMPERE_PLUS": "8.6",
}


def check_options(options: TrtOptions, capabilities: Capabilities, precision: str) -> None:
    """Compare what is asked with what the version has.

    Args:
        precision: of the graph: ``fp32``, ``fp16`` or ``bf16``.

    Raises:
        VimDeployError: VIM-202 (a value), VIM-203 (a contradiction), VIM-309 (not in this
            version).
    """
    _check_values(options)
    _check_together(options)
    if precision == "bf16" and not capabilities.bfloat16:
        raise _lacks(capabilities, "--precision bf16", "BF16")
    level = HARDWARE_LEVELS[options.hardware_compat]
    if level not in capabilities.hardware_levels:
        raise _lacks(capabilities, f"--hardware-compat {options.hardware_compat}", level)
    for asked, option, flag in (
        (options.refit, "--refit", "REFIT"),
        (options.strip_weights, "--strip-weights", "STRIP_PLAN"),
        (options.version_compatible, "--version-compatible", "VERSION_COMPATIBLE"),
    ):
        if asked and flag not in capabilities.builder_flags:
            raise _lacks(capabilities, option, flag)
    if options.embed_plugin and not capabilities.plugins_to_serialize:
        raise _lacks(capabilities, "--embed-plugin", "VERSION_COMPATIBLE")


def _check_values(options: TrtOptions) -> None:
    if options.hardware_compat not in HARDWARE_LEVELS:
        raise VimDeployError(
            "VIM-202",
            f"--hardware-compat {options.hardware_compat!r} is not known",
            fix=nearest(options.hardware_compat, HARDWARE_LEVELS),
        )


def _check_together(options: TrtOptions) -> None:
    if options.embed_plugin and not options.version_compatible:
        raise VimDeployError(
            "VIM-203",
            "--embed-plugin without --version-compatible",
            why="TensorRT puts plugin libraries only into version-compatible engines",
            fix="add --version-compatible, or keep the library beside the engine",
        )
    if options.inner_tensors and (options.refit or options.strip_weights):
        raise VimDeployError(
            "VIM-203",
            f"--inner-tensors with {'--refit' if options.refit else '--strip-weights'}",
            why="an engine with inner tensors is for diagnosis; it does not get other weights",
            fix="leave out one of the two",
        )
    if options.embed_plugin and options.plugin == NONE:
        raise VimDeployError(
            "VIM-203",
            "--embed-plugin with --plugin none",
            why="there is no library to put into the engine",
            fix="leave out one of the two",
        )


def _lacks(capabilities: Capabilities, option: str, name: str) -> VimDeployError:
    since = _SINCE[name]
    return VimDeployError(
        "VIM-309",
        f"TensorRT {capabilities.version} has no {option}",
        why=f"{name} came with TensorRT {since}",
        fix=f"leave it out, or use TensorRT {since} or later",
    )


def builder_flags(
    options: TrtOptions, capabilities: Capabilities, precision: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """BuilderFlag members to set, and members to clear.

    A strongly typed network takes its types from the graph and refuses precision flags. Without
    strong typing (8.6) half precision is a flag, and per-layer precisions must be obeyed, not
    only preferred, for the graph's fp32 islands to stay fp32.
    """
    wanted = []
    if not capabilities.strongly_typed and precision == "fp16":
        wanted += ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
    if options.refit:
        wanted.append("REFIT")
    if options.strip_weights:
        wanted.append("STRIP_PLAN")
        if not options.refit:
            wanted.append("REFIT_IDENTICAL")
    if options.version_compatible:
        wanted.append("VERSION_COMPATIBLE")
    # TensorRT sets TF32 by itself, and would then compute "fp32" with 10 bits of mantissa.
    return tuple(wanted), () if options.tf32 else ("TF32",)
