"""NVIDIA's own TensorRT as far as the package index has it in little, and needs no GPU.

The lean runtime (46 MB a version) has the real plugin registry, and bindings of what runs engines.
The bindings of full TensorRT (1 MB) have every class; the libraries they load are gigabytes, so
they get stand-ins, whose C functions give null pointers. Such a module makes no builder and no
runtime, and says what each of its classes is.

Wheels come by the hashes of ``requirements/consumers`` into pytest's cache folder; where they are
not to be had, tests skip and say why. Each module belongs into a process of its own.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.consumer_runs import variables
from tests.support import plugins
from tests.support.consumers import environment_of
from tests.support.source import REPOSITORY

#: Lean runtimes whose registries are tried: in every run, and with VIM_TEST_ALL=1.
LEAN = ("10.16.1.11", "11.4.0.106")
LEAN_MORE = ("10.15.1.29", "11.0.0.114")
#: Bindings of full TensorRT -> the personality of the fake that stands for them.
FULL = {
    "8.6.1": "8.6",
    "10.3.0": "10.3",
    "10.14.1.48.post1": "10.14",
    "11.1.0.106": "11",
    "11.4.0.106": "11",
}
LEAN_MODULE, FULL_MODULE = "tensorrt_lean_bindings", "tensorrt_bindings"

#: What the bindings call of their libraries; 8.6 reads other files than ONNX, too.
_FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
)
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")


@functools.cache
def _stand_ins(major: str) -> Path:
    """A folder of libraries with the names of one major release."""
    compiler = plugins.need_tool("cc")
    folder = plugins.working_folder() / f"nvinfer-{major}"
    folder.mkdir()
    source = folder / "null.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS))
    first = folder / f"lib{_LIBRARIES[0]}.so.{major}"
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(first)], check=True)
    for name in _LIBRARIES[1:]:
        (folder / f"lib{name}.so.{major}").symlink_to(first)
    return folder


def run_lean(config: pytest.Config, version: str, program: str, *words: str) -> Any:
    """What a module of ``tests.support`` prints as JSON, in a process with this lean runtime."""
    place = environment_of(config, f"tensorrt-lean-{version}")
    return _run(place, {}, [program, LEAN_MODULE, *words])


def run_full(config: pytest.Config, version: str, program: str, *words: str) -> Any:
    """The same with the bindings of full TensorRT."""
    place = environment_of(config, f"tensorrt-{version}")
    libraries = {"LD_LIBRARY_PATH": str(_stand_ins(version.partition(".")[0]))}
    return _run(place, libraries, [program, FULL_MODULE, *words])


def run_rtx(program: str, *words: str) -> Any:
    """The same with the TensorRT-RTX that is installed."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed")
    return _run(None, {}, [program, "tensorrt_rtx", *words])


def _run(place: Path | None, more: dict[str, str], words: list[str]) -> Any:
    path = os.pathsep.join([*([] if place is None else [str(place)]), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env={**variables(place), **more, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
