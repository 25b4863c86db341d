"""TensorRT's headers: where they are, and where they come from when they are nowhere.

The plugin library is compiled against them and linked to nothing of TensorRT. One package of the
Python index carries those of TensorRT 10 (Apache-2.0), beside things that ask for much else, so its
archive is fetched by its hash, nothing of it is installed or run, and the headers alone are kept in
the user's cache.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vim_deploy.errors import VimDeployError
from vim_deploy.files import output_errors
from vim_deploy.folders import user_cache
from vim_deploy.installation import pip_command

#: The package that carries the headers of TensorRT 10, and nothing else of TensorRT.
HEADERS_PACKAGE = "kernel-lens==2.0.1"
#: Of its archive, as the index has it.
_SHA256 = "07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0"
_INSIDE = "kernel_lens/include/tensorrt/"
#: Bytes of one header, at most; the largest has 391,601.
_MOST_BYTES = 1 << 22
_SYSTEM_HEADERS = (
    "/usr/local/tensorrt/include",
    "/opt/tensorrt/include",
    "/usr/include/x86_64-linux-gnu",
    "/usr/include/aarch64-linux-gnu",
    "/usr/include",
)


@dataclass(frozen=True)
class TensorRtHeaders:
    """TensorRT's headers: their folder, version ``10.14.1`` and how they were found."""

    include: Path
    version: str
    source: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


def find_tensorrt_headers(root: Path | None = None) -> TensorRtHeaders:
    """The first headers of: ``root``, TensorRT_ROOT, the system's folders, the package, the cache.

    Raises:
        VimDeployError: VIM-308, with the places looked at.
    """
    tried = []
    for source, folder in _header_folders(root):
        found = _headers(source, folder)
        if found is not None:
            return found
        tried.append(str(folder))
    raise _missing("looked at " + ", ".join(tried))


def fetch_headers(say: Callable[[str], None], home: Path | None = None) -> TensorRtHeaders:
    """The headers of TensorRT 10 from the Python index that pip asks.

    Args:
        say: told what is fetched.
        home: the folder that is to hold them; by default one in the user's cache.

    Raises:
        VimDeployError: VIM-308 (pip cannot fetch the package, or got other bytes), VIM-304,
            VIM-305 (the cache).
    """
    home = home or _cached()
    say(f"no TensorRT headers here; fetching those in {HEADERS_PACKAGE} from the Python index")
    with output_errors(home):
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=home.parent) as place:
            archive = _download(Path(place))
            unpacked = _unpacked(archive, Path(place, "headers"))
            # Whoever was faster has put the same files there.
            if not home.is_dir():
                unpacked.rename(home)
    found = _headers(f"fetched, of {HEADERS_PACKAGE}", home)
    if found is None:
        raise _missing(f"{home} is damaged", f"delete {home}")
    return found


def _missing(why: str, first: str = "") -> VimDeployError:
    return VimDeployError(
        "VIM-308",
        "no TensorRT headers found",
        why=why,
        fix=f"{first or 'name a TensorRT installation with --tensorrt-root'}, or take the headers "
        f"of TensorRT 10: {pip_command('install', '--no-deps', HEADERS_PACKAGE)}",
    )


def _header_folders(root: Path | None) -> Iterator[tuple[str, Path]]:
    if root is not None:
        for folder in _inside(root):
            yield f"--tensorrt-root {root}", folder
        return
    if os.environ.get("TensorRT_ROOT"):  # noqa: SIM112 - CMake's spelling
        for folder in _inside(Path(os.environ["TensorRT_ROOT"])):  # noqa: SIM112
            yield "TensorRT_ROOT", folder
    for system in _SYSTEM_HEADERS:
        yield "system", Path(system)
    spec = importlib.util.find_spec("kernel_lens")
    for place in [] if spec is None else spec.submodule_search_locations or ():
        yield f"PyPI package {HEADERS_PACKAGE}", Path(place) / "include" / "tensorrt"
    yield f"fetched, of {HEADERS_PACKAGE}", _cached()


def _cached() -> Path:
    return user_cache() / "tensorrt-headers" / HEADERS_PACKAGE


def _inside(root: Path) -> list[Path]:
    targets = sorted(root.glob("targets/*/include"))
    multiarch = sorted((root / "include").glob("*-linux-gnu"))
    return [root / "include", *targets, *multiarch, root]


def _headers(source: str, folder: Path) -> TensorRtHeaders | None:
    version = _headers_version(folder)
    return None if version is None else TensorRtHeaders(folder.resolve(), version, source)


def _headers_version(folder: Path) -> str | None:
    """``10.14.1`` from NvInferVersion.h, in the form of TensorRT 8 to 10 or of 11."""
    header = folder / "NvInferVersion.h"
    if not header.is_file() or not (folder / "NvInferRuntime.h").is_file():
        return None
    text = header.read_text(encoding="utf-8", errors="replace")
    parts = []
    for part in ("MAJOR", "MINOR", "PATCH"):
        pattern = rf"#define (?:NV_TENSORRT_{part}|TRT_{part}_ENTERPRISE) (\d+)"
        found = re.search(pattern, text)
        if found is None:
            return None
        parts.append(found.group(1))
    return ".".join(parts)


def _download(folder: Path) -> Path:
    """The package's archive, whose hash pip has checked."""
    wanted = folder / "requirements.txt"
    line = " ".join([HEADERS_PACKAGE, f"--hash=sha256:{_SHA256}"])
    wanted.write_text(f"{line}\n", encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--retries", "1", "--no-deps", "--only-binary", ":all:"),
        *("--require-hashes", "--dest", str(folder), "--requirement", str(wanted)),
    ]
    done = subprocess.run(
        command,
        # pip is not to be found in the folder the user works in.
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    found = next(folder.glob("*.whl"), None)
    if done.returncode or found is None:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise _missing(f"pip did not fetch {HEADERS_PACKAGE}: " + "\n".join(said[-3:]))
    return found


def _unpacked(archive: Path, folder: Path) -> Path:
    """The headers of the archive in ``folder``, and nothing else of it."""
    folder.mkdir()
    with zipfile.ZipFile(archive) as opened:
        for item in opened.infolist():
            name = PurePosixPath(item.filename)
            if f"{name.parent}/" != _INSIDE or name.suffix != ".h" or item.file_size > _MOST_BYTES:
                continue
            with opened.open(item) as source, (folder / name.name).open("wb") as target:
                shutil.copyfileobj(source, target)
    return folder
