"""Export: a checkpoint, hub address or recipe becomes one checked ONNX file."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import vim_deploy
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.file import named
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.onnx_file import data_path, owned_data
from vim_deploy.calibration.stored import require_place
from vim_deploy.codec import stored
from vim_deploy.errors import VimDeployError, missing_package
from vim_deploy.files import remove_leftovers, single_writer
from vim_deploy.graph.activations import Activations
from vim_deploy.graph.pass_report import PassReport
from vim_deploy.graph.precision import PrecisionReport
from vim_deploy.graph.quantization.plan import QuantizationPlan
from vim_deploy.graph.verify import GraphSummary
from vim_deploy.heads import parse_head
from vim_deploy.parity.metrics import tolerance_for
from vim_deploy.parity.report import ParityReport
from vim_deploy.paths import StrPath, optional_path
from vim_deploy.precisions import (
    TABLE,
)
from vim_deploy.progress import stage_log
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.inputs import picture_inputs
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.specs import Note
from vim_deploy.stages.export_options import ExportOptions, check_options, export_info
from vim_deploy.stages.exported_file import (
    Check,
    Existing,
    existing_export,
    hashed,
    refuse_quantized,
    write_checked,
)
from vim_deploy.stages.quantizing import settle

if TYPE_CHECKING:
    from vim_deploy.graph.export_graph import ExportedGraph
    from vim_deploy.model.load import LoadedModel
    from vim_deploy.runtimes.base import Runner

_log = logging.getLogger(__name__)


@stored(
    keys=(
        "path", "files", "up_to_date", "scans=summary.scans", "fused_scans=summary.fused_scans",
        "fused_convolutions=summary.fused_convolutions", "flips=summary.flips",
        "loops=summary.loops", "nodes", "passes", "precision", "quantization", "activations",
        "notes=sentences", "seconds", "parity", "export=info",
    ),
    decimals={"seconds": 3},
)  # fmt: skip
@dataclass(frozen=True)
class ExportResult:
    """An exported file.

    ``parity`` is None when nothing was checked, and ``notes`` say why. ``passes`` are the reports
    of the fusion passes, none for a base graph or a file that was up to date; ``precision`` is the
    report of the typing, ``activations`` their sizes and ``quantization`` how each product was
    quantized, with its error; None for the latter.
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
    quantization: QuantizationPlan | None = None

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

    With ``options.standalone`` an exported file may be the source as well: the file that an export
    of its checkpoint with that option gives is made of it, and compared with it.

    Args:
        request: what to load; a str or path is its ``source``.
        output: file to write; by default the source's name with ``.onnx``, in this folder; of an
            exported file with ``-standalone.onnx``.
        options: form of the graph.

    Raises:
        VimDeployError: of every stage; nothing is written then.
    """
    options = options or ExportOptions()
    check_options(options)
    request = ModelRequest.of(request)
    path = optional_path(output, "output")
    started = time.perf_counter()
    if named(request.source) == "onnx":
        return _export_again(request, path, options, started)
    options.quantize.require_pictures(options.precision)
    require_torch()
    from vim_deploy.model.load import load_model

    stage_log.info("reading %s", request.source)
    loaded = load_model(request)
    for note in loaded.notes:
        _log.info("%s", note.text)
    path = path or Path(f"{loaded.stem}.onnx")
    with single_writer(path):
        remove_leftovers(path)
        remove_leftovers(data_path(path))
        return _export_loaded(loaded, path, options, started)


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
    row = TABLE[options.precision]
    quantizing = settle(info, options.quantize) if row.quantized else None
    if quantizing is not None:
        info = hashed(quantizing.info, options.batch)
        quantizing = replace(quantizing, info=info)
    if not options.force:
        found = existing_export(path, info)
        # A dump needs the passes to run, and a calibration the pictures; the file is the same one.
        saved = options.quantize.save_calibration
        asked = options.dump_passes is not None or (saved is not None and not saved.exists())
        if found is not None and not asked:
            return _up_to_date(path, found, loaded.notes, started)
    from vim_deploy.graph.export_graph import export_graph

    if quantizing is not None:
        require_place(options.quantize.save_calibration, force=options.force)
    exported = export_graph(
        module,
        info,
        batch=options.batch,
        dump=options.dump_passes,
        quantize=None if quantizing is None else quantizing.plan,
    )
    tolerance = tolerance_for(info.precision, loaded.tolerances, info)

    def reference() -> Runner:
        from vim_deploy.runtimes.torch.runner import TorchRunner

        return TorchRunner(module, threads=1)

    pictures = None if quantizing is None else quantizing.pictures
    check = Check(
        "PyTorch",
        reference,
        tolerance,
        options.batch,
        made=options.check,
        pictures=() if pictures is None else pictures.check,
    )
    return _made(exported, info, path, options, check, loaded.notes, started)


def _up_to_date(
    path: Path, found: Existing, notes: tuple[Note, ...], started: float
) -> ExportResult:
    seconds = time.perf_counter() - started
    return ExportResult(path, found.info, found.summary, None, notes, seconds, up_to_date=True)


def _export_again(
    request: ModelRequest, path: Path | None, options: ExportOptions, started: float
) -> ExportResult:
    """The standalone form of an exported file, without the checkpoint."""
    source = Artifact.open(Path(request.source), "exported file")
    if TABLE[options.precision].quantized:
        refuse_quantized(source)
    _require_standalone(request, options)
    info = source.require_info("cannot be written in standard operators")
    if info.standalone:
        raise VimDeployError(
            "VIM-203",
            f"{source.name} is a standalone file already",
            why="it holds no functions any more that could be put in other places",
            fix="use it as it is; give the file it was made of for another --scan-body",
        )
    path = path or Path(f"{source.path.stem}-standalone.onnx")
    if source.lies_at(path):
        raise VimDeployError(
            "VIM-203",
            f"the output {path} is the source itself, or its weights",
            fix="choose another with -o",
        )
    batch = picture_inputs(source)[0].shape[0]
    options = replace(options, batch=batch if isinstance(batch, int) else None)
    info = replace(
        info,
        scan_body=options.scan_body or info.scan_body,
        standalone=True,
        tool_version=vim_deploy.__version__,
    )
    info = hashed(info, options.batch)
    with single_writer(path):
        remove_leftovers(path)
        remove_leftovers(data_path(path))
        found = None if options.force else existing_export(path, info)
        if found is not None:
            return _up_to_date(path, found, (), started)
        from vim_deploy.graph.export_graph import standalone_graph

        exported = standalone_graph(source.model, info)
        source.sighting.require_unchanged()
        check = Check(
            source.name,
            lambda: OrtRunner(source),
            tolerance_for(info.precision, info=info),
            options.batch,
            made=options.check,
        )
        return _made(exported, info, path, options, check, (), started)


def _require_standalone(request: ModelRequest, options: ExportOptions) -> None:
    """VIM-203 for an exported file and options that only an export of its checkpoint has."""
    own = ExportOptions(
        scan_body=options.scan_body, standalone=True, check=options.check, force=options.force
    )
    given = [
        name
        for record, usual in ((request, ModelRequest(request.source)), (options, own))
        for name, value in vars(record).items()
        if value != vars(usual)[name]
    ]
    if not given:
        return
    hidden = ("standalone", "quantize")  # the latter comes with --precision
    names = ", ".join("--" + name.replace("_", "-") for name in given if name not in hidden)
    raise VimDeployError(
        "VIM-203",
        f"{request.source} is an exported file" + (f", which takes no {names}" if names else ""),
        why="its checkpoint, precision and form were settled when it was exported",
        fix="--standalone writes it in standard operators only, with --scan-body, --no-check, "
        "--force and -o; vim-deploy verify, run, bench and package take it as it is",
    )


def _made(
    exported: ExportedGraph,
    info: ExportInfo,
    path: Path,
    options: ExportOptions,
    check: Check,
    notes: tuple[Note, ...],
    started: float,
) -> ExportResult:
    """The result of a finished graph, written when it has passed ``check``."""
    parity, unchecked = write_checked(exported.model, path, info, check, force=options.force)
    return ExportResult(
        path,
        info,
        exported.summary,
        parity,
        (*notes, *exported.notes, *unchecked),
        time.perf_counter() - started,
        passes=exported.passes,
        precision=exported.precision,
        activations=exported.activations,
        quantization=exported.quantization,
    )
