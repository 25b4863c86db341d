"""The order of an engine build, the same for every runtime.

What is written is checked, everything is decided, the compiler runs in a process of its own, and
what it made is compared with what was asked. Plan and record are both finished before either takes
its place: a build that is stopped or fails changes nothing. An engine that is not known to come
from the same settings is never overwritten without being told to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import onnx

import vim_deploy
from vim_deploy import interrupts
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.marked_tensors import DEBUG
from vim_deploy.artifact.profiles import resolve_profiles
from vim_deploy.artifact.record import (
    EngineRecord,
    EngineSettings,
    FileIdentity,
    read_record,
    record_path,
)
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import (
    atomic_output,
    output_errors,
    remove_leftovers,
    require_writable_place,
    settings_hash,
    sha256_of,
    single_writer,
    write_json,
)
from vim_deploy.plugin.describe import PluginInfo
from vim_deploy.progress import stage_log
from vim_deploy.runtimes.building.graph import TypedModel, graph_of_precision
from vim_deploy.runtimes.building.process import ProgressCallback, run_worker
from vim_deploy.runtimes.building.request import BuildJob, BuildRequest, Job
from vim_deploy.specs import TensorSpec

#: protobuf cannot write a message of 2 GiB; weights of a larger model go into a file beside it.
_LARGEST_MESSAGE = (2 << 30) - (16 << 20)


@dataclass(frozen=True)
class Work:
    """Everything decided before a build starts.

    Attributes:
        request: what was asked for.
        graph: of the ONNX file, in the precision that is built.
        settings: for the record.
        parsed: what the parser gets; None when that is the file itself.
        named: compute capabilities to name to TensorRT-RTX; empty for its default.
        plugin: the library to build with; None when none is needed.
        plugin_nodes: node name -> op type, of the nodes that must become plugin layers.
        cleared_flags: BuilderFlag members to clear.
        timing_cache: file, or None.
        strongly_typed: tensors have the types of the graph; else flags and layers say them.
        types: float types of the graph's tensors by name, where they are compared with the engine.
    """

    request: BuildRequest
    graph: TypedModel
    settings: EngineSettings
    parsed: onnx.ModelProto | None = None
    named: tuple[str, ...] = ()
    plugin: PluginInfo | None = None
    plugin_nodes: Mapping[str, str] = field(default_factory=dict)
    cleared_flags: tuple[str, ...] = ()
    timing_cache: Path | None = None
    strongly_typed: bool = True
    types: Mapping[str, str] = field(default_factory=dict)

    @property
    def plugin_counts(self) -> dict[str, int]:
        """Plugin layers to expect, by op type."""
        return dict(sorted(Counter(self.plugin_nodes.values()).items()))

    def plan_of_work(self) -> dict[str, Any]:
        """What would be done, for ``--dry-run``; JSON-able."""
        settings = self.settings
        return {
            "runtime": settings.runtime,
            "runtime_version": settings.runtime_version,
            "gpu": settings.gpu or None,
            "compute_capabilities": settings.runs_on,
            "precision": self.graph.precision,
            "typing": "strongly typed" if self.strongly_typed else "builder flags",
            "flags": list(settings.flags),
            "cleared_flags": list(self.cleared_flags),
            "options": dict(settings.options),
            "profiles": [encode(profile) for profile in settings.profiles],
            "plugin": encode(self.plugin) if self.plugin else None,
            "plugin_layers": self.plugin_counts,
            "lowering": list(settings.lowering),
            "timing_cache": str(self.timing_cache) if self.timing_cache else None,
        }

    def job(self, worker: str, model: Path, output: Path) -> BuildJob:
        """The job of the module ``worker``, which parses ``model``."""
        marked = {item.name for item in self.graph.marked if item.how == DEBUG}
        return BuildJob(
            worker=worker,
            runtime=self.settings.runtime,
            model=model.resolve(),
            model_name=str(self.request.model),
            output=output.resolve(),
            scratch=() if self.parsed is None else (model.resolve(),),
            request=self.request,
            inputs={spec.name: spec.dtype for spec in self.graph.inputs},
            outputs={spec.name: spec.dtype for spec in self.graph.outputs},
            profiles=self.settings.profiles,
            named=self.named,
            flags=self.settings.flags,
            cleared_flags=self.cleared_flags,
            plugin=self.plugin,
            plugin_counts=self.plugin_counts,
            timing_cache=self.timing_cache.absolute() if self.timing_cache else None,
            types=self.types,
            debug_tensors=tuple(sorted(marked)),
        )


class Builder(ABC):
    """Builds engines of one runtime; a runtime says what it decides and proves."""

    #: Module of the build process.
    worker: ClassVar[str]

    @abstractmethod
    def refuse(self, request: BuildRequest) -> None:
        """VIM-203 for options that are not this runtime's."""

    @abstractmethod
    def decide(self, request: BuildRequest, graph: TypedModel) -> Work:
        """Decide everything about a build of ``graph``, and refuse what cannot be had."""

    @abstractmethod
    def say(self, work: Work) -> None:
        """Log what is about to be built."""

    @abstractmethod
    def prove(self, work: Work, plan: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Compare the engine with what was asked for; the record's fields that this tells."""

    def prepare(self, request: BuildRequest) -> Work:
        """Everything that is decided before a build.

        Raises:
            VimDeployError: VIM-202, VIM-203, VIM-415 (options), VIM-301 (no such runtime),
                VIM-401, VIM-409, VIM-410, VIM-434, VIM-439 (model), and as ``decide``.
        """
        graph = graph_of_precision(Artifact.of(request.model), request.precision)
        work = self.decide(request, graph)
        graph.file.sighting.require_unchanged()
        return work

    def build(
        self, request: BuildRequest, progress: ProgressCallback | None = None
    ) -> EngineRecord:
        """Build an engine and write it with its record, ``NAME.plan`` and ``NAME.plan.json``.

        Args:
            request: what is asked for; the output's folder must exist.
            progress: called with the state of the build, a few times a second.

        Returns:
            The record; its ``up_to_date`` is set when the engine was there already.

        Raises:
            VimDeployError: as ``prepare``; VIM-204 (exists with other settings), VIM-304 to
                VIM-306 (output), VIM-601 to VIM-604, VIM-608 (build), and as ``prove``.
            KeyboardInterrupt: after the build was stopped; nothing was changed.
        """
        plan = request.plan
        check_output(plan, request.model)
        work = self.prepare(request)
        with one_output(plan):
            if not request.force:
                existing = _existing_record(plan, work.settings.settings())
                if existing is not None:
                    return dataclasses.replace(existing, up_to_date=True)
            self.say(work)
            stage_log.info("building with %s", work.settings.runtime)
            return make_engine(
                plan,
                request.model if work.parsed is None else work.parsed,
                lambda model, part: work.job(self.worker, model, part),
                lambda part, facts: self._record(work, part, facts),
                progress,
            )

    def _record(self, work: Work, part: Path, facts: Mapping[str, Any]) -> EngineRecord:
        if work.parsed is None:
            # The worker has parsed the file itself.
            work.graph.file.sighting.require_unchanged()
        proved = self.prove(work, part, facts)
        return EngineRecord(
            **vars(work.settings),
            plan=FileIdentity.of(part, work.request.plan.name),
            inputs=_engine_tensors(work.graph.inputs, facts["inputs"]),
            outputs=_engine_tensors(work.graph.outputs, facts["outputs"]),
            layers=int(facts["layers"]),
            settings_hash=settings_hash(work.settings.settings()),
            build_seconds=facts["seconds"],
            peak_memory_bytes=int(facts["peak_memory_bytes"]),
            **proved,
        )


def settings_of(
    request: BuildRequest,
    graph: TypedModel,
    *,
    lowering: Sequence[str] = (),
    **decided: Any,  # noqa: ANN401 - checked by the record
) -> EngineSettings:
    """The settings of a build; ``decided`` are those that the runtime has chosen."""
    return EngineSettings(
        source=graph.file.identity,
        external_data=graph.file.companions,
        profiles=resolve_profiles(graph.inputs, request.profiles),
        tool_version=vim_deploy.__version__,
        export=graph.export,
        command=request.command,
        lowering=(*graph.steps, *lowering),
        inner_tensors=graph.marked,
        **decided,
    )


@contextlib.contextmanager
def one_output(plan: Path) -> Iterator[None]:
    """Be the only writer of a plan and its record; what a killed run has left is removed."""
    with single_writer(plan):
        remove_leftovers(plan)
        remove_leftovers(record_path(plan))
        yield


def make_engine(
    plan: Path,
    parsed: Path | onnx.ModelProto,
    job: Callable[[Path, Path], Job],
    record: Callable[[Path, Mapping[str, Any]], EngineRecord],
    progress: ProgressCallback | None,
) -> EngineRecord:
    """Run a build process, then put the plan and its record in their places.

    Args:
        plan: where the engine goes.
        parsed: the file that the process reads, or a graph that becomes one meanwhile.
        job: makes the job from that file and the file to write.
        record: makes the record from the file written and the facts that the process reports;
            their ``seconds`` is the time it took.
    """
    # The inner block ends first: the plan takes its place, then its record.
    with (
        atomic_output(record_path(plan)) as record_part,
        atomic_output(plan) as plan_part,
        file_to_parse(parsed, plan) as model_part,
    ):
        began = time.monotonic()
        facts = run_worker(job(model_part, plan_part), progress)
        facts["seconds"] = round(time.monotonic() - began, 2)
        made = record(plan_part, facts)
        write_json(record_part, encode(made))
    return made


@contextlib.contextmanager
def file_to_parse(parsed: Path | onnx.ModelProto, plan_path: Path) -> Iterator[Path]:
    """A file as it is; a graph under a hidden name beside ``plan_path``, removed at the end.

    The name is one that ``files.remove_leftovers`` of the plan knows, so that what a killed run
    leaves is removed by the next.

    Raises:
        VimDeployError: VIM-304, VIM-305.
    """
    if isinstance(parsed, Path):
        yield parsed
        return
    made: list[Path] = []
    try:
        with output_errors(plan_path):
            path = _new_file(plan_path, made)
            if sum(len(tensor.raw_data) for tensor in parsed.graph.initializer) > _LARGEST_MESSAGE:
                weights = _new_file(plan_path, made)
                # onnx appends to the file, which is empty.
                onnx.save_model(
                    parsed, str(path), save_as_external_data=True, location=weights.name
                )
            else:
                path.write_bytes(parsed.SerializeToString())
        yield path
    finally:
        for item in made:
            item.unlink(missing_ok=True)


def _new_file(plan_path: Path, made: list[Path]) -> Path:
    """A new file, noted in ``made`` before an interrupt can come."""
    with interrupts.deferred():
        handle, name = tempfile.mkstemp(prefix=f".{plan_path.name}.", suffix=".part",
                                        dir=plan_path.parent)  # fmt: skip
        made.append(Path(name))
        os.close(handle)
    return Path(name)


def check_output(plan_path: Path, model_path: Path) -> None:
    """VIM-304 or VIM-203 when the plan or its record cannot go there."""
    for path in (plan_path, record_path(plan_path)):
        require_writable_place(path)
        if path.exists() and model_path.exists() and path.samefile(model_path):
            raise VimDeployError(
                "VIM-203",
                f"the output {path} is the model itself",
                fix="choose another output with -o",
            )


def _other_settings(plan_path: Path, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-204",
        f"{plan_path} exists and is not what this build would make",
        why=why,
        fix="give --force to replace it, or another output with -o",
    )


def _existing_record(plan_path: Path, wanted: Mapping[str, Any]) -> EngineRecord | None:
    """The record of an intact engine with the same settings; None when there is no engine.

    Args:
        wanted: settings of the build that is about to begin.

    Raises:
        VimDeployError: VIM-204 when there is another engine, or one nothing is known about.
    """
    if not plan_path.exists():
        return None
    try:
        record = read_record(plan_path)
    except VimDeployError as error:
        raise _other_settings(plan_path, f"{error.message}: {error.why}") from error
    if record is None:
        raise _other_settings(plan_path, f"it has no record {record_path(plan_path).name}")
    found = record.settings()
    different = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    if different or record.settings_hash != settings_hash(wanted):
        raise _other_settings(plan_path, "different: " + (", ".join(different) or "its record"))
    with output_errors(plan_path):
        intact = sha256_of(plan_path) == record.plan.sha256
    if not intact:
        raise _other_settings(plan_path, "it was changed after it was built")
    return record


def _engine_tensors(
    specs: Sequence[TensorSpec], facts: Sequence[Mapping[str, Any]]
) -> tuple[TensorSpec, ...]:
    """The engine's tensors, with the ONNX file's names for sizes that are dynamic."""
    symbols = {spec.name: spec.shape for spec in specs}
    tensors = []
    for fact in facts:
        shape: list[int | str] = []
        for axis, size in enumerate(fact["shape"]):
            own = symbols.get(fact["name"], ())
            symbol = own[axis] if axis < len(own) else ""
            shape.append(size if size >= 0 else str(symbol or "?"))
        tensors.append(TensorSpec(fact["name"], fact["dtype"], tuple(shape)))
    return tuple(tensors)
