"""Build an engine with full TensorRT 8.6, 10 or 11, for the GPU at hand.

What the installed version lacks is an error (VIM-309) that names the first version that has it;
nothing is ever passed over.

Before anything takes its place the engine is compared with what was asked: plugin layers counted
against the graph (VIM-606), types of layers read from TensorRT's inspector (VIM-801).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vim_deploy.artifact.engine_file import FLOAT8_SINCE, TENSORRT
from vim_deploy.artifact.record import PluginIdentity
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.files import write_bytes
from vim_deploy.precisions import TABLE
from vim_deploy.runtimes import AUTO
from vim_deploy.runtimes.building.build import Builder, Work, settings_of
from vim_deploy.runtimes.building.graph import TypedModel, marked_model
from vim_deploy.runtimes.building.request import (
    HARDWARE_LEVELS,
    NONE,
    BuildRequest,
    TrtOptions,
)
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.capability import Capabilities
from vim_deploy.runtimes.tensorrt.lower import lower, ops_of
from vim_deploy.runtimes.tensorrt.plan_layers import (
    findings,
    float_types,
    read_layers,
    require_plugins,
    require_precision,
)
from vim_deploy.runtimes.tensorrt.plugins import choose_plugin
from vim_deploy.runtimes.tensorrt.timing_cache import cache_path

_log = logging.getLogger(__name__)
#: Compute capability from which an ``ampere+`` engine runs.
_AMPERE = "8.0"
#: Name of a capability -> first release that has it (TensorRT's changelog and headers).
_SINCE = {
    "STRIP_PLAN": "10.0",
    "SAME_COMPUTE_CAPABILITY": "10.9",
    "BF16": "10.0",
    "FP8": "10.0",
    "REFIT": "8.0",
    "VERSION_COMPATIBLE": "8.6",
    "AMPERE_PLUS": "8.6",
}


class TrtBuilder(Builder):
    """Full TensorRT."""

    worker = "vim_deploy.runtimes.tensorrt.worker"

    def refuse(self, request: BuildRequest) -> None:
        """VIM-203 when GPUs were named."""
        if request.compute_capabilities:
            raise VimDeployError(
                "VIM-203",
                "--compute-capability: not with full TensorRT",
                why="it builds for the GPU at hand",
                fix="leave it out; --hardware-compat ampere+ or same-cc allows other GPUs as well",
            )

    def decide(self, request: BuildRequest, graph: TypedModel) -> Work:
        """What this version of TensorRT is given: a lowered graph, flags, a plugin library.

        Raises:
            VimDeployError: VIM-301, VIM-302 (no TensorRT, no GPU), VIM-202, VIM-203, VIM-309 (not
                in this version), VIM-434, VIM-609 (no form of the graph for this version), and as
                ``choose_plugin``.
        """
        options, here, gpu = request.tensorrt, trt.capabilities(), cuda_driver.gpu()
        check_options(options, here, graph.precision, graph.floats)
        require_products(graph.precision, gpu, options.hardware_compat)
        if options.inner_tensors:
            graph = marked_model(graph, here.debug_tensors)
        ops = ops_of(graph.model)
        if options.plugin not in (AUTO, NONE):
            graph.file.refuse_standalone("--plugin")
        use_plugin = bool(ops) and options.plugin != NONE
        if options.embed_plugin and not use_plugin:
            raise VimDeployError(
                "VIM-203",
                "--embed-plugin for a graph without our ops",
                why=f"{request.model} has no node that a plugin would take",
                fix="leave it out",
            )
        lowered = lower(graph.model, here, use_plugin=use_plugin)
        plugin = choose_plugin(options.plugin, here, gpu, ops) if use_plugin else None
        flags, cleared = builder_flags(options, here, graph.precision, graph.floats)
        capability = f"{gpu.major}.{gpu.minor}"
        ampere = options.hardware_compat == "ampere+"
        settings = settings_of(
            request,
            graph,
            lowering=lowered.steps,
            runtime=TENSORRT,
            runtime_version=here.version,
            compute_capabilities=(_AMPERE if ampere else capability,),
            later_gpus=ampere,
            gpu=gpu.name,
            hardware_compat=options.hardware_compat,
            plugin=PluginIdentity.of(plugin, options.embed_plugin) if plugin else None,
            precision=graph.precision,
            flags=flags,
            options=options.settings(),
            stripped=options.strip_weights,
        )
        return Work(
            request,
            graph,
            settings,
            lowered.model,
            plugin=plugin,
            plugin_nodes=lowered.plugin_nodes,
            cleared_flags=cleared,
            timing_cache=cache_path(
                options.timing_cache,
                gpu=gpu.name,
                compute_capability=capability,
                version=here.version,
                plugin_sha256=plugin.sha256 if plugin else "",
            ),
            strongly_typed=here.strongly_typed,
            types=float_types(graph.model),
        )

    def say(self, work: Work) -> None:
        """Version, GPU, precision, plugin, and what was done to the graph."""
        _log.info(
            "TensorRT %s on %s, %s%s",
            work.settings.runtime_version,
            work.settings.gpu,
            precision_in_words(work.graph),
            f", plugin {work.plugin.path}" if work.plugin else ", no plugin",
        )
        if work.graph.export is not None and work.graph.export.standalone:
            _log.warning(
                "%s is standalone: the plugin has nothing to hold on to, and the scans run as "
                "standard operators; for the plugin's kernels build from an export without "
                "--standalone",
                work.graph.file.name,
            )
        for step in work.settings.lowering:
            _log.info("graph, in memory: %s", step)

    def prove(self, work: Work, plan: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """What TensorRT's inspector told of the loaded engine; VIM-606 or VIM-801."""
        layers_file = work.request.tensorrt.export_layers
        if layers_file is not None:
            # Before the proof: whoever is told that it failed wants to look.
            write_bytes(layers_file, facts["inspection"].encode())
        try:
            layers = read_layers(facts["inspection"])
        except ValueError as error:
            raise VimDeployError(
                "VIM-801",
                "what was built cannot be read from the engine",
                why=f"the engine inspector's text: {error}",
                fix="report this with the version of TensorRT; nothing was written",
            ) from error
        found = findings(layers, work.types, work.plugin_nodes)
        require_plugins(found, work.plugin_counts)
        require_precision(found, work.graph.precision, work.graph.floats)
        return {
            "plugin_layers": {op: found.plugins[op] for op in work.plugin_counts},
            "layer_types": found.types,
            "engine_layers": found.layers,
            "refittable": bool(facts["refittable"]),
            "device_memory_bytes": int(facts["device_memory_bytes"]),
        }


def check_options(
    options: TrtOptions, capabilities: Capabilities, precision: str, floats: str = ""
) -> None:
    """Compare what is asked with what the version has.

    Args:
        precision: of the graph (``precisions.NAMES``).
        floats: of what is not quantized; ``precision`` where nothing is.

    Raises:
        VimDeployError: VIM-202 (a value), VIM-203 (a contradiction), VIM-309 (not in this
            version).
    """
    _check_values(options)
    _check_together(options)
    quantized = TABLE[precision].quantized
    if (floats or precision) == "bf16" and not capabilities.bfloat16:
        option = "--high-precision" if quantized else "--precision"
        raise _lacks(capabilities, f"{option} bf16", "BF16")
    if precision == "fp8" and not capabilities.float8:
        raise _lacks(capabilities, "--precision fp8", "FP8", "export with --precision int8")
    if options.refit and quantized:
        raise VimDeployError(
            "VIM-203",
            f"--refit for a graph in {precision}",
            why="its scales were chosen for its own weights; others would need others",
            fix="leave it out, and build again from an export of the other checkpoint",
        )
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


def require_products(precision: str, gpu: cuda_driver.Gpu, hardware_compat: str) -> None:
    """VIM-302 for fp8 on a GPU without such products, VIM-203 for an engine that others run, too.

    Args:
        precision: of the graph.
        gpu: the one that the engine is built on.
        hardware_compat: other GPUs that it is for.
    """
    if precision != "fp8":
        return
    if (gpu.major, gpu.minor) < FLOAT8_SINCE:
        raise VimDeployError(
            "VIM-302",
            f"{gpu.name} has no products in fp8",
            why=f"its compute capability is {gpu.major}.{gpu.minor}; they came with "
            + _dotted(FLOAT8_SINCE),
            fix="export with --precision int8, or build on a GPU that has them",
        )
    if hardware_compat == "ampere+":
        raise VimDeployError(
            "VIM-203",
            "--hardware-compat ampere+ for a graph in fp8",
            why=f"GPUs before compute capability {_dotted(FLOAT8_SINCE)} have no such products",
            fix="leave it out, or export with --precision int8",
        )


def precision_in_words(graph: TypedModel) -> str:
    """``int8, fp16 around it``; the precision alone where nothing is quantized."""
    if graph.precision == graph.floats:
        return graph.precision
    return f"{graph.precision}, {graph.floats} around it"


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _lacks(
    capabilities: Capabilities, option: str, name: str, instead: str = "leave it out"
) -> VimDeployError:
    since = _SINCE[name]
    return VimDeployError(
        "VIM-309",
        f"TensorRT {capabilities.version} has no {option}",
        why=f"{name} came with TensorRT {since}",
        fix=f"{instead}, or use TensorRT {since} or later",
    )


def builder_flags(
    options: TrtOptions, capabilities: Capabilities, precision: str, floats: str = ""
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """BuilderFlag members to set, and members to clear.

    A strongly typed network takes its types from the graph and refuses precision flags. Without
    strong typing (8.6) half precision is a flag, and per-layer precisions must be obeyed, not
    only preferred, for the graph's fp32 islands to stay fp32. There int8 is a flag, too: what it
    means for each tensor, its QuantizeLinear nodes say, and no dynamic range is ever set.
    """
    wanted = []
    if not capabilities.strongly_typed and precision == "int8":
        wanted.append("INT8")
    if not capabilities.strongly_typed and (floats or precision) == "fp16":
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


BUILDER = TrtBuilder()
