"""Package: an artifact becomes a folder that serves it, and proves itself."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import vim_deploy
from vim_deploy.artifact import Artifact
from vim_deploy.codec import encode
from vim_deploy.errors import ExitCode, OtherMachineError, VimDeployError
from vim_deploy.files import (
    changed,
    kind_of,
    output_errors,
    require_writable_folder,
    settings_hash,
    sight,
)
from vim_deploy.folder_output import atomic_folder
from vim_deploy.packaging import check as checks
from vim_deploy.packaging import cpp, web
from vim_deploy.packaging.about import CppAbout, TritonAbout, WebAbout, read_about
from vim_deploy.packaging.check import Check, CheckReport, read_package
from vim_deploy.packaging.golden import (
    GOLDEN_NAME,
    ROWS,
    Pictures,
    differences,
    golden_input,
    golden_outputs,
    read_golden,
    write_golden,
)
from vim_deploy.packaging.manifest import compare, own_files, read_manifest, write_manifest
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.packaging.servable import Servable, read_servable
from vim_deploy.packaging.triton import (
    about,
    plan_repository,
    settings_of,
    write_repository,
)
from vim_deploy.parity.limits import detection_limits
from vim_deploy.parity.metrics import tolerance_for
from vim_deploy.paths import OptionalPath, StrPath, as_path, optional_path
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import Array, RunnerOptions
from vim_deploy.specs import OpsChoice


@dataclass(frozen=True)
class PackageOptions:
    """What is packaged how.

    Attributes:
        serving: how the model is served; for Triton, as are ``image`` and ``golden_from``, but its
            ``ops`` is for C++, too.
        image: of the server's container; None leaves it to whoever starts the server.
        plugin: library of the engine, when it is not where it was built.
        golden_from: ONNX file of the engine, whose outputs are stored where the engine does not
            run.
        force: replace a package of other settings.
        target: ``triton``, ``cpp`` or ``web``.
        web_runtime: folder or archive of onnxruntime-web for a page; None for the one that was
            fetched before, or is fetched now.
    """

    serving: ServingOptions = ServingOptions()  # noqa: RUF009 - frozen
    image: str | None = None
    plugin: OptionalPath = OptionalPath()
    golden_from: OptionalPath = OptionalPath()
    force: bool = False
    target: str = checks.TARGET
    web_runtime: OptionalPath = OptionalPath()


@dataclass(frozen=True)
class PackageResult:
    """A finished package: its folder, model and backend, files, and what is to be known."""

    folder: Path
    target: str
    name: str
    runtime: str
    files: tuple[str, ...]
    notes: tuple[str, ...]
    up_to_date: bool = False


def package(
    artifact: StrPath, output: StrPath | None = None, options: PackageOptions | None = None
) -> PackageResult:
    """Make a model repository for Triton from an ONNX file or engine, a C++ project, or a page.

    Args:
        artifact: made by ``export`` or ``build_engine``.
        output: folder to write; None for the artifact's name with ``-triton``, ``-cpp`` or
            ``-web``.
        options: what it is made for, and how it is served.

    Raises:
        VimDeployError: VIM-202 (target), VIM-204 (the folder holds another package), VIM-304 (it
            holds something else), errors of ``read_servable``, ``plan_repository`` and
            ``atomic_folder``, VIM-430 (the artifact gives NaN or Inf), and of the runtime when the
            artifact fails in it. For C++ and pages VIM-203 (an option for another target), and
            errors of ``plan_cpp`` or ``plan_web``.
    """
    options, artifact = options or PackageOptions(), as_path(artifact, "artifact")
    output = optional_path(output, "output")
    if options.target == cpp.TARGET:
        return _package_cpp(artifact, output, options)
    if options.target == web.TARGET:
        return _package_web(artifact, output, options)
    if options.target != checks.TARGET:
        raise VimDeployError(
            "VIM-202",
            f"unknown target {options.target!r}",
            fix=f"choose {checks.TARGET}, {cpp.TARGET} or {web.TARGET}",
        )
    if options.web_runtime is not None:
        raise VimDeployError(
            "VIM-203", "--web-runtime is for pages", fix="leave it away, or add --target web"
        )
    servable = read_servable(artifact)
    folder = output or artifact.with_name(artifact.name.partition(".")[0] + "-triton")
    # Renamed as a whole in the end, which "." and "made/.." cannot be.
    with output_errors(folder):
        folder = Path(os.path.abspath(folder))
    # Before the plan, which may build native ops.
    _require_place(folder)
    golden_sha256 = _reference_sha256(servable, options.golden_from)
    plan = plan_repository(
        servable, options.serving, image=options.image or "", plugin=options.plugin
    )
    settings = settings_hash(
        {
            **settings_of(plan),
            "golden": golden_sha256,
            "vim-deploy version": vim_deploy.__version__,
        }
    )
    existing = _existing(folder, settings, force=options.force)
    if existing is not None:
        return existing
    sighting = sight(artifact)
    with atomic_folder(folder, own_files) as place:
        write_repository(place, plan)
        ops: OpsChoice = "native" if plan.ops else "function"
        given = golden_input(servable, plan.config["max_batch_size"])
        golden = _make_golden(place, servable, given, ops, options)
        manifest = write_manifest(
            place,
            checks.TARGET,
            about(plan, golden),
            tool_version=vim_deploy.__version__,
            settings=settings,
        )
        if sighting.sha256() != servable.file.sha256:
            # Replaced between its description and its copy.
            raise changed(artifact)
    notes = [*plan.notes, *([golden["why"]] if golden["why"] else [])]
    return PackageResult(
        folder, checks.TARGET, plan.name, plan.around.runtime, tuple(manifest.files), tuple(notes)
    )


def _package_cpp(artifact: Path, output: Path | None, options: PackageOptions) -> PackageResult:
    ops = options.serving.ops
    own = PackageOptions(ServingOptions(ops=ops), target=cpp.TARGET)
    if options != replace(own, plugin=options.plugin, force=options.force):
        raise VimDeployError(
            "VIM-203",
            "options for another target were given, and --target is cpp",
            why="a C++ package holds a model, its libraries and its program; a program decides "
            "itself how it runs them",
            fix="give --plugin, --ops, --output and --force only, or --target triton",
        )
    plan = cpp.plan_cpp(artifact, plugin=options.plugin, ops=ops)
    folder = output or artifact.with_name(f"{plan.name}-cpp")
    settings = settings_hash(
        {**cpp.settings_of(plan), "vim-deploy version": vim_deploy.__version__}
    )
    existing = _existing(folder, settings, force=options.force)
    if existing is not None:
        return existing
    with atomic_folder(folder, own_files) as place:
        cpp.write_cpp(place, plan)
        manifest = write_manifest(
            place,
            cpp.TARGET,
            cpp.about(plan),
            tool_version=vim_deploy.__version__,
            settings=settings,
        )
    return PackageResult(
        folder, cpp.TARGET, plan.name, plan.runtime, tuple(manifest.files), plan.notes
    )


def _package_web(artifact: Path, output: Path | None, options: PackageOptions) -> PackageResult:
    own = PackageOptions(force=options.force, target=web.TARGET, web_runtime=options.web_runtime)
    if options != own:
        raise VimDeployError(
            "VIM-203",
            "options for a server or an engine were given, and --target is web",
            why="a page holds an ONNX file, and runs it in the browser that shows it",
            fix="give --web-runtime, --output and --force only, or --target triton",
        )
    folder = output or artifact.with_name(artifact.name.partition(".")[0] + "-web")
    with output_errors(folder):
        folder = Path(os.path.abspath(folder))
    # Before the plan, which may fetch the runtime.
    _require_place(folder)
    plan = web.plan_web(artifact, runtime=options.web_runtime)
    settings = settings_hash(
        {**web.settings_of(plan), "vim-deploy version": vim_deploy.__version__}
    )
    existing = _existing(folder, settings, force=options.force)
    if existing is not None:
        return existing
    servable, sighting = plan.servable, sight(artifact)
    with atomic_folder(folder, own_files) as place:
        web.write_web(place, plan)
        given = golden_input(servable, ROWS)
        golden = _make_golden(place, servable, given, "function", options)
        manifest = write_manifest(
            place,
            web.TARGET,
            web.about(plan, golden),
            tool_version=vim_deploy.__version__,
            settings=settings,
        )
        if sighting.sha256() != servable.file.sha256:
            raise changed(artifact)
    notes = (golden["why"],) if golden["why"] else ()
    return PackageResult(folder, web.TARGET, plan.name, web.RUNTIME, tuple(manifest.files), notes)


def _require_place(folder: Path) -> None:
    """VIM-304 and VIM-305 for a folder that no package can take the place of, or be made beside."""
    if kind_of(folder) is None:
        require_writable_folder(folder.parent)
    else:
        own_files(folder)


def _existing(folder: Path, settings: str, *, force: bool) -> PackageResult | None:
    """The package that is there already, when it is whole and of these settings."""
    kind = kind_of(folder)
    with output_errors(folder):
        if kind is None or (kind == stat.S_IFDIR and not any(folder.iterdir())):
            return None
    own_files(folder)
    if force:
        return None
    manifest = read_manifest(folder)
    found = compare(folder, manifest)
    if manifest.settings_hash == settings and found.intact:
        about: CppAbout | TritonAbout | WebAbout
        if manifest.target == cpp.TARGET:
            about = read_about(folder, manifest, CppAbout)
        elif manifest.target == web.TARGET:
            about = read_about(folder, manifest, WebAbout)
        else:
            about = read_about(folder, manifest, TritonAbout)
        return PackageResult(
            folder,
            manifest.target,
            about.name,
            about.runtime,
            tuple(manifest.files),
            about.notes,
            up_to_date=True,
        )
    why = "\n".join(found.sentences()) or "it was made from another artifact or other options"
    raise VimDeployError(
        "VIM-204",
        f"{folder} exists and is not the package that this would make",
        why=why,
        fix="add --force to replace it, or choose another folder with -o",
    )


def _reference_sha256(servable: Servable, reference: Path | None) -> str:
    """Hash of the ONNX file whose outputs stand for the engine's; VIM-203 when it is another."""
    if reference is None:
        return ""
    record = servable.file.record
    wanted = None if record is None else record.source.sha256
    found = read_servable(reference).file.sha256
    if found != wanted:
        raise VimDeployError(
            "VIM-203",
            f"{reference.name} is not the ONNX file that {servable.file.name} was built from",
            why="the artifact is an ONNX file itself"
            if record is None
            else f"its SHA-256 is {found}, the engine's record says {wanted}",
            fix="leave --golden-from away, or name that file",
        )
    return found


def _make_golden(
    place: Path, servable: Servable, given: Pictures, ops: OpsChoice, options: PackageOptions
) -> dict[str, Any]:
    """Store input and outputs; what the manifest says about them.

    What is packaged decides the bytes, and so ``ops``, not what else is on this machine.
    """
    outputs: dict[str, Array] = {}
    by, why = "", ""
    own = options.golden_from in (None, servable.file.path)
    source = servable.file if own or not options.golden_from else Artifact.open(options.golden_from)
    runner_options = RunnerOptions(plugin=options.plugin if own else None, ops=ops)
    try:
        with open_runner(source, runner_options) as runner:
            outputs = golden_outputs(runner, given)
            by = runner.name
    except VimDeployError as error:
        if not _is_elsewhere(error):
            raise
        why = f"no stored outputs, because the artifact does not run here: {error.message}"
    write_golden(place / GOLDEN_NAME, given, outputs)
    limits = {}
    if servable.size is not None:
        limits["detections"] = encode(detection_limits(servable.precision, servable.info))
    return {
        **limits,
        "file": GOLDEN_NAME,
        "rows": len(given.images),
        "outputs": sorted(outputs),
        "made_by": by,
        "made_from": source.name if outputs else "",
        "tolerance": encode(tolerance_for(servable.precision)),
        "why": why,
    }


def _is_elsewhere(error: VimDeployError) -> bool:
    """Whether an artifact is for another machine, rather than damaged."""
    return error.exit_code == ExitCode.ENVIRONMENT or isinstance(error, OtherMachineError)


def check_package(folder: StrPath) -> CheckReport:
    """Check a package as far as this machine can; every check that was not made is in the report.

    Raises:
        VimDeployError: VIM-425 (files damaged, missing or extra), VIM-427 (no package), VIM-428
            (configuration), VIM-430 (NaN or Inf), VIM-701 (other outputs than the stored ones),
            VIM-901 to VIM-903 (engine and plugin).
    """
    folder = as_path(folder, "folder")
    manifest = read_package(folder)
    if manifest.target == cpp.TARGET:
        made = tuple(cpp.check_cpp(folder, manifest))
        engine = read_about(folder, manifest, CppAbout)
        return CheckReport(str(folder), engine.name, engine.runtime, made)
    if manifest.target == web.TARGET:
        page = read_about(folder, manifest, WebAbout)
        found = [*web.check_web(folder, manifest), _check_golden(folder, page)]
        found.append(Check("page", False, "no browser was started; README.md says how to show it"))
        return CheckReport(str(folder), page.name, page.runtime, tuple(found))
    found = checks.static_checks(folder, manifest)
    about = read_about(folder, manifest, TritonAbout)
    found.append(_check_golden(folder, about))
    found.append(Check("server", False, "no server was started; client.py --check asks one"))
    return CheckReport(str(folder), about.name, about.runtime, tuple(found))


def _check_golden(folder: Path, about: TritonAbout | WebAbout) -> Check:
    stored = about.golden
    if not stored.outputs:
        return Check("golden output", False, stored.why)
    given, wanted = read_golden(folder / stored.file)
    named = about.plugin if isinstance(about, TritonAbout) else None
    plugin = None if named is None else folder / named
    try:
        file = Artifact.open(folder / about.artifact.path)
        with open_runner(file, RunnerOptions(plugin=plugin)) as runner:
            outputs = golden_outputs(runner, given)
            by = runner.name
    except VimDeployError as error:
        if not _is_elsewhere(error):
            raise
        return Check("golden output", False, f"not run here: {error.message}")
    wrong = differences(wanted, outputs, stored.tolerance, stored.detections)
    if wrong:
        raise VimDeployError(
            "VIM-701",
            f"{about.name} gives other outputs than the stored ones",
            why="\n".join(wrong) + f"\nstored by {stored.made_by}, now {by}",
            fix="compare the versions of the runtimes; make the package again where it is served",
        )
    return Check("golden output", True, f"reproduced by {by}")
