"""A folder with an engine and the C++ program around it, to be built with CMake where it runs.

    FOLDER/engine/                 the engine under its own name, its record, its plugin library
    FOLDER/vim_deploy/             the C++ library that runs it, and its programs
    FOLDER/main.cpp                an example program; CMakeLists.txt builds it and the library
    FOLDER/labels.txt              class names, where the engine has some
    FOLDER/README.md               how to build and run it
    FOLDER/manifest.json           what is here, with hashes

The C++ library refuses a plugin library whose hash is not the recorded one, so only that one is
taken along. Equal input gives equal bytes: nothing of the time or the machine is written.
"""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy import heads, installation
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.engine_file import TENSORRT, describe_gpus
from vim_deploy.artifact.metadata import ExportInfo, require_info
from vim_deploy.artifact.passport import matching_library
from vim_deploy.artifact.record import EngineRecord, PluginIdentity, record_path
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import output_errors, sha256_of
from vim_deploy.packaging.about import CppAbout, read_about
from vim_deploy.packaging.check import CPP_TARGET, Check
from vim_deploy.packaging.detector import detector_facts
from vim_deploy.packaging.manifest import Manifest
from vim_deploy.packaging.scripts import fill, template, unchanged, write_labels, write_text

TARGET = CPP_TARGET
ENGINE_FOLDER, SOURCES_FOLDER, LABELS_NAME = "engine", "vim_deploy", "labels.txt"
#: What of ``cpp`` makes the library and its programs.
_SOURCES = (
    "CMakeLists.txt",
    "classify.cpp",
    "detect.cpp",
    "program.h",
    "cmake/*",
    "include/vim_deploy/*.h",
    "src/*.cpp",
    "src/*.h",
)


@dataclass(frozen=True)
class CppPlan:
    """Everything about a C++ package that is settled before a byte is written.

    Attributes:
        engine: the plan.
        record: of it.
        info: what the engine says about its model.
        plugin: library to take along; None when there is none to take.
        sources: of the C++ library, by path inside its folder.
        notes: sentences for the user.
    """

    engine: Path
    record: EngineRecord
    info: ExportInfo
    plugin: Path | None
    sources: dict[str, Path]
    notes: tuple[str, ...]

    @property
    def detects(self) -> bool:
        """Whether the engine is a detector's."""
        return heads.of_file(self.info).takes_size

    @property
    def name(self) -> str:
        """Of the package: the engine's, up to the first point."""
        return self.engine.name.partition(".")[0]


def sources_folder() -> Path:
    """Where the sources of the C++ library are.

    Raises:
        VimDeployError: VIM-401 when they are not there.
    """
    folder = installation.SHIPPED / "cpp"
    if not (folder / "CMakeLists.txt").is_file():
        raise VimDeployError(
            "VIM-401",
            f"the sources of the C++ library are not in {folder}",
            why="this installation of vim-deploy is not complete",
            fix="install vim-deploy again",
        )
    return folder


def cpp_sources(folder: Path) -> dict[str, Path]:
    """The files of the C++ library by their path inside ``folder``, sorted."""
    found = sorted(path for pattern in _SOURCES for path in folder.glob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def plan_cpp(engine: Path, *, plugin: Path | None = None) -> CppPlan:
    """Settle what goes into the package.

    Args:
        engine: made by ``build_engine`` with full TensorRT; its record stands beside it.
        plugin: library of the engine, when it is not where it was built.

    Raises:
        VimDeployError: VIM-401, VIM-413 (engine or record not readable), VIM-426 (an engine of
            TensorRT-RTX, or one without record or weights), VIM-410 (it does not say how pictures
            are prepared), VIM-902 (engine and record do not belong together, or one of them is
            damaged), VIM-431 (a dense model, but no detector), VIM-903 (the recorded plugin
            library is not to be found), VIM-203 (a library is named that the engine does not
            need).
    """
    record = _record_of(engine)
    info = require_info(
        record.export,
        f"{engine.name} does not say how pictures are prepared for it",
        why="its ONNX file was not made by vim-deploy",
        fix="export the model with vim-deploy export",
    )
    if info.dense and not heads.of_file(info).takes_size:
        raise VimDeployError(
            "VIM-431",
            f"the C++ package is for classifiers and detectors, and {engine.name} is neither",
            why=f"it is a dense model ({info.dense.task}, head {info.head}): the programs of the "
            "package print the best classes of whole pictures, or what a detector finds",
            fix="--target triton serves every output; a program of your own can link the library, "
            "which gives outputs as tensors (docs/cpp.md)",
        )
    library = _library(engine, record.plugin, plugin)
    notes = [
        f"runs with TensorRT {record.runtime_version} on GPUs of "
        f"{describe_gpus(record.compute_capabilities, record.later_gpus)}"
    ]
    if record.plugin is not None and record.plugin.embedded:
        notes.append(
            "the engine carries its plugin library inside; a program has to set "
            "EngineOptions::allow_embedded_code"
        )
    sources = cpp_sources(sources_folder())
    return CppPlan(engine, record, info, library, sources, tuple(notes))


def _record_of(path: Path) -> EngineRecord:
    engine = Artifact.engine(path)
    if engine.header.runtime != TENSORRT:
        raise _refused(
            path,
            "it is an engine of TensorRT-RTX, which is another library than TensorRT",
            "vim-deploy build-engine MODEL.onnx --runtime tensorrt",
        )
    record = engine.record
    if record is None:
        raise _refused(
            path,
            f"there is no {engine.record_path.name} beside it, which the C++ library checks",
            "copy the record from where the engine was built, or build it again",
        )
    engine.require_own_record(record)
    engine.refuse_diagnosis("packaged")
    if record.stripped:
        raise _refused(
            path,
            "it holds no weights: it was built stripped, to be refitted before it is used",
            f"vim-deploy refit {path.name} CHECKPOINT",
        )
    return record


def _refused(engine: Path, why: str, fix: str) -> VimDeployError:
    return VimDeployError(
        "VIM-426", f"{engine.name} cannot be run by the C++ library", why=why, fix=fix
    )


def _library(engine: Path, wanted: PluginIdentity | None, named: Path | None) -> Path | None:
    """The recorded plugin library; no other one would be loaded."""
    if wanted is None or wanted.embedded:
        if named is not None:
            raise VimDeployError(
                "VIM-203",
                f"{engine.name} needs no plugin library, and --plugin names one",
                why="its record has none" if wanted is None else "it carries its library inside",
                fix="leave --plugin away",
            )
        return None
    library = matching_library(engine, wanted, named, [])
    found = sha256_of(library)
    if found != wanted.sha256:
        raise VimDeployError(
            "VIM-903",
            f"{library} is not the plugin library that {engine.name} was built with",
            why=f"its SHA-256 is {found}, the record says {wanted.sha256}",
            fix="name the library that the engine was built with, or build the engine again",
        )
    return library


def settings_of(plan: CppPlan) -> dict[str, Any]:
    """What decides the contents of the package, for ``files.settings_hash``."""
    return {
        "target": TARGET,
        "engine": [plan.engine.name, plan.record.plan.sha256],
        "record": sha256_of(record_path(plan.engine)),
        "plugin": sha256_of(plan.plugin) if plan.plugin else "",
        "sources": {name: sha256_of(path) for name, path in plan.sources.items()},
    }


def write_cpp(folder: Path, plan: CppPlan) -> None:
    """Write everything but the manifest into an empty folder."""
    with output_errors(folder):
        for name, source in _copies(plan).items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        write_labels(folder / LABELS_NAME, plan.info.labels)
        program = "detector.cpp" if plan.detects else "main.cpp"
        write_text(folder / "main.cpp", unchanged(f"cpp_program/{program}"))
        write_text(folder / "CMakeLists.txt", unchanged("cpp_program/CMakeLists.txt"))
        write_text(folder / "README.md", _readme(plan))


def _copies(plan: CppPlan) -> dict[str, Path]:
    """Files that are taken as they are, by their path inside the package."""
    record = record_path(plan.engine)
    copies = {f"{ENGINE_FOLDER}/{path.name}": path for path in (plan.engine, record)}
    if plan.plugin is not None and plan.record.plugin is not None:
        # The name that the record has, which is the one that is looked for.
        copies[f"{ENGINE_FOLDER}/{plan.record.plugin.name}"] = plan.plugin
    copies |= {f"{SOURCES_FOLDER}/{name}": path for name, path in plan.sources.items()}
    return copies


def _readme(plan: CppPlan) -> str:
    record, engine = plan.record, shlex.quote(f"{ENGINE_FOLDER}/{plan.engine.name}")
    return fill(
        template("cpp_README.md"),
        engine=engine,
        version=record.runtime_version,
        gpus=describe_gpus(record.compute_capabilities, record.later_gpus),
        model=plan.info.model,
        program=fill(template("cpp_detect" if plan.detects else "cpp_classify"), engine=engine)[
            :-1
        ],
    )


def about(plan: CppPlan) -> dict[str, Any]:
    """What the manifest says of the engine."""
    record, info = plan.record, plan.info
    plugin = record.plugin.name if plan.plugin is not None and record.plugin is not None else None
    return {
        "name": plan.name,
        "runtime": TENSORRT,
        "artifact": {
            "path": f"{ENGINE_FOLDER}/{plan.engine.name}",
            "source": plan.engine.name,
            "sha256": record.plan.sha256,
        },
        "inputs": [encode(spec) for spec in record.inputs],
        "outputs": [encode(spec) for spec in record.outputs],
        "preprocess": info.preprocess,
        "image": encode(info.image),
        "head": info.head,
        "labels": list(info.labels),
        **(detector_facts(info) if plan.detects else {}),
        "model": info.model,
        "checkpoint": encode(info.checkpoint),
        "tensorrt": record.runtime_version,
        "compute_capabilities": list(record.compute_capabilities),
        "plugin": f"{ENGINE_FOLDER}/{plugin}" if plugin else None,
        "notes": list(plan.notes),
    }


def check_cpp(folder: Path, manifest: Manifest) -> list[Check]:
    """What of a C++ package can be checked without building it; its files have been compared.

    Raises:
        VimDeployError: VIM-413, VIM-902 (engine and record), VIM-903 (plugin library), VIM-427
            (the manifest does not describe an engine).
    """
    about = read_about(folder, manifest, CppAbout)
    engine = folder / about.artifact.path
    record = _record_of(engine)
    named = None if about.plugin is None else folder / about.plugin
    library = _library(engine, record.plugin, named)
    return [
        Check("manifest", True, f"{len(manifest.files)} files have their hashes"),
        Check(
            "passport",
            True,
            f"the engine is whole and is the one of its record: TensorRT {record.runtime_version}",
        ),
        Check(
            "plugin",
            True,
            "the engine needs no library beside it"
            if library is None
            else f"{library.name} is the library that the engine was built with",
        ),
        Check("program", False, "nothing was compiled; README.md says how to build and run it"),
    ]
