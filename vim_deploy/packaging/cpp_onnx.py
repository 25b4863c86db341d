"""The plan of a C++ package around an ONNX file, which ONNX Runtime runs on any machine's CPU.

    FOLDER/model/                  the ONNX file under its own name, and weights beside it
    FOLDER/native/                 native ops, where a library of them is here and the file asks

ONNX Runtime itself does not go along: it is for one platform, and README.md says how to get it.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.packaging.about import CppAbout
from vim_deploy.packaging.check import Check, check_onnx
from vim_deploy.packaging.cpp_plan import CppPlan, require_program
from vim_deploy.packaging.native_ops import OPS_LIBRARY, check_library, choose_ops, described
from vim_deploy.packaging.repository import ONNXRUNTIME, PYTHON
from vim_deploy.packaging.servable import read_servable
from vim_deploy.specs import OpsChoice

MODEL_FOLDER, NATIVE_FOLDER = "model", "native"
#: The first ONNX Runtime whose C API has what the library calls (plugins/onnxruntime/ort_api.h).
OLDEST_RUNTIME = "1.17"


def plan_onnx(path: Path, ops: OpsChoice) -> CppPlan:
    """Settle what goes into the package of an ONNX file.

    Args:
        path: made by ``export``.
        ops: as of ``ServingOptions``.

    Raises:
        VimDeployError: VIM-426 (bfloat16, which ONNX Runtime does not have on a CPU), VIM-431 (a
            dense model, but no detector), and errors of ``read_servable`` and ``choose_ops``.
    """
    servable = read_servable(path)
    if servable.off_cpu:
        raise VimDeployError(
            "VIM-426",
            f"{path.name} cannot be run by the C++ library",
            why=f"it holds {servable.off_cpu} operators, which ONNX Runtime does not have on a CPU",
            fix="package an engine of it, or export with --precision fp32",
        )
    require_program(servable.info, path.name)
    notes = [f"runs with ONNX Runtime {OLDEST_RUNTIME} or later, which does not go along"]
    # The library runs the file without native ops where they do not load, as that backend does.
    library = choose_ops(servable, PYTHON, ops, "", notes)
    beside = [item.name for item in servable.file.companions]
    files = {f"{MODEL_FOLDER}/{name}": path.parent / name for name in (path.name, *beside)}
    native = None
    if library is not None:
        native = described(library, f"{NATIVE_FOLDER}/{OPS_LIBRARY}")
        files[f"{NATIVE_FOLDER}/{OPS_LIBRARY}"] = Path(library.path)
    place = f"{MODEL_FOLDER}/{path.name}"
    file = servable.file
    return CppPlan(
        artifact=path,
        place=place,
        sha256=file.sha256,
        runtime=ONNXRUNTIME,
        info=servable.info,
        inputs=servable.inputs,
        outputs=file.outputs,
        files=files,
        facts={"ops": native},
        readme="cpp_onnx_README.md",
        words={
            "artifact": shlex.quote(place),
            "version": OLDEST_RUNTIME,
            "native": _native(native),
        },
        settings={
            "model": [path.name, file.sha256],
            "beside": [[item.name, item.sha256] for item in file.companions],
            "ops": None if library is None else library.sha256,
        },
        notes=tuple(notes),
    )


def _native(native: dict[str, Any] | None) -> str:
    """What README.md says of native ops."""
    if native is None:
        return (
            "No native ops went along: the functions in the file compute the scans, several times "
            "as slowly.\n`vim-deploy plugin build --target onnxruntime` makes them for a machine."
        )
    needs = f" with glibc {native['glibc']} or later" if native["glibc"] else ""
    return (
        f"`{native['library']}` computes the scans several times as fast as the functions in the "
        f"file. It is for\n{native['machine']}{needs}; the build puts it beside the programs, "
        "which take it where it loads and say so\nwhere it does not. `--ops none` runs without it, "
        "`--verbose` says what runs."
    )


def check_model(folder: Path, about: CppAbout) -> list[Check]:
    """What of the model can be checked without running it.

    Raises:
        VimDeployError: VIM-409, VIM-428 (another model than the manifest says), VIM-410, VIM-417
            (the native ops are no such library).
    """
    checks = [check_onnx(folder / about.artifact.path, about)]
    if about.ops is None:
        return [*checks, Check("native ops", True, "none went along")]
    return [*checks, Check("native ops", True, check_library(folder, about.ops))]
