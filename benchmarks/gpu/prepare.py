"""What a call carries to a machine with a GPU: filled here, without one, and unpacked there.

    python benchmarks/gpu/prepare.py fill [--arch 90] [--tensorrt-root DIR --tensorrt-libs DIR]
        [--parts DIR] [--ext DIR] [--official DIR] [--wheel FILE]... [--limit MIB]
    python benchmarks/gpu/prepare.py unpack FOLDER WORK

``fill`` compiles the plugin library, ``gpu_check`` and the count of cycles for one architecture,
packs them into ``.gpu``, and says what the two folders take. Everything of others is given by its
path, and left out where it is not:

--tensorrt-root  headers of TensorRT 8.6, NvOnnxParser.h among them: the library is then for that
                 release, and the runner of engines (``trt86_run.cpp``) is compiled
--tensorrt-libs  its libnvinfer.so.8 and libnvonnxparser.so.8, to link the runner against
--parts          files part-00, part-01, ... and unpack.py, which makes TensorRT's libraries of
                 them: the first goes with the first call, the others with the second
--ext            built extensions (selective_scan_cuda, causal_conv1d_cuda) for the machine's Python
--official       a checkout of the official Vim; its Python files alone are packed
--wheel          a package that the machine's Python lacks, or a folder of them (README.md says
                 which)

``unpack`` is the first step of each call.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from travel import LIMIT, TravelError, tell_sizes

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
#: The folders that the first and the second call carry, below the repository.
FOLDERS = (".gpu", ".gpu2")
ARCHIVE, PREPARED = "bin.tar.xz", "prepared.json"
LIBRARY, CHECK, CLOCK, RUNNER = "libvim_plugins.so", "gpu_check", "libsm_clock.so", "trt86_run"
PRESET = 9 | lzma.PRESET_EXTREME


class PrepareError(Exception):
    """What cannot be prepared, for the person who asked."""


def run(*command: str | os.PathLike[str]) -> None:
    """Run a compiler or the like; what it says is shown when it fails."""
    print("$", *command, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if done.returncode != 0:
        raise PrepareError(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")


def compile_all(stage: Path, options: argparse.Namespace) -> None:
    """Our own programs and libraries for one architecture."""
    from vim_deploy.plugin.toolchain import find_toolkit

    toolkit = find_toolkit()
    arch = options.arch
    build = [sys.executable, "-m", "vim_deploy", "plugin", "build", "--arch", arch, "--force"]
    if options.tensorrt_root is not None:
        build += ["--tensorrt", "8.6", "--tensorrt-root", str(options.tensorrt_root)]
    run(*build, "-o", stage / LIBRARY)
    made = stage / "build"
    run("sh", REPOSITORY / "plugins" / "tests" / "gpu" / "build.sh", made, arch)
    shutil.move(made / CHECK, stage / CHECK)
    shutil.rmtree(made)
    flags = ("-std=c++17", "-O3", f"-arch=sm_{arch}", "--shared", "-Xcompiler", "-fPIC")
    run(toolkit.nvcc, *flags, HERE / "sm_clock.cu", "-o", stage / CLOCK)
    if options.tensorrt_root is not None and options.tensorrt_libs is not None:
        _compile_runner(stage, options.tensorrt_root, options.tensorrt_libs, toolkit.root)


def _compile_runner(stage: Path, root: Path, libraries: Path, cuda: Path) -> None:
    # The CUDA runtime is linked in, so that only TensorRT's libraries have to be found there.
    include = root / "include" if (root / "include").is_dir() else root
    cuda_libraries = next((p for p in (cuda / "lib64", cuda / "lib") if p.is_dir()), cuda)
    run(
        *("g++", "-std=c++17", "-O2", "-Wno-deprecated-declarations"),
        *(f"-I{include}", f"-I{cuda / 'include'}", str(HERE / "trt86_run.cpp")),
        *(f"-L{libraries}", "-Wl,--no-as-needed", "-l:libnvinfer.so.8", "-l:libnvonnxparser.so.8"),
        *(f"-Wl,-rpath-link,{libraries}", f"-L{cuda_libraries}", "-lcudart_static"),
        *("-lrt", "-ldl", "-lpthread", "-o", str(stage / RUNNER)),
    )


def gather(stage: Path, options: argparse.Namespace) -> None:
    """What others made, from the paths that were given."""
    if options.ext is not None:
        found = sorted(options.ext.glob("*.so"))
        if not found:
            raise PrepareError(f"--ext {options.ext} holds no *.so: build the extensions first")
        (stage / "ext").mkdir()
        for path in found:
            shutil.copy2(path, stage / "ext")
    if options.official is not None:
        # Not links, which may lead out of the checkout.
        sources = [p for p in options.official.rglob("*.py") if p.is_file() and not p.is_symlink()]
        if not sources:
            raise PrepareError(f"--official {options.official} holds no Python files")
        for path in sources:
            target = stage / "official" / path.relative_to(options.official)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    wheels = [sorted(path.glob("*.whl")) if path.is_dir() else [path] for path in options.wheel]
    for wheel in itertools.chain.from_iterable(wheels):
        try:
            with zipfile.ZipFile(wheel) as opened:
                for item in opened.namelist():
                    opened.extract(item, stage / "site")
        except (OSError, zipfile.BadZipFile) as error:
            raise PrepareError(f"--wheel {wheel} is no wheel: {error}") from error


def strip(stage: Path) -> None:
    """Take symbols out of what is linked; a machine without binutils carries them."""
    program = shutil.which("strip")
    linked = [stage / CHECK, stage / RUNNER, stage / LIBRARY, *(stage / "ext").glob("*.so")]
    if program is None:
        return
    for path in linked:
        if path.exists():
            run(program, "--strip-unneeded", path)


def pack(stage: Path, archive: Path) -> dict[str, str]:
    """Everything below ``stage`` as a tar.xz; SHA-256 by name."""
    names = sorted(path.relative_to(stage).as_posix() for path in _files(stage))
    with lzma.open(archive, "wb", preset=PRESET) as file, tarfile.open(None, "w", file) as packed:
        for name in names:
            packed.add(stage / name, name)
    return {name: hashlib.sha256((stage / name).read_bytes()).hexdigest() for name in names}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def fill(options: argparse.Namespace) -> bool:
    """Make both folders; whether each fits below the limit together with the working tree.

    Raises:
        PrepareError: a path does not hold what it has to; the old folders are there still.
    """
    from vim_deploy.bench import environment
    from vim_deploy.files import write_json

    parts = sorted(options.parts.glob("part-*")) if options.parts is not None else []
    if options.parts is not None and not (parts and (options.parts / "unpack.py").is_file()):
        raise PrepareError(f"--parts {options.parts} holds no part-00, or no unpack.py")
    repository: Path = options.repository
    with tempfile.TemporaryDirectory(prefix="vim-gpu-") as temporary:
        stage, made = Path(temporary) / "stage", Path(temporary) / "made"
        for folder in (stage, *(made / name for name in FOLDERS)):
            folder.mkdir(parents=True)
        gather(stage, options)
        compile_all(stage, options)
        strip(stage)
        first, second = (made / name for name in FOLDERS)
        digests = pack(stage, first / ARCHIVE)
        state = environment.state()
        record = {key: state[key] for key in ("date", "commit", "versions")}
        record |= {"arch": options.arch, "sha256": digests}
        for folder in (first, second):
            write_json(folder / PREPARED, record)
        for number, part in enumerate(parts):
            shutil.copyfile(part, (second if number else first) / part.name)
        if parts:
            shutil.copyfile(options.parts / "unpack.py", first / "unpack.py")
        for name in FOLDERS:
            shutil.rmtree(repository / name, ignore_errors=True)
            shutil.move(made / name, repository / name)
    return tell_sizes(repository, [repository / name for name in FOLDERS], options.limit)


def unpack(folder: Path, work: Path) -> list[str]:
    """On the machine: what a call carried, to where its steps look for it; the names.

    Raises:
        PrepareError: the folder holds nothing that ``fill`` makes.
    """
    done = []
    if (folder / ARCHIVE).exists():
        with tarfile.open(folder / ARCHIVE) as packed:
            packed.extractall(work, filter="data")
            done += packed.getnames()
    given = [*sorted(folder.glob("part-*")), folder / "unpack.py"]
    for path in given:
        if path.exists():
            (work / "parts").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, work / "parts" / path.name)
            done.append(f"parts/{path.name}")
    if not done:
        raise PrepareError(f"{folder} holds nothing to unpack: prepare.py fill makes it")
    return done


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("fill", help="compile and pack, here")
    one.add_argument("--repository", type=Path, default=REPOSITORY, help=argparse.SUPPRESS)
    one.add_argument("--arch", default="90", help="compute capability without the dot")
    for name in ("tensorrt-root", "tensorrt-libs", "parts", "ext", "official"):
        one.add_argument(f"--{name}", type=_folder)
    one.add_argument("--wheel", type=Path, action="append", default=[])
    one.add_argument("--limit", type=float, default=LIMIT, help="MiB that a call may carry")
    two = commands.add_parser("unpack", help="make it ready, on the machine")
    two.add_argument("folder", type=Path)
    two.add_argument("work", type=Path)
    options = parser.parse_args(argv)
    try:
        if options.command == "fill":
            return 0 if fill(options) else 1
        print(*unpack(options.folder, options.work), sep="\n")
    except (PrepareError, TravelError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _folder(text: str) -> Path:
    path = Path(text).resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return path


if __name__ == "__main__":
    sys.exit(main())
