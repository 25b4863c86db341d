"""Build an engine with TensorRT-RTX, without a GPU: ONNX file in, plan and record out.

The compiler runs in a process of its own (``worker``). The plan and its record are both
finished before either takes its place, so that a build that is stopped or fails changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import vim_deploy
from vim_deploy.artifact.engine_file import (
    TENSORRT_RTX,
    describe_gpus,
    parse_compute_capabilities,
    read_header,
)
from vim_deploy.artifact.marked_tensors import DEBUG, MarkedTensor
from vim_deploy.artifact.metadata import inputs_of, outputs_of
from vim_deploy.artifact.profiles import Profile, ProfileOptions, resolve_profiles
from vim_deploy.artifact.record import (
    EngineRecord,
    FileIdentity,
    build_settings,
    record_path,
)
from vim_deploy.errors import VimDeployError
from vim_deploy.files import (
    Sighting,
    atomic_output,
    remove_leftovers,
    settings_hash,
    sight,
    single_writer,
    write_json,
)
from vim_deploy.log import get_logger
from vim_deploy.runtimes.building.lowered_file import lowered_file
from vim_deploy.runtimes.building.mark_inner import marked_model
from vim_deploy.runtimes.building.output import (
    check_output,
    engine_tensors,
    existing_record,
    external_data,
)
from vim_deploy.runtimes.building.process import ProgressCallback, run_worker
from vim_deploy.runtimes.building.typed_model import TypedModel, graph_of_precision
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx
from vim_deploy.specs import TensorSpec

_log = get_logger(__name__)


@dataclass(frozen=True)
class RtxBuild:
    """Everything decided before the build starts."""

    model_path: Path
    #: Of the model before it was read.
    sighting: Sighting
    source: FileIdentity
    external_data: tuple[FileIdentity, ...]
    typed: TypedModel
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    #: Compute capabilities to name to the runtime; empty for its default.
    named: tuple[str, ...]
    compute_capabilities: tuple[str, ...]
    runtime_version: str
    #: The precision the graph was given in memory; empty when it is built as it is.
    typed_precision: str = ""
    #: Inner tensors that the engine is to give out.
    marked: tuple[MarkedTensor, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """What is not at its default, as full TensorRT's ``TrtOptions.settings``."""
        return {"inner_tensors": True} if self.marked else {}

    def settings(self) -> dict[str, Any]:
        """What decides the engine."""
        return build_settings(
            source=self.source,
            external_data=self.external_data,
            runtime=TENSORRT_RTX,
            runtime_version=self.runtime_version,
            profiles=self.profiles,
            compute_capabilities=self.compute_capabilities,
            later_gpus=not self.named,
            tool_version=vim_deploy.__version__,
            precision=self.typed_precision,
            options=self.options,
        )

    def plan_of_work(self) -> dict[str, Any]:
        """What would be done, for ``--dry-run``; JSON-able."""
        later = [] if self.named else ["later"]
        return {
            "runtime": TENSORRT_RTX,
            "runtime_version": self.runtime_version,
            "gpu": None,
            "compute_capabilities": [*self.compute_capabilities, *later],
            "precision": self.typed.precision,
            "typing": "strongly typed",
            "flags": [],
            "cleared_flags": [],
            "options": self.options,
            "profiles": [profile.as_dict() for profile in self.profiles],
            "plugin": None,
            "plugin_layers": {},
            "lowering": list(self.typed.steps),
            "timing_cache": None,
        }

    def job(self, model: Path, output: Path) -> dict[str, Any]:
        """The worker's job; ``model`` is the file to parse."""
        return {
            "runtime": TENSORRT_RTX,
            "model": str(model.resolve()),
            "model_name": str(self.model_path),
            "scratch": [str(model.resolve())] if self.typed.steps else [],
            "output": str(output.resolve()),
            "inputs": {spec.name: spec.dtype for spec in self.inputs},
            "outputs": {spec.name: spec.dtype for spec in self.outputs},
            "profiles": [profile.as_dict() for profile in self.profiles],
            "compute_capabilities": list(self.named),
            "debug_tensors": sorted({item.name for item in self.marked if item.how == DEBUG}),
        }


def build_engine_rtx(
    model_path: Path,
    plan_path: Path,
    *,
    profiles: ProfileOptions | None = None,
    compute_capabilities: Iterable[str] = (),
    precision: str = "",
    inner_tensors: bool = False,
    progress: ProgressCallback | None = None,
    force: bool = False,
    command: Sequence[str] = (),
) -> EngineRecord:
    """Build an engine and write it with its record, ``plan_path`` and ``plan_path`` + ``.json``.

    Args:
        model_path: ONNX file.
        plan_path: where the engine goes; its folder must exist.
        profiles: input shapes to accept; by default batch 1 to 32, tuned for 8.
        compute_capabilities: GPUs to build for, such as ``8.6``; by default all from Ampere on
            that TensorRT-RTX supports, later ones included.
        precision: ``fp32``, ``fp16`` or ``bf16``; empty for that of the graph.
        inner_tensors: the engine gives out its inner tensors, for diagnosis.
        progress: called with the state of the build, a few times a second.
        force: replace an engine made with other settings, and build even if nothing changed.
        command: the command line, for the record.

    Returns:
        The record; its ``up_to_date`` is set when the engine was there already.

    Raises:
        VimDeployError: VIM-202, VIM-203, VIM-415 (options), VIM-204 (exists with other settings),
            VIM-301 (no TensorRT-RTX), VIM-304 to VIM-306 (output), VIM-401, VIM-409 (model),
            VIM-410 (its metadata), VIM-434 (``inner_tensors``), VIM-601 to VIM-604 (build).
        KeyboardInterrupt: after the build was stopped; nothing was changed.
    """
    request = prepare_rtx(model_path, profiles, compute_capabilities, precision, inner_tensors)
    check_output(plan_path, model_path)
    with single_writer(plan_path):
        remove_leftovers(plan_path)
        remove_leftovers(record_path(plan_path))
        if not force:
            existing = existing_record(plan_path, request.settings())
            if existing is not None:
                return replace(existing, up_to_date=True)
        gpus = describe_gpus(request.compute_capabilities, later=not request.named)
        _log.info(
            "TensorRT-RTX %s: the engine will run on GPUs of %s; TensorRT-RTX has no support for "
            "Hopper (9.0), data-centre Blackwell (10.x) and Jetson Orin (8.7)",
            request.runtime_version,
            gpus,
        )
        return _build(request, plan_path, progress, command)


def prepare_rtx(
    model_path: Path,
    options: ProfileOptions | None = None,
    compute_capabilities: Iterable[str] = (),
    precision: str = "",
    inner_tensors: bool = False,
) -> RtxBuild:
    """Decide everything about a build; arguments and errors as ``build_engine_rtx``."""
    sighting = sight(model_path)
    typed = graph_of_precision(model_path, precision)
    typed_precision = typed.precision if typed.steps else ""
    marked: tuple[MarkedTensor, ...] = ()
    if inner_tensors:
        typed, marked = marked_model(typed, debug_tensors=True)
    model = typed.model
    inputs = inputs_of(model)
    capabilities = trt_rtx.capabilities()
    named = parse_compute_capabilities(
        compute_capabilities,
        capabilities.compute_capabilities,
        f"TensorRT-RTX {capabilities.version}",
    )
    source = FileIdentity.of(model_path)
    sighting.require_unchanged()
    return RtxBuild(
        model_path=model_path,
        sighting=sighting,
        source=source,
        external_data=external_data(model_path),
        typed=typed,
        inputs=inputs,
        outputs=outputs_of(model),
        profiles=resolve_profiles(inputs, options),
        named=named,
        compute_capabilities=named or capabilities.default_compute_capabilities,
        runtime_version=capabilities.version,
        typed_precision=typed_precision,
        marked=marked,
    )


def _build(
    request: RtxBuild,
    plan_path: Path,
    progress: ProgressCallback | None,
    command: Sequence[str],
) -> EngineRecord:
    # The inner block ends first: the plan takes its place, then its record.
    with (
        atomic_output(record_path(plan_path)) as record_part,
        atomic_output(plan_path) as plan_part,
        _file_to_parse(request, plan_path) as model_part,
    ):
        began = time.monotonic()
        facts = run_worker(request.job(model_part, plan_part), progress)
        seconds = time.monotonic() - began
        # The worker parses the file itself, where no graph was typed for it.
        request.sighting.require_unchanged()
        _check_header(plan_part, request)
        record = EngineRecord(
            plan=FileIdentity.of(plan_part, plan_path.name),
            source=request.source,
            external_data=request.external_data,
            runtime=TENSORRT_RTX,
            runtime_version=request.runtime_version,
            inputs=engine_tensors(request.inputs, facts["inputs"]),
            outputs=engine_tensors(request.outputs, facts["outputs"]),
            profiles=request.profiles,
            compute_capabilities=request.compute_capabilities,
            later_gpus=not request.named,
            layers=int(facts["layers"]),
            tool_version=vim_deploy.__version__,
            settings_hash=settings_hash(request.settings()),
            build_seconds=round(seconds, 2),
            peak_memory_bytes=int(facts["peak_memory_bytes"]),
            export=request.typed.export,
            command=tuple(command),
            precision=request.typed_precision,
            options=request.options,
            lowering=request.typed.steps,
            inner_tensors=request.marked,
        )
        write_json(record_part, record.as_dict())
    return record


def _file_to_parse(request: RtxBuild, plan_path: Path) -> AbstractContextManager[Path]:
    """The ONNX file itself, or the graph that was typed in memory as a file of its own."""
    if not request.typed.steps:
        return nullcontext(request.model_path)
    return lowered_file(request.typed.model, plan_path)


def _check_header(plan: Path, request: RtxBuild) -> None:
    """Prove that the plan is whole and made for the GPUs that were asked for."""
    header = read_header(plan)
    known = bool(header.compute_capabilities)
    found = (header.compute_capabilities, header.later_gpus)
    asked = (request.compute_capabilities, not request.named)
    if header.version != request.runtime_version or (known and found != asked):
        raise VimDeployError(
            "VIM-603",
            "TensorRT-RTX built another engine than was asked for",
            why=f"asked: version {request.runtime_version}, {describe_gpus(*asked)}; "
            f"built: version {header.version}, {describe_gpus(*found)}",
            fix="report this with the ONNX file; leave out --compute-capability meanwhile",
        )
