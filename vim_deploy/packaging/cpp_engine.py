"""The plan of a C++ package around an engine of TensorRT.

    FOLDER/engine/                 the engine under its own name, its record, its plugin library

The C++ library refuses a plugin library whose hash is not the recorded one, so only that one is
taken along.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.engine_file import TENSORRT, describe_gpus
from vim_deploy.artifact.metadata import require_info
from vim_deploy.artifact.passport import matching_library
from vim_deploy.artifact.record import EngineRecord, PluginIdentity, record_path
from vim_deploy.errors import VimDeployError
from vim_deploy.files import sha256_of
from vim_deploy.packaging.about import CppAbout
from vim_deploy.packaging.check import Check
from vim_deploy.packaging.cpp_plan import CppPlan, require_program

ENGINE_FOLDER = "engine"


def plan_engine(engine: Path, plugin: Path | None) -> CppPlan:
    """Settle what goes into the package of an engine.

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
    require_program(info, engine.name)
    library = _library(engine, record.plugin, plugin)
    gpus = describe_gpus(record.compute_capabilities, record.later_gpus)
    notes = [f"runs with TensorRT {record.runtime_version} on GPUs of {gpus}"]
    if record.plugin is not None and record.plugin.embedded:
        notes.append(
            "the engine carries its plugin library inside; a program has to set "
            "EngineOptions::allow_embedded_code"
        )
    files = {f"{ENGINE_FOLDER}/{path.name}": path for path in (engine, record_path(engine))}
    packed = None
    if library is not None and record.plugin is not None:
        # The name that the record has, which is the one that is looked for.
        packed = f"{ENGINE_FOLDER}/{record.plugin.name}"
        files[packed] = library
    place = f"{ENGINE_FOLDER}/{engine.name}"
    return CppPlan(
        artifact=engine,
        place=place,
        sha256=record.plan.sha256,
        runtime=TENSORRT,
        info=info,
        inputs=record.inputs,
        outputs=record.outputs,
        files=files,
        facts={
            "tensorrt": record.runtime_version,
            "compute_capabilities": list(record.compute_capabilities),
            "plugin": packed,
        },
        readme="cpp_README.md",
        words={"artifact": shlex.quote(place), "version": record.runtime_version, "gpus": gpus},
        settings={
            "engine": [engine.name, record.plan.sha256],
            "record": sha256_of(record_path(engine)),
            "plugin": sha256_of(library) if library else "",
        },
        notes=tuple(notes),
    )


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


def check_engine(folder: Path, about: CppAbout) -> list[Check]:
    """What of the engine can be checked without TensorRT.

    Raises:
        VimDeployError: VIM-413, VIM-902 (engine and record), VIM-903 (plugin library).
    """
    engine = folder / about.artifact.path
    record = _record_of(engine)
    named = None if about.plugin is None else folder / about.plugin
    library = _library(engine, record.plugin, named)
    return [
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
    ]
