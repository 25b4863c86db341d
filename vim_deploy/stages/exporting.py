"""Export: a checkpoint, hub address or recipe becomes one checked ONNX file."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import vim_deploy
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.onnx_file import data_path, is_large, model_output, owned_data
from vim_deploy.codec import encode, stored
from vim_deploy.errors import VimDeployError, missing_package
from vim_deploy.files import remove_leftovers, settings_hash, sha256_of, single_writer
from vim_deploy.graph.activations import Activations
from vim_deploy.graph.passes.run import PassReport
from vim_deploy.graph.precision import PrecisionReport
from vim_deploy.graph.verify import GraphSummary, form_for, summarize
from vim_deploy.heads import parse_head
from vim_deploy.parity.metrics import Tolerance, tolerance_for
from vim_deploy.parity.report import ParityReport, compare_runners, random_case
from vim_deploy.paths import OptionalPath, StrPath, optional_path
from vim_deploy.precisions import TABLE, TYPED_IN_WORDS, Precision, require_io_precision
from vim_deploy.progress import stage_log
from vim_deploy.ranges import BATCH, OPSET, require_all, require_names
from vim_deploy.recipe.precision_policy import chosen_policy
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes import runtime_named
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.specs import GraphChoice, Note, ScanBody

if TYPE_CHECKING:
    import onnx

    from vim_deploy.model.deployed import DeployedModel
    from vim_deploy.model.load import LoadedModel

_log = logging.getLogger(__name__)

#: Batch sizes that a check runs: one, an odd one, and never the one the trace used.
CHECK_BATCHES = (1, 3)


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    ``batch`` is a fixed batch size, or None for a dynamic one. ``graph`` is the form of the graph
    (``vim_deploy.specs.GraphChoice``), ``scan_body`` that of the scan ops' functions
    (``ScanBody``), ``dump_passes`` a folder for the graph before and after each fusion pass.
    ``precision`` types weights and activations, apart from what the file ``precision_policy``
    (None: the shipped one) keeps in float32; ``io_precision`` the inputs and outputs. ``head`` None
    gives logits, or the feature maps of a model without classes. ``check`` compares the file with
    PyTorch in ONNX Runtime before it is put in place.
    """

    batch: int | None = None
    graph: GraphChoice = "auto"
    scan_body: ScanBody = "scan"
    dump_passes: OptionalPath = OptionalPath()
    precision: Precision = "fp32"
    precision_policy: OptionalPath = OptionalPath()
    io_precision: Precision = "fp32"
    opset: int = 18
    preprocess: str = "none"
    head: str | None = None
    check: bool = True
    force: bool = False

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, batch=BATCH, opset=OPSET)
        require_names(self, graph=get_args(GraphChoice), scan_body=get_args(ScanBody))
        require_names(self, precision=TABLE, io_precision=TABLE)


@stored(
    keys=(
        "path", "files", "up_to_date", "scans=summary.scans", "fused_scans=summary.fused_scans",
        "fused_convolutions=summary.fused_convolutions", "flips=summary.flips",
        "loops=summary.loops", "nodes", "passes", "precision", "activations", "notes=sentences",
        "seconds", "parity", "export=info",
    ),
    decimals={"seconds": 3},
)  # fmt: skip
@dataclass(frozen=True)
class ExportResult:
    """An exported file.

    ``parity`` is None when nothing was checked, and ``notes`` say why. ``passes`` are the reports
    of the fusion passes, none for a base graph or a file that was up to date; ``precision`` is the
    report of the typing and ``activations`` their sizes, None for the latter.
    """

    path: Path
    info: ExportInfo
    summary: GraphSummary
    parity: ParityReport | None
    notes: tuple[Note, ...]
    seconds: float
    up_to_date: bool = False
    passes: tuple[PassReport, ...] = ()
    precision: PrecisionReport | None = None
    activations: Activations | None = None

    @property
    def nodes(self) -> int:
        """Nodes of the graph, those of its functions left out."""
        return sum(self.summary.ops.values())

    @property
    def sentences(self) -> list[str]:
        """The notes' texts."""
        return [note.text for note in self.notes]

    @property
    def files(self) -> tuple[Path, ...]:
        """``path``, and the file beside it with the weights when one file cannot hold both."""
        data = owned_data(self.path)
        return (self.path,) if data is None else (self.path, data)


def export(
    request: ModelRequest | StrPath,
    output: StrPath | None = None,
    options: ExportOptions | None = None,
) -> ExportResult:
    """Export a checkpoint, hub address or recipe to one ONNX file.

    Args:
        request: what to load; a str or path is its ``source``.
        output: file to write; by default the source's name with ``.onnx``, in this folder.
        options: form of the graph.

    Raises:
        VimDeployError: of every stage; nothing is written then.
    """
    options = options or ExportOptions()
    _check_options(options)
    require_torch()
    from vim_deploy.model.load import load_model

    request = ModelRequest.of(request)
    path = optional_path(output, "output")
    started = time.perf_counter()
    stage_log.info("reading %s", request.source)
    loaded = load_model(request)
    for note in loaded.notes:
        _log.info("%s", note.text)
    path = path or Path(f"{loaded.stem}.onnx")
    with single_writer(path):
        remove_leftovers(path)
        remove_leftovers(data_path(path))
        return _export_loaded(loaded, path, options, started)


def _check_options(options: ExportOptions) -> None:
    if options.dump_passes is not None and options.graph == "base":
        raise VimDeployError(
            "VIM-202",
            "--dump-passes has nothing to dump for --graph base",
            why="the passes make the fused forms out of the base graph",
            fix="--graph fused",
        )
    require_io_precision(options.precision, options.io_precision)
    if options.precision_policy is not None and not TABLE[options.precision].typed:
        raise VimDeployError(
            "VIM-203",
            "--precision-policy has nothing to decide for --precision fp32",
            why="it says what stays in float32 in a half-precision graph",
            fix=f"add --precision {TYPED_IN_WORDS}",
        )


def require_torch() -> None:
    """VIM-301 when what reads checkpoints is not installed, VIM-312 when it cannot start."""
    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise missing_package(package, "torch", "reading a checkpoint")
    try:
        # oneMKL asks for it when torch is imported, and ends the process when there is none.
        os.getcwd()
    except OSError as error:
        raise VimDeployError(
            "VIM-312",
            "PyTorch does not start without a working folder",
            why=f"the one this command was started in is gone or closed: {error.strerror}",
            fix="cd to a folder that exists, and run it again",
        ) from error


def _export_loaded(
    loaded: LoadedModel, path: Path, options: ExportOptions, started: float
) -> ExportResult:
    from vim_deploy.model.deployed import DeployedModel

    network = loaded.module
    head = parse_head(options.head, network.config, network.dense)
    options = replace(options, head=head.text)
    module = DeployedModel(network, loaded.image, options.preprocess, head)
    info = export_info(loaded, options, module.preprocess)
    if not options.force:
        existing = _existing_export(path, info, loaded.notes, started)
        # A dump needs the passes to run; the file they end in is the same one.
        if existing is not None and options.dump_passes is None:
            return existing
    from vim_deploy.graph.export_graph import export_graph

    exported = export_graph(module, info, batch=options.batch, dump=options.dump_passes)
    model, summary, passes, typed, activations = exported
    _check_data_place(model, path, options)
    stage_log.info("writing %s", path.name)
    with model_output(model, path) as temporary:
        tolerance = tolerance_for(info.precision, loaded.tolerances)
        parity, notes = _check_export(temporary, path, module, info, options, tolerance)
    if parity is not None:
        parity = replace(parity, artifact_sha256=sha256_of(path))
    notes = (*loaded.notes, *exported.notes, *notes)
    seconds = time.perf_counter() - started
    return ExportResult(
        path,
        info,
        summary,
        parity,
        notes,
        seconds,
        passes=passes,
        precision=typed,
        activations=activations,
    )


def _check_data_place(model: onnx.ModelProto, path: Path, options: ExportOptions) -> None:
    """VIM-204 when the weights need a file of their own and somebody else's has its name."""
    data = data_path(path)
    if options.force or not is_large(model) or not data.exists() or owned_data(path) == data:
        return
    raise VimDeployError(
        "VIM-204",
        f"{data} exists and is not part of an export to {path.name}",
        why="the weights are more than one ONNX file holds (2 GiB) and would be written there",
        fix="add --force to replace it, or choose another output with -o",
    )


def export_info(loaded: LoadedModel, options: ExportOptions, preprocess: Any) -> ExportInfo:  # noqa: ANN401
    """The file's own description; its hash covers everything that decides the bytes."""
    typed = TABLE[options.precision].typed
    config = loaded.module.config
    info = ExportInfo(
        model=loaded.name,
        model_config=config,
        checkpoint=loaded.checkpoint,
        image=loaded.image,
        preprocess=preprocess,
        head=options.head or "",
        graph=form_for(options.graph, config),
        precision=options.precision,
        io_precision=options.io_precision,
        precision_policy=chosen_policy(options.precision_policy, config) if typed else None,
        opset=options.opset,
        pos_embed=loaded.pos_embed,
        tool_version=vim_deploy.__version__,
        labels=loaded.labels,
        scan_body=options.scan_body,
        dense=loaded.module.dense,
        settings_hash="",
    )
    return replace(info, settings_hash=settings_hash({**encode(info), "batch": options.batch}))


def _existing_export(
    path: Path, info: ExportInfo, notes: tuple[Note, ...], started: float
) -> ExportResult | None:
    """The file at ``path`` if it was made with these settings; VIM-204 if with others."""
    if not path.exists():
        return None
    why = "it is not a file that vim-deploy made"
    try:
        file = Artifact.open(path)
        found = file.info
    except VimDeployError as error:
        why, found = error.message, None
    if found is not None and found.settings_hash == info.settings_hash:
        summary = summarize(file.model, found.model_config.layers_run)
        seconds = time.perf_counter() - started
        return ExportResult(path, found, summary, None, notes, seconds, up_to_date=True)
    if found is not None:
        why = "it differs in " + ", ".join(_differences(encode(found), encode(info)))
    raise VimDeployError(
        "VIM-204",
        f"{path} exists and was made with other settings",
        why=why,
        fix="add --force to replace it, or choose another output with -o",
    )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    names = [key for key in new if key != "settings_hash" and old.get(key) != new[key]]
    return names or ["the batch size"]


def _check_export(
    written: Path,
    path: Path,
    module: DeployedModel,
    info: ExportInfo,
    options: ExportOptions,
    tolerance: Tolerance,
) -> tuple[ParityReport | None, tuple[Note, ...]]:
    """Compare the written file with the module; the reason when that was not done."""
    if not options.check:
        return None, (Note("not checked", "not checked against PyTorch: --no-check"),)
    if not runtime_named("onnxruntime").is_installed():
        why = "not checked against PyTorch: onnxruntime is not installed"
        return None, (Note("not checked", why),)
    from vim_deploy.runtimes.torch.runner import TorchRunner

    stage_log.info("checking against PyTorch")
    reference, candidate = TorchRunner(module, threads=1), OrtRunner(written)
    batches = CHECK_BATCHES if options.batch is None else (options.batch,)
    case = random_case(candidate.input, info.preprocess, max(batches))
    results = compare_runners(reference, candidate, [case], batches, tolerance)
    report = ParityReport(
        path.name, sha256_of(written), reference.name, candidate.name, tolerance, results
    )
    report.require_passed()
    return report, ()
