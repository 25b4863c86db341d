"""A folder with a model and the C++ program around it, to be built with CMake where it runs.

    FOLDER/model/ or engine/       what is run, and what it needs (``cpp_onnx``, ``cpp_engine``)
    FOLDER/vim_deploy/             the C++ library that runs it, and its programs
    FOLDER/main.cpp                an example program; CMakeLists.txt builds it and the library
    FOLDER/labels.txt              class names, where the model has some
    FOLDER/README.md               how to build and run it
    FOLDER/manifest.json           what is here, with hashes

Equal input gives equal bytes: nothing of the time or the machine is written.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from vim_deploy import installation
from vim_deploy.artifact import Artifact
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import changed, output_errors, sha256_of
from vim_deploy.packaging.about import CppAbout, read_about
from vim_deploy.packaging.check import CPP_TARGET, Check
from vim_deploy.packaging.cpp_engine import check_engine, plan_engine
from vim_deploy.packaging.cpp_onnx import check_model, plan_onnx
from vim_deploy.packaging.cpp_plan import SOURCES_FOLDER, CppPlan
from vim_deploy.packaging.detector import detector_facts
from vim_deploy.packaging.manifest import Manifest
from vim_deploy.packaging.scripts import fill, template, unchanged, write_labels, write_text
from vim_deploy.plugin.sources import plugin_sources
from vim_deploy.specs import OpsChoice

TARGET = CPP_TARGET
LABELS_NAME = "labels.txt"
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
#: The declaration of ONNX Runtime's C API, which the native ops and the C++ library share: among
#: the sources of the former, and in a package among those of the latter.
_API_AMONG_PLUGINS, _API = "onnxruntime/ort_api.h", "src/ort_api.h"


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
    """The files of the C++ library by their path inside ``folder``, sorted.

    Raises:
        VimDeployError: VIM-401 when the declaration of ONNX Runtime's C API is not there.
    """
    found = {path for pattern in _SOURCES for path in folder.glob(pattern) if path.is_file()}
    sources = {path.relative_to(folder).as_posix(): path for path in found}
    sources[_API] = plugin_sources("cpu") / _API_AMONG_PLUGINS
    return dict(sorted(sources.items()))


def plan_cpp(artifact: Path, *, plugin: Path | None = None, ops: OpsChoice = "auto") -> CppPlan:
    """Settle what goes into the package.

    Args:
        artifact: an ONNX file made by ``export``, or an engine of full TensorRT.
        plugin: library of an engine, when it is not where it was built.
        ops: native ops for an ONNX file, as of ``ServingOptions``.

    Raises:
        VimDeployError: VIM-203 (an option for the other kind), and errors of ``plan_engine`` or
            ``plan_onnx``.
    """
    is_engine = Artifact.open(artifact).is_engine
    if plugin is not None and not is_engine:
        raise VimDeployError(
            "VIM-203",
            f"--plugin is for engines, and {artifact.name} is an ONNX file",
            why="ONNX Runtime runs it on the CPU, which takes no plugins of TensorRT",
            fix="leave --plugin away; native ops go along by themselves (--ops)",
        )
    if ops == "native" and is_engine:
        raise VimDeployError(
            "VIM-203",
            f"--ops native is for ONNX files, and {artifact.name} is an engine",
            why="an engine has its kernels inside, or in a plugin library",
            fix="leave it away, or package the ONNX file",
        )
    plan = plan_engine(artifact, plugin) if is_engine else plan_onnx(artifact, ops)
    return replace(plan, sources=cpp_sources(sources_folder()))


def settings_of(plan: CppPlan) -> dict[str, Any]:
    """What decides the contents of the package, for ``files.settings_hash``."""
    return {
        "target": TARGET,
        **plan.settings,
        "sources": {name: sha256_of(path) for name, path in plan.sources.items()},
    }


def write_cpp(folder: Path, plan: CppPlan) -> None:
    """Write everything but the manifest into an empty folder; VIM-439 for a changed artifact."""
    copies = {
        **plan.files,
        **{f"{SOURCES_FOLDER}/{name}": path for name, path in plan.sources.items()},
    }
    with output_errors(folder):
        for name, source in copies.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        write_labels(folder / LABELS_NAME, plan.info.labels)
        program = "detector.cpp" if plan.detects else "main.cpp"
        write_text(folder / "main.cpp", unchanged(f"cpp_program/{program}"))
        write_text(folder / "CMakeLists.txt", unchanged("cpp_program/CMakeLists.txt"))
        write_text(folder / "README.md", _readme(plan))
    if sha256_of(folder / plan.place) != plan.sha256:
        # Replaced between its description and its copy.
        raise changed(plan.artifact)


def _readme(plan: CppPlan) -> str:
    program = template("cpp_detect" if plan.detects else "cpp_classify")
    return fill(
        template(plan.readme),
        **plan.words,
        model=plan.info.model,
        program=fill(program, artifact=plan.words["artifact"])[:-1],
    )


def about(plan: CppPlan) -> dict[str, Any]:
    """What the manifest says of the model."""
    info = plan.info
    return {
        "name": plan.name,
        "runtime": plan.runtime,
        "artifact": {"path": plan.place, "source": plan.artifact.name, "sha256": plan.sha256},
        "inputs": [encode(spec) for spec in plan.inputs],
        "outputs": [encode(spec) for spec in plan.outputs],
        "preprocess": info.preprocess,
        "image": encode(info.image),
        "head": info.head,
        "labels": list(info.labels),
        **(detector_facts(info) if plan.detects else {}),
        "model": info.model,
        "checkpoint": encode(info.checkpoint),
        **plan.facts,
        "notes": list(plan.notes),
    }


def check_cpp(folder: Path, manifest: Manifest) -> list[Check]:
    """What of a C++ package can be checked without building it; its files have been compared.

    Raises:
        VimDeployError: VIM-427 (the manifest does not describe such a package), and errors of
            ``check_engine`` or ``check_model``.
    """
    about = read_about(folder, manifest, CppAbout)
    kind = check_engine if about.runtime == "tensorrt" else check_model
    return [
        Check("manifest", True, f"{len(manifest.files)} files have their hashes"),
        *kind(folder, about),
        Check("program", False, "nothing was compiled; README.md says how to build and run it"),
    ]
