"""NumPy archives (.npz) that somebody else made: bounded, and arrays of plain numbers only.

An archive is a zip of .npy files. Its members may be compressed, so a small file can stand for any
amount of memory: what all members claim is compared with what a file of its size may hold, before
anything is unpacked, and no member gives more than it claimed. Pickled objects are never read.
"""

from __future__ import annotations

import contextlib
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vim_deploy.errors import VimDeployError

#: What an archive may unpack to: arrays of a few pictures, whatever they are compressed to, and for
#: larger files this many times their size. Measured pictures and outputs compress to half at best.
FREE_BYTES = 128 << 20
MAX_EXPANSION = 4
#: Every case of the tests has fewer than ten; a larger directory alone would take memory.
MAX_MEMBERS = 4096

_UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError, SyntaxError,
    OverflowError, RecursionError, MemoryError, RuntimeError, NotImplementedError,
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip

Array = npt.NDArray[Any]


class Archive:
    """The arrays of an open archive, each read when it is asked for.

    Args:
        stream: of the file; stays open as long as the archive is used.
        size: of the file, in bytes.

    Raises:
        ValueError: more is claimed than such a file holds, or it is not an archive of .npy files;
            and what ``zipfile`` raises for a damaged one.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._zip = zipfile.ZipFile(stream)
        self._members: dict[str, zipfile.ZipInfo] = {}
        claimed = 0
        for member in self._zip.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise ValueError(f"its member {name!r} is no .npy file")
            if name in self._members:
                raise ValueError(f"it holds {name!r} twice")
            if len(self._members) == MAX_MEMBERS:
                raise ValueError(f"it has more than {MAX_MEMBERS} members")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"its member {name!r} is compressed as NumPy does not")
            self._members[name] = member
            claimed += member.file_size
        most = max(FREE_BYTES, MAX_EXPANSION * size)
        if claimed > most:
            raise ValueError(
                f"its {size} bytes claim to unpack to {claimed}, more than {most}; what "
                "numpy.savez stores, without compression, is read at any size"
            )

    @property
    def names(self) -> list[str]:
        """Names of the arrays, in the archive's order."""
        return list(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def read(self, name: str) -> Array:
        """One array; KeyError when there is none of that name, ValueError when it is damaged."""
        member = self._members[name]
        with self._zip.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            readers = {(1, 0): np.lib.format.read_array_header_1_0,
                       (2, 0): np.lib.format.read_array_header_2_0}  # fmt: skip
            if version not in readers:
                raise ValueError(f"{name!r} is stored in format {version}, not 1.0 or 2.0")
            shape, _, dtype = readers[version](stream)
        if dtype.hasobject or dtype.kind not in "biufc":
            raise ValueError(f"{name!r} holds {dtype}, not numbers")
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{name!r} claims shape {shape}, more than the file stores")
        with self._zip.open(member) as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array


@contextlib.contextmanager
def opened_npz(path: Path, on_error: Callable[[str], VimDeployError]) -> Iterator[Archive]:
    """The archive in a file, for as long as the block lasts.

    Args:
        path: of the file.
        on_error: makes the error from a sentence that says what is wrong.

    Raises:
        VimDeployError: what ``on_error`` gives, for whatever is not such an archive.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            yield Archive(stream, size)
    except _UNREADABLE as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise on_error(said or type(error).__name__) from error
