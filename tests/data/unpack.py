"""Make an archive that is kept as ``.xz`` again, for a command that reads it.

    python tests/data/unpack.py E01_upernet.pth -o work/E01_upernet.pth

``pack_reference`` says what is kept so, and why. Needs no package.
"""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "reference"


def unpacked(stored: bytes) -> bytes:
    """The bytes that ``pack_reference.packed`` was given."""
    columns = lzma.decompress(stored)
    whole = bytearray(len(columns))
    start = 0
    for place in range(4):
        size = len(range(place, len(whole), 4))
        whole[place::4] = columns[start : start + size]
        start += size
    return bytes(whole)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the archive, such as E01_upernet.pth")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the file to write")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(unpacked((FOLDER / f"{options.name}.xz").read_bytes()))


if __name__ == "__main__":
    main()
