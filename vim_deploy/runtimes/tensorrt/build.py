"""Build an engine with full TensorRT 8.6, 10 or 11: ONNX file in, proven plan and record out.

The compiler runs in a process of its own (``worker``). Before anything takes its place the
engine is compared with what was asked: plugin layers counted against the graph (VIM-606), types of
layers read from TensorRT's inspector (VIM-801). A build that is stopped or fails changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import vim_deploy
from vim_deploy.artifact.engine_file import TENSORRT
from vim_deploy.artifact.marked_tensors import DEBUG, MarkedTensor
from vim_deploy.artifact.metadata import inputs_of, outputs_of
from vim_deploy.artifact.profiles import Profile, ProfileOptions, resolve_profiles
from vim_deploy.artifact.record import (
    EngineRecord,
    FileIdentity,
    PluginIdentity,
    build_settings,
    record_path,
)
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import VimDeployError
from vim_deploy.files import (
    atomic_output,
    remove_leftovers,
    settings_hash,
    sight,
    single_writer,
    write_bytes,
    write_json,
)
from vim_deploy.log import get_logger
from vim_deploy.plugin.library import PluginInfo
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
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.capability import Capabilities
from vim_deploy.runtimes.tensorrt.lower import Lowered, lower, ops_of
from vim_deploy.runtimes.tensorrt.options import (
    HARDWARE_LEVELS,
    NONE,
    TrtOptions,
    builder_flags,
    check_options,
)
from vim_deploy.runtimes.tensorrt.plan_layers import (
    Findings,
    findings,
    float_types,
    read_layers,
    require_plugins,
    require_precision,
)
from vim_deploy.runtimes.tensorrt.plugin_choice import choose_plugin
from vim_deploy.runtimes.tensorrt.timing_cache import cache_path
from vim_deploy.specs import TensorSpec

_log = get_logger(__name__)
#: Compute capability from which an ``ampere+`` engine runs.
_AMPERE = "8.0"


@dataclass(frozen=True)
class TrtBuild:
    """Everything decided before the build starts.

    Attributes:
        model_path, source, external_data: the ONNX file and the files it refers to.
        typed: its graph in the precision that is built.
        lowered: what the parser gets.
        capabilities, gpu: of this machine.
        options, profiles, plugin: what is built, and with what.
        flags, cleared_flags: BuilderFlag members.
        timing_cache: file, or None.
        marked: inner tensors that the engine is to give out.
    """

    model_path: Path
    source: FileIdentity
    external_data: tuple[FileIdentity, ...]
    typed: TypedModel
    lowered: Lowered
    capabilities: Capabilities
    gpu: cuda_driver.Gpu
    options: TrtOptions
    profiles: tuple[Profile, ...]
    plugin: PluginInfo | None
    flags: tuple[str, ...]
    cleared_flags: tuple[str, ...]
    timing_cache: Path | None
    marked: tuple[MarkedTensor, ...] = ()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the graph."""
        return inputs_of(self.typed.model)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the graph."""
        return outputs_of(self.typed.model)

    @property
    def compute_capability(self) -> str:
        """Of the GPU: ``9.0``."""
        return f"{self.gpu.major}.{self.gpu.minor}"

    @property
    def runs_on(self) -> tuple[tuple[str, ...], bool]:
        """Compute capabilities the engine runs on, and whether later ones are included."""
        if self.options.hardware_compat == "ampere+":
            return (_AMPERE,), True
        return (self.compute_capability,), False

    def settings(self) -> dict[str, Any]:
        """What decides the engine."""
        capabilities, later = self.runs_on
        return build_settings(
            source=self.source,
            external_data=self.external_data,
            runtime=TENSORRT,
            runtime_version=self.capabilities.version,
            profiles=self.profiles,
            compute_capabilities=capabilities,
            later_gpus=later,
            tool_version=vim_deploy.__version__,
            gpu=self.gpu.name,
            plugin_sha256=self.plugin.sha256 if self.plugin else "",
            precision=self.typed.precision,
            options=self.options.settings(),
        )

    def job(self, model: Path, output: Path, types: dict[str, str]) -> dict[str, Any]:
        """The worker's job; ``model`` is the lowered file."""
        workspace = self.options.workspace_mib
        return {
            "runtime": TENSORRT,
            "model": str(model.resolve()),
            "model_name": str(self.model_path),
            "output": str(output.resolve()),
            "scratch": [str(model.resolve())],
            "inputs": {spec.name: spec.dtype for spec in self.inputs},
            "outputs": {spec.name: spec.dtype for spec in self.outputs},
            "profiles": [profile.as_dict() for profile in self.profiles],
            "flags": list(self.flags),
            "clear_flags": list(self.cleared_flags),
            "opt_level": self.options.opt_level,
            "workspace_bytes": None if workspace is None else workspace << 20,
            "hardware_level": HARDWARE_LEVELS[self.options.hardware_compat],
            "plugin": str(Path(self.plugin.path).resolve()) if self.plugin else "",
            "plugin_counts": self.lowered.plugin_counts,
            "embed_plugin": self.options.embed_plugin,
            "tactic_sources": self.options.tactic_sources,
            "timing_cache": str(self.timing_cache.absolute()) if self.timing_cache else "",
            "types": types,
            "debug_tensors": sorted({item.name for item in self.marked if item.how == DEBUG}),
        }

    def plan_of_work(self) -> dict[str, Any]:
        """What would be done, for ``--dry-run``; JSON-able."""
        capabilities, later = self.runs_on
        return {
            "runtime": TENSORRT,
            "runtime_version": self.capabilities.version,
            "gpu": self.gpu.name,
            "compute_capabilities": [*capabilities, *(["later"] if later else [])],
            "precision": self.typed.precision,
            "typing": "strongly typed" if self.capabilities.strongly_typed else "builder flags",
            "flags": list(self.flags),
            "cleared_flags": list(self.cleared_flags),
            "options": self.options.settings(),
            "profiles": [profile.as_dict() for profile in self.profiles],
            "plugin": self.plugin.as_dict() if self.plugin else None,
            "plugin_layers": self.lowered.plugin_counts,
            "lowering": [*self.typed.steps, *self.lowered.steps],
            "timing_cache": str(self.timing_cache) if self.timing_cache else None,
        }


def prepare_trt(
    model_path: Path,
    *,
    profiles: ProfileOptions | None = None,
    options: TrtOptions | None = None,
    precision: str = "",
) -> TrtBuild:
    """Decide everything about a build, and refuse what cannot be had.

    Args:
        model_path: ONNX file.
        profiles: input shapes to accept; by default batch 1 to 32, tuned for 8.
        options: what to ask of TensorRT.
        precision: ``fp32``, ``fp16`` or ``bf16``; empty for that of the graph.

    Raises:
        VimDeployError: VIM-202, VIM-203, VIM-415 (options), VIM-301, VIM-302 (no TensorRT, no
            GPU), VIM-309 (not in this version), VIM-401, VIM-409, VIM-410, VIM-434 (model),
            VIM-609 (no form of the graph for this version), and as ``choose_plugin``.
    """
    options = options or TrtOptions()
    sighting = sight(model_path)
    typed = graph_of_precision(model_path, precision)
    capabilities, gpu = trt.capabilities(), cuda_driver.gpu()
    check_options(options, capabilities, typed.precision)
    marked: tuple[MarkedTensor, ...] = ()
    if options.inner_tensors:
        typed, marked = marked_model(typed, capabilities.debug_tensors)
    ops = ops_of(typed.model)
    use_plugin = bool(ops) and options.plugin != NONE
    if options.embed_plugin and not use_plugin:
        raise VimDeployError(
            "VIM-203",
            "--embed-plugin for a graph without our ops",
            why=f"{model_path} has no node that a plugin would take",
            fix="leave it out",
        )
    lowered = lower(typed.model, capabilities, use_plugin=use_plugin)
    plugin = choose_plugin(options.plugin, capabilities, gpu, ops) if use_plugin else None
    flags, cleared = builder_flags(options, capabilities, typed.precision)
    source = FileIdentity.of(model_path)
    sighting.require_unchanged()
    return TrtBuild(
        model_path=model_path,
        source=source,
        external_data=external_data(model_path),
        typed=typed,
        lowered=lowered,
        capabilities=capabilities,
        gpu=gpu,
        options=options,
        profiles=resolve_profiles(inputs_of(typed.model), profiles),
        plugin=plugin,
        flags=flags,
        cleared_flags=cleared,
        timing_cache=cache_path(
            options.timing_cache,
            gpu=gpu.name,
            compute_capability=f"{gpu.major}.{gpu.minor}",
            version=capabilities.version,
            plugin_sha256=plugin.sha256 if plugin else "",
        ),
        marked=marked,
    )


def build_engine_trt(
    model_path: Path,
    plan_path: Path,
    *,
    profiles: ProfileOptions | None = None,
    options: TrtOptions | None = None,
    precision: str = "",
    progress: ProgressCallback | None = None,
    force: bool = False,
    command: Sequence[str] = (),
) -> EngineRecord:
    """Build an engine and write it with its record, ``plan_path`` and ``plan_path`` + ``.json``.

    Arguments as ``prepare_trt``, and:
        plan_path: where the engine goes; its folder must exist.
        progress: called with the state of the build, a few times a second.
        force: replace an engine made with other settings, and build even if nothing changed.
        command: the command line, for the record.

    Returns:
        The record; its ``up_to_date`` is set when the engine was there already.

    Raises:
        VimDeployError: as ``prepare_trt``; VIM-204 (exists with other settings), VIM-304 to
            VIM-306 (output), VIM-601 to VIM-604, VIM-608 (build), VIM-606 (plugin layers
            missing), VIM-801 (other precision than asked), VIM-903 (plugin not taken).
        KeyboardInterrupt: after the build was stopped; nothing was changed.
    """
    check_output(plan_path, model_path)
    build = prepare_trt(model_path, profiles=profiles, options=options, precision=precision)
    with single_writer(plan_path):
        remove_leftovers(plan_path)
        remove_leftovers(record_path(plan_path))
        if not force:
            existing = existing_record(plan_path, build.settings())
            if existing is not None:
                return replace(existing, up_to_date=True)
        _say(build)
        return _build(build, plan_path, progress, command)


def _say(build: TrtBuild) -> None:
    _log.info(
        "TensorRT %s on %s, %s%s",
        build.capabilities.version,
        build.gpu.name,
        build.typed.precision,
        f", plugin {build.plugin.path}" if build.plugin else ", no plugin",
    )
    for step in (*build.typed.steps, *build.lowered.steps):
        _log.info("graph, in memory: %s", step)


def _build(
    build: TrtBuild, plan_path: Path, progress: ProgressCallback | None, command: Sequence[str]
) -> EngineRecord:
    types = float_types(build.typed.model)
    # The inner block ends first: the plan takes its place, then its record.
    with (
        atomic_output(record_path(plan_path)) as record_part,
        atomic_output(plan_path) as plan_part,
        lowered_file(build.lowered.model, plan_path) as model_part,
    ):
        began = time.monotonic()
        facts = run_worker(build.job(model_part, plan_part, types), progress)
        seconds = time.monotonic() - began
        if build.options.export_layers is not None:
            # Before the proof: whoever is told that it failed wants to look.
            write_bytes(build.options.export_layers, facts["inspection"].encode())
        found = _prove(build, facts, types)
        record = _record(build, plan_part, plan_path, facts, found, seconds, command)
        write_json(record_part, record.as_dict())
    return record


def _prove(build: TrtBuild, facts: dict[str, Any], types: dict[str, str]) -> Findings:
    """Compare the engine with what was asked for; VIM-606 or VIM-801.

    That TensorRT loads the plan is known: its inspector told the facts.
    """
    try:
        layers = read_layers(facts["inspection"])
    except ValueError as error:
        raise VimDeployError(
            "VIM-801",
            "what was built cannot be read from the engine",
            why=f"the engine inspector's text: {error}",
            fix="report this with the version of TensorRT; nothing was written",
        ) from error
    found = findings(layers, types, build.lowered.plugin_nodes)
    require_plugins(found, build.lowered.plugin_counts)
    require_precision(found, build.typed.precision)
    return found


def _record(
    build: TrtBuild,
    plan_part: Path,
    plan_path: Path,
    facts: dict[str, Any],
    found: Findings,
    seconds: float,
    command: Sequence[str],
) -> EngineRecord:
    compute_capabilities, later = build.runs_on
    return EngineRecord(
        plan=FileIdentity.of(plan_part, plan_path.name),
        source=build.source,
        external_data=build.external_data,
        runtime=TENSORRT,
        runtime_version=build.capabilities.version,
        inputs=engine_tensors(build.inputs, facts["inputs"]),
        outputs=engine_tensors(build.outputs, facts["outputs"]),
        profiles=build.profiles,
        compute_capabilities=compute_capabilities,
        later_gpus=later,
        layers=int(facts["layers"]),
        tool_version=vim_deploy.__version__,
        settings_hash=settings_hash(build.settings()),
        build_seconds=round(seconds, 2),
        peak_memory_bytes=int(facts["peak_memory_bytes"]),
        export=build.typed.export,
        command=tuple(command),
        gpu=build.gpu.name,
        hardware_compat=build.options.hardware_compat,
        plugin=PluginIdentity.of(build.plugin, build.options.embed_plugin)
        if build.plugin
        else None,
        plugin_layers={op: found.plugins[op] for op in build.lowered.plugin_counts},
        precision=build.typed.precision,
        layer_types=found.types,
        engine_layers=found.layers,
        flags=build.flags,
        options=build.options.settings(),
        lowering=(*build.typed.steps, *build.lowered.steps),
        refittable=bool(facts["refittable"]),
        stripped=build.options.strip_weights,
        device_memory_bytes=int(facts["device_memory_bytes"]),
        inner_tensors=build.marked,
    )
