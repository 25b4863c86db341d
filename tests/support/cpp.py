"""The C++ runtime under test: its programs, built once against fakes of TensorRT and CUDA.

The fakes stand in ``examples/cpp/tests``. Classes of TensorRT that the fakes derive from have many
functions; those that the library does not call get a body that reports the call, generated from
the headers.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import plugins
from tests.support.source import REPOSITORY
from vim_deploy.deps import cuda_toolkit
from vim_deploy.engine.passport import is_version_compatible
from vim_deploy.engine.profiles import Profile, ShapeRange
from vim_deploy.engine.record import EngineRecord, FileIdentity, record_path
from vim_deploy.errors import VimDeployError
from vim_deploy.files import write_json
from vim_deploy.specs import CheckpointInfo, ExportInfo, ImagePreparation, TensorSpec

CPP = REPOSITORY / "examples" / "cpp"
#: Version of the plans that the fake TensorRT is given: that of the headers.
VERSION = (10, 14, 1, 48)
#: Without a toolkit: the headers of the CUDA runtime, and those that they include.
CUDA_PACKAGES = ("nvidia-cuda-runtime==13.5.37", "nvidia-cuda-crt==13.5.37")

_WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]
_SANITIZERS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
    "none": [],
}
#: Parts of the library, those that need TensorRT last; sessions do without the pictures.
_PICTURES = ("classification", "decode", "preprocess", "resample")
_PURE = ("file", "json", "record", "result", "sha256", "tensor")
_RUNTIME = ("engine", "logger", "passport", "plugin", "session", "slots")
_CHECKS = ("tests/runtime_checks", "tests/units")
_CLASSIFY = "classify"
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
class Build:
    """Programs and fake libraries under one sanitizer, or the fake libraries under none.

    Attributes:
        folder: where they are.
        headers, cuda: the headers of TensorRT and of CUDA that they were compiled with.
        flags: the compiler's options for the sanitizer.
    """

    folder: Path
    headers: Path
    cuda: Path
    flags: tuple[str, ...]

    def program(self, name: str) -> Path:
        """``runtime_checks``; under ``address`` also ``classify`` and ``units``."""
        return self.folder / name

    def plugin(self, name: str) -> Path:
        """A fake plugin library: ``good``, ``contract_2`` or ``refused``."""
        return self.folder / f"plugin_{name}.so"


def need_build(kind: str) -> Build:
    """The build ``address``, ``thread`` or ``none``; skips where it cannot be made."""
    plugins.need_tool("g++")
    include = cuda_include()
    if isinstance(include, str):
        pytest.skip(include)
    return _build(kind, plugins.need_headers(), include)


@functools.cache
def _build(kind: str, headers: Path, cuda: Path) -> Build:
    folder = plugins.working_folder() / f"cpp-{kind}"
    folder.mkdir()
    (folder / "fake_bases.h").write_text(generate_bases(headers), encoding="utf-8")
    build = Build(folder, headers, cuda, tuple(_SANITIZERS[kind]))
    programs = {"address": [*_CHECKS, _CLASSIFY], "thread": _CHECKS[:1], "none": []}[kind]
    library = [f"src/{name}" for name in (*_RUNTIME, *_PURE)] if programs else []
    pictures = [f"src/{name}" for name in _PICTURES] if kind == "address" else []
    fakes = [f"tests/{name}" for name in (*_FAKE_TENSORRT, *_FAKE_CUDA)]
    # The slow ones first, so that both processors have work until the end.
    sources = [*fakes, *programs, *library, *pictures]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(functools.partial(_compile, build), sources))
    _link_fakes(build)
    for program in programs:
        _link(build, program, [*library, *pictures])
    if kind == "address":
        _build_plugins(build)
    return build


def _compile(build: Build, source: str, *options: str, suffix: str = "") -> None:
    # Sanitized code that is optimised takes four times as long to compile.
    flags = ["-std=c++17", "-O0", "-g1", "-fPIC", *build.flags, *_WARNINGS]
    flags += [f"-I{CPP / 'include'}", f"-I{CPP / 'src'}", f"-I{CPP / 'tests'}"]
    for system in (build.folder, build.headers, build.cuda):
        flags += ["-isystem", str(system)]
    output = _object(build.folder, source + suffix)
    _run([*flags, *options, "-c", str(CPP / f"{source}.cpp"), "-o", output])


def _link_fakes(build: Build) -> None:
    cuda, tensorrt = build.folder / "libcudart.so", build.folder / "libnvinfer.so"
    for output, parts, needs in ((cuda, _FAKE_CUDA, []), (tensorrt, _FAKE_TENSORRT, [str(cuda)])):
        objects = [_object(build.folder, f"tests/{part}") for part in parts]
        link = [*build.flags, "-Wl,-rpath,$ORIGIN", "-shared", *objects, *needs]
        _run([*link, "-o", str(output)])


def _link(build: Build, program: str, library: list[str]) -> None:
    """Only ``units`` does without TensorRT and CUDA, which shows that its parts need neither."""
    name = Path(program).name
    if name == "units":
        library = [part for part in library if Path(part).name not in _RUNTIME]
    parts = [_object(build.folder, part) for part in (program, *library)]
    if name != "units":
        parts += [str(build.folder / "libnvinfer.so"), str(build.folder / "libcudart.so")]
    link = [*build.flags, "-Wl,-rpath,$ORIGIN", *parts, "-ldl", "-pthread"]
    _run([*link, "-o", str(build.program(name))])


def _build_plugins(build: Build) -> None:
    fake = str(CPP / "tests" / "fake_plugin.cpp")
    for name, number in {"good": 1, "contract_2": 2, "refused": 1}.items():
        defines = [f"-DFAKE_CONTRACT={number}"] + ["-DFAKE_REFUSES"] * (name == "refused")
        parts = [*build.flags, *_WARNINGS, *defines, "-shared", "-fPIC", fake, "-ldl"]
        _run([*parts, "-o", str(build.plugin(name))])


def need_units_with_stb() -> Path:
    """``units`` with the decoder for PNG and JPEG; skips where there is no stb_image.h."""
    build = need_build("address")
    places = [os.environ.get("STB_INCLUDE_DIR", ""), "/usr/include/stb", "/usr/local/include/stb"]
    found = [place for place in places if place and Path(place, "stb_image.h").is_file()]
    if not found:
        pytest.skip("stb_image.h is not installed (Debian's libstb-dev); STB_INCLUDE_DIR names it")
    return _units_with_stb(build, found[0])


@functools.cache
def _units_with_stb(build: Build, stb: str) -> Path:
    _compile(build, "src/decode", "-DVIM_DEPLOY_HAS_STB=1", "-isystem", stb, suffix="_stb")
    parts = [f"src/{name}" for name in (*_PURE, *_PICTURES) if name != "decode"]
    objects = [_object(build.folder, part) for part in ("tests/units", *parts)]
    program = build.folder / "units_stb"
    _run([*build.flags, *objects, _object(build.folder, "src/decode_stb"), "-o", str(program)])
    return program


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


#: What the fake engine is, and the record that goes with it.
INPUT = TensorSpec("image", "float32", ("batch", 1, 32, 32))
LOGITS = TensorSpec("logits", "float32", ("batch", 10))
PREPARATION = ImagePreparation(32, 32, 1, (0.5,), (0.25,), 1.0)


@dataclass(frozen=True)
class FakeEngine:
    """A plan of the fake TensorRT and its record; ``write`` puts both into a folder."""

    input: TensorSpec = INPUT
    outputs: tuple[TensorSpec, ...] = (LOGITS,)
    profiles: tuple[tuple[int, int, int], ...] = ((1, 2, 4),)
    lines: tuple[str, ...] = ("scratch 4096",)
    version: tuple[int, int, int, int] = VERSION
    magic: bytes = b"ftrt"
    capabilities: tuple[str, ...] = ("8.6",)
    later_gpus: bool = False
    preprocess: str = "none"
    head: str = "logits"
    image: ImagePreparation = PREPARATION
    labels: tuple[str, ...] = tuple(f"label {i}" for i in range(10))
    exported: bool = True

    def plan(self) -> bytes:
        """The bytes of the plan."""
        lines = [f"{kind} {spec.name} {spec.dtype} {_sizes(spec)}" for kind, spec in self._io()]
        for sizes in self.profiles:
            shapes = ["x".join(map(str, self._shape(batch))) for batch in sizes]
            lines.append("profile " + " ".join(shapes))
        header = self.magic + bytes(20) + bytes(self.version) + bytes(8)
        return header + "\n".join([*lines, *self.lines, ""]).encode()

    def _io(self) -> list[tuple[str, TensorSpec]]:
        return [("input", self.input), *(("output", spec) for spec in self.outputs)]

    def _shape(self, batch: int) -> tuple[int, ...]:
        first, *rest = self.input.shape
        return tuple(int(size) for size in (batch if isinstance(first, str) else first, *rest))

    def _export(self) -> ExportInfo | None:
        if not self.exported:
            return None
        return ExportInfo(
            model="custom",
            model_config={"depth": 2, "nested": {"a": [1, 2.5e-05, None, True]}},
            checkpoint=CheckpointInfo("digits.pth", "0" * 64, "model"),
            image=self.image,
            preprocess=self.preprocess,  # type: ignore[arg-type]
            head=self.head,
            graph="fused",
            precision="fp32",
            opset=18,
            pos_embed="as trained",
            tool_version="0.1.0",
            settings_hash="0" * 64,
            labels=self.labels,
        )

    def write(self, folder: Path, name: str = "digits.plan") -> Path:
        """Write plan and record; the plan's path."""
        path = folder / name
        path.write_bytes(self.plan())
        ranges = [ShapeRange(*(self._shape(batch) for batch in sizes)) for sizes in self.profiles]
        record = EngineRecord(
            plan=FileIdentity.of(path),
            source=FileIdentity("digits.onnx", "0" * 64, 1),
            external_data=(),
            runtime="tensorrt" if self.magic == b"ftrt" else "tensorrt-rtx",
            runtime_version=".".join(map(str, self.version)),
            inputs=(self.input,),
            outputs=self.outputs,
            profiles=tuple(Profile({self.input.name: shape}) for shape in ranges),
            compute_capabilities=self.capabilities,
            later_gpus=self.later_gpus,
            layers=3,
            tool_version="0.1.0",
            settings_hash="0" * 64,
            build_seconds=1.5,
            peak_memory_bytes=1,
            export=self._export(),
        )
        write_json(record_path(path), record.as_dict())
        return path


def _sizes(spec: TensorSpec) -> str:
    return "x".join(str(-1 if isinstance(size, str) else size) for size in spec.shape)


def engine_of(record: EngineRecord, *lines: str) -> FakeEngine:
    """An engine of the C++ stand-in that has the tensors, profiles and version of ``record``."""
    (spec,) = record.inputs
    ranges = [profile.shapes[spec.name] for profile in record.profiles]
    version = [int(part) for part in record.runtime_version.split(".")]
    return FakeEngine(
        input=spec,
        outputs=record.outputs,
        profiles=tuple((item.min[0], item.opt[0], item.max[0]) for item in ranges),
        lines=lines,
        version=tuple([*version, 0, 0][:4]),  # type: ignore[arg-type]
    )


def said_of_record(record: EngineRecord) -> list[str]:
    """The lines that ``units record`` prints when it reads all of ``record`` as it was meant."""

    def text(shape: Sequence[int | str]) -> str:
        return f"[{', '.join(str(-1 if isinstance(size, str) else size) for size in shape)}]"

    plan, plugin = record.plan, record.plugin
    lines = [f"plan {plan.name} {plan.sha256} {plan.bytes}"]
    lines += [f"runtime {record.runtime} {record.runtime_version}"]
    for kind, specs in (("input", record.inputs), ("output", record.outputs)):
        lines += [f"{kind} {spec.name} {spec.dtype} {text(spec.shape)}" for spec in specs]
    for profile in record.profiles:
        for name, item in profile.shapes.items():
            lines.append(f"profile {name} {text(item.min)} {text(item.opt)} {text(item.max)}")
    lines += [f"capability {capability}" for capability in record.compute_capabilities]
    if plugin is not None:
        embedded = int(plugin.embedded)
        lines.append(f"plugin {plugin.name} {plugin.sha256} {plugin.contract_version} {embedded}")
    lines += [f"later {int(record.later_gpus)}", f"stripped {int(record.stripped)}"]
    lines.append(f"version_compatible {int(is_version_compatible(record))}")
    return lines + ([] if record.export is None else _said_of_export(record.export))


def _said_of_export(export: ExportInfo) -> list[str]:
    image = export.image
    lines = [f"export {export.model} {export.preprocess} {export.head} {export.precision}"]
    lines.append(f"image {image.height} {image.width} {image.channels} {image.interpolation}")
    lines.append(f"crop_ratio {_hexadecimal(image.crop_ratio)}")
    for mean, deviation in zip(image.mean, image.std, strict=True):
        lines.append(f"channel {_hexadecimal(mean)} {_hexadecimal(deviation)}")
    return lines + [f"label {label}" for label in export.labels]


def _hexadecimal(value: float) -> str:
    """A double as C++ prints it with ``std::hexfloat``: ``0x1p-1``, without trailing zeros."""
    mantissa, exponent = float(value).hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}p{exponent}"
