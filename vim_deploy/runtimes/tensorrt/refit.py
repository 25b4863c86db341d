"""Exchange the weights of an engine that was built with ``--refit`` or ``--strip-weights``.

The new weights come from an ONNX file of the same model: same architecture, graph form, precision
and head. The engine keeps its kernels; only the numbers change. Plan and record are both complete
before either takes its place.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.engine_file import TENSORRT
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.record import EngineRecord, FileIdentity
from vim_deploy.codec import encode
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import VimDeployError
from vim_deploy.files import settings_hash
from vim_deploy.plugin.describe import PluginInfo
from vim_deploy.precisions import TABLE
from vim_deploy.progress import stage_log
from vim_deploy.runtimes import AUTO
from vim_deploy.runtimes.building.build import make_engine, one_output
from vim_deploy.runtimes.building.graph import graph_of_precision
from vim_deploy.runtimes.building.process import ProgressCallback
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.lower import lower
from vim_deploy.runtimes.tensorrt.plugins import choose_plugin
from vim_deploy.runtimes.tensorrt.refit_worker import RefitJob

_log = logging.getLogger(__name__)
#: What may differ between the engine's file and the one with the new weights.
_FREE = frozenset({"checkpoint", "labels", "tool_version", "settings_hash", "model", "image"})


def refit_engine(
    plan_path: Path,
    weights: Path,
    output: Path | None = None,
    *,
    plugin: str = AUTO,
    weights_from: FileIdentity | None = None,
    progress: ProgressCallback | None = None,
    force: bool = False,
    command: Sequence[str] = (),
) -> EngineRecord:
    """Give ``plan_path`` the weights of an ONNX file; the new record.

    Args:
        plan_path: an engine with its record.
        weights: ONNX file of the same model.
        output: where the new engine goes; by default in the old one's place.
        plugin: ``auto`` or the path of a plugin library.
        weights_from: what ``weights`` was made from, when it is not the origin itself.
        progress, command: as in a build.
        force: replace another engine at ``output``.

    Raises:
        VimDeployError: VIM-204 (another file at ``output``), VIM-301, VIM-302, VIM-304 to
            VIM-306, VIM-401, VIM-413, VIM-902 (plan or record), VIM-409, VIM-410 (weights),
            VIM-604, VIM-607 (not refittable, another model, weights missing or refused), VIM-903.
    """
    record = refittable_record(plan_path)
    target = output or plan_path
    if target.exists() and target.resolve() != plan_path.resolve() and not force:
        raise VimDeployError(
            "VIM-204",
            f"{target} exists and is not what this refit would make",
            fix="give --force to replace it, or another output with -o",
        )
    file = Artifact.open(weights, "ONNX file with the weights")
    _require_own_scales(record, file)
    typed = graph_of_precision(file)
    if typed.precision != record.precision:
        typed = graph_of_precision(file, record.precision, record.export)
    _require_same_model(record, typed.export, weights)
    capabilities = trt.capabilities()
    lowered = lower(typed.model, capabilities, use_plugin=record.plugin is not None)
    library = _library(record, plugin, capabilities)
    origin = weights_from or file.identity

    def job(model: Path, part: Path) -> RefitJob:
        return RefitJob(
            worker="vim_deploy.runtimes.tensorrt.refit_worker",
            runtime=TENSORRT,
            model=model.resolve(),
            model_name=str(weights),
            output=part.resolve(),
            scratch=(model.resolve(),),
            plan=plan_path.resolve(),
            plugin=library,
            host_code=bool(record.plugin and record.plugin.embedded),
            stripped=record.stripped,
            # A stripped engine with REFIT_IDENTICAL alone is not meant for other weights again.
            keep="REFIT" in record.flags,
        )

    def refitted(part: Path, facts: Mapping[str, Any]) -> EngineRecord:
        _log.info("%d weights set from %s", facts["weights"], origin.name)
        made = dataclasses.replace(
            record,
            plan=FileIdentity.of(part, target.name),
            export=typed.export or record.export,
            weights_from=origin,
            refittable=bool(facts["refittable"]),
            stripped=False,
            build_seconds=facts["seconds"],
            peak_memory_bytes=int(facts["peak_memory_bytes"]),
            command=tuple(command),
        )
        return dataclasses.replace(made, settings_hash=settings_hash(made.settings()))

    stage_log.info("setting the weights of %s", plan_path.name)
    with one_output(target):
        return make_engine(target, lowered.model, job, refitted, progress)


def refittable_record(plan_path: Path) -> EngineRecord:
    """The record of an engine that can be refitted; VIM-401, VIM-413, VIM-902, VIM-607."""
    engine = Artifact.engine(plan_path)
    record = engine.record
    if record is None:
        raise VimDeployError(
            "VIM-902",
            f"{plan_path} has no record {engine.record_path.name}",
            why="without it nothing is known about its graph",
            fix="put the record back beside it, or build it again",
        )
    engine.require_own_record(record)
    if record.runtime != TENSORRT or not record.refittable:
        raise _cannot(
            f"{plan_path} cannot be refitted",
            f"it was built with {record.runtime} without --refit",
            "build it again with --refit or --strip-weights, on full TensorRT",
        )
    return record


def refuse_other_scales(record: EngineRecord, source: str) -> None:
    """VIM-607 for a quantized engine and weights of another file than it was built from."""
    if TABLE[record.precision or "fp32"].quantized:
        raise _cannot(
            f"{source} cannot give its weights to an engine in {record.precision}",
            "the scales in the engine were chosen for the weights it was built from",
            "export it with the options of the engine's ONNX file, and build from that; an engine "
            f"without weights takes those of {record.source.name}",
        )


def _require_own_scales(record: EngineRecord, file: Artifact) -> None:
    if file.sha256 != record.source.sha256:
        refuse_other_scales(record, file.name)


def _cannot(message: str, why: str, fix: str) -> VimDeployError:
    return VimDeployError("VIM-607", message, why=why, fix=fix)


def _require_same_model(record: EngineRecord, export: ExportInfo | None, weights: Path) -> None:
    """VIM-607 when both files say what they are, and it is not the same."""
    if record.export is None or export is None:
        return
    old, new = encode(record.export), encode(export)
    different = [key for key in old if key not in _FREE and old[key] != new.get(key)]
    if different:
        raise _cannot(
            f"{weights} is not a file of the engine's model",
            f"different: {', '.join(different)}",
            "export the checkpoint with the options of the engine's ONNX file "
            "(vim-deploy inspect shows them)",
        )


def _library(
    record: EngineRecord, choice: str, capabilities: trt.Capabilities
) -> PluginInfo | None:
    """The plugin library to load the engine with; None when it needs none."""
    if record.plugin is None or record.plugin.embedded:
        return None
    ops = frozenset(record.plugin_layers)
    info = choose_plugin(choice, capabilities, cuda_driver.gpu(), ops)
    if info.sha256 != record.plugin.sha256:
        _log.warning("%s is another build of the plugin than the engine was built with", info.path)
    return info
