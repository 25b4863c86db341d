"""Changes of zip archives, which checkpoints and NumPy's files are, that keep them archives."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from random import Random

from tests.fuzz.cases import Mutation
from tests.fuzz.mutate_bytes import HOSTILE_TEXT, flips, inserted, truncated

Members = list[tuple[str, bytes, int]]


def _rename(members: Members, at: int, generator: Random) -> None:
    text = generator.choice(HOSTILE_TEXT).encode("utf-8", "replace").decode()
    members[at] = (text[:200] or "x", *members[at][1:])


def _double(members: Members, at: int, _: Random) -> None:
    members.append(members[at])


def _drop(members: Members, at: int, _: Random) -> None:
    del members[at]


def _compress(members: Members, at: int, generator: Random) -> None:
    how = generator.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    members[at] = (*members[at][:2], how)


def _bomb(members: Members, at: int, generator: Random) -> None:
    size = generator.choice((1 << 20, 64 << 20))
    members[at] = (members[at][0], members[at][1] + bytes(size), zipfile.ZIP_DEFLATED)


def _content(members: Members, at: int, generator: Random) -> None:
    change = generator.choice((flips, truncated, inserted))
    members[at] = (members[at][0], change(members[at][1], generator), members[at][2])


CHANGES = (_rename, _double, _drop, _compress, _bomb, _content)


def _sizes(data: bytes, generator: Random) -> bytes:
    """An entry of the directory that claims other sizes."""
    places = [at for at in range(len(data) - 46) if data[at : at + 4] == b"PK\x01\x02"]
    if not places:
        return data
    changed = bytearray(data)
    at = generator.choice(places)
    field = generator.choice((16, 20, 24, 28, 42))
    struct.pack_into("<I", changed, at + field, generator.choice((0, 1, 1 << 31, 0xFFFFFFFE)))
    return bytes(changed)


def _on(change: Callable[[Members, int, Random], None]) -> Callable[[bytes, Random], bytes]:
    def mutator(data: bytes, generator: Random) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as old:
                members = [(m.filename, old.read(m), m.compress_type) for m in old.infolist()]
        except Exception:  # an earlier change has made it something else
            return data
        if not members:
            return data
        change(members, generator.randrange(len(members)), generator)
        stream = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as new:
            warnings.simplefilter("ignore")
            for name, content, how in members:
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                new.writestr(entry, content, how)
        return stream.getvalue()

    return mutator


def on_zip(files: str = "*") -> tuple[Mutation, ...]:
    """Every change of an archive, on these files."""
    return (*(Mutation(_on(change), files) for change in CHANGES), Mutation(_sizes, files))
