"""The C++ runtime under test: its programs, built once against fakes of TensorRT and CUDA.

The fakes stand in ``cpp/tests``. Classes of TensorRT that the fakes derive from have many
functions; those that the library does not call get a body that reports the call, generated from
the headers.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import plugins
from tests.support.source import REPOSITORY
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin import toolchain as cuda_toolkit

CPP = REPOSITORY / "cpp"
#: The example program of a detector's package.
DETECTOR = "../vim_deploy/packaging/cpp_program/detector"
#: Without a toolkit: the headers of the CUDA runtime, and those that they include.
CUDA_PACKAGES = ("nvidia-cuda-runtime==13.5.37", "nvidia-cuda-crt==13.5.37")

_WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]
_SANITIZERS = {
    # A null pointer that is used ends the process under the address sanitizer as well.
    "address": [
        "-fsanitize=address,undefined",
        "-fno-sanitize=null,vptr",
        "-fno-sanitize-recover=all",
    ],
    "thread": ["-fsanitize=thread"],
}
#: Parts of the library, those that need TensorRT last; sessions do without the pictures.
_PICTURES = ("classification", "decode", "detections", "orientation")
_PICTURES += ("preprocess", "resample", "write_image")
_PURE = ("file", "half", "inputs", "json", "record", "result", "sha256", "tensor", "text")
_READER = ("description", "onnx_file", "onnx_rules", "onnx_walk")
_ONNX = ("ort_engine", "ort_library", "ort_session")
_ENGINES = ("engine", "log")
_TENSORRT = ("logger", "passport", "plugin", "slots", "trt_engine", "trt_session")
#: Parts that know a runtime.
_RUNTIME = (*_ENGINES, *_ONNX, *_TENSORRT)
#: Sources of the two fake libraries.
_FAKE_CUDA = ("fake_cuda", "fake_cuda_state")
_FAKE_TENSORRT = ("fake_plan", "fake_tensorrt")
#: Classes behind TensorRT's interface that the fakes implement.
_FAKED = ("VRuntime", "VCudaEngine", "VExecutionContext")

ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def generate_bases(headers: Path) -> str:
    """C++ classes ``V...Base`` in which every function reports that it was not expected."""
    text = (headers / "NvInferImpl.h").read_text(encoding="utf-8")
    parts = ["#pragma once", "#include <NvInferRuntime.h>", "#include <cstdlib>"]
    parts += ['#include "fakes.h"', "namespace nvinfer1 {"]
    for name in _FAKED:
        found = re.search(rf"^class {name} : public VRoot\n\{{(.*?)^\}};", text, re.S | re.M)
        assert found, f"NvInferImpl.h has no class {name}"
        body = re.sub(r"^#if.*?^#endif[^\n]*|//[^\n]*", "", found[1], flags=re.S | re.M)
        parts.append(f"class {name}Base : public apiv::{name} {{ public:")
        for function in re.findall(r"virtual\s+(.*?)\s*=\s*0;", body, re.S):
            call = f"{name}::{re.split(r'[(]', function)[0].split()[-1]}"
            parts.append(
                f'{function} override {{ fake_fault("{call} was called"); std::abort(); }}'
            )
        parts.append("};")
    return "\n".join([*parts, "}", ""])


@functools.cache
def cuda_include() -> Path | str:
    """The folder of ``cuda_runtime_api.h``, of a toolkit or from PyPI; or why there is none."""
    try:
        root = cuda_toolkit.find_toolkit().root
    except VimDeployError:
        return _cuda_include_from_pypi()
    found = [
        *root.glob("include/cuda_runtime_api.h"),
        *root.glob("targets/*/include/cuda_run*_api.h"),
    ]
    return found[0].parent if found else _cuda_include_from_pypi()


def _cuda_include_from_pypi() -> Path | str:
    folder = plugins.working_folder() / "cuda"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--dest", str(folder), *CUDA_PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != len(CUDA_PACKAGES):
        return f"no CUDA headers: {(done.stderr.strip() or 'no wheels')[-200:]}"
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [n for n in archive.namelist() if "/include/" in n])
    return folder / "nvidia" / "cu13" / "include"


@dataclass(frozen=True)
class Fakes:
    """The fake libraries, and the headers that everything is compiled with.

    They are not sanitized: what they allocate, copy and lock goes through functions that the
    sanitizers of a program watch, and they are the same for all programs.
    """

    folder: Path
    headers: Path
    cuda: Path

    @property
    def cudart(self) -> Path:
        """The fake ``libcudart.so``."""
        return self.folder / "libcudart.so"

    @property
    def nvinfer(self) -> Path:
        """The fake ``libnvinfer.so``."""
        return self.folder / "libnvinfer.so"

    def plugin(self, name: str) -> Path:
        """A fake plugin library: ``good``, ``contract_2`` or ``refused``."""
        return self.folder / f"plugin_{name}.so"


def need_fakes() -> Fakes:
    """The fake libraries; skips where they cannot be made."""
    plugins.need_tool("g++")
    include = cuda_include()
    if isinstance(include, str):
        pytest.skip(include)
    return _fakes(plugins.need_headers(), include)


@functools.cache
def _fakes(headers: Path, cuda: Path) -> Fakes:
    folder = plugins.working_folder() / "cpp-fakes"
    folder.mkdir(exist_ok=True)
    (folder / "fake_bases.h").write_text(generate_bases(headers), encoding="utf-8")
    fakes = Fakes(folder, headers, cuda)
    _compile_all(fakes, folder, [f"tests/{name}" for name in (*_FAKE_TENSORRT, *_FAKE_CUDA)], [])
    for output, parts in ((fakes.cudart, _FAKE_CUDA), (fakes.nvinfer, _FAKE_TENSORRT)):
        objects = [_object(folder, f"tests/{part}") for part in parts]
        needs = [str(fakes.cudart)] if output == fakes.nvinfer else []
        _run(["-Wl,-rpath,$ORIGIN", "-shared", *objects, *needs, "-o", str(output)])
    for name, number in {"good": 1, "contract_2": 2, "refused": 1}.items():
        defines = [f"-DFAKE_CONTRACT={number}"] + ["-DFAKE_REFUSES"] * (name == "refused")
        source = str(CPP / "tests" / "fake_plugin.cpp")
        flags = [*_WARNINGS, *defines, "-shared", "-fPIC", source, "-ldl"]
        _run([*flags, "-o", str(fakes.plugin(name))])
    return fakes


def need_program(name: str, kind: str = "address") -> Path:
    """A program under the sanitizer ``address``; skips where it cannot be made.

    ``classify``, ``detect``, ``detector``, ``units``, ``onnx_checks`` or ``runtime_checks``; the
    last also under ``thread``.
    """
    return _programs(kind, need_fakes()) / name


@functools.cache
def _programs(kind: str, fakes: Fakes) -> Path:
    """The folder of the programs under one sanitizer."""
    folder = plugins.working_folder() / f"cpp-{kind}"
    folder.mkdir(exist_ok=True)
    flags = _SANITIZERS[kind]
    library = [f"src/{name}" for name in (*_ENGINES, *_TENSORRT, *_PURE)]
    programs = ["tests/runtime_checks"]
    if kind == "address":
        programs += ["classify", "detect", "tests/units", "tests/onnx_checks", DETECTOR]
        library += [f"src/{name}" for name in (*_ONNX, *_READER, *_PICTURES, "no_tensorrt")]
    else:
        # ONNX Runtime is not compiled for this sanitizer, so no ONNX file is opened there.
        library.append("tests/no_onnx")
    # The programs only call the library: what is undefined in them costs compile time and shows
    # nothing about it.
    _compile_all(fakes, folder, programs, [flag.replace(",undefined", "") for flag in flags])
    _compile_all(fakes, folder, library, flags)
    for program in programs:
        # With TensorRT, and without it and CUDA: which is decided when a program is linked.
        left_out: tuple[str, ...] = ("no_tensorrt",)
        libraries = [str(fakes.nvinfer), str(fakes.cudart), f"-Wl,-rpath,{fakes.folder}"]
        if program in ("tests/units", "tests/onnx_checks"):
            left_out = (*_RUNTIME, "no_tensorrt") if program == "tests/units" else _TENSORRT
            libraries = []
        parts = [program, *(part for part in library if Path(part).name not in left_out)]
        objects = [_object(folder, part) for part in parts]
        output = str(folder / Path(program).name)
        _run([*flags, *objects, *libraries, "-ldl", "-pthread", "-o", output])
    return folder


#: Parts of the library that differ when it has decoders for PNG and JPEG.
_DECODERS = ("decode", "decode_png", "decode_jpeg")


def need_units_with_decoders() -> Path:
    """``units`` with the decoders for PNG and JPEG; skips where their libraries are missing."""
    folder = need_program("units").parent
    missing = _missing_header()
    if missing:
        pytest.skip(f"{missing} is not installed (Debian: libpng-dev, libjpeg62-turbo-dev)")
    return _units_with_decoders(folder, need_fakes())


@functools.cache
def _missing_header() -> str:
    """The decoders' header that the compiler does not find; empty when both are there."""
    for header in ("png.h", "jpeglib.h"):
        probe = ["g++", "-fsyntax-only", "-x", "c++", "-"]
        text = f"#include <cstddef>\n#include <cstdio>\n#include <{header}>\n"
        done = subprocess.run(probe, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            return header
    return ""


@functools.cache
def _units_with_decoders(folder: Path, fakes: Fakes) -> Path:
    own = folder / "decoders"
    own.mkdir(exist_ok=True)
    flags = [*_SANITIZERS["address"], "-DVIM_DEPLOY_HAS_PNG=1", "-DVIM_DEPLOY_HAS_JPEG=1"]
    decoders = [f"src/{name}" for name in _DECODERS]
    _compile_all(fakes, own, decoders, flags)
    parts = [f"src/{name}" for name in (*_PURE, *_READER, *_PICTURES) if name != "decode"]
    objects = [_object(folder, part) for part in ("tests/units", *parts)]
    objects += [_object(own, part) for part in decoders]
    _run([*flags, *objects, "-lpng", "-ljpeg", "-o", str(own / "units")])
    return own / "units"


def need_fuzz_driver() -> Path:
    """The driver of ``tests/fuzz/cpp``, with decoders for PNG and JPEG where they are."""
    folder = need_program("units").parent
    decoders = None if _missing_header() else need_units_with_decoders().parent
    return _fuzz_driver(folder, need_fakes(), decoders)


@functools.cache
def _fuzz_driver(folder: Path, fakes: Fakes, decoders: Path | None) -> Path:
    own = folder / "fuzz"
    own.mkdir(exist_ok=True)
    flags = _SANITIZERS["address"]
    sources = ["../tests/fuzz/cpp/driver", "../tests/fuzz/cpp/targets"]
    _compile_all(fakes, own, sources, flags)
    objects = [_object(own, part) for part in sources]
    for part in (*_PURE, *_READER, *_PICTURES):
        place = decoders if decoders is not None and part in _DECODERS else folder
        objects.append(_object(place, f"src/{part}"))
    libraries = []
    if decoders is not None:
        objects += [_object(decoders, f"src/{name}") for name in ("decode_png", "decode_jpeg")]
        libraries = ["-lpng", "-ljpeg"]
    _run([*flags, *objects, *libraries, "-o", str(own / "driver")])
    return own / "driver"


def _compile_all(fakes: Fakes, folder: Path, sources: list[str], options: list[str]) -> None:
    """Object files of ``sources`` into ``folder``, two at a time."""
    # Sanitized code that is optimised takes four times as long to compile.
    flags = ["-std=c++17", "-O0", "-g1", "-fPIC", *_WARNINGS, *options]
    flags += [f"-I{CPP / 'include'}", f"-I{CPP / 'src'}", f"-I{CPP / 'tests'}"]
    flags += [f"-I{plugins.PLUGINS / 'onnxruntime'}"]
    for system in (fakes.folder, fakes.headers, fakes.cuda):
        flags += ["-isystem", str(system)]

    def compile_one(source: str) -> None:
        _run([*flags, "-c", str(CPP / f"{source}.cpp"), "-o", _object(folder, source)])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, sources))


def _object(folder: Path, source: str) -> str:
    return str(folder / (source.replace("/", "_") + ".o"))


def _run(arguments: list[str]) -> None:
    done = subprocess.run(["g++", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run(
    program: Path, *arguments: str | Path, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program of a build; ``variables`` go to the fakes through the environment."""
    done = subprocess.run(
        [str(program), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, **ENVIRONMENT, **variables},
    )
    text = (done.stdout.decode(), done.stderr.decode())
    for word in ("Sanitizer", "runtime error", "fake:", "left over"):
        assert word not in text[1], text[1]
    return subprocess.CompletedProcess(done.args, done.returncode, *text)


def fake_installations(folder: Path, fakes: Fakes) -> dict[str, str]:
    """A TensorRT and a CUDA toolkit made of headers and fakes; the variables that name them."""
    cuda, tensorrt = folder / "cuda", folder / "tensorrt"
    for root, headers, library in (
        (cuda, fakes.cuda, fakes.cudart),
        (tensorrt, fakes.headers, fakes.nvinfer),
    ):
        (root / "lib64").mkdir(parents=True)
        (root / "bin").mkdir()
        (root / "include").symlink_to(headers)
        (root / "lib64" / library.name).symlink_to(library)
    # Where a toolkit has no compiler, CMake takes the version from here.
    (cuda / "version.json").write_text(json.dumps({"cuda": {"version": "13.0.0"}}))
    return {"CUDAToolkit_ROOT": str(cuda), "TensorRT_ROOT": str(tensorrt)}


def run_in_project(words: list[str], folder: Path, variables: dict[str, str]) -> str:
    """Run CMake, a shell, or what was made, in ``folder``; both streams. ``$PWD`` is ``folder``."""
    words = [word.replace("$PWD", str(folder)) for word in words]
    program = words[0] if words[0] in ("cmake", "bash") else str(folder / words[0])
    environment = {
        **os.environ,
        # Quick to compile; the guide's reader gets an optimised library.
        "CMAKE_BUILD_TYPE": "Debug",
        "CXXFLAGS": "-O0",
        **variables,
    }
    done = subprocess.run(
        [program, *words[1:]],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}"
    assert "warning:" not in done.stdout
    return done.stdout
