"""The native ops for ONNX Runtime: what a library of them says of itself, and where one is found.

Such a library is native code, and loading it runs it. It is only ever taken from where the user or
an installation put it, or from the cache of what was built here; never from beside a model.
"""

from __future__ import annotations

import json
import os
import platform
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.codec import decode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file, sha256_of
from vim_deploy.ops import contract
from vim_deploy.plugin.build_cache import KEY_FILE
from vim_deploy.plugin.compiling import hash_files
from vim_deploy.plugin.describe import in_cache, not_ours, open_library, own_words
from vim_deploy.plugin.sources import ort_source_files, plugin_sources
from vim_deploy.specs import OpsProvider

#: Environment variable that names the library, or a folder with one for each provider; set to
#: nothing it means that there is none.
LIBRARY_VARIABLE = "VIM_DEPLOY_ORT_OPS"
#: Libraries that came with the installed package.
_INSTALLED = Path(__file__).resolve().parents[1] / "runtimes" / "onnxruntime" / "native"

#: Of a 64-bit ELF file, little endian: ``e_shoff``, then ``e_shentsize`` and ``e_shnum``.
_SECTIONS_AT, _SECTIONS_SIZES_AT = 0x28, 0x3A
#: Type, link, offset and size of a section header (System V ABI, "Sections").
_SECTION = struct.Struct("<4xI16xQQI")
#: Section type SHT_GNU_verneed: versions of symbols that other libraries have to bring.
_VERNEED = 0x6FFFFFFE
#: One file of it: version, count, name, offset of the entries, offset of the next file; one entry:
#: hash, flags, other, name, offset of the next (LSB Core, "Symbol Version Requirements").
_NEED, _NEED_ENTRY = struct.Struct("<HHIII"), struct.Struct("<IHHII")


@dataclass(frozen=True)
class OrtLibraryInfo:
    """What a library of native ops is.

    Attributes:
        path: the file.
        sha256: of its bytes.
        provider: execution provider that its kernels are for, ``cpu`` or ``cuda``.
        version: of its sources.
        contract_version: of the ops' inputs, attributes and meaning.
        domain, domain_version: of the ops.
        ops: op types.
        ort_api: version of ONNX Runtime's API that it needs; 17 came with ONNX Runtime 1.17.
        instruction_sets: those compiled in, best first; none for GPUs.
        instruction_set: the one that it uses on this processor; empty for GPUs.
        compiler: that made it.
        kernels: hash of the kernels' sources.
        cuda: version of the CUDA toolkit; empty for CPUs.
        architectures: GPU code, as in ``PluginInfo``; empty for CPUs.
        glibc: least version of the C library that it loads with; empty where it needs none.
    """

    path: str
    sha256: str
    provider: str
    version: str
    contract_version: int
    domain: str
    domain_version: int
    ops: tuple[str, ...]
    ort_api: int
    instruction_sets: tuple[str, ...]
    instruction_set: str
    compiler: str
    kernels: str
    cuda: str = ""
    architectures: tuple[str, ...] = ()
    glibc: str = ""

    @property
    def title(self) -> str:
        """In names of runners: ``native ops (avx512)``."""
        return "native ops" + (f" ({self.instruction_set})" if self.instruction_set else "")

    @property
    def sentence(self) -> str:
        """For reports: what computes, to the hash of its sources."""
        sources = f"kernels {self.kernels} of version {self.version}, compiled by {self.compiler}"
        return f"{self.title}: {sources}"


def library_name(provider: OpsProvider) -> str:
    """File name of the library for a provider."""
    return f"libvim_ort_{provider}.so"


def build_command(provider: OpsProvider) -> str:
    """The command that builds it."""
    command = "vim-deploy plugin build --target onnxruntime"
    return command if provider == "cpu" else f"{command} --provider {provider}"


def find_ort_library(provider: OpsProvider = "cpu", explicit: Path | None = None) -> Path | None:
    """The library to use, or None.

    The one that is named, the one that ``VIM_DEPLOY_ORT_OPS`` names, the one that was installed
    with this package, or the newest that was built here of the sources at hand.

    Raises:
        VimDeployError: VIM-401 when one is named and is not there.
    """
    name = library_name(provider)
    named = os.environ.get(LIBRARY_VARIABLE)
    if explicit is not None or named:
        path = explicit or Path(named or "")
        return require_file(path / name if path.is_dir() else path, "library of native ops")
    if named is not None:
        return None
    installed = _INSTALLED / name
    if installed.is_file():
        return installed
    return next(iter(_built(provider)[0]), None)


def means_none() -> bool:
    """Whether ``VIM_DEPLOY_ORT_OPS`` is set to nothing, which means no library at all."""
    return os.environ.get(LIBRARY_VARIABLE) == ""


def no_ort_library(provider: OpsProvider) -> VimDeployError:
    """VIM-401 for where ``find_ort_library`` finds none, with what is known of why."""
    if means_none():
        why = f"{LIBRARY_VARIABLE} is set to nothing, which means none"
        fix = f"unset {LIBRARY_VARIABLE}"
    elif others := _built(provider)[1]:
        why, fix = _not_taken(others[0], provider)
    else:
        why = "none was named or installed, and none was built here"
        fix = build_command(provider)
    return VimDeployError(
        "VIM-401", f"library of native ops ({provider}) not found", why=why, fix=fix
    )


def _not_taken(library: Path, provider: OpsProvider) -> tuple[str, str]:
    """Why a library in the cache is not taken, and what to do about it."""
    made_of, build = _made_of(library), build_command(provider)
    if not {"sources", "machine"} <= made_of.keys():
        return f"no {KEY_FILE} beside {library} says what it was built of", build
    if made_of["machine"] != platform.machine():
        where = f"on {made_of['machine']}, and this machine is {platform.machine()}"
        return f"{library} was built {where}", build
    try:
        plugin_sources(provider)
    except VimDeployError as error:
        return (
            f"{error.message}, so nobody can say whether {library} was built of them",
            f"set {LIBRARY_VARIABLE} to that library to take it as it is",
        )
    return f"{library} was built of other sources", build


def sources_key(provider: OpsProvider) -> dict[str, str]:
    """What a library in the cache must have been made of to be taken: sources and machine.

    Raises:
        VimDeployError: VIM-401 where there are no sources.
    """
    sources = plugin_sources(provider)
    return {
        "sources": hash_files(sources, ort_source_files(sources, provider)),
        "machine": platform.machine(),
    }


def _built(provider: OpsProvider) -> tuple[list[Path], list[Path]]:
    """Of the libraries in the cache, newest first: those to take, and the others."""
    found = in_cache(library_name(provider))
    if not found:
        return [], []
    try:
        wanted = sources_key(provider)
    except VimDeployError:
        # Without sources nobody can say what they were built of.
        return [], found
    fitting = [path for path in found if wanted.items() <= _made_of(path).items()]
    return fitting, [path for path in found if path not in fitting]


def _made_of(library: Path) -> dict[str, object]:
    try:
        value = json.loads((library.parent / KEY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def describe_ort_library(path: Path) -> OrtLibraryInfo:
    """What the library at ``path`` is; loads it.

    Raises:
        VimDeployError: VIM-401 (no file), VIM-417 (not our library, or it does not load here),
            VIM-903 (another contract or domain).
    """
    build = build_command("cuda" if "cuda" in path.name else "cpu")
    said = own_words(path, open_library(path, build), build)
    found = {"path": str(path), "sha256": sha256_of(path), "glibc": needed_glibc(path)}
    info = decode(
        {**{key: value for key, value in said.items() if key != "name"}, **found},
        OrtLibraryInfo,
        lambda why: not_ours(path, f"it does not describe itself: {why}", build),
    )
    if said.get("name") != f"vim_ort_{info.provider}" or info.provider not in ("cpu", "cuda"):
        raise not_ours(path, f"it calls itself {said.get('name')!r}", build)
    here = (contract.CONTRACT_VERSION, contract.DOMAIN, contract.DOMAIN_VERSION)
    there = (info.contract_version, info.domain, info.domain_version)
    if there != here:
        raise VimDeployError(
            "VIM-903",
            f"{path} does not fit this version of vim-deploy",
            why="contract {}, domain {} version {}; expected {}, {} version {}".format(
                *there, *here
            ),
            fix=f"build it again: {build}",
        )
    return info


def require_provider(info: OrtLibraryInfo, provider: OpsProvider) -> None:
    """VIM-903 when a library's kernels are for another provider."""
    if info.provider != provider:
        raise VimDeployError(
            "VIM-903",
            f"{info.path} does not fit",
            why=f"it is for the provider {info.provider}, and {provider} is asked for",
            fix=build_command(provider),
        )


def needed_glibc(path: Path) -> str:
    """The newest ``GLIBC_x.y`` that an ELF file asks for, as ``x.y``; empty when it asks for none.

    Read from the file itself: its table of symbol versions that other libraries have to bring. A
    file whose tables lead out of it asks for nothing that could be read.
    """
    data = path.read_bytes()
    try:
        found = [re.fullmatch(r"GLIBC_(\d+(?:\.\d+)+)", name) for name in _needed_versions(data)]
    except (struct.error, ValueError, OverflowError):
        return ""
    versions = [tuple(map(int, item[1].split("."))) for item in found if item is not None]
    return ".".join(map(str, max(versions, default=())))


def _needed_versions(data: bytes) -> list[str]:
    """Names of the symbol versions in an ELF file's requirements; struct.error past its end."""
    (table,) = struct.unpack_from("<Q", data, _SECTIONS_AT)
    size, count = struct.unpack_from("<HH", data, _SECTIONS_SIZES_AT)
    sections = [_SECTION.unpack_from(data, table + number * size) for number in range(count)]
    names = []
    for kind, start, _, link in sections:
        if kind != _VERNEED or link >= len(sections):
            continue
        texts = sections[link][1]
        file = start
        for _ in range(len(data) // _NEED.size):
            _, entries, _, first, following = _NEED.unpack_from(data, file)
            entry = file + first
            for _ in range(entries):
                *_, name, step = _NEED_ENTRY.unpack_from(data, entry)
                end = data.index(b"\0", texts + name)
                names.append(data[texts + name : end].decode("ascii"))
                entry += step
            if not following:
                break
            file += following
    return names
