"""A built plugin library: what it says of itself, and where it is looked for.

Loading a library runs its code; only a library that the user names, or one built here, is loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy.codec import decode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file, sha256_of
from vim_deploy.folders import user_cache
from vim_deploy.ops import contract
from vim_deploy.untrusted import parse_json

#: Environment variable that names a library to use.
LIBRARY_VARIABLE = "VIM_DEPLOY_PLUGIN"
LIBRARY_NAME = "libvim_plugins.so"
#: Releases of TensorRT that vim-deploy builds and runs with, and the plugin interface each takes:
#: ``V2`` (IPluginV2DynamicExt) or ``V3`` (IPluginV3).
INTERFACES = {"8.6": "V2", "10": "V3", "11": "V3"}

_ELF_MAGIC = b"\x7fELF"
#: Class and byte order of the ELF files whose segments are looked at: 64 bits, little endian.
_ELF_KIND = b"\x02\x01"
#: Size of their header; in it ``e_phoff``, then ``e_phentsize`` and ``e_phnum`` (System V ABI).
_ELF_HEADER, _SEGMENTS_AT, _SEGMENTS_SIZES_AT = 64, 0x20, 0x36
#: Type, offset and size in the file of a program header; what is loaded has type PT_LOAD.
_SEGMENT = struct.Struct("<I4xQ16xQ")
_PT_LOAD = 1
#: A fatbin: magic, version, header size, size of what follows (NVIDIA's fatbinary_section.h).
_FATBIN = struct.Struct("<IHHQ")
_FATBIN_MAGIC = 0xBA55ED50
#: One entry: kind (1 PTX, 2 machine code), version, header size, payload size; at byte 28 the
#: architecture as a number. Found by reading what nvcc 13.0 and 13.5 write, and compared with
#: cuobjdump.
_ENTRY = struct.Struct("<HHIQ")
_ENTRY_ARCHITECTURE = 28
_PTX, _MACHINE_CODE = 1, 2


@dataclass(frozen=True)
class PluginInfo:
    """What a plugin library is.

    Attributes:
        path: the file.
        sha256: of its bytes.
        version: of the plugin sources.
        contract_version: of the ops' inputs, attributes and meaning.
        plugin_version, plugin_namespace: under which TensorRT finds the ops.
        ops: op types.
        interface: ``V3`` (TensorRT 10 and 11) or ``V2`` (8.6).
        tensorrt: version of the headers it was compiled with.
        cuda: version of the CUDA toolkit.
        architectures: as in the file itself: ``sm_90`` machine code, ``compute_120`` PTX.
        kernels: hash of the kernels' sources.
    """

    path: str
    sha256: str
    version: str
    contract_version: int
    plugin_version: str
    plugin_namespace: str
    ops: tuple[str, ...]
    interface: str
    tensorrt: str
    cuda: str
    architectures: tuple[str, ...]
    kernels: str

    @property
    def serves(self) -> tuple[str, ...]:
        """TensorRT releases whose loader takes this library."""
        return ("8.6",) if self.tensorrt.startswith("8.") else ("10", "11")

    def runs_on(self, major: int, minor: int) -> bool:
        """Whether it has code for a GPU of this compute capability.

        Machine code runs on the same major version from its minor version on; PTX on everything
        newer (CUDA programming guide, binary and PTX compatibility).
        """
        here = 10 * major + minor
        for name in self.architectures:
            kind, _, number = name.partition("_")
            arch = int(number)
            if kind == "sm" and arch // 10 == major and arch % 10 <= minor:
                return True
            if kind == "compute" and arch <= here:
                return True
        return False


#: The command that builds the library.
BUILD = "vim-deploy plugin build"


def not_ours(path: Path, why: str, build: str = BUILD) -> VimDeployError:
    """VIM-417, with the command that builds what ``path`` should be."""
    return VimDeployError(
        "VIM-417",
        f"not a plugin library of vim-deploy: {path}",
        why=why,
        fix=f"build one with {build}",
    )


def open_library(path: Path, build: str = BUILD) -> ctypes.CDLL:
    """The loaded library, after a look at its kind and its contract.

    Args:
        path: of the file.
        build: the command that builds it, for messages.

    Raises:
        VimDeployError: VIM-401 (no file), VIM-417 (not our library), VIM-903 (other contract).
    """
    require_file(path, "plugin library")
    if why := _not_whole(path):
        raise not_ours(path, why, build)
    try:
        handle = ctypes.CDLL(str(path.resolve()), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        version = handle.vim_plugins_contract_version
    except (OSError, AttributeError) as error:
        raise not_ours(path, str(error), build) from error
    version.restype = ctypes.c_int32
    if version() != contract.CONTRACT_VERSION:
        raise VimDeployError(
            "VIM-903",
            f"{path} does not fit this version of vim-deploy",
            why=f"its ops follow contract {version()}, expected {contract.CONTRACT_VERSION}",
            fix=f"build it again: {build}",
        )
    return handle


def _not_whole(path: Path) -> str:
    """Why a file is no shared library that can be loaded; empty when nothing speaks against it.

    The loader maps what the program headers say, also past the end of a file that was cut off, and
    the process dies when it gets there.
    """
    with path.open("rb") as stream:
        head = stream.read(_ELF_HEADER)
        if not head.startswith(_ELF_MAGIC):
            return "the file is not a shared library"
        if head[4:6] != _ELF_KIND:
            return ""
        try:
            (at,) = struct.unpack_from("<Q", head, _SEGMENTS_AT)
            size, count = struct.unpack_from("<HH", head, _SEGMENTS_SIZES_AT)
            stream.seek(at)
            table = stream.read(size * count)
            segments = [_SEGMENT.unpack_from(table, size * number) for number in range(count)]
        except (struct.error, OSError, OverflowError):
            return "the file is cut off"
        whole = os.fstat(stream.fileno()).st_size
    loaded = [start + length for kind, start, length in segments if kind == _PT_LOAD]
    return "the file is cut off" if max(loaded, default=0) > whole else ""


def own_words(path: Path, handle: ctypes.CDLL, build: str) -> dict[str, Any]:
    """The JSON object with which a library describes itself; VIM-417 when there is none."""
    try:
        ask = handle.vim_plugins_build_info
        ask.restype = ctypes.c_char_p
        said = parse_json(ask() or b"")
    except (AttributeError, ValueError) as error:
        raise not_ours(path, f"it does not describe itself: {error}", build) from error
    if not isinstance(said, dict):
        raise not_ours(path, "it does not describe itself: its text is no JSON object", build)
    return said


def describe_plugin(path: Path) -> PluginInfo:
    """What the library at ``path`` is; loads it.

    Raises:
        VimDeployError: as ``open_library``.
    """
    said = own_words(path, open_library(path), BUILD)
    found = {
        "path": str(path),
        "sha256": sha256_of(path),
        "architectures": gpu_architectures(path),
    }
    info = decode(
        {**said, **found},
        PluginInfo,
        lambda why: not_ours(path, f"it does not describe itself: {why}"),
    )
    if info.plugin_version != contract.PLUGIN_VERSION:
        raise VimDeployError(
            "VIM-903",
            f"{path} registers its ops as version {info.plugin_version}",
            why=f"exported files ask for version {contract.PLUGIN_VERSION}",
            fix="build it again: vim-deploy plugin build",
        )
    return info


def gpu_architectures(path: Path) -> tuple[str, ...]:
    """GPU code in a file, read from its fatbins: ``sm_80`` machine code, ``compute_120`` PTX.

    Ascending, machine code first. Bytes that only look like a fatbin are passed over.
    """
    data = path.read_bytes()
    found: set[tuple[int, int]] = set()
    magic = struct.pack("<I", _FATBIN_MAGIC)
    at = data.find(magic)
    while at != -1:
        found |= _entries(data, at)
        at = data.find(magic, at + len(magic))
    names = {_PTX: "compute", _MACHINE_CODE: "sm"}
    return tuple(f"{names[kind]}_{arch}" for kind, arch in sorted(found, key=lambda e: (-e[0], e)))


def _entries(data: bytes, at: int) -> set[tuple[int, int]]:
    """(kind, architecture) of the entries of the fatbin at ``at``; empty when it is none."""
    if at + _FATBIN.size > len(data):
        return set()
    _, version, header, size = _FATBIN.unpack_from(data, at)
    if version != 1 or header != _FATBIN.size or at + header + size > len(data):
        return set()
    entries = set()
    position, end = at + header, at + header + size
    while position + _ENTRY_ARCHITECTURE + 4 <= end:
        kind, _, entry_header, payload = _ENTRY.unpack_from(data, position)
        if kind not in (_PTX, _MACHINE_CODE) or entry_header < _ENTRY_ARCHITECTURE + 4:
            return set()
        (arch,) = struct.unpack_from("<I", data, position + _ENTRY_ARCHITECTURE)
        entries.add((kind, arch))
        position += entry_header + payload
    return entries


def cache_folder() -> Path:
    """Where built libraries are kept: ``vim-deploy/plugins`` in the user's cache folder."""
    return user_cache() / "plugins"


def built_libraries() -> list[Path]:
    """Libraries in the cache, newest first."""
    return in_cache(LIBRARY_NAME)


def in_cache(name: str) -> list[Path]:
    """Files of that name that were built here, newest first."""
    ages = {}
    for path in cache_folder().glob(f"*/{name}"):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it meanwhile
            ages[path] = path.stat().st_mtime_ns
    return sorted(ages, key=lambda path: ages[path], reverse=True)


def find_plugin_library(explicit: Path | None = None) -> Path:
    """The library to use: the one named, that of ``VIM_DEPLOY_PLUGIN``, the newest one built here.

    Raises:
        VimDeployError: VIM-401 when a named one is missing or none was ever built.
    """
    named = explicit or os.environ.get(LIBRARY_VARIABLE)
    if named:
        return require_file(Path(named), "plugin library")
    built = built_libraries()
    if not built:
        raise VimDeployError(
            "VIM-401",
            "plugin library not found",
            why=f"none was named, {LIBRARY_VARIABLE} is not set, and none was built here",
            fix="vim-deploy plugin build, or name one",
        )
    return built[0]
