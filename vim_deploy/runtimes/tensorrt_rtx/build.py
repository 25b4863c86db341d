"""Build an engine with TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vim_deploy.artifact.engine_file import (
    FLOAT8_SINCE,
    TENSORRT_RTX,
    describe_gpus,
    parse_compute_capabilities,
    read_header,
    without_float8,
)
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.build import Builder, Work, settings_of
from vim_deploy.runtimes.building.graph import TypedModel, marked_model
from vim_deploy.runtimes.building.request import NONE, BuildRequest
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx
from vim_deploy.runtimes.tensorrt_rtx.lower import lower

_log = logging.getLogger(__name__)


class RtxBuilder(Builder):
    """TensorRT-RTX."""

    worker = "vim_deploy.runtimes.tensorrt_rtx.worker"

    def refuse(self, request: BuildRequest) -> None:
        """VIM-203 when an option of full TensorRT was given."""
        # No plugin is what TensorRT-RTX does anyway.
        plugin = ["--plugin"] if request.tensorrt.plugin == NONE else []
        given = [
            name for name in request.tensorrt.given() if name not in ("--inner-tensors", *plugin)
        ]
        if given:
            raise VimDeployError(
                "VIM-203",
                f"{', '.join(given)}: not with TensorRT-RTX",
                why="TensorRT-RTX takes no plugins and no timing cache, has no refit without a "
                "GPU, and chooses GPUs with --compute-capability",
                fix="leave it out, or use --runtime tensorrt on a machine with TensorRT and a GPU",
            )

    def decide(self, request: BuildRequest, graph: TypedModel) -> Work:
        """The GPUs, and the graph with forms of our ops' functions that TensorRT-RTX takes.

        Raises:
            VimDeployError: VIM-202, VIM-203 (fp8 for GPUs without it), VIM-301, VIM-434, and as
                ``lower``.
        """
        if request.tensorrt.inner_tensors:
            graph = marked_model(graph, debug_tensors=True)
        graph = lower(graph)
        here = trt_rtx.capabilities()
        named = parse_compute_capabilities(
            request.compute_capabilities,
            here.compute_capabilities,
            f"TensorRT-RTX {here.version}",
        )
        if graph.precision == "fp8":
            _require_float8(named)
        settings = settings_of(
            request,
            graph,
            runtime=TENSORRT_RTX,
            runtime_version=here.version,
            compute_capabilities=named or here.default_compute_capabilities,
            later_gpus=not named,
            precision=graph.precision if graph.typed else "",
            options={"inner_tensors": True} if graph.marked else {},
        )
        parsed = graph.model if graph.steps else None
        return Work(request, graph, settings, parsed, named=named)

    def say(self, work: Work) -> None:
        """The GPUs that the engine will run on, and those that it never does."""
        _log.info(
            "TensorRT-RTX %s: the engine will run on GPUs of %s; TensorRT-RTX has no support for "
            "Hopper (9.0), data-centre Blackwell (10.x) and Jetson Orin (8.7)",
            work.settings.runtime_version,
            describe_gpus(work.settings.compute_capabilities, later=work.settings.later_gpus),
        )
        lacking = without_float8(work.settings.compute_capabilities)
        if work.graph.precision == "fp8" and lacking:
            _log.warning(
                "GPUs of compute capability %s have no products in fp8: this engine is not for "
                "them; --compute-capability names those that it is for",
                ", ".join(lacking),
            )

    def prove(self, work: Work, plan: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """VIM-603 when the plan is not whole, or not made for the GPUs that were asked for."""
        header, asked = read_header(plan), work.settings
        found = (header.compute_capabilities, header.later_gpus)
        wanted = (asked.compute_capabilities, asked.later_gpus)
        known = bool(header.compute_capabilities)
        if header.version != asked.runtime_version or (known and found != wanted):
            raise VimDeployError(
                "VIM-603",
                "TensorRT-RTX built another engine than was asked for",
                why=f"asked: version {asked.runtime_version}, {describe_gpus(*wanted)}; "
                f"built: version {header.version}, {describe_gpus(*found)}",
                fix="report this with the ONNX file; leave out --compute-capability meanwhile",
            )
        return {}


def _require_float8(named: tuple[str, ...]) -> None:
    """VIM-203 when GPUs without products in fp8 were named."""
    lacking = without_float8(named)
    if lacking:
        raise VimDeployError(
            "VIM-203",
            f"--compute-capability {', '.join(lacking)} for a graph in fp8",
            why="GPUs have such products from compute capability "
            f"{FLOAT8_SINCE[0]}.{FLOAT8_SINCE[1]} on",
            fix="name later ones, or export with --precision int8",
        )


BUILDER = RtxBuilder()
