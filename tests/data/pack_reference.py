"""Pack the small reference cases into ``tests/data/reference``, deterministically.

    python tests/data/pack_reference.py SOURCE_FOLDER

A ``.pth`` or ``.npz`` file is a zip archive with stored entries. This writes the same entries, in
the same order, deflated and with a fixed date: the same source gives the same bytes, and both
``torch.load(weights_only=True)`` and ``numpy.load`` read the result. ``.json`` files are copied.
The folder may not grow beyond ``MAX_TOTAL_BYTES``, which keeps a clone of the repository small.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

DESTINATION = Path(__file__).resolve().parent / "reference"
#: Classification cases, position-embedding vectors and the trained toy checkpoint; the full-size
#: case B and the segmentation and detection cases D and E are not packed.
PATTERNS = ("A[0-9]*", "pos_embed_interp.*", "vim_digits.*")
ARCHIVES = (".npz", ".pth")
MAX_TOTAL_BYTES = 16_000_000
#: The earliest date a zip entry can carry.
FIXED_DATE = (1980, 1, 1, 0, 0, 0)


def repack(source: Path, destination: Path) -> None:
    """Write the entries of the zip archive ``source`` to ``destination``, deflated, in order."""
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(destination, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new,
    ):
        for entry in old.infolist():
            target = zipfile.ZipInfo(entry.filename, FIXED_DATE)
            target.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(target, old.read(entry), compresslevel=9)


def pack(source: Path, destination: Path) -> int:
    """Pack every small case of ``source`` into ``destination``; give the bytes written."""
    destination.mkdir(parents=True, exist_ok=True)
    files = sorted(path for pattern in PATTERNS for path in source.glob(pattern))
    if not files:
        raise SystemExit(f"{source} holds no reference cases ({', '.join(PATTERNS)})")
    for path in files:
        target = destination / path.name
        target.unlink(missing_ok=True)
        if path.suffix in ARCHIVES:
            repack(path, target)
        else:
            target.write_bytes(path.read_bytes())
    return sum(path.stat().st_size for path in destination.iterdir())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder that holds the reference set")
    total = pack(parser.parse_args().source, DESTINATION)
    print(f"{DESTINATION.name}: {total:,} bytes")
    if total > MAX_TOTAL_BYTES:
        raise SystemExit(f"more than {MAX_TOTAL_BYTES:,} bytes")


if __name__ == "__main__":
    main()
