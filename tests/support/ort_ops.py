"""The library of native ops for ONNX Runtime, built from this checkout's sources.

It is the one in the user's cache, which ``make venv`` has put there: the same sources, compiler and
flags. What else is built of its project is kept in pytest's cache folder for a state of the
sources. Tests skip with the reason where a machine has no C++ compiler or no CMake.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support.locks import alone
from tests.support.source import REPOSITORY
from vim_deploy.ops import OPS, contract
from vim_deploy.plugin.build_ort import OrtBuildSettings, build_ort_library
from vim_deploy.runtimes.onnxruntime import capability

PLUGINS = REPOSITORY / "plugins"
CACHE = REPOSITORY / ".pytest_cache" / "d" / "vim-ort-cpu"

#: What says where the user's cache is, as it was before the first test.
_CACHES = {name: os.environ.get(name) for name in ("HOME", "XDG_CACHE_HOME")}

#: Folders under ``plugins`` that the library is made of, and the suffixes of what counts there.
_FOLDERS = ("adapters", "cpu", "cpu/kernels", "include/vim_plugins", "kernels", "onnxruntime")
_FOLDERS += ("onnxruntime/cmake", "onnxruntime/tests", "tests/common", "tests/host/shim")
_SUFFIXES = (".cpp", ".h", ".txt", ".cmake", ".map")


def missing_tools() -> str | None:
    """What a machine lacks to build the library, or None."""
    if compiler() is None:
        return "no C++ compiler: g++ and clang++ are not on PATH, and CXX is not set"
    return None if shutil.which("cmake") else "cmake is not on PATH"


def compiler() -> str | None:
    """The C++ compiler: ``CXX``, g++ or clang++."""
    wanted = os.environ.get("CXX")
    return wanted or shutil.which("g++") or shutil.which("clang++")


def sources() -> list[Path]:
    """Every file that the build reads, in one order."""
    folders = [PLUGINS / folder for folder in _FOLDERS]
    return sorted(path for f in folders for path in f.iterdir() if path.suffix in _SUFFIXES)


@functools.cache
def built_library() -> Path:
    """``libvim_ort_cpu.so``; skips the test where it cannot be built."""
    if reason := missing_tools():
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        # Not the cache that a test has made for itself.
        for name, value in _CACHES.items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)
        return build_ort_library(OrtBuildSettings(), say=lambda _: None).library


@functools.cache
def built_checks(kind: str) -> Path:
    """The program that drives the adapter through a fake ONNX Runtime, under the sanitizers of
    ``address`` or ``thread``; skips the test where it cannot be built."""
    target = f"vim_ort_cpu_checks_{kind}"
    if reason := missing_tools():
        pytest.skip(reason)
    state = hashlib.sha256(str(compiler()).encode())
    for path in sources():
        state.update(path.read_bytes())
    build = CACHE / state.hexdigest()[:16]
    with alone(CACHE / "lock"):
        for old in CACHE.iterdir():
            if old.is_dir() and old != build:
                shutil.rmtree(old)
        if not (build / "CMakeCache.txt").exists():
            where = ["-S", str(PLUGINS / "cpu"), "-B", str(build)]
            output_of("cmake", *where, f"-DCMAKE_CXX_COMPILER={compiler()}")
        # A build that was broken off goes on; one that is done has nothing to do.
        output_of("cmake", "--build", str(build), "--target", target, "--parallel", "2")
    return build / target


def output_of(*command: str) -> str:
    """What a command that must succeed prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


#: Of a log: nothing. Refusals are looked at through their exceptions.
_SILENT = 4

Array = np.ndarray[Any, np.dtype[Any]]


def text_model(graph: str) -> bytes:
    """A model from ONNX's text form of its graph, with our domain."""
    opsets = f'"" : 18, "{contract.DOMAIN}" : {contract.DOMAIN_VERSION}'
    model = onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{opsets}]>\n{graph}")
    return bytes(model.SerializeToString())


def open_session(
    model: bytes | Path,
    *libraries: Path,
    threads: int = 1,
    entries: Mapping[str, str] | None = None,
    profile: Path | None = None,
) -> Any:
    """A session on the CPU provider with these libraries of ops; none: functions are inlined."""
    runtime = capability.load()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _SILENT
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    for library in libraries:
        options.register_custom_ops_library(str(library))
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    source = model if isinstance(model, bytes) else str(model)
    return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def kernels_run(session: Any, runs: int = 1) -> dict[str, int]:
    """Kernels of our domain's ops in each of ``runs`` runs, by the session's profile, which this
    ends."""
    path = Path(session.end_profiling())
    events = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    counts = Counter(
        event["args"]["op_name"]
        for event in events
        if event.get("cat") == "Node"
        and event["name"].endswith("kernel_time")
        and event["args"]["op_name"] in OPS
    )
    assert all(count % runs == 0 for count in counts.values())
    return {name: count // runs for name, count in counts.items()}


def relative_l2(got: Array, want: Array) -> float:
    """|got - want| / |want| in the 2-norm."""
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))
