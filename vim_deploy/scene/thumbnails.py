"""Small pictures for pages, as data URIs: bounded in size, in number and in bytes together."""

from __future__ import annotations

import base64
import heapq
import io
from typing import TYPE_CHECKING

import numpy as np

from vim_deploy.images import Pixels
from vim_deploy.runtimes.base import Array

if TYPE_CHECKING:
    import PIL.Image

#: Longer side in pixels; smaller pictures stay as they are.
SIDE = 224
#: Up to this side a picture is stored without loss, for its pixels are looked at one by one.
_LOSSLESS_SIDE = 96
_JPEG_QUALITY = 82
#: Bytes that all pictures of a page may take together.
MOST_BYTES = 3 << 20
#: Of places that differ, and of what either side alone has.
_MARK = np.array((230, 30, 60), np.float32)
_COLOURS = {"a": (33, 102, 196), "b": (217, 95, 14)}


class Thumbnails:
    """Pictures of a page by name; one that would exceed ``MOST_BYTES`` is left out and counted."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.uris: dict[str, str] = {}
        self.left_out = 0
        self._room = most_bytes

    def add(self, name: str, pixels: Pixels) -> None:
        """Take uint8 [height, width, 1 or 3] up, made small."""
        uri = data_uri(pixels)
        if len(uri) > self._room:
            self.left_out += 1
            return
        self._room -= len(uri)
        self.uris[name] = uri


def data_uri(pixels: Pixels) -> str:
    """uint8 [height, width, 1 or 3] as a PNG where it is small, else as a JPEG of ``SIDE``."""
    image = _small(pixels)
    small = max(image.size) <= _LOSSLESS_SIDE
    data = io.BytesIO()
    if small:
        image.save(data, format="PNG", optimize=True)
    else:
        # With colours as fine as the light: marks are a pixel or two.
        image.convert("RGB").save(data, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _small(pixels: Pixels) -> PIL.Image.Image:
    import PIL.Image

    grey = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    image = PIL.Image.fromarray(np.ascontiguousarray(grey))
    image.thumbnail((SIDE, SIDE), PIL.Image.Resampling.BOX)
    return image


def marked(pixels: Pixels, places: Array) -> Pixels:
    """A small picture in pale grey with ``places``, bool [height, width], in red.

    Every place is spread to its neighbours, so that a lone pixel of a large picture is seen.
    """
    import PIL.Image
    import PIL.ImageFilter

    small = _small(pixels)
    grey = np.asarray(small.convert("L"), np.float32)[..., None]
    mask = PIL.Image.fromarray(places.astype(np.uint8) * 255)
    share = np.asarray(mask.resize(small.size, PIL.Image.Resampling.BOX)) > 0
    spread = PIL.Image.fromarray(share.astype(np.uint8) * 255).filter(PIL.ImageFilter.MaxFilter(3))
    red = np.asarray(spread)[..., None] > 0
    found: Pixels = np.rint(np.where(red, _MARK, 96 + 0.6 * grey)).astype(np.uint8)
    return found


def boxed(pixels: Pixels, a: Array, b: Array) -> Pixels:
    """A small picture with boxes [n, 4] in its own pixels: those of A in blue, of B in orange."""
    import PIL.Image
    import PIL.ImageDraw

    small = _small(pixels)
    scale = small.width / pixels.shape[1], small.height / pixels.shape[0]
    image = PIL.Image.fromarray(_rgb(small))
    pen = PIL.ImageDraw.Draw(image)
    for boxes, colour, wide in ((a, _COLOURS["a"], 3), (b, _COLOURS["b"], 1)):
        for left, top, right, bottom in boxes.tolist():
            corners = (left * scale[0], top * scale[1], right * scale[0], bottom * scale[1])
            pen.rectangle(corners, outline=colour, width=wide)
    drawn: Pixels = np.asarray(image)
    return drawn


def _rgb(image: PIL.Image.Image) -> Pixels:
    pixels: Pixels = np.array(image.convert("RGB"))
    return pixels


class Foremost:
    """The pictures with the largest figures of all that go by, at most ``count`` of them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: list[tuple[float, int, str, Pixels]] = []
        self._seen = 0

    def takes(self, figure: float) -> bool:
        """Whether a picture with this figure would be among them."""
        return figure > 0 and (len(self._kept) < self._count or figure > self._kept[0][0])

    def add(self, figure: float, name: str, pixels: Pixels) -> None:
        """Take one up, small already; the least of too many goes."""
        self._seen += 1
        heapq.heappush(self._kept, (figure, -self._seen, name, pixels))
        if len(self._kept) > self._count:
            heapq.heappop(self._kept)

    def give(self, small: Thumbnails) -> None:
        """Hand them over, the largest figure first."""
        for _, _, name, pixels in sorted(self._kept, key=lambda one: one[:2], reverse=True):
            small.add(name, pixels)
