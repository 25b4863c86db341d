"""Images: the official preparation bit for bit, and hostile or broken files."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import reference
from tests.support.source import REPOSITORY
from vim_deploy import image_bounds, images
from vim_deploy.errors import VimDeployError
from vim_deploy.packaging.scripts import unchanged
from vim_deploy.specs import ImagePreparation

SMALL = ImagePreparation(32, 32)
TWO: dict[str, Any] = {"save_all": True, "append_images": [Image.new("RGB", (64, 64))]}


def pattern(width: int, height: int) -> images.Pixels:
    """A picture that depends on position and channel in every pixel."""
    y, x, c = np.indices((height, width, 3))
    return ((7 * y + 13 * x + 50 * c + x * y // 3) % 256).astype(np.uint8)


def save(path: Path, pixels: images.Pixels) -> Path:
    Image.fromarray(pixels).save(path)
    return path


# SHA-256 (first 16 digits) of what torchvision 0.29.2 makes of ``pattern``:
# Compose([Resize(int(size / ratio), BICUBIC), CenterCrop(size)]) on a PIL image.
TORCHVISION = [
    (640, 427, 224, 0.875, "06a001f7b96a20d7"),
    (427, 640, 224, 0.875, "c684d6446f970991"),
    (333, 257, 224, 0.875, "201510c593e3264b"),
    (101, 99, 64, 0.9, "d339129b858c31be"),
    (50, 31, 32, 1.0, "6927ef41a5547ad2"),
    (17, 300, 33, 0.95, "bf9273f13673f67a"),
    (256, 256, 224, 0.875, "ebcf0de597a1d772"),
]


@pytest.mark.parametrize(("width", "height", "size", "ratio", "digest"), TORCHVISION)
def test_crop_is_torchvisions(
    width: int, height: int, size: int, ratio: float, digest: str
) -> None:
    crop = images.crop_from_array(
        pattern(width, height), ImagePreparation(size, size, crop_ratio=ratio)
    )
    assert crop.shape == (size, size, 3)
    assert hashlib.sha256(crop.tobytes()).hexdigest()[:16] == digest


def test_file_and_array_give_the_same_crop(tmp_path: Path) -> None:
    pixels = pattern(61, 40)
    path = save(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(
        images.crop_from_file(path, SMALL), images.crop_from_array(pixels, SMALL)
    )


@pytest.mark.reference
def test_normalisation_equals_the_stored_input(
    full_size_case: reference.ReferenceCase,
) -> None:
    batch = images.batch_from_crops(
        full_size_case.extras["image_uint8"], ImagePreparation(224, 224), "none"
    )
    np.testing.assert_array_equal(batch, full_size_case.image)


@pytest.mark.reference
def test_stored_crops_follow_from_the_photographs(
    full_size_case: reference.ReferenceCase,
) -> None:
    # The stored crops were made with the long side rounded (384) where torchvision truncates
    # (383). Resized to 384 beforehand, only our crop is left to do, and it must agree.
    datasets = pytest.importorskip("sklearn.datasets")
    photographs = datasets.load_sample_images().images
    for pixels, stored in zip(photographs, full_size_case.extras["image_uint8"], strict=True):
        assert images.resized_size(640, 427, ImagePreparation(224, 224)) == (383, 256)
        resized = Image.fromarray(pixels).resize((384, 256), Image.Resampling.BICUBIC)
        crop = images.crop_from_array(np.asarray(resized), ImagePreparation(224, 224))
        np.testing.assert_array_equal(crop, stored)


def test_three_modes_agree() -> None:
    crops = [images.crop_from_array(pattern(50 + i, 40), SMALL) for i in range(3)]
    raw = images.batch_from_crops(crops, SMALL, "uint8")
    scaled = images.batch_from_crops(crops, SMALL, "normalize")
    ready = images.batch_from_crops(crops, SMALL, "none")
    assert (raw.dtype, raw.shape) == (np.uint8, (3, 32, 32, 3))
    assert (scaled.dtype, scaled.shape) == (np.float32, (3, 3, 32, 32))
    assert (ready.dtype, ready.shape) == (np.float32, (3, 3, 32, 32))
    assert all(batch.flags.c_contiguous for batch in (raw, scaled, ready))
    np.testing.assert_array_equal(scaled[1, 2], raw[1, :, :, 2].astype(np.float32) / 255)
    mean, std = np.float32(SMALL.mean[2]), np.float32(SMALL.std[2])
    np.testing.assert_array_equal(ready[1, 2], (scaled[1, 2] - mean) / std)


def test_grey_model_takes_colour_and_grey_files(tmp_path: Path) -> None:
    grey = ImagePreparation(8, 8, channels=1, mean=(0.5,), std=(0.5,), crop_ratio=1.0)
    colour = save(tmp_path / "colour.png", pattern(16, 12))
    plain = save(tmp_path / "grey.png", pattern(16, 12)[:, :, 0])
    batch = images.load_batch([colour, plain], grey, "none")
    assert batch.shape == (2, 1, 8, 8)
    assert batch.min() >= -1
    assert batch.max() <= 1
    assert images.load_batch([plain], SMALL, "uint8").shape == (1, 32, 32, 3)


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1)])
def test_grey_arrays(shape: tuple[int, ...]) -> None:
    crop = images.crop_from_array(np.full(shape, 7, np.uint8), SMALL)
    assert crop.shape == (32, 32, 3)
    assert set(crop.ravel()) == {7}


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (33, 7)])
@pytest.mark.parametrize("picture", [(200, 90), (90, 200), (64, 32), (1, 1), (5, 400)])
def test_non_square_models_are_covered(size: tuple[int, int], picture: tuple[int, int]) -> None:
    preparation = ImagePreparation(*size)
    width, height = images.resized_size(*picture, preparation)
    assert width >= int(size[1] / 0.875)
    assert height >= int(size[0] / 0.875)
    assert width == int(size[1] / 0.875) or height == int(size[0] / 0.875)
    crop = images.crop_from_array(pattern(*picture), preparation)
    assert crop.shape == (*size, 3)


def test_tall_pictures_are_resized_in_the_order_of_the_evaluation() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (512, 64, 3)).astype(np.uint8)
    preparation = ImagePreparation(32, 32, crop_ratio=1.0, interpolation="box")
    columns = (pixels[:, ::2].astype(int) + pixels[:, 1::2] + 1) // 2
    rows = (columns[::2] + columns[1::2] + 1) // 2
    crop = images.crop_from_array(pixels, preparation)
    np.testing.assert_array_equal(crop, rows[112:144])


def test_transparency_and_palette_are_dropped_as_the_official_loader_does(tmp_path: Path) -> None:
    alpha = np.dstack([pattern(20, 20), np.full((20, 20), 3, np.uint8)])
    path = save(tmp_path / "alpha.png", alpha)
    np.testing.assert_array_equal(
        images.crop_from_file(path, SMALL), images.crop_from_array(alpha[:, :, :3].copy(), SMALL)
    )
    palette = tmp_path / "palette.png"
    Image.fromarray(pattern(20, 20)).quantize(8).save(palette, transparency=b"\x00\x80")
    assert images.crop_from_file(palette, SMALL).shape == (32, 32, 3)


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pattern(40, 20)).save(path, exif=exif)
    np.testing.assert_array_equal(
        images.crop_from_file(path, SMALL), images.crop_from_array(pattern(40, 20), SMALL)
    )


def png_header(width: int, height: int) -> bytes:
    """A well-formed PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pattern(90, 80)).save(stream, kind)
    return stream.getvalue()


BROKEN = {
    "empty.png": b"",
    "text.jpg": b"this is no picture\n" * 40,
    "truncated.jpg": encoded("JPEG")[:900],
    "truncated.png": encoded("PNG")[:900],
    "bomb.png": png_header(60_000, 60_000),
    "larger_bomb.png": png_header(2**31 - 1, 2**31 - 1),
    # Within the limit of pixels, but 324 MB from a file of 70 bytes.
    "wide_bomb.png": png_header(9_000, 9_000),
    "short.png": png_header(10, 10),
    # Pillow would start Ghostscript for this one.
    "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    with pytest.raises(VimDeployError) as caught:
        images.crop_from_file(path, SMALL)
    assert caught.value.code == "VIM-411"
    assert name in caught.value.message
    assert caught.value.fix


def test_damaged_bytes_give_pixels_or_a_coded_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged"
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = np.frombuffer(encoded(kind), np.uint8)
        for _ in range(20):
            damaged = whole.copy()
            damaged[rng.integers(0, len(damaged), 8)] = rng.integers(0, 256, 8)
            path.write_bytes(damaged.tobytes())
            try:
                assert images.crop_from_file(path, SMALL).shape == (32, 32, 3)
            except VimDeployError as error:
                assert error.code == "VIM-411"  # noqa: PT017 - not every damage is an error


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_eight_bits_is_refused(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "deep.tif"
    Image.fromarray(np.full((9, 9), 300, dtype)).save(path)
    with pytest.raises(VimDeployError, match="8 bits a channel") as caught:
        images.crop_from_file(path, SMALL)
    assert caught.value.code == "VIM-411"


def test_elongated_picture_does_not_blow_up(tmp_path: Path) -> None:
    path = save(tmp_path / "line.png", np.zeros((1, 30_000), np.uint8))
    with pytest.raises(VimDeployError, match="elongated") as caught:
        images.crop_from_file(path, ImagePreparation(224, 224))
    assert caught.value.code == "VIM-411"


@pytest.mark.parametrize(
    ("pixels", "code"),
    [
        (np.zeros((8, 8, 3), np.float32), "VIM-415"),
        (np.zeros((8, 8, 4), np.uint8), "VIM-415"),
        (np.zeros((0, 8, 3), np.uint8), "VIM-415"),
        (np.zeros(8, np.uint8), "VIM-415"),
    ],
)
def test_wrong_arrays_are_refused(pixels: images.Pixels, code: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        images.crop_from_array(pixels, SMALL)
    assert caught.value.code == code


def test_wrong_crops_modes_and_filters_are_refused() -> None:
    good = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(VimDeployError, match="does not fit"):
        images.batch_from_crops(good[:, :16], SMALL, "none")
    with pytest.raises(VimDeployError, match="no images"):
        images.batch_from_crops(good[:0], SMALL, "none")
    with pytest.raises(VimDeployError, match="'uint8'"):
        images.batch_from_crops(good, SMALL, "uint")  # type: ignore[arg-type]
    with pytest.raises(VimDeployError, match="'bicubic'"):
        images.crop_from_array(good[0], ImagePreparation(8, 8, interpolation="bicubik"))
    with pytest.raises(VimDeployError, match="4 channels"):
        images.crop_from_array(good[0], ImagePreparation(8, 8, channels=4))


@pytest.mark.parametrize(
    ("mode", "form", "options", "size", "allowed"),
    [
        ("RGB", "PNG", {}, (7_000, 7_000), True),
        ("RGB", "PNG", {}, (7_500, 7_500), False),
        # A second picture of four bytes a pixel is made of the first.
        ("P", "GIF", {}, (6_000, 6_000), True),
        ("P", "GIF", {}, (7_000, 7_000), False),
        ("L", "JPEG", {}, (6_000, 6_000), True),
        ("RGB", "JPEG", {"progressive": True}, (5_000, 5_000), True),
        ("RGB", "JPEG", {"progressive": True}, (6_000, 6_000), False),
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0}, (5_000, 5_000), False),
        ("RGB", "JPEG", {}, (6_000, 6_000), True),
        # What cameras make of several JPEGs.
        ("RGB", "MPO", {"progressive": True, **TWO}, (5_000, 5_000), True),
        ("RGB", "MPO", {"progressive": True, **TWO}, (6_000, 6_000), False),
        # The decoder may hold it as one strip.
        ("RGB", "TIFF", {}, (5_000, 5_000), True),
        ("RGB", "TIFF", {}, (6_000, 6_000), False),
        ("RGB", "WEBP", {}, (3_600, 3_600), True),
        ("RGB", "WEBP", {}, (4_000, 4_000), False),
    ],
)
def test_memory_is_counted_before_the_pixels_are_decoded(
    mode: str, form: str, options: dict[str, Any], size: tuple[int, int], allowed: bool
) -> None:
    stream = io.BytesIO()
    Image.new(mode, (64, 64)).save(stream, form, **options)
    image = Image.open(stream)
    image._size = size
    data = stream.getvalue()
    flaw = image_bounds.flaw_of_header(image, data, "RGB")
    assert (flaw is None) == allowed, flaw
    assert image_bounds.flaw_of_header(image, data + bytes(200_000_000), "RGB") is None


def test_a_jpeg_whose_channels_are_apart_is_kept_whole() -> None:
    """Baseline, but libjpeg keeps its coefficients as it does of a progressive one."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "JPEG")
    image = Image.open(stream)
    image._size = (6_000, 6_000)
    data = stream.getvalue()
    scan = data.index(b"\xff\xda\x00\x0c\x03")
    apart = data[:scan] + b"\xff\xda\x00\x08\x01" + data[scan + 5 :]
    assert image_bounds.flaw_of_header(image, data, "RGB") is None
    assert image_bounds.flaw_of_header(image, apart, "RGB") is not None


def test_the_limits_are_the_same_in_every_language() -> None:
    """Of C++ and of a package's client, which share no code with this."""
    header = (REPOSITORY / "cpp" / "src" / "image_limits.h").read_text().replace("'", "")
    assert f"kMaxPixels = {image_bounds.MAX_PIXELS};" in header
    assert f"int64_t{{{image_bounds.FREE_BYTES >> 20}}} << 20U" in header
    client = unchanged("served/client_pictures.py").replace("_", "")
    wanted = f"{image_bounds.MAX_PIXELS}, 1 << 29, {image_bounds.FREE_BYTES >> 20} << 20, "
    assert wanted + f"{image_bounds.MAX_SCANS}\n" in client
    assert image_bounds.MAX_FILE_BYTES == 1 << 29
