"""Pictures as the model takes them, for client.py beside this; only reading them needs Pillow."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

#: What a picture may ask for: pixels, bytes of its file, bytes to decode it beside four times its
#: file, and scans of a JPEG, each of which is decoded. Formats that Pillow decodes itself.
MOST_PIXELS, MOST_BYTES, FREE_BYTES, MOST_SCANS = 89_478_485, 1 << 29, 200 << 20, 50
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")


def read_picture(path: Path, mode: str, *, upright: bool = False) -> Image.Image:
    """A picture in Pillow's ``mode``; ValueError for a small file that takes much to decode.

    ``upright`` turns a photograph as its EXIF orientation says.
    """
    from PIL import Image, ImageOps

    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise ValueError(f"not a file of at most {MOST_BYTES} bytes")
    data = path.read_bytes()
    scans = [found[0][-1] for found in SCAN.finditer(data)]
    if len(scans) > MOST_SCANS:
        raise ValueError(f"a JPEG of more than {MOST_SCANS} scans")
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        if is_deep(opened):
            raise ValueError("more than 8 bits a channel")
        pixels = opened.width * opened.height
        # A JPEG that comes in parts is kept as coefficients, two bytes each, until the last one.
        parts = opened.format in ("JPEG", "MPO") and min(scans, default=0) < len(opened.getbands())
        kept = parts or bool(opened.info.get("progressive"))
        beside = {"TIFF": 4, "WEBP": 12}.get(opened.format or "", 0)
        copies = 4 + 4 * (opened.mode != mode) + beside + 6 * kept + 4 * upright
        if pixels > MOST_PIXELS or pixels * copies > FREE_BYTES + 4 * len(data):
            raise ValueError(f"{opened.width} x {opened.height} pixels in {len(data)} bytes")
        opened.load()
        if upright:
            ImageOps.exif_transpose(opened, in_place=True)
        return opened if opened.mode == mode else opened.convert(mode)


def is_deep(opened: Any) -> bool:  # noqa: ANN401 - one of Pillow's classes for files
    """Whether an opened file has more than 8 bits a channel, also where Pillow drops some."""
    if opened.mode == "F" or opened.mode.startswith("I"):
        return True
    if opened.format == "BMP":
        return False  # its 16 bits hold three channels
    stored = opened.tag_v2.get(258, ()) if opened.format == "TIFF" else ()
    if any(isinstance(bits, int) and bits > 8 for bits in stored):
        return True
    for decoder, _, _, given in opened.tile:
        parts = given if isinstance(given, tuple) else (given,)
        if any(isinstance(part, str) and ";16" in part for part in parts):
            return True
        if decoder in ("ppm", "ppm_plain") and isinstance(parts[-1], int) and parts[-1] > 255:
            return True
    return False


def prepare(path: Path, facts: dict[str, Any]) -> NDArray[Any]:
    """One picture as a row of the input: resized, its centre cropped, scaled as the model wants."""
    from PIL import Image

    how = facts["image"]
    wanted = (how["height"], how["width"], how["channels"])
    picture = read_picture(path, {1: "L", 3: "RGB"}[wanted[2]])
    size = resized_size(picture.width, picture.height, how)
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"too elongated: it would become {size[0]} x {size[1]}")
    if size != picture.size:
        # First the columns, then the rows: one call does it otherwise in some releases of Pillow.
        kernel = Image.Resampling[how["interpolation"].upper()]
        picture = picture.resize((size[0], picture.height), kernel).resize(size, kernel)
    left, top = round((size[0] - wanted[1]) / 2), round((size[1] - wanted[0]) / 2)
    box = (left, top, left + wanted[1], top + wanted[0])
    pixels = np.asarray(picture.crop(box), np.uint8).reshape(wanted)
    return scaled(pixels, facts).astype(facts["input"]["dtype"])


def scaled(pixels: NDArray[Any], facts: dict[str, Any]) -> NDArray[Any]:
    """uint8 [height, width, channels] as the model takes it, see ``preprocess``."""
    if facts["preprocess"] == "uint8":
        return pixels
    values = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    if facts["preprocess"] == "normalize":
        return values
    mean = np.asarray(facts["image"]["mean"], np.float32).reshape(-1, 1, 1)
    std = np.asarray(facts["image"]["std"], np.float32).reshape(-1, 1, 1)
    return (values - mean) / std


def resized_size(width: int, height: int, how: dict[str, Any]) -> tuple[int, int]:
    """Width and height that cover ``int(size / crop_ratio)`` both ways, as in the evaluation."""
    cover_width = int(how["width"] / how["crop_ratio"])
    cover_height = int(how["height"] / how["crop_ratio"])
    if width * cover_height <= height * cover_width:
        return cover_width, max(int(cover_width * height / width), cover_height)
    return max(int(cover_height * width / height), cover_width), cover_height
