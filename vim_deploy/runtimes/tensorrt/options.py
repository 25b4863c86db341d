"""What can be asked of full TensorRT, and whether the installed version has it.

A flag that a version lacks is an error (VIM-309) that names the first version that has it. Nothing
is ever passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.ranges import OPT_LEVEL, WORKSPACE_MIB, require_all
from vim_deploy.runtimes.tensorrt.capability import Capabilities

#: ``--hardware-compat`` -> member of HardwareCompatibilityLevel.
HARDWARE_LEVELS = {
    "none": "NONE",
    "ampere+": "AMPERE_PLUS",
    "same-cc": "SAME_COMPUTE_CAPABILITY",
}
#: ``--plugin`` and ``--timing-cache`` besides a path.
AUTO, NONE, ON, OFF = "auto", "none", "on", "off"
#: Name of a capability -> first release that has it (TensorRT's changelog and headers).
_SINCE = {
    "STRIP_PLAN": "10.0",
    "SAME_COMPUTE_CAPABILITY": "10.9",
    "BF16": "10.0",
    "REFIT": "8.0",
    "VERSION_COMPATIBLE": "8.6",
    "AMPERE_PLUS": "8.6",
}


@dataclass(frozen=True)
class TrtOptions:
    """What to ask of full TensorRT; the defaults ask for nothing special.

    Attributes:
        plugin: ``auto`` (find or build one), ``none`` (the ops' local functions instead) or the
            path of a library.
        timing_cache: ``on`` (a file in the user's cache), ``off``, or the path of a file.
        opt_level: builder optimisation level, 0 to 5; None for TensorRT's own default, 3.
        workspace_mib: limit of the builder's workspace in MiB; None for all of the GPU's memory.
        hardware_compat: ``none``, ``ampere+`` or ``same-cc``.
        version_compatible: the engine also runs on later versions of TensorRT.
        embed_plugin: the engine carries the plugin library; needs ``version_compatible``.
        refit: the engine's weights can be exchanged.
        strip_weights: the engine is written without the weights, to be refitted before use.
        tf32: matrix products of float32 tensors may round their factors to 10 bits of mantissa.
        tactic_sources: trtexec's list, ``-CUDNN,-CUBLAS``; empty for TensorRT's own choice.
        export_layers: a file for the engine inspector's full description.
        inner_tensors: the engine gives out its inner tensors, for diagnosis.
    """

    plugin: str = AUTO
    timing_cache: str = ON
    opt_level: int | None = None
    workspace_mib: int | None = None
    hardware_compat: str = "none"
    version_compatible: bool = False
    embed_plugin: bool = False
    refit: bool = False
    strip_weights: bool = False
    tf32: bool = False
    tactic_sources: str = ""
    export_layers: Path | None = None
    inner_tensors: bool = False

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, opt_level=OPT_LEVEL, workspace_mib=WORKSPACE_MIB)

    def given(self) -> tuple[str, ...]:
        """Options that differ from their defaults, as the command line names them."""
        return tuple(
            "--" + entry.name.replace("_mib", "").replace("_", "-")
            for entry in fields(self)
            if getattr(self, entry.name) != entry.default
        )

    def settings(self) -> dict[str, Any]:
        """The part that decides the engine, JSON-able: what is not at its default.

        The plugin is described by its contents elsewhere; the timing cache changes how long the
        build takes and may change which kernels are taken, as the machine's mood does.
        """
        passive = ("plugin", "timing_cache", "export_layers")
        return {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.name not in passive and getattr(self, entry.name) != entry.default
        }


def refuse_for_rtx(options: TrtOptions) -> None:
    """VIM-203 when an option of full TensorRT was given for TensorRT-RTX."""
    # No plugin is what TensorRT-RTX does anyway.
    allowed = {"--inner-tensors", *(["--plugin"] if options.plugin == NONE else [])}
    given = tuple(name for name in options.given() if name not in allowed)
    if given:
        raise VimDeployError(
            "VIM-203",
            f"{', '.join(given)}: not with TensorRT-RTX",
            why="TensorRT-RTX takes no plugins and no timing cache, has no refit without a GPU, "
            "and chooses GPUs with --compute-capability",
            fix="leave it out, or use --runtime tensorrt on a machine with TensorRT and a GPU",
        )


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
