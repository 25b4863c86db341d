"""Wheels of vim-deploy: one that is pure, and one a platform that carries the native ops compiled.

    make wheels                                          all three and the sdist, into dist/
    python plugins/cpu/wheel/build_wheels.py -o FOLDER   with what requirements/wheels.lock names

The library is compiled by clang as ``ziglang`` brings it, against the C library of 2012 (glibc
2.17, which ``manylinux_2_17`` promises), so one machine makes the wheels of every platform. The
flags are those of ``plugins/cpu/CMakeLists.txt``. Each wheel is looked at before it is named: its
tag, the hashes of its RECORD, what its library asks of the system, and on this platform what it
runs. The archive of the sources makes the same pure wheel, file by file. ``twine`` and
``check-wheel-contents`` look at all of it.
"""

from __future__ import annotations

import argparse
import base64
import csv
import ctypes
import hashlib
import io
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LIBRARY_NAME = "libvim_ort_cpu.so"
#: Where a wheel has it; ``vim_deploy.plugin.ort_library`` looks there.
INSIDE = f"vim_deploy/runtimes/onnxruntime/native/{LIBRARY_NAME}"
GLIBC = (2, 17)
#: What the library may ask the system for: parts of the C library, and nothing of C++, whose
#: symbols differ from compiler to compiler.
ALLOWED = re.compile(r"lib(c|m|pthread|dl)\.so\.\d+|ld-linux[-a-z0-9]*\.so\.\d+")
#: Of every wheel: where it has what is at the top of the repository, and some of it.
SHIPPED = "vim_deploy/shipped/"
_EACH = (
    *("docs/plugin.md", "export/vim-digits.toml", "tests/data/reference/vim_digits.pth"),
    *("cpp/CMakeLists.txt", "plugins/cpu/CMakeLists.txt", "plugins/onnxruntime/registration.cpp"),
    *("plugins/CMakeLists.txt", "plugins/kernels/scan_serial_fp32.cu", "plugins/adapters/abi.h"),
)
#: What builds read of the repository, in the copy that they work on.
_FOLDERS = (
    *("vim_deploy", "export", "cpp", "docs", "plugins"),
    *("requirements", "tests/data/reference"),
)
_FILES = (
    *("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in", "Makefile"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
)
#: Zip files know no time before 1980; this one stands where neither git nor the caller names one.
EARLIEST = "315532800"
#: As ``/proc/cpuinfo`` writes what an instruction set needs, best first.
CPU_FLAGS = {
    "avx512": {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl", "avx2", "fma", "f16c"},
    "avx2": {"avx2", "fma", "f16c", "bmi2"},
    "sse2": {"sse2"},
}


class WheelError(Exception):
    """A wheel is not what it should be."""


@dataclass(frozen=True)
class Target:
    """A platform: its machine as ``uname -m`` says it, and the instruction sets compiled for it."""

    machine: str
    instruction_sets: tuple[str, ...]

    @property
    def zig(self) -> str:
        """What zig calls it, with the C library that is promised."""
        return f"{self.machine}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"

    @property
    def tag(self) -> str:
        """What wheels call it."""
        return f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{self.machine}"


TARGETS = (Target("x86_64", ("avx512", "avx2", "sse2")), Target("aarch64", ("neon",)))


def run(words: list[str], **variables: str) -> str:
    """What a program prints; WheelError with its last lines when it fails."""
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        said = "\n".join(done.stdout.splitlines()[-25:])
        raise WheelError(f"{shlex.join(words[:6])} ended with {done.returncode}:\n{said}")
    return done.stdout


def compiler(target: Target, folder: Path) -> Path:
    """A program that CMake takes for a C++ compiler."""
    zig = shlex.join([sys.executable, "-m", "ziglang", "c++", "-target", target.zig])
    path = folder / f"{target.machine}-c++"
    path.write_text(f'#!/bin/sh\nexec {zig} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def compile_library(target: Target, folder: Path) -> Path:
    """The library for ``target``, compiled below ``folder``."""
    build = folder / target.machine
    # What was compiled once is not compiled again by the next run in the same place.
    variables = {f"ZIG_{kind}_CACHE_DIR": str(folder / "zig") for kind in ("GLOBAL", "LOCAL")}
    # CMake would take these from whoever makes a wheel.
    variables.update(CXXFLAGS="", LDFLAGS="")
    configure = [
        *("cmake", "-S", str(ROOT / "plugins" / "cpu"), "-B", str(build), "-G", "Ninja"),
        "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_SYSTEM_NAME=Linux",
        f"-DCMAKE_SYSTEM_PROCESSOR={target.machine}",
        f"-DCMAKE_CXX_COMPILER={compiler(target, folder)}",
        # Nothing of the folder that it was compiled in is to be in it.
        "-DCMAKE_SHARED_LINKER_FLAGS=-s",
    ]
    run(configure, **variables)
    run(["cmake", "--build", str(build), "--target", "vim_ort_cpu"], **variables)
    return build / LIBRARY_NAME


def build_wheel(output: Path, library: Path | None, tag: str, sources: Path = ROOT) -> Path:
    """The wheel with ``library`` for the platform ``tag``; the pure one without it."""
    chosen = {"VIM_DEPLOY_WHEEL_LIBRARY": str(library), "VIM_DEPLOY_WHEEL_PLATFORM": tag}
    return _build("wheel", output, sources, chosen if library else dict.fromkeys(chosen, ""))


def build_sdist(output: Path) -> Path:
    """The archive of the sources, which makes every wheel."""
    return _build("sdist", output, ROOT, {})


def _build(kind: str, output: Path, sources: Path, variables: dict[str, str]) -> Path:
    """What the backend makes, of a copy: setuptools leaves its own folders among the sources."""
    with tempfile.TemporaryDirectory(prefix="vim-wheel-") as place:
        copy, made = Path(place, "sources"), Path(place, "made")
        for name in _FOLDERS:
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "build")
            shutil.copytree(sources / name, copy / name, ignore=ignored)
        for name in _FILES:
            shutil.copy(sources / name, copy / name)
        made.mkdir()
        words = [sys.executable, "-c", _BACKEND, str(copy), kind, str(made)]
        run(words, SOURCE_DATE_EPOCH=_moment(), **variables)
        (found,) = made.iterdir()
        return Path(shutil.move(found, output / found.name))


#: What pip calls to have a wheel or an sdist built.
_BACKEND = (
    "import os, sys; from setuptools import build_meta; os.chdir(sys.argv[1]); "
    "getattr(build_meta, 'build_' + sys.argv[2])(sys.argv[3])"
)


def _moment() -> str:
    """The time that files in a wheel carry: that of the sources, so equal sources, equal bytes."""
    named = os.environ.get("SOURCE_DATE_EPOCH")
    if named:
        return named
    try:
        return run(["git", "log", "-1", "--format=%ct"]).strip()
    except (OSError, WheelError):
        return EARLIEST


def check_wheel(path: Path, target: Target | None) -> None:
    """WheelError unless the wheel is whole and of the platform ``target``; None is the pure one."""
    tag = f"py3-none-{target.tag if target else 'any'}"
    if not path.name.endswith(f"-{tag}.whl"):
        raise WheelError(f"{path.name} should be named ...-{tag}.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        _check_record(wheel, names)
        (about,) = [name for name in names if name.endswith(".dist-info/WHEEL")]
        lines = wheel.read(about).decode().splitlines()
    for line in (f"Tag: {tag}", f"Root-Is-Purelib: {'false' if target else 'true'}"):
        if line not in lines:
            raise WheelError(f"{path.name}: its WHEEL does not say {line!r}")
    libraries = [name for name in names if name.endswith(".so")]
    if libraries != ([INSIDE] if target else []):
        raise WheelError(f"{path.name} holds the libraries {libraries}")
    for name in _EACH:
        if SHIPPED + name not in names:
            raise WheelError(f"{path.name} lacks {SHIPPED + name}")


def check_sdist(path: Path, wheel: Path) -> None:
    """WheelError unless the archive of the sources makes ``wheel``, file by file."""
    with tempfile.TemporaryDirectory(prefix="vim-sdist-") as place:
        with tarfile.open(path) as archive:
            archive.extractall(place, filter="data")
        (sources,) = Path(place).iterdir()
        again = build_wheel(Path(place), None, "", sources)
        differing = sorted(name for name, _ in _contents(again) ^ _contents(wheel))
        if differing:
            raise WheelError(f"{path.name} makes another {wheel.name}: {', '.join(differing)}")


def _contents(path: Path) -> set[tuple[str, int]]:
    with zipfile.ZipFile(path) as wheel:
        return {(item.filename, item.CRC) for item in wheel.infolist()}


def check_for_index(paths: list[Path]) -> None:
    """WheelError for what an index refuses, or what a wheel should not hold."""
    run([sys.executable, "-m", "twine", "check", "--strict", *map(str, paths)])
    wheels = [str(path) for path in paths if path.suffix == ".whl"]
    run([sys.executable, "-m", "check_wheel_contents", *wheels])


def _check_record(wheel: zipfile.ZipFile, names: list[str]) -> None:
    (record,) = [name for name in names if name.endswith(".dist-info/RECORD")]
    rows = list(csv.reader(io.StringIO(wheel.read(record).decode())))
    if sorted(row[0] for row in rows) != sorted(names):
        raise WheelError("its RECORD names other files than it holds")
    for name, digest, size in rows:
        content = wheel.read(name)
        found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        if name != record and (digest, size) != (f"sha256={found}", str(len(content))):
            raise WheelError(f"{name} is not as its RECORD says")


def check_needs(library: Path, wheel: Path, target: Target) -> None:
    """WheelError when the library asks for more than ``target`` promises.

    Its own tables are read for the names of libraries, and ``auditwheel`` says which platforms
    have the symbols.
    """
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile

    with library.open("rb") as stream:
        sections = list(ELFFile(stream).iter_sections())
        needed = {
            entry.needed
            for section in sections
            if isinstance(section, DynamicSection)
            for entry in section.iter_tags("DT_NEEDED")
        }
    others = sorted(name for name in needed if not ALLOWED.fullmatch(name))
    if others or not needed:
        raise WheelError(f"{LIBRARY_NAME} for {target.machine} needs {others or 'nothing'}")
    said = run([sys.executable, "-m", "auditwheel", "show", str(wheel)])
    found = re.search(r'platform tag:\s+"manylinux_(\d+)_(\d+)_(\w+)"', said)
    if found is None or found[3] != target.machine or (int(found[1]), int(found[2])) > GLIBC:
        raise WheelError(f"{wheel.name} does not run where its tag says:\n{said}")


def best_here() -> str:
    """The best instruction set of this processor, as Linux names its abilities."""
    flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text().partition("flags")[2]))
    return next(name for name, wanted in CPU_FLAGS.items() if wanted <= flags)


def described(library: Path) -> dict[str, object]:
    """What a library of this platform says of itself."""
    ask = ctypes.CDLL(str(library)).vim_plugins_build_info
    ask.restype = ctypes.c_char_p
    found: dict[str, object] = json.loads(ask())
    return found


def check_runs(library: Path, target: Target) -> str:
    """What the library runs here; WheelError when that is not the best this processor can.

    Looking at the processor is what a cross compiler's runtime is most likely to break.
    """
    info = described(library)
    if info["instruction_sets"] != list(target.instruction_sets):
        raise WheelError(f"{library} was compiled for {info['instruction_sets']}")
    best = best_here() if target.machine == "x86_64" else target.instruction_sets[0]
    if info["instruction_set"] != best:
        raise WheelError(f"{library} chooses {info['instruction_set']}, this processor has {best}")
    return str(info["instruction_set"])


def make(output: Path, work: Path, say: Callable[[str], object] = print) -> list[Path]:
    """All wheels and the sdist, checked; their paths."""
    output.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    pure = build_wheel(output, None, "")
    check_wheel(pure, None)
    made = [pure]
    for target in TARGETS:
        say(f"compiling {LIBRARY_NAME} for {target.tag}")
        library = compile_library(target, work)
        wheel = build_wheel(output, library, target.tag)
        check_wheel(wheel, target)
        check_needs(library, wheel, target)
        here = platform.machine() == target.machine
        say(f"  it runs {check_runs(library, target)} here" if here else "  not run here")
        made.append(wheel)
    sources = build_sdist(output)
    check_sdist(sources, pure)
    made.append(sources)
    check_for_index(made)
    for path in made:
        say(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return made


def main() -> int:
    """Make all wheels; 1 with the reason when one is not what it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "wheels")
    options = parser.parse_args()
    try:
        # What the environment of this Python brings, cmake among it, is taken before the system's.
        own = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join([own, os.environ.get("PATH", "")])
        make(options.output.resolve(), options.work.resolve())
    except WheelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
