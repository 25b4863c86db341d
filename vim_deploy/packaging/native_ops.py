"""The native ops of a package: whether they go along, and whether its server can load them.

They stand beside the ONNX file. Triton's ONNX Runtime backend hands the path in the configuration
to the loader as it is, and does not load the model when that fails; so they go there only where the
server is known to have the C library they need. The python backend's model.py finds them in its own
folder, and runs the file without them where they do not load.
"""

from __future__ import annotations

import platform
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.ops.functions import asked_ops
from vim_deploy.packaging.repository import PYTHON, TENSORRT
from vim_deploy.packaging.scripts import INSIDE, glibc_of, numbers, oldest_glibc
from vim_deploy.packaging.servable import Servable
from vim_deploy.plugin.ort_library import OrtLibraryInfo, build_command, library_name
from vim_deploy.runtimes.onnxruntime import native_ops as session_ops
from vim_deploy.specs import OpsChoice

#: Name of the library inside a package.
OPS_LIBRARY = library_name("cpu")
#: The beginning of a 64-bit, little-endian shared object: e_ident, e_type 3, e_machine (elf.h).
_ELF = struct.Struct("<4sBB10xHH")
_MAGIC, _64_BIT, _LITTLE_ENDIAN, _SHARED = b"\x7fELF", 2, 1, 3
_MACHINES = {62: "x86_64", 183: "aarch64"}


@dataclass(frozen=True)
class PackedOps:
    """The native ops of a package.

    Attributes:
        library: where they are in the package.
        machine: that it was compiled for, as ``uname -m`` says it.
        glibc: version of the C library that it needs.
    """

    library: str
    machine: str
    glibc: str


def choose_ops(
    servable: Servable, runtime: str, choice: OpsChoice, image: str, notes: list[str]
) -> OrtLibraryInfo | None:
    """The library to take along, or None; what was decided goes into ``notes``.

    Raises:
        VimDeployError: VIM-203 (native ops for an engine), VIM-907 (``native``, and ``image`` has
            an older C library); as ``choose_ops`` of ONNX Runtime's runner.
    """
    if runtime == TENSORRT:
        if choice == "native":
            raise VimDeployError(
                "VIM-203",
                f"--ops native is for ONNX files, and {servable.file.name} is an engine",
                why="an engine has its kernels inside, or in a plugin library",
                fix="leave it away, or package the ONNX file",
            )
        return None
    if choice == "native":
        servable.file.refuse_standalone("--ops native")
    asked = asked_ops(servable.file.model)
    if choice == "function" or not asked.names:
        return None
    here = session_ops.choose_ops(choice, "cpu", asked)
    found = here.library
    if found is None:
        why = here.why or f"none are here: {build_command('cpu')}"
        notes.append(f"no native ops go along: {why}")
        return None
    wrong = "" if runtime == PYTHON else _not_loaded_by(image, found.glibc)
    if wrong and choice == "native" and glibc_of(image):
        raise VimDeployError(
            "VIM-907",
            f"{image} does not load the native ops of this machine",
            why=wrong,
            fix="take a later image, a library made for older systems (that of a wheel of "
            "vim-deploy), or --ops function",
        )
    if wrong and choice == "auto":
        notes.append(f"no native ops go along: {wrong}; --ops native takes them all the same")
        return None
    needs = f", for glibc {found.glibc} or later" if found.glibc else ""
    notes.append(f"native ops go along: {OPS_LIBRARY} for {platform.machine()}{needs}")
    return found


def _not_loaded_by(image: str, needed: str) -> str:
    """Why the server in ``image`` may not load what needs this glibc; empty when it does."""
    has = glibc_of(image)
    if not needed or numbers(needed) <= numbers(has or oldest_glibc()):
        return ""
    if has:
        return f"they need glibc {needed}, and {image} has {has}"
    which = f"the glibc of {image} is not known" if image else "no --image was named"
    return f"they need glibc {needed}, and {which}"


def opened_by(runtime: str, library: str) -> str:
    """How the backend names the library whose path in the package is ``library``."""
    return OPS_LIBRARY if runtime == PYTHON else f"{INSIDE}/{library}"


def described(info: OrtLibraryInfo, library: str) -> dict[str, Any]:
    """What the manifest says of the library; ``PackedOps`` reads a part of it."""
    return {
        "library": library,
        "version": info.version,
        "machine": platform.machine(),
        "glibc": info.glibc,
        "instruction_sets": list(info.instruction_sets),
    }


def check_library(folder: Path, ops: PackedOps) -> str:
    """What the library is, read from its first bytes; code of a package is not loaded.

    Raises:
        VimDeployError: VIM-417 when it is no shared library for the machine that is said.
    """
    path = folder / ops.library
    with path.open("rb") as stream:
        head = stream.read(_ELF.size)
    why = "it is too short"
    if len(head) == _ELF.size:
        *form, kind, number = _ELF.unpack(head)
        machine = _MACHINES.get(number, f"machine {number}")
        if form != [_MAGIC, _64_BIT, _LITTLE_ENDIAN] or kind != _SHARED:
            why = "it is no shared library of a 64-bit Linux"
        elif machine != ops.machine:
            why = f"it is for {machine}, the manifest says {ops.machine}"
        else:
            return (
                f"{path.name} is a shared library for {machine} that needs glibc {ops.glibc}; "
                "it was not loaded"
            )
    raise VimDeployError(
        "VIM-417",
        f"{ops.library} is not what the manifest says",
        why=why,
        fix="make the package again: vim-deploy package ARTIFACT --force",
    )
