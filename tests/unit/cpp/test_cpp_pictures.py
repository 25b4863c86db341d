"""Pictures that mean harm, given to the C++ library's decoders: little memory, a coded refusal."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import cpp, cpp_builds
from vim_deploy import images
from vim_deploy.artifact.record import record_path
from vim_deploy.errors import VimDeployError
from vim_deploy.specs import ImagePreparation

pytestmark = pytest.mark.slow

COLOUR = ImagePreparation(32, 32)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    pixels: bytes,
    *,
    depth: int = 8,
    kind: int = 2,
    interlaced: int = 0,
    extra: bytes = b"",
) -> bytes:
    """A PNG of these (already compressed) pixels, with chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zeros(megabytes: int, before: bytes = b"") -> bytes:
    """Compressed: ``before`` and so many megabytes of zeros, a thousandth of their size."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(before)]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(megabytes)]
    return b"".join([*parts, packer.flush()])


def rows(width: int, height: int) -> bytes:
    """Unfiltered rows of an RGB picture."""
    pixels = np.random.default_rng(width).integers(0, 256, (height, width * 3), np.uint8)
    return b"".join(b"\0" + row.tobytes() for row in pixels)


#: Runs a program and says on the last line of standard error how many MB it took at most. A small
#: process of its own: a child counts the memory of the process that it was started from.
MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, file=sys.stderr)
sys.exit(status)
"""


def prepared(folder: Path, data: bytes) -> tuple[int, str, int]:
    """Exit code, standard error, and the most memory in MB of a run on one picture."""
    program = cpp_builds.need_units_with_decoders()
    path = folder / "picture"
    path.write_bytes(data)
    record = record_path(cpp.FakeEngine(image=COLOUR, preprocess="uint8").write(folder))
    words = ["-c", MEASURE, program, "prepare", record, folder / "out", path]
    done = cpp_builds.run(Path(sys.executable), *words)
    *lines, megabytes = done.stderr.splitlines()
    return done.returncode, "\n".join(lines), int(megabytes)


def accepted(folder: Path, data: bytes) -> np.ndarray:
    """The crop of a picture."""
    status, err, _ = prepared(folder, data)
    assert status == 0, err
    return np.fromfile(folder / "out", np.uint8).reshape(1, 32, 32, 3)


def refused(folder: Path, data: bytes, why: str) -> None:
    status, err, _ = prepared(folder, data)
    assert status == 4
    assert err.startswith("error VIM-411: ")
    assert why in err


def as_in_python(folder: Path, data: bytes) -> None:
    """The crop is Python's, bit for bit."""
    found = accepted(folder, data)
    wanted = images.load_batch([folder / "picture"], COLOUR, "uint8")
    np.testing.assert_array_equal(found, wanted)


def bombs() -> dict[str, bytes]:
    """Small PNGs of 8 x 8 whose streams hold 300 MB behind the pixels, or beside them."""
    pixels = rows(8, 8)
    many = zeros(300)
    plain = zlib.compress(pixels)
    return {
        "in the pixels": png(8, 8, zeros(300, pixels)),
        "a text": png(8, 8, plain, extra=chunk(b"zTXt", b"a\0\0" + many)),
        "a translated text": png(8, 8, plain, extra=chunk(b"iTXt", b"a\0\1\0\0\0" + many)),
        "a colour profile": png(8, 8, plain, extra=chunk(b"iCCP", b"a\0\0" + many)),
    }


@pytest.mark.parametrize("name", list(bombs()))
def test_png_bombs_take_no_memory(name: str, tmp_path: Path) -> None:
    status, err, megabytes = prepared(tmp_path, bombs()[name])
    assert status == 0, err
    # 300 MB would be inflated; the process with its sanitizer takes some ten.
    assert 1 < megabytes < 100


def test_gamma_and_transparency_change_nothing(tmp_path: Path) -> None:
    pixels = zlib.compress(rows(40, 48))
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    as_in_python(tmp_path, png(40, 48, pixels, extra=gamma))
    as_in_python(tmp_path, png(40, 48, pixels, extra=chunk(b"tRNS", bytes(6))))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", [0, 3])
def test_few_bits_and_palettes(depth: int, kind: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(depth)
    line = -(-40 * depth // 8)
    body = b"".join(b"\0" + rng.bytes(line) for _ in range(48))
    palette = chunk(b"PLTE", rng.bytes(3 * 2**depth)) if kind == 3 else b""
    data = png(40, 48, zlib.compress(body), depth=depth, kind=kind, extra=palette)
    as_in_python(tmp_path, data)
    if kind == 3:
        clear = palette + chunk(b"tRNS", bytes(2))
        as_in_python(tmp_path, png(40, 48, zlib.compress(body), depth=depth, kind=3, extra=clear))


#: Adam7: first column and row of each pass, and their steps (PNG specification, 8.2).
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
PASSES += ((0, 1, 1, 2),)


@pytest.mark.parametrize("size", [(40, 48), (7, 5), (3, 2), (1, 1)])
def test_interlaced_pngs(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    parts = [pixels[y::down, x::right] for x, y, right, down in PASSES]
    body = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    as_in_python(tmp_path, png(width, height, zlib.compress(body), interlaced=1))
    refused(tmp_path, png(width, height, zlib.compress(body[:-1]), interlaced=1), "truncated")


def test_broken_pngs(tmp_path: Path) -> None:
    whole = png(40, 48, zlib.compress(rows(40, 48)))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    refused(tmp_path, bytes(flipped), "CRC")
    refused(tmp_path, whole[: len(whole) // 2], "truncated")
    refused(tmp_path, whole[:-12], "truncated")
    refused(tmp_path, png(60_000, 60_000, zlib.compress(b"")), "60000 x 60000 pixels")
    refused(tmp_path, png(2**31 - 1, 1, zlib.compress(b"")), "")
    refused(tmp_path, png(8, 8, zlib.compress(bytes(8 * 49)), depth=16), "8 bits")
    refused(tmp_path, png(40, 48, zlib.compress(rows(40, 20))), "truncated")
    refused(tmp_path, png(40, 48, zlib.compress(rows(40, 48)[:-1])), "truncated")


def jpeg(mode: str = "RGB", size: tuple[int, int] = (48, 40), **options: object) -> bytes:
    """Smooth, so that decoders that round differently stay close."""
    x, y = np.meshgrid(np.linspace(0, 200, size[0]), np.linspace(0, 55, size[1]))
    channels = [(x + y), (x / 2 + y), (255 - x - y), (x / 4 + 2 * y)][: len(mode)]
    stream = io.BytesIO()
    pixels = np.stack(channels, -1).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode)
    picture.save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_forms(mode: str, progressive: bool, tmp_path: Path) -> None:
    found = accepted(tmp_path, jpeg(mode, quality=95, progressive=progressive))
    wanted = images.load_batch([tmp_path / "picture"], COLOUR, "uint8")
    # The margin that docs/cpp.md names.
    assert np.abs(found.astype(int) - wanted).max() <= 2


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
def test_broken_jpegs(tmp_path: Path) -> None:
    whole = jpeg(quality=95)
    for size in (2, 3, 20, len(whole) // 2, len(whole) - 2):
        refused(tmp_path, whole[:size], "")
    # Tables with numbers beyond those that exist: what old releases of stb_image wrote past.
    for mark, at in ((b"\xff\xc4", 4), (b"\xff\xdb", 4), (b"\xff\xda", 6)):
        place = whole.index(mark) + at
        refused(tmp_path, whole[:place] + b"\x7f" + whole[place + 1 :], "")
    place = whole.index(b"\xff\xc0") + 5
    large = whole[:place] + struct.pack(">HH", 65_000, 65_000) + whole[place + 4 :]
    refused(tmp_path, large, "65000 x 65000 pixels")


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
def test_a_jpeg_of_many_scans_is_refused(tmp_path: Path) -> None:
    whole = jpeg(quality=95, progressive=True)
    first = whole.index(b"\xff\xda")
    # The scan of the first coefficients once more and again.
    second = whole.index(b"\xff\xc4", first)
    refused(tmp_path, whole[:second] + whole[first:second] * 200 + b"\xff\xd9", "100 scans")


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
def test_a_small_file_may_not_take_much_memory(tmp_path: Path) -> None:
    """The size alone would pass; the same limit holds in Python."""
    large = png(9000, 9000, zeros(1))
    whole = jpeg(quality=95, progressive=True)
    place = whole.index(b"\xff\xc2") + 5
    scans = whole[:place] + struct.pack(">HH", 6000, 6000) + whole[place + 4 :]
    for data in (large, scans):
        status, err, megabytes = prepared(tmp_path, data)
        assert (status, "MB; at most" in err) == (4, True), err
        assert 1 < megabytes < 100
        with pytest.raises(VimDeployError, match="MB are unpacked") as caught:
            images.crop_from_file(tmp_path / "picture", COLOUR)
        assert caught.value.code == "VIM-411"


def test_a_growing_or_special_file_is_no_picture(tmp_path: Path) -> None:
    program = cpp_builds.need_program("units")
    record = record_path(cpp.FakeEngine().write(tmp_path))
    pipe = tmp_path / "pipe"
    subprocess.run(["mkfifo", str(pipe)], check=True)
    for path in (pipe, tmp_path, Path("/dev/zero")):
        done = cpp_builds.run(program, "prepare", record, tmp_path / "out", path)
        assert done.returncode == 4
        assert "not a regular file" in done.stderr
