"""What a benchmark's command line names, as subjects: files are read, models exported."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vim_deploy import heads
from vim_deploy.artifact import metadata
from vim_deploy.artifact.engine_file import ENGINE_SUFFIXES, is_engine, read_header
from vim_deploy.artifact.marked_tensors import refuse_diagnosis
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.record import EngineRecord, read_record, record_path
from vim_deploy.bench.estimate import dense_size, vim_bytes
from vim_deploy.bench.subject import ONNX_RUNTIME, PYTORCH, Subject, require_info
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.files import require_file, sha256_of, sight
from vim_deploy.recipe.model_config import unread_note
from vim_deploy.recipe.request import ModelRequest
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.onnxruntime.runner import CPU
from vim_deploy.runtimes.onnxruntime.runner import TENSORRT as ONNX_TENSORRT
from vim_deploy.specs import GraphForm
from vim_deploy.stages.deit_baseline import DeitMaker, deit_sizes, require_classifiers
from vim_deploy.stages.exporting import ExportOptions, export, require_torch

#: ``deit`` is the DeiT of the model's own width.
BASELINES = ("pytorch", "deit", "deit-tiny", "deit-small", "deit-base")

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
        graph: GraphForm,
        runner: RunnerOptions,
        cuda_graph: bool,
        progress: Callable[[str], None],
    ) -> None:
        for name in baselines:
            if name not in BASELINES:
                raise VimDeployError(
                    "VIM-202", f"unknown baseline {name!r}", fix=nearest(name, BASELINES)
                )
        self._folder = folder
        self._sizes = tuple(image_sizes)
        self._batches = tuple(batches)
        self._baselines = tuple(dict.fromkeys(baselines))
        self._seed = random_weights
        self._graph = graph
        self._runner = runner
        self._cuda_graph = cuda_graph
        self._progress = progress
        self._seen: set[tuple[Any, ...]] = set()
        self.notes: list[str] = []

    def groups(self, artifacts: Sequence[str | Path]) -> list[list[Subject]]:
        """Subjects of one image size and batch size each, to be measured in turns.

        Raises:
            VimDeployError: VIM-202, VIM-203 (an artifact and the options do not fit), and what
                reading and exporting raise.
        """
        names = list(dict.fromkeys(str(artifact) for artifact in artifacts))
        for name in names:
            self._check(name)
        engines = [name for name in names if _is_engine(name)]
        self._check_runner(names, engines)
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
                found += [self._exported(*model, batch) for batch in self._batches]
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
        infos = [require_info(path) for _, path, _ in models]
        infos += [info for name in engines if (info := _export_of_engine(name)) is not None]
        require_classifiers(wanted[0], infos)
        sizes = deit_sizes(wanted, [info.model_config.embed_dim for info in infos])
        # Not before: deit_sizes says what is missing where PyTorch is not installed.
        from vim_deploy.model.deit import deit_unread

        self._note(["DeiT has seeded weights; time does not depend on values"])
        maker = DeitMaker(self._folder, self._onnx_source, self._progress)
        for (image, batch), members in groups.items():
            with_pytorch = PYTORCH in self._baselines
            own = tuple(members)
            unread = unread_note(deit_unread(image))
            self._note([f"DeiT at {image[0]}x{image[1]}: {unread}"] if unread else [])
            for size in sizes:
                members += maker.beside(own, size, image, batch, with_pytorch=with_pytorch)

    def _check(self, name: str) -> None:
        made = Path(name).suffix == ".onnx" or _is_engine(name)
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
            ("--provider", runner.provider is not None and not files, "no ONNX file or model"),
            (
                "--baseline pytorch",
                PYTORCH in self._baselines and not files,
                "no ONNX file or model",
            ),
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

    def _engine(self, path: Path, label: str, batch: int) -> Subject:
        record = read_record(path)
        refuse_diagnosis(() if record is None else record.inner_tensors, path, "measured")
        info = None if record is None else record.export
        self._note_unread(label, info)
        runtime = record.runtime if record is not None else read_header(path).runtime
        plugin = self._runner.plugin
        return Subject(
            label=label,
            runner=runtime,
            source={
                "path": str(path.resolve()),
                "plugin": None if plugin is None else str(plugin.resolve()),
                "allow_plan_code": self._runner.allow_plan_code,
                "cuda_graph": self._cuda_graph,
                "max_batch": batch,
            },
            batch=batch,
            image=_image_of_engine(record, path),
            tokens=None if info is None else info.model_config.num_tokens,
            facts={
                "file": path.name,
                "sha256": sha256_of(path),
                "precision": None if record is None else record.precision or None,
                "cuda_graph": self._cuda_graph,
                "weights": None if info is None else info.checkpoint.name,
            },
        )

    def _models(self, name: str, label: str) -> list[tuple[str, Path, str | None]]:
        """Label, file and checkpoint of what ``name`` means, one for each image size."""
        if Path(name).suffix == ".onnx":
            return [(label, require_file(Path(name), "ONNX model").resolve(), None)]
        return [self._export(name, label, size) for size in self._sizes or (None,)]

    def _export(
        self, name: str, label: str, size: ImageSize | None
    ) -> tuple[str, Path, str | None]:
        require_torch()
        from vim_deploy.model.load import checkpoint_of

        request = ModelRequest(name, image_size=size, random_weights=self._seed)
        stem = re.sub(r"[^\w.-]+", "-", label) + ("" if size is None else "-" + _size_text(size))
        path = self._folder / f"{stem}.onnx"
        self._progress(f"exporting {stem}")
        # Speed is measured here; that the file computes what it should is for export and verify.
        result = export(request, path, ExportOptions(graph=self._graph, check=False))
        self._note(f"{label}: {note}" for note in result.notes if note.kind == "random weights")
        return label, path, None if self._seed is not None else checkpoint_of(request)

    def _exported(self, label: str, path: Path, checkpoint: str | None, batch: int) -> Subject:
        sighting = sight(path)
        model = metadata.load_model(path)
        info = metadata.find(model)
        self._note_unread(label, info)
        return Subject(
            label=label,
            runner=ONNX_RUNTIME,
            source=self._onnx_source(path, batch),
            batch=batch,
            image=_image_size(model, info, path),
            tokens=None if info is None else info.model_config.num_tokens,
            facts={
                "file": path.name,
                "sha256": sighting.sha256(),
                "graph": None if info is None else info.graph,
                "precision": None if info is None else info.precision,
                "weights": None if info is None else info.checkpoint.name,
            },
            estimated_bytes=None if info is None else _estimate(info, batch, ONNX_RUNTIME),
        )

    def _onnx_source(self, path: Path, batch: int) -> dict[str, Any]:
        """An ONNX file in the provider that was asked for; the CPU's is not named."""
        runner = self._runner
        provider = None if runner.provider == CPU else runner.provider
        # Also where engines are measured beside it: only this provider takes plugins.
        plugin = runner.plugin if provider == ONNX_TENSORRT else None
        return {
            "path": str(path),
            **({} if provider is None else {"provider": provider, "max_batch": batch}),
            **({} if plugin is None else {"plugin": str(plugin.resolve())}),
        }

    def _pytorch(
        self, label: str, path: Path, checkpoint: str | None, batch: int
    ) -> Subject | None:
        """The module of an exported file; None when an equal one is there already."""
        require_torch()
        info = require_info(path)
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

    def _note_unread(self, label: str, info: ExportInfo | None) -> None:
        """Say which pixels of its images a model does not read."""
        unread = "" if info is None else unread_note(info.model_config.unread_hw)
        if info is not None and unread:
            size = f"{info.image.height}x{info.image.width}"
            self._note([f"{label} at {size}: {unread}, as in the official code"])

    def _note(self, sentences: Any) -> None:  # noqa: ANN401 - any iterable of str
        self.notes += [text for text in sentences if text not in self.notes]


def _estimate(info: ExportInfo, batch: int, runner: str) -> int:
    behind = None
    if info.dense:
        behind = dense_size(info.model_config, info.dense, heads.of_file(info))
    return vim_bytes(info.model_config, batch, runner, behind)


def _image_size(model: Any, info: ExportInfo | None, path: Path) -> tuple[int, int]:  # noqa: ANN401
    """Height and width of the input: from the metadata, else the last two of a NCHW input."""
    if info is not None:
        return info.image.height, info.image.width
    inputs = metadata.inputs_of(model)
    sizes = inputs[0].shape[-2:] if len(inputs) == 1 and len(inputs[0].shape) == 4 else ()
    if len(sizes) != 2 or not all(isinstance(size, int) for size in sizes):
        raise VimDeployError(
            "VIM-415",
            f"{path} has no image input of a fixed size",
            why=", ".join(f"{spec.name} {list(spec.shape)}" for spec in inputs),
            fix="give a model made by vim-deploy export",
        )
    return int(sizes[0]), int(sizes[1])


def _is_engine(name: str) -> bool:
    path = Path(name)
    return path.suffix in ENGINE_SUFFIXES or (path.is_file() and is_engine(path))


def _export_of_engine(name: str) -> ExportInfo | None:
    record = read_record(Path(name))
    return None if record is None else record.export


def _image_of_engine(record: EngineRecord | None, path: Path) -> tuple[int, int]:
    """Height and width as the record has them: of the export, else of the input's profile."""
    if record is not None and record.export is not None:
        return record.export.image.height, record.export.image.width
    shape = record.inputs[0].shape if record is not None and len(record.inputs) == 1 else ()
    sizes = [size for size in shape[-2:] if isinstance(size, int)]
    if len(shape) != 4 or len(sizes) != 2:
        raise VimDeployError(
            "VIM-410",
            f"nothing says which images {path.name} takes",
            why="there is no record of it, or the record has no image of a fixed size",
            fix=f"put its record {record_path(path).name} beside it",
        )
    return sizes[0], sizes[1]


def _size_text(size: ImageSize) -> str:
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"
