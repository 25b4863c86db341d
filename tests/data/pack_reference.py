"""Pack the small reference cases into ``tests/data/reference``, deterministically.

    python -m tests.data.pack_reference SOURCE_FOLDER

A ``.pth`` or ``.npz`` file is a zip archive with stored entries. This writes the same entries, in
the same order, with a fixed date, and packs all but a few (``PLAIN``): the same source gives the
same bytes, and unpacked both ``torch.load(weights_only=True)`` and ``numpy.load`` read the result.
Weights stay stored, as torch.save writes them: compressed checkpoints are refused. What stands
around them is made small: a short name for the archive's folder, a pickle without the marks that
nothing in it refers to, and no entries that say how the file was written.
``.json`` and ``.yaml`` files are copied. Of the arrays only those are written that show something
(``kept``). The folder may not grow beyond ``MAX_TOTAL_BYTES``, which keeps clones small.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import io
import json
import lzma
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.data.drawn import drawn

DESTINATION = Path(__file__).resolve().parent / "reference"
#: Classification cases, segmentation and detection cases, whole detectors, position-embedding
#: vectors and the trained toy checkpoint; the full-size case B is not packed.
PATTERNS = ("A[0-9]*", "D[0-9]*", "E[0-9]*", "F0[12]*", "pos_embed_interp.*", "vim_digits.*")
ARCHIVES = (".npz", ".pth")
#: 36 classifiers, ten dense models, two detectors: random float32 weights, which stay exact. And
#: two models of another family, whose weights have few bits (``round_mambavision``).
MAX_TOTAL_BYTES = 23_500_000
#: Cases of which the first image of the batch is kept. The trained checkpoint keeps its 360, which
#: show that images of a batch do not touch each other.
FIRST_IMAGE_ONLY = ("A*", "D*", "E*")
#: Arrays that are not kept: the backbone's maps of the whole network, whose backbone is D01's; and
#: two position embeddings that are there a second time, with ``midcls_`` before their names.
#: Of detectors what is behind the RPN head and the box deltas (proposals and boxes show both), and
#: what ``tests.support.detector_cases`` makes again: the resized pictures, checked by their hash,
#: and the proposals, which are the boxes of the first stage.
LEFT_OUT = (
    "E[0-9]*/feature_?", "pos_embed_interp/input", "pos_embed_interp/output", "F*/*_rpn_*",
    "F*/*_deltas", "F*/*_resized", "F*/*_proposal_boxes",
)  # fmt: skip
#: Pictures that are left out as well: noise, which ``tests.data.drawn`` draws again.
DRAWN = ("A*/image", "E[0-9]*/image_slide")
#: Of these arrays every second row and column: logits of each pixel, where windows of 64 pixels
#: meet. A seam is longer than two pixels, and what is left shows each of them.
EVERY_SECOND = ("E[0-9]*/slide_output",)
#: Of these position embeddings the first channels: each channel is interpolated by itself.
FEWER_CHANNELS = (
    "pos_embed_interp/nocls_*", "pos_embed_interp/doublecls_*", "pos_embed_interp/midcls_output_*",
)  # fmt: skip
CHANNELS_KEPT = 16
#: Masks of the detections that are kept: of F02's hundred the best.
MASKS_KEPT = 12
#: Checkpoints whose bytes stay, folder and pickle too: records in ``old/`` name this file's hash.
BYTES_STAY = ("vim_digits",)
#: Files that the documentation names by their path. All other archives are kept as ``.xz``: bytes
#: of every fourth place together, since the exponents of float32 numbers take less beside each
#: other. That saves a sixth of checkpoints and a twelfth of arrays.
PLAIN = ("vim_digits.pth", "vim_digits.npz")
#: Entries of a checkpoint that say how it was written, and that no release needs to read it.
NOT_NEEDED = (".format_version", ".storage_alignment", ".data/serialization_id")
#: The folder of a checkpoint's archive, which PyTorch calls after the file; every entry names it
#: twice.
FOLDER = "w"
#: The earliest date a zip entry can carry.
FIXED_DATE = (1980, 1, 1, 0, 0, 0)


Array = np.ndarray[Any, np.dtype[Any]]


def kept(case: str, array: str, contents: bytes) -> bytes | None:
    """What is kept of an ``.npy`` entry: all of it, its first image, or nothing (None)."""
    if is_one_of((*LEFT_OUT, *DRAWN), case, array):
        return None
    if case.startswith("F"):
        return kept_of_detector(array, contents)
    if is_one_of(EVERY_SECOND, case, array):
        return npy(loaded(contents)[..., ::2, ::2])
    if is_one_of(FEWER_CHANNELS, case, array):
        return npy(loaded(contents)[..., :CHANNELS_KEPT])
    if not any(fnmatch.fnmatchcase(case, pattern) for pattern in FIRST_IMAGE_ONLY):
        return contents
    return npy(loaded(contents)[:1])


def require_drawn(source: Path, array: str, contents: bytes) -> None:
    """End with a message where a picture is not the noise that is drawn in its place."""
    record = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))
    if not np.array_equal(drawn(record, array), loaded(contents)[:1]):
        raise SystemExit(f"{source.stem}: {array} is not the noise of seed {record['seed']}")


def is_one_of(patterns: tuple[str, ...], case: str, array: str) -> bool:
    """Whether a pattern of ``CASE/ARRAY`` means this array."""
    return any(fnmatch.fnmatchcase(f"{case}/{array}", pattern) for pattern in patterns)


def kept_of_detector(array: str, contents: bytes) -> bytes:
    """What is kept of an ``.npy`` entry of a detector: pictures as the bytes of a PNG file."""
    if array.endswith("_picture"):
        stream = io.BytesIO()
        Image.fromarray(loaded(contents)).save(stream, "PNG", optimize=True)
        return npy(np.frombuffer(stream.getvalue(), np.uint8))
    return npy(loaded(contents)[:MASKS_KEPT]) if array[2:] == "_masks" else contents


def loaded(contents: bytes) -> Array:
    """The array of an ``.npy`` entry."""
    values: Array = np.load(io.BytesIO(contents), allow_pickle=False)
    return values


def npy(values: Array) -> bytes:
    """The ``.npy`` entry of an array."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(values), version=(1, 0))
    return stream.getvalue()


def with_hashes(path: Path) -> str:
    """A detector's ``.json`` and in it the hashes of its resized pictures, which are left out."""
    record = json.loads(path.read_text(encoding="utf-8"))
    with np.load(path.with_suffix(".npz")) as arrays:
        for number, image in enumerate(record["images"]):
            resized = arrays[f"i{number}_resized"].tobytes()
            image["resized_sha256"] = hashlib.sha256(resized).hexdigest()
    return json.dumps(record)


def small(name: str, contents: bytes) -> tuple[str, bytes | None]:
    """An entry of a checkpoint, of the same meaning, in a shorter form; None where it has none."""
    name = name.partition("/")[2]
    if name == "data.pkl":
        contents = pickletools.optimize(contents)
    return f"{FOLDER}/{name}", None if name in NOT_NEEDED else contents


def repack(source: Path, destination: Path) -> None:
    """Write the entries of the zip archive ``source`` to ``destination``, in order."""
    deflated = source.suffix == ".npz" and source.name in PLAIN
    compression = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(destination, "w", compression) as new,
    ):
        for entry in old.infolist():
            name = entry.filename
            contents: bytes | None = old.read(entry)
            if source.suffix == ".npz":
                array = Path(name).stem
                if is_one_of(DRAWN, source.stem, array):
                    require_drawn(source, array, old.read(entry))
                contents = kept(source.stem, array, old.read(entry))
            elif source.stem not in BYTES_STAY:
                name, contents = small(name, old.read(entry))
            if contents is None:
                continue
            target = zipfile.ZipInfo(name, FIXED_DATE)
            target.compress_type = compression
            new.writestr(target, contents, compresslevel=9)


def packed(contents: bytes) -> bytes:
    """An archive that is not ``PLAIN``; ``tests.support.reference`` makes its bytes again."""
    columns = (contents[start::4] for start in range(4))
    # Bytes of one place have nothing to do with their position or with those before them.
    strongest = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "pb": 0}
    return lzma.compress(b"".join(columns), format=lzma.FORMAT_XZ, filters=[strongest])


def pack_file(path: Path, destination: Path) -> None:
    """Pack one archive into the folder, as ``.xz`` if it is not ``PLAIN``."""
    target = destination / path.name
    repack(path, target)
    if path.name not in PLAIN:
        Path(f"{target}.xz").write_bytes(packed(target.read_bytes()))
        target.unlink()


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
            pack_file(path, destination)
        elif path.suffix == ".json" and path.stem.startswith("F"):
            target.write_text(with_hashes(path), encoding="utf-8")
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
