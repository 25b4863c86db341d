"""Reading pickled checkpoints from strangers: nothing in the file runs.

Two walls. The pickle's instructions are first listed without being followed: they are counted, and
a file that names what no training writes is refused (``inert.is_hostile``). Then ``torch.load``
reads it with the reader of ``inert``, which calls nothing that the file names, whatever the first
wall overlooked.
"""

from __future__ import annotations

import os
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from vim_deploy.artifact.file import other_kind
from vim_deploy.errors import VimDeployError
from vim_deploy.model.inert import HostileNameError, PickleModule, is_hostile, resolved
from vim_deploy.threads import no_warnings

#: The pickle inside an archive only describes tensors; Vim-Base's is below 1 MiB.
MAX_PICKLE_BYTES = 32 << 20
#: Instructions of all pickles of a file. A tensor takes about 45: Vim-Base with its average and an
#: optimizer's two moments has 120,000. Some instructions are one byte long, so that the bytes alone
#: bound nothing: 32 MiB of them are listed in a minute.
MAX_INSTRUCTIONS = 2_000_000
#: Pickles at the start of a file in torch's format before 1.6: magic number, protocol version,
#: system information, the object, the storage keys. Raw numbers follow.
_LEGACY_PICKLES = 5
_DOTTED_NAME = re.compile(r"[A-Za-z_][\w.]*")
#: Where a tar archive has the letters "ustar" (POSIX.1-1988).
_TAR_MAGIC_OFFSET = 257
#: End record of a zip archive, behind the 64-bit one and its locator.
_END_BYTES = 98
#: torch.save wrote three (sys_info, pickle, tensors and storages); archives of folders have more.
_MAX_TAR_MEMBERS = 10_000
#: Makes ``torch.load`` refuse any reader but its own.
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_RESAVE = "save the weights alone, torch.save(model.state_dict(), FILE), and use that file"


def unreadable(
    path: Path, why: str, fix: str = "get the file again, or choose another"
) -> VimDeployError:
    """VIM-402 for ``path``, which may be a file of another kind."""
    other = other_kind(path, "checkpoint")
    if other is not None:
        why, fix = f"it is {other.what}", other.fix
    return VimDeployError("VIM-402", f"not a readable checkpoint: {path}", why=why, fix=fix)


def load_pickled(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The object in a ``torch.save`` file, tensors on the CPU, and the names of its stand-ins.

    Raises:
        VimDeployError: VIM-402 when the file cannot be read, VIM-403 when it names what no training
            writes.
    """
    with path.open("rb") as stream:
        _refuse_code(path, stream)
        stream.seek(0)
        module = PickleModule(path.stat().st_size)
        return _load(path, stream, module), tuple(module.foreign)


def _load(path: Path, stream: IO[bytes], module: PickleModule) -> Any:  # noqa: ANN401
    try:
        # torch warns of networks in old files, whose source it would compare; and its own reader
        # (weights_only) gives up at names it does not know.
        with no_warnings():
            return torch.load(stream, map_location="cpu", weights_only=False, pickle_module=module)
    except HostileNameError as error:
        raise _refused(path, [str(error)]) from error
    except MemoryError as error:
        raise unreadable(path, "it needs more memory than there is") from error
    except Exception as error:
        if os.environ.get(_FORCE, "0") != "0":
            why = f"{_FORCE} keeps PyTorch from taking our reader, which runs nothing in the file"
            raise unreadable(path, why, f"unset {_FORCE}") from error
        # A damaged file makes torch raise nearly anything: RuntimeError, EOFError, KeyError,
        # IndexError, struct.error, UnicodeDecodeError, AssertionError, TypeError.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise unreadable(path, f"PyTorch says: {reason}") from error


def _refused(path: Path, names: Sequence[str]) -> VimDeployError:
    return VimDeployError(
        "VIM-403",
        f"checkpoint refused, nothing in it was run: {path}",
        why="loading it would call or create: " + ", ".join(names),
        fix=f"where you trust the file and have the code it came from, {_RESAVE}",
    )


def _refuse_code(path: Path, stream: IO[bytes]) -> None:
    """VIM-403 when any pickle in the file imports a hostile name.

    VIM-402 when the pickles are not all there, since a name could be cut off, or for a tar archive.
    """
    # As torch decides: a pickle with a zip archive behind it is a pickle.
    is_zip = stream.read(4) == b"PK\x03\x04"
    stream.seek(_TAR_MAGIC_OFFSET)
    is_tar = not is_zip and stream.read(5) == b"ustar"
    stream.seek(0)
    if is_zip:
        pickles = _zip_pickles(path, stream)
    else:
        pickles = _tar_pickles(path, stream) if is_tar else iter((stream,))
    found: dict[str, None] = {}
    complete, left = True, MAX_INSTRUCTIONS
    for pickled in pickles:
        for _ in range(1 if is_zip else _LEGACY_PICKLES):
            names, ended, count = _imported_names(pickled, left)
            left -= count
            if left <= 0:
                why = f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions"
                raise unreadable(path, why, _RESAVE)
            found.update(dict.fromkeys(names))
            complete &= ended
            if not ended:
                break
    refused = [name for name in found if is_hostile(name)]
    if refused:
        raise _refused(path, refused[:10] + ["..."] * (len(refused) > 10))
    if is_tar:
        raise unreadable(path, "it is a tar archive", "unpack it and use the checkpoint inside")
    if not complete:
        raise unreadable(path, "it is cut off, or torch.save did not write it")


def _zip_pickles(path: Path, stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """The pickle in a zip of torch.save, once the archive's declared sizes are believable."""
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            if not _has_one_directory(stream, archive.start_dir):
                raise unreadable(path, "its table of contents is not where it says", _RESAVE)
            _refuse_inflated(path, members)
            names = {member.filename.rpartition("/")[2] for member in members}
            if "constants.pkl" in names:
                why = "it is a TorchScript archive, which holds code"
                raise unreadable(path, why, _RESAVE)
            pickles = [m for m in members if m.filename.rpartition("/")[2] == "data.pkl"]
            if not pickles:
                raise unreadable(path, "it is a zip archive, but not one that torch.save wrote")
            for member in pickles:
                if member.file_size > MAX_PICKLE_BYTES:
                    raise unreadable(path, f"its pickle has {member.file_size} bytes", _RESAVE)
                with archive.open(member) as pickled:
                    yield pickled
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        # RuntimeError: encrypted; NotImplementedError: unknown compression.
        raise unreadable(path, f"damaged zip archive: {error}") from error


def _has_one_directory(stream: IO[bytes], found: int) -> bool:
    """Whether every reader of a zip finds the directory at ``found``, where Python has.

    Python takes what lies before the end record, PyTorch what the record points to, and so a file
    can show each another content. Layout: PKWARE's APPNOTE.TXT, 4.3.14 to 4.3.16.
    """
    place = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - _END_BYTES, 0))
    tail = stream.read().rjust(_END_BYTES, b"\0")
    stream.seek(place)
    record64, locator, end = tail[:-42], tail[-42:-22], tail[-22:]
    # torch.save writes no comment behind it.
    if not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":
        return False
    stated = int.from_bytes(end[16:20], "little")
    if locator.startswith(b"PK\x06\x07"):
        if int.from_bytes(locator[8:16], "little") != size - _END_BYTES:
            return False
        stated = int.from_bytes(record64[48:56], "little")
    return stated == found


def _refuse_inflated(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """VIM-402 unless the members take no more memory than the file takes on the disk."""
    packed = path.stat().st_size
    unpacked = sum(member.file_size for member in members)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        why = (
            f"{packed} bytes of compressed members that claim to unpack to {unpacked}; "
            "torch.save never compresses"
        )
        raise unreadable(path, why, f"where you trust the file, load it yourself and {_RESAVE}")
    if unpacked > packed:
        raise unreadable(path, f"{packed} bytes that claim to hold {unpacked}")


def _tar_pickles(path: Path, stream: IO[bytes]) -> Iterator[IO[bytes]]:
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            end = 0
            for count, member in enumerate(archive):
                # Sizes below zero lead back to where the reader has been (CVE-2025-8194).
                if member.size < 0 or member.offset_data < end or count == _MAX_TAR_MEMBERS:
                    raise unreadable(path, "damaged tar archive: its members do not follow")
                end = member.offset_data + member.size
                pickled = archive.extractfile(member) if member.isreg() else None
                if pickled is not None:
                    yield pickled
    except (tarfile.TarError, OSError, ValueError) as error:
        raise unreadable(path, f"damaged tar archive: {error}") from error


def _imported_names(pickled: IO[bytes], most: int) -> tuple[list[str], bool, int]:
    """Names that one pickle imports, whether its end was reached, and how many instructions it has.

    The instructions are listed, not followed. ``STACK_GLOBAL`` takes its two strings from the
    stack; they are mostly the last two seen, and a file that hides them better gets a stand-in.
    """
    names: list[str] = []
    strings: list[str] = []
    count = 0
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            count += 1
            if count >= most:
                return names, False, count
            if opcode.name in ("GLOBAL", "INST"):
                names.append(resolved(*str(argument).split(" ", 1)))
            elif opcode.name == "STACK_GLOBAL":
                names.append(resolved(*["", "", *strings][-2:]))
            elif opcode.name.startswith("EXT"):
                names.append(f"copyreg extension {argument}")
            elif isinstance(argument, str):
                strings = [*strings[-1:], argument]
            if pickled.seekable() and pickled.tell() > MAX_PICKLE_BYTES:
                return names, False, count
    except Exception:
        # genops raises ValueError, UnicodeDecodeError, struct.error, OverflowError and others on
        # what is no pickle; the caller decides what an unfinished one means. Many letters are
        # instructions, so that prose seems to import its own lines: those are not names.
        return [name for name in names if _DOTTED_NAME.fullmatch(name)], False, count
    return names, True, count
