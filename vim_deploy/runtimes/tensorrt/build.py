"""Build an engine with full TensorRT 8.6, 10 or 11, for the GPU at hand.

Before anything takes its place the engine is compared with what was asked: plugin layers counted
against the graph (VIM-606), types of layers read from TensorRT's inspector (VIM-801).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vim_deploy.artifact.engine_file import TENSORRT
from vim_deploy.artifact.record import PluginIdentity
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import VimDeployError
from vim_deploy.files import write_bytes
from vim_deploy.runtimes.building.build import Builder, Work, settings_of
from vim_deploy.runtimes.building.graph import TypedModel, marked_model
from vim_deploy.runtimes.building.request import NONE, BuildRequest
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.lower import lower, ops_of
from vim_deploy.runtimes.tensorrt.options import builder_flags, check_options
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
        check_options(options, here, graph.precision)
        if options.inner_tensors:
            graph = marked_model(graph, here.debug_tensors)
        ops = ops_of(graph.model)
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
        flags, cleared = builder_flags(options, here, graph.precision)
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
            work.graph.precision,
            f", plugin {work.plugin.path}" if work.plugin else ", no plugin",
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
        require_precision(found, work.graph.precision)
        return {
            "plugin_layers": {op: found.plugins[op] for op in work.plugin_counts},
            "layer_types": found.types,
            "engine_layers": found.layers,
            "refittable": bool(facts["refittable"]),
            "device_memory_bytes": int(facts["device_memory_bytes"]),
        }


BUILDER = TrtBuilder()
