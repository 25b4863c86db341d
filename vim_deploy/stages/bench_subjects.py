"""What a benchmark's command line names, as subjects: files are read, models exported."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from vim_deploy import heads
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.file import is_engine, named
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.onnx_file import bytes_with
from vim_deploy.bench.subject import (
    ONNX_RUNTIME,
    PYTORCH,
    Subject,
    dense_size,
    model_bytes,
    require_info,
)
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.families.base import unread_note
from vim_deploy.files import require_file
from vim_deploy.ops.functions import asked_ops
from vim_deploy.recipe.catalog import checkpoint_of
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes import runtime_named
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.onnxruntime.native_ops import require_here
from vim_deploy.runtimes.onnxruntime.runner import CPU
from vim_deploy.runtimes.onnxruntime.runner import TENSORRT as ONNX_TENSORRT
from vim_deploy.runtimes.openvino.runner import refuse_options
from vim_deploy.specs import Baseline, GraphChoice
from vim_deploy.stages.bench_ops import ops_ways
from vim_deploy.stages.deit_baseline import DeitMaker, deit_sizes, require_classifiers
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export, require_torch

#: ``deit`` is the DeiT of the model's own width.

ImageSize = int | tuple[int, int]


class SubjectMaker:
    """Makes subjects from artifacts.

    Args:
        folder: for what is exported, absolute.
        image_sizes, batches, baselines, random_weights, graph, runner, cuda_graph: see
            ``BenchOptions``.
        progress: told what is exported.

    Attributes:
        notes: what a reader of the report has to know about the subjects.
    """

    def __init__(
        self,
        folder: Path,
        *,
        image_sizes: Sequence[ImageSize],
        batches: Sequence[int],
        baselines: Sequence[str],
        random_weights: int | None,
        graph: GraphChoice,
        runner: RunnerOptions,
        cuda_graph: bool,
        progress: Callable[[str], None],
    ) -> None:
        for name in baselines:
            if name not in get_args(Baseline):
                raise VimDeployError(
                    "VIM-202", f"unknown baseline {name!r}", fix=nearest(name, get_args(Baseline))
                )
        self._folder = folder
        self._sizes = tuple(image_sizes)
        self._batches = tuple(batches)
        self._baselines = tuple(dict.fromkeys(baselines))
        self._seed = random_weights
        self._graph = graph
        self._runner = runner
        self._onnx_runtime = runner.runtime or ONNX_RUNTIME
        self._cuda_graph = cuda_graph
        self._progress = progress
        self._seen: set[tuple[Any, ...]] = set()
        self._files: dict[Path, Artifact] = {}
        self.notes: list[str] = []

    def groups(self, artifacts: Sequence[str]) -> list[list[Subject]]:
        """Subjects of one image size and batch size each, to be measured in turns.

        Raises:
            VimDeployError: VIM-202, VIM-203 (an artifact and the options do not fit), and what
                reading and exporting raise.
        """
        names = list(dict.fromkeys(artifacts))
        for name in names:
            self._check(name)
        engines = [name for name in names if is_engine(name)]
        self._check_runner(names, engines)
        self._require_here(names, engines)
        stems = [Path(name).stem for name in names]
        labels = [
            stem if stems.count(stem) == 1 else name
            for name, stem in zip(names, stems, strict=True)
        ]
        groups: dict[tuple[tuple[int, int], int], list[Subject]] = {}
        models: list[tuple[str, Path, str | None]] = []
        for name, label in zip(names, labels, strict=True):
            found: list[Subject] = []
            if name in engines:
                found = [self._engine(Path(name), label, batch) for batch in self._batches]
            for model in self._models(name, label) if name not in engines else ():
                models.append(model)
                for batch in self._batches:
                    found += self._exported(*model, batch)
            for subject in found:
                groups.setdefault((subject.image, subject.batch), []).append(subject)
        if PYTORCH in self._baselines:
            for label, path, checkpoint in models:
                for batch in self._batches:
                    beside = self._pytorch(label, path, checkpoint, batch)
                    if beside is not None:
                        groups[beside.image, batch].append(beside)
        self._add_deit(groups, engines, models)
        return list(groups.values())

    def _add_deit(
        self,
        groups: dict[tuple[tuple[int, int], int], list[Subject]],
        engines: Sequence[str],
        models: Sequence[tuple[str, Path, str | None]],
    ) -> None:
        """DeiT beside every group, in the runtimes that the group has."""
        wanted = [name for name in self._baselines if name.startswith("deit")]
        if not wanted:
            return
        infos = [require_info(self._file(path)) for _, path, _ in models]
        infos += [info for name in engines if (info := self._file(Path(name)).info) is not None]
        require_classifiers(wanted[0], infos)
        sizes = deit_sizes(wanted, [info.model_config.deit_width for info in infos])
        # Not before: deit_sizes says what is missing where PyTorch is not installed.
        from vim_deploy.model.deit import deit_unread

        self._note(["DeiT has seeded weights; time does not depend on values"])
        maker = DeitMaker(self._folder, self._onnx_runtime, self._onnx_source, self._progress)
        for (image, batch), members in groups.items():
            with_pytorch = PYTORCH in self._baselines
            own = tuple(members)
            unread = unread_note(deit_unread(image))
            self._note([f"DeiT at {image[0]}x{image[1]}: {unread}"] if unread else [])
            for size in sizes:
                members += maker.beside(own, size, image, batch, with_pytorch=with_pytorch)

    def _check(self, name: str) -> None:
        made = named(name) == "onnx" or is_engine(name)
        if made and (self._sizes or self._seed is not None):
            option = "--image-sizes" if self._sizes else "--random-weights"
            raise VimDeployError(
                "VIM-203",
                f"{option} does not go with {name}, whose image size and weights are fixed",
                fix="name the checkpoint, recipe or variant instead",
            )

    def _check_runner(self, names: Sequence[str], engines: Sequence[str]) -> None:
        """An option that nothing here would take is an error, not a setting passed over."""
        runner, files = self._runner, len(names) > len(engines)
        plugins_for_files = files and runner.provider == ONNX_TENSORRT
        wrong = (
            ("--runtime", runner.runtime is not None and not files, "no ONNX file or model"),
            ("--provider", runner.provider is not None and not files, "no ONNX file or model"),
            (
                "--baseline pytorch",
                PYTORCH in self._baselines and not files,
                "no ONNX file or model",
            ),
            ("--ops", runner.ops != "auto" and not files, "no ONNX file or model"),
            ("--cuda-graph", self._cuda_graph and not engines, "no engine"),
            ("--allow-plan-code", runner.allow_plan_code and not engines, "no engine"),
            (
                "--plugin",
                runner.plugin is not None and not (engines or plugins_for_files),
                "no engine, and no --provider tensorrt",
            ),
        )
        for option, refused, why in wrong:
            if refused:
                raise VimDeployError(
                    "VIM-203", f"{option} has no effect: {why} is given", fix="leave it out"
                )
        if self._onnx_runtime != ONNX_RUNTIME:
            refuse_options(runner)

    def _require_here(self, names: Sequence[str], engines: Sequence[str]) -> None:
        """What is missing is better known before models are exported for it."""
        runner = self._runner
        if runner.plugin is not None:
            require_file(runner.plugin, "plugin library")
        if self._onnx_runtime != ONNX_RUNTIME:
            runtime_named(self._onnx_runtime).require_installed()
            return
        # A file may have none of our ops, and then there is nothing to want a library for.
        exported = any(named(name) != "onnx" for name in names if name not in engines)
        if exported or runner.provider not in (None, CPU):
            require_here(runner.ops if exported else "auto", runner.provider or CPU)

    def _engine(self, path: Path, label: str, batch: int) -> Subject:
        file = self._file(path)
        file.refuse_diagnosis("measured")
        record, info = file.record, file.info
        self._note_unread(label, info)
        plugin = self._runner.plugin
        return Subject(
            label=label,
            runner=file.header.runtime if record is None else record.runtime,
            source={
                "path": str(path.resolve()),
                "plugin": None if plugin is None else str(plugin.resolve()),
                "allow_plan_code": self._runner.allow_plan_code,
                "cuda_graph": self._cuda_graph,
                "max_batch": batch,
            },
            batch=batch,
            image=file.image_size,
            tokens=None if info is None else info.model_config.num_tokens,
            facts={
                "file": path.name,
                "sha256": file.sha256,
                "bytes": bytes_with(path, file.companions),
                "precision": None if record is None else record.precision or None,
                "cuda_graph": self._cuda_graph,
                "weights": None if info is None else info.checkpoint.name,
            },
        )

    def _models(self, name: str, label: str) -> list[tuple[str, Path, str | None]]:
        """Label, file and checkpoint of what ``name`` means, one for each image size."""
        if named(name) == "onnx":
            return [(label, require_file(Path(name), "ONNX model").resolve(), None)]
        return [self._export(name, label, size) for size in self._sizes or (None,)]

    def _export(
        self, name: str, label: str, size: ImageSize | None
    ) -> tuple[str, Path, str | None]:
        require_torch()
        request = ModelRequest(name, image_size=size, random_weights=self._seed)
        stem = re.sub(r"[^\w.-]+", "-", label) + ("" if size is None else "-" + _size_text(size))
        path = self._folder / f"{stem}.onnx"
        self._progress(f"exporting {stem}")
        # Speed is measured here; that the file computes what it should is for export and verify.
        result = export(request, path, ExportOptions(graph=self._graph, check=False))
        self._note(f"{label}: {note}" for note in result.notes if note.kind == "random weights")
        return label, path, None if self._seed is not None else checkpoint_of(request.source)

    def _exported(
        self, label: str, path: Path, checkpoint: str | None, batch: int
    ) -> list[Subject]:
        """An ONNX file, each way that its ops are run here; one without our ops has one way."""
        file = self._file(path)
        info = file.info
        self._note_unread(label, info)
        image, sha256, size = file.image_size, file.sha256, bytes_with(path, file.companions)
        asked = asked_ops(file.model)
        file.forget_model()
        facts = {
            "file": path.name,
            "sha256": sha256,
            "bytes": size,
            "graph": None if info is None else info.graph,
            "precision": None if info is None else info.precision,
            "weights": None if info is None else info.checkpoint.name,
        }
        place = (batch, image, None if info is None else info.model_config.num_tokens)
        if self._onnx_runtime != ONNX_RUNTIME:
            source = self._onnx_source(path, batch)
            return [Subject(label, self._onnx_runtime, source, *place, facts)]
        ops = ops_ways(self._runner, asked)
        subjects = []
        for way in ops.ways:
            native = way == "native"
            about = {"ops": way, **({"library": ops.library} if native else {})}
            subjects.append(
                Subject(
                    label,
                    ONNX_RUNTIME,
                    self._onnx_source(path, batch, way),
                    *place,
                    facts={**facts, **(about if asked.names else {})},
                    estimated_bytes=None if info is None else _estimate(info, batch, way),
                )
            )
        if ops.note:
            self._note([f"{label}: function bodies alone are measured; {ops.note}"])
        return subjects

    def _onnx_source(self, path: Path, batch: int, ops: str = "function") -> dict[str, Any]:
        """An ONNX file in the runtime and provider asked for; the CPU's is not named."""
        runner = self._runner
        if self._onnx_runtime != ONNX_RUNTIME:
            return {"path": str(path), "max_batch": batch}
        provider = None if runner.provider == CPU else runner.provider
        # Also where engines are measured beside it: only this provider takes plugins.
        plugin = runner.plugin if provider == ONNX_TENSORRT else None
        return {
            "path": str(path),
            "ops": ops,
            **({} if provider is None else {"provider": provider, "max_batch": batch}),
            **({} if plugin is None else {"plugin": str(plugin.resolve())}),
        }

    def _pytorch(
        self, label: str, path: Path, checkpoint: str | None, batch: int
    ) -> Subject | None:
        """The module of an exported file; None when an equal one is there already."""
        require_torch()
        info = require_info(self._file(path))
        config = info.model_config
        structure = str(info.model_config) + str(info.dense)
        same = (structure, info.head, info.preprocess, checkpoint, batch)
        if same in self._seen:
            return None
        self._seen.add(same)
        weights = info.checkpoint.name
        if checkpoint is None and info.checkpoint.part != "seeded":
            weights = "seeded: time does not depend on values"
            self._note(
                [
                    f"{label}: PyTorch runs the file's architecture with seeded weights; "
                    "time does not depend on values"
                ]
            )
        return Subject(
            label=label,
            runner=PYTORCH,
            source={"path": str(path), "checkpoint": checkpoint},
            batch=batch,
            image=config.image_hw,
            tokens=config.num_tokens,
            facts={"scan": "reference, step by step", "weights": weights},
            estimated_bytes=_estimate(info, batch, PYTORCH),
        )

    def _file(self, path: Path) -> Artifact:
        """What is there, read once for all batches and baselines."""
        return self._files.setdefault(path, Artifact.open(path))

    def _note_unread(self, label: str, info: ExportInfo | None) -> None:
        """Say which pixels of its images a model does not read."""
        unread = "" if info is None else unread_note(info.model_config.unread_hw)
        if info is not None and unread:
            size = f"{info.image.height}x{info.image.width}"
            self._note([f"{label} at {size}: {unread}, as in the official code"])

    def _note(self, sentences: Any) -> None:  # noqa: ANN401 - any iterable of str
        self.notes += [text for text in sentences if text not in self.notes]


def _estimate(info: ExportInfo, batch: int, way: str) -> int:
    """Of a file in ONNX Runtime with its ops run this way, or of its module in PyTorch."""
    behind = None
    if info.dense:
        behind = dense_size(info.model_config, info.dense, heads.of_file(info))
    runner = PYTORCH if way == PYTORCH else ONNX_RUNTIME
    return model_bytes(info.model_config, batch, runner, behind, native=way == "native")


def _size_text(size: ImageSize) -> str:
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"
