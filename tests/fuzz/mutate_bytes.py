"""Changes of bytes that know nothing of what they mean, and of lines of text."""

from __future__ import annotations

from random import Random

from tests.fuzz.cases import Mutation

#: Text that a terminal obeys, that UTF-8 cannot hold, or that no name can be.
HOSTILE_TEXT = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b2J",
    "\x7f\x00\r",
    "\ud800",
    "",
    "../../../../etc/passwd",
    "/dev/zero",
    "a" * 70_000,
    "\u202egnp.exe",
    "[bold]{0}%s%n[/bold]",
)
#: Where arithmetic and memory end.
HOSTILE_NUMBERS = (0, -1, 1, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63 - 1, -(2**63), 2**40)


def flips(data: bytes, generator: Random) -> bytes:
    """A few bytes of other values."""
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 8, 64)) if data else 0):
        changed[generator.randrange(len(changed))] = generator.randrange(256)
    return bytes(changed)


def truncated(data: bytes, generator: Random) -> bytes:
    """The beginning alone, often nearly all of it."""
    keep = generator.randrange(len(data) + 1)
    return data[: generator.choice((keep, keep, max(len(data) - 1, 0), 0, min(len(data), 16)))]


def spliced(data: bytes, generator: Random) -> bytes:
    """A part of the file over another part of it."""
    first, second, third = (generator.randrange(len(data) + 1) for _ in range(3))
    part = data[min(first, second) : max(first, second)][:4096]
    return data[:third] + part + data[third + len(part) :]


def inserted(data: bytes, generator: Random) -> bytes:
    """Bytes that were not there: noise, zeros, or text that a terminal obeys."""
    place = generator.randrange(len(data) + 1)
    new = generator.choice(
        (
            generator.randbytes(generator.choice((1, 4, 32))),
            bytes(generator.choice((1, 8, 4096))),
            generator.choice(HOSTILE_TEXT).encode("utf-8", "surrogatepass"),
        )
    )
    return data[:place] + new + data[place:]


def repeated(data: bytes, generator: Random) -> bytes:
    """A block of the file many times over."""
    place = generator.randrange(len(data) + 1)
    block = data[place : place + generator.choice((1, 2, 16, 256))]
    return (
        data[:place]
        + block * generator.choice((2, 100, 10_000 // max(len(block), 1)))
        + data[place:]
    )


def lines(data: bytes, generator: Random) -> bytes:
    """A line of text dropped, doubled, moved or replaced."""
    rows = data.split(b"\n")
    place = generator.randrange(len(rows))
    row = rows.pop(place)
    kind = generator.randrange(4)
    if kind == 1:
        rows[place:place] = [row, row]
    elif kind == 2:
        rows.insert(generator.randrange(len(rows) + 1), row)
    elif kind == 3:
        rows.insert(place, generator.choice(HOSTILE_TEXT).encode("utf-8", "surrogatepass"))
    return b"\n".join(rows)


def on_bytes(files: str = "*") -> tuple[Mutation, ...]:
    """Every change of bytes, on these files."""
    return tuple(
        Mutation(change, files) for change in (flips, truncated, spliced, inserted, repeated)
    )
