"""Deploy: export, verify and build in one go, into a numbered work folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import vim_deploy
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import EngineRecord
from vim_deploy.codec import encode, stored
from vim_deploy.errors import VimDeployError
from vim_deploy.files import output_errors, require_file
from vim_deploy.parity.metrics import tolerance_for
from vim_deploy.parity.report import ParityReport
from vim_deploy.paths import StrPath, as_path, optional_path
from vim_deploy.precisions import TABLE
from vim_deploy.recipe.catalog import checkpoint_of, find_recipe, names_recipe
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.report.write import makes_html
from vim_deploy.runtimes import AUTO
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.building.process import ProgressCallback
from vim_deploy.runtimes.building.request import NONE, BuildRequest, TrtOptions
from vim_deploy.runtimes.onnxruntime.native_ops import require_here
from vim_deploy.runtimes.onnxruntime.runner import CPU
from vim_deploy.specs import OpsChoice
from vim_deploy.stages.building import build, builder_for
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import ExportResult, export, require_torch
from vim_deploy.stages.reporting import prepare_report, provenance, write_run
from vim_deploy.stages.verifying import VerifyOptions, require_images, verify

_log = logging.getLogger(__name__)

WORK_FOLDER = Path("vim-deploy-work")
#: Work folders are numbered with this many digits; a run never reuses one.
_DIGITS = 3


@stored(
    head={"tool": f"vim-deploy {vim_deploy.__version__}"},
    keys=(
        "folder", "onnx", "export=export.info", "notes=export.sentences", "parity", "engine",
        "seconds", "failure",
    ),
    decimals={"seconds": 3},
)  # fmt: skip
@dataclass(frozen=True)
class DeployResult:
    """What a run made. ``engine`` is None when none was asked for, or ``failure`` came before."""

    folder: Path
    export: ExportResult
    parity: ParityReport
    engine: EngineRecord | None
    seconds: dict[str, float]
    failure: VimDeployError | None = None
    #: The report to look at; None where none was asked for and pages cannot be made.
    page: Path | None = None

    @property
    def onnx(self) -> str:
        """Name of the exported file."""
        return self.export.path.name


def deploy(
    request: ModelRequest | StrPath,
    work: StrPath = WORK_FOLDER,
    *,
    options: ExportOptions | None = None,
    images: StrPath | None = None,
    ops: OpsChoice = "auto",
    engine: bool = True,
    runtime: str = AUTO,
    profiles: ProfileOptions | None = None,
    compute_capabilities: Sequence[str] = (),
    trt_options: TrtOptions | None = None,
    progress: ProgressCallback | None = None,
    report: StrPath | None = None,
    command: Sequence[str] = (),
) -> DeployResult:
    """Export, verify against PyTorch and build, stopping at the first stage that fails.

    Args:
        request: what to load; a str or path is its ``source``.
        work: folder in which a new numbered one is made.
        images: pictures to verify on, instead of random ones.
        ops: whose kernels compute our ops when the file is verified.
        options: as ``export`` takes them.
        engine: whether to build one, with what follows as ``build_engine`` takes it.
        runtime: that is to run it.
        profiles: of its shapes.
        compute_capabilities: of the GPUs.
        trt_options: of the build.
        progress: told how far it is.
        report: folder for ``deploy.html``, ``deploy.md`` and ``deploy.json``, by default the
            numbered one, as far as pages can be made; written too when a stage after the export
            fails.
        command: for the records.

    Raises:
        VimDeployError: of any stage; what earlier stages made stays in the folder.
    """
    # What is missing is better known before the minutes of the first stages.
    require_torch()
    request, work = ModelRequest.of(request), as_path(work, "work")
    report = optional_path(report, "report")
    verifying = VerifyOptions(images=images, runner=RunnerOptions(ops=ops))
    if report is not None:
        prepare_report(report)
    wanted = BuildRequest(
        Path("model.onnx"),
        runtime=runtime,
        profiles=profiles or ProfileOptions(),
        compute_capabilities=tuple(compute_capabilities),
        tensorrt=trt_options or TrtOptions(),
        command=tuple(command),
    )
    if engine:
        builder_for(wanted)
        if wanted.tensorrt.plugin not in (AUTO, NONE):
            require_file(Path(wanted.tensorrt.plugin), "plugin library")
    require_images(verifying)
    # Last: it may build a library.
    require_here(ops, CPU)
    folder = _new_folder(work, Path(request.source).stem)
    _log.info("working in %s", folder)
    seconds: dict[str, float] = {}
    clock = time.perf_counter()
    exported = export(request, folder / wanted.model, options)
    seconds["export"] = time.perf_counter() - clock

    clock = time.perf_counter()
    against = _reference_of(request, exported)
    shown = _pictures(verifying.images, options or ExportOptions())
    verifying = replace(verifying, images=shown)
    parity = verify(exported.path, against, _verify_options(request, exported, verifying), command)
    parity.write(folder / "parity.json")
    seconds["verify"] = time.perf_counter() - clock

    record = None
    try:
        again = f"vim-deploy verify {exported.path} --against {against} --per-block"
        parity.require_passed(again if ops == "auto" else f"{again} --ops {ops}")
        if engine:
            clock = time.perf_counter()
            record = build(
                replace(wanted, model=exported.path, output=folder / wanted.plan), progress
            )
            seconds["build-engine"] = time.perf_counter() - clock
    except VimDeployError as error:
        result = DeployResult(folder, exported, parity, None, seconds, error)
        page = _write(result, against, report)
        if page is not None:
            _log.info("report: %s", page)
        raise
    result = DeployResult(folder, exported, parity, record, seconds)
    return replace(result, page=_write(result, against, report))


def _write(result: DeployResult, against: str, report: Path | None) -> Path | None:
    """``deploy.json`` into the work folder, and all three files into the report's; the page."""
    about = provenance(against)
    value = {**encode(result), "environment": about["environment"]}
    value["parity"] = {**value["parity"], "against": about["against"]}
    own_page = report is None and makes_html()
    written = write_run("deploy", value, result.folder, pages=own_page)
    if report is not None:
        written = write_run("deploy", value, report, pages=True)
    return next((path for path in written if path.suffix == ".html"), None)


def _verify_options(
    request: ModelRequest, exported: ExportResult, options: VerifyOptions
) -> VerifyOptions:
    """Pictures or random images, and the tolerance of the recipe or the precision."""
    recipe = find_recipe(request.source) if names_recipe(request.source) else None
    info = exported.info
    tolerance = tolerance_for(info.precision, recipe.tolerances if recipe else None, info)
    return replace(options, tolerance=tolerance)


def _pictures(images: Path | None, options: ExportOptions) -> Path | None:
    """What ``verify`` compares on: pictures of the calibration are better than noise."""
    quantize = options.quantize
    if images is None and TABLE[options.precision].quantized and not quantize.takes_stored:
        return quantize.calibration
    return images


def _reference_of(request: ModelRequest, exported: ExportResult) -> str:
    """What PyTorch is to be loaded from: the same weights as the export."""
    checkpoint = exported.info.checkpoint
    if checkpoint.part == "seeded":
        return checkpoint.name
    return checkpoint_of(request.source)


def _new_folder(work: Path, stem: str) -> Path:
    """``work/NNN-stem`` with the next free number; two runs never get the same one."""
    name = "".join(char if char.isalnum() or char in "-_." else "-" for char in stem) or "model"
    with output_errors(work, "--work"):
        work.mkdir(parents=True, exist_ok=True)
        taken = [int(path.name[:_DIGITS]) for path in work.iterdir() if _is_numbered(path)]
        for number in range(max(taken, default=0) + 1, 10**_DIGITS):
            folder = work / f"{number:0{_DIGITS}d}-{name}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    raise VimDeployError(
        "VIM-304", f"{work} has no free number left", fix="choose another folder with --work"
    )


def _is_numbered(path: Path) -> bool:
    return path.is_dir() and path.name[:_DIGITS].isdecimal() and path.name[_DIGITS:][:1] == "-"
