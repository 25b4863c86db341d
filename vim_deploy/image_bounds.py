"""What a picture file may ask of the machine, told before it is decoded.

A small file can unpack to more than the memory, and take longer than its pixels do. So the pixels
are counted with what Pillow takes for each, and the parts of a JPEG that are decoded one by one.
``cpp/src/image_limits.h`` states the same limits for C++.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import PIL.Image

#: Largest picture that is decoded or made, in pixels (Pillow's own warning threshold).
MAX_PIXELS = 89_478_485
#: Most bytes of a file: an uncompressed picture of ``MAX_PIXELS`` pixels takes fewer.
MAX_FILE_BYTES = 1 << 29
#: Bytes that decoding may take beside four times the file. A photograph of 50 million pixels needs
#: no more whatever its file is; larger ones come in files large enough.
FREE_BYTES = 200 << 20
_FREE_TIMES = 4
#: A progressive JPEG is decoded once for each of its scans, and a scan may be a few bytes. Encoders
#: write about 10; previews beside the picture have theirs.
MAX_SCANS = 50
#: Pillow joins the Exif parts of a JPEG one by one; cameras write one.
_MAX_EXIF_PARTS = 64
#: Start of a scan: the marker, a length and a number of channels that belong together.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_EXIF_PART = re.compile(rb"\xff\xe1..Exif\x00\x00", re.DOTALL)
#: Modes that Pillow keeps in one byte a pixel; all other 8-bit ones take four.
_ONE_BYTE = ("1", "L", "P")
#: Bytes a pixel that decoders hold beside the picture: a TIFF's one strip; two canvases of a WebP
#: and a copy of one (measured: 15.6).
_BESIDE = {"TIFF": 4, "WEBP": 12}
#: libjpeg keeps a whole picture that comes in parts as 16-bit coefficients until its last scan.
_COEFFICIENT_BYTES = 2
#: The TIFF tag with the bits of each channel.
_BITS_PER_SAMPLE = 258


def flaw_of_bytes(data: bytes) -> str | None:
    """Why a JPEG would take far longer to decode than its pixels do; None for all others."""
    scans = sum(1 for _ in _SCAN.finditer(data))
    if scans > MAX_SCANS:
        return f"it has {scans} scans; at most {MAX_SCANS} are decoded"
    parts = sum(1 for _ in _EXIF_PART.finditer(data))
    if parts > _MAX_EXIF_PARTS:
        return f"its Exif data has {parts} parts, at most {_MAX_EXIF_PARTS}"
    return None


def flaw_of_pixels(image: PIL.Image.Image) -> str | None:
    """Why an opened picture of whatever origin is not taken; None when it may be."""
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        return (
            f"{image.width} x {image.height} pixels; at most {MAX_PIXELS} are decoded, because a "
            "small file can unpack to more than the memory"
        )
    if not pixels:
        return f"{image.width} x {image.height} pixels"
    return _depth_flaw(image)


def flaw_of_header(
    image: PIL.Image.Image, data: bytes, mode: str, *, upright: bool = False
) -> str | None:
    """Why an opened picture is not decoded; None when it may be.

    Args:
        image: opened by Pillow, its pixels not yet read.
        data: the file.
        mode: Pillow's, that the pixels are wanted in.
        upright: whether it is turned, which makes another picture.
    """
    if (flaw := flaw_of_pixels(image)) is not None:
        return flaw
    size, pixels = len(data), image.width * image.height
    turned = pixels * _bytes(image.mode) if upright else 0
    needed, free = _needed(image, data, mode) + turned, FREE_BYTES + _FREE_TIMES * size
    if needed > free:
        return (
            f"decoding its {image.width} x {image.height} pixels takes {needed / 1e6:.0f} MB; from "
            f"a file of {size / 1e6:.1f} MB at most {free / 1e6:.0f} MB are unpacked"
        )
    return None


def _needed(image: PIL.Image.Image, data: bytes, mode: str) -> int:
    """Bytes that decoding and the conversion to ``mode`` take at once."""
    pixels = image.width * image.height
    needed = pixels * _bytes(image.mode)
    if image.mode != mode:
        needed += pixels * _bytes(mode)
    needed += pixels * _BESIDE.get(image.format or "", 0)
    if image.format in ("JPEG", "MPO") and _comes_in_parts(image, data):
        # Of each channel: number, horizontal and vertical sampling, table.
        layers = getattr(image, "layer", ())
        whole = max((across * down for _, across, down, _ in layers), default=1)
        samples = sum(across * down for _, across, down, _ in layers) / whole
        needed += int(pixels * samples * _COEFFICIENT_BYTES)
    return needed


def _comes_in_parts(image: PIL.Image.Image, data: bytes) -> bool:
    """Whether no scan of a JPEG completes a pixel: it is progressive, or its channels are apart."""
    channels = len(image.getbands())
    return bool(image.info.get("progressive")) or any(
        found[0][-1] < channels for found in _SCAN.finditer(data)
    )


def _bytes(mode: str) -> int:
    return 1 if mode in _ONE_BYTE else 4


def _depth_flaw(image: PIL.Image.Image) -> str | None:
    """Why a picture of more than 8 bits a channel is refused: it would lose some on the way.

    What counts is the file's header. Pillow decodes many such files to 8 bits without a word, and
    takes a TIFF whose channels are apart for one of 8 bits.
    """
    depth = _depth(image)
    if depth > 8 or image.mode == "F" or image.mode.startswith("I"):
        return f"more than 8 bits a channel (Pillow mode {image.mode}): convert it to 8 first"
    return None


def _depth(image: PIL.Image.Image) -> int:
    """Bits of a channel as the file's header has them, 8 for fewer."""
    if image.format == "BMP":
        # 8 at most: its layouts of 16 bits hold three channels.
        return 8
    stored = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())
    depths = [bits for bits in stored if isinstance(bits, int)]
    # The layout that Pillow decodes from, such as RGB;16B, and of a PPM the largest value.
    for decoder, _, _, given in getattr(image, "tile", ()):
        parts = given if isinstance(given, tuple) else (given,)
        if any(isinstance(part, str) and ";16" in part for part in parts):
            depths.append(16)
        if decoder in ("ppm", "ppm_plain") and isinstance(parts[-1], int):
            depths.append(parts[-1].bit_length())
    return max(depths, default=8)
