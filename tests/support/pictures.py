"""Image files of many kinds, by name: too deep to be read, and such as are read."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def tiff(bits: int, channels: int, *, apart: bool = False) -> bytes:
    """A TIFF of 4 x 4 black pixels, uncompressed; Pillow writes none of these."""
    size = 4 * 4 * channels * bits // 8
    inline = struct.pack(f"<{channels}H", *[bits] * channels)
    tags = [
        (256, 3, 1, 4), (257, 3, 1, 4), (258, 3, channels, 146), (259, 3, 1, 1),
        (262, 3, 1, 2 if channels == 3 else 1), (273, 4, 1, 160), (277, 3, 1, channels),
        (278, 3, 1, 4), (279, 4, 1, size), (284, 3, 1, 2 if apart else 1),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4)
    return head.ljust(146, b"\0") + inline.ljust(14, b"\0") + bytes(size)


def deep_png(kind: int, channels: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = (b"\0" + bytes(4 * channels * 2)) * 4
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + data


DEEP = {
    "grey.png": deep_png(0, 1),
    "colour.png": deep_png(2, 3),
    "grey_alpha.png": deep_png(4, 2),
    "alpha.png": deep_png(6, 4),
    "binary.pgm": b"P5\n2 2\n65535\n" + bytes(8),
    "ten_bits.pgm": b"P5\n2 2\n1023\n" + bytes(8),
    "text.pgm": b"P2\n2 2\n300\n1 2 3 4\n",
    "colour.ppm": b"P6\n2 2\n65535\n" + bytes(24),
    "float.pfm": b"Pf\n2 2\n-1.0\n" + bytes(16),
    "colour.tif": tiff(16, 3),
    # Pillow takes this one for 8 bits a channel, and reads half of each number.
    "apart.tif": tiff(16, 3, apart=True),
}


def shallow() -> dict[str, bytes]:
    """Files of at most 8 bits a channel in every form that Pillow writes, and two that it reads."""
    rgb = Image.fromarray(PIXELS)
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures = {
        "one_bit.png": (rgb.convert("1"), {}),
        "grey_alpha.png": (rgb.convert("LA"), {}),
        "palette.png": (rgb.quantize(8), {"transparency": b"\x00\x80"}),
        "clear_colour.png": (rgb, {"transparency": (0, 50, 100)}),
        "clear_grey.png": (rgb.convert("L"), {"transparency": 3}),
        "turned.jpg": (rgb, {"exif": turned}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "cmyk.tif": (rgb.convert("CMYK"), {}),
        "ycbcr.tif": (rgb.convert("YCbCr"), {}),
        "palette.gif": (rgb.quantize(8), {}),
        "moving.gif": (rgb, {"save_all": True, "append_images": [Image.new("RGB", (9, 7))]}),
        "moving.png": (rgb, {"save_all": True, "append_images": [Image.new("RGB", (9, 7))]}),
        "pages.tif": (rgb, {"save_all": True, "append_images": [Image.new("RGB", (5, 5))]}),
        "camera.mpo": (rgb, {"save_all": True, "append_images": [Image.new("RGB", (9, 7))]}),
        "alpha.webp": (rgb.convert("RGBA"), {"lossless": True}),
    }
    files = {}
    for name, (picture, options) in pictures.items():
        stream = io.BytesIO()
        form = {"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], name.split(".")[1].upper())
        picture.save(stream, form, **options)
        files[name] = stream.getvalue()
    header = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    start = 14 + len(header + masks)
    files["rgb565.bmp"] = b"BM" + struct.pack("<IHHI", start + 32, 0, 0, start)
    files["rgb565.bmp"] += header + masks + bytes(range(32))
    files["few_greys.pgm"] = b"P5\n2 2\n100\n" + bytes([0, 50, 99, 100])
    files["apart.tif"] = tiff(8, 3, apart=True)
    return files
