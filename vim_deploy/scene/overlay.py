"""Pictures of a segmentation: classes in colour over the picture with a legend, and plain labels.

The picture stands at the top left at its own size, so that a pixel of the overlay is the same pixel
of the picture; the legend stands beside a tall picture and below a wide one, else where it makes
the whole smaller.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vim_deploy.errors import VimDeployError
from vim_deploy.files import atomic_output
from vim_deploy.images import Pixels
from vim_deploy.installation import pip_command
from vim_deploy.recipe.dense_config import Colour
from vim_deploy.runtimes.base import Array
from vim_deploy.scene.classes import ClassArea

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageDraw

#: Classes a legend names; the rest is one line.
MOST_ENTRIES = 24
#: Share of a class's colour in a pixel of the overlay.
DEFAULT_OPACITY = 0.5
_ROWS_AT_ONCE = 256
#: Letters are this part of the longer side, between these sizes in pixels.
_LETTERS, _SMALLEST, _LARGEST = 44, 13, 200
#: Widest name, in letter heights.
_NAME_WIDTH = 12
#: From this ratio of its sides on, a picture has its legend along the longer one.
_ELONGATED = 2
_PAPER, _INK, _OUTLINE = (255, 255, 255), (24, 24, 24), (110, 110, 110)


def overlay(
    picture: Pixels,
    labels: Array,
    areas: Sequence[ClassArea],
    palette: Sequence[Colour],
    opacity: float = DEFAULT_OPACITY,
) -> Pixels:
    """The picture under the colours of its classes, with a legend.

    Args:
        picture: uint8 [height, width, 1 or 3].
        labels: class indices [height, width].
        areas: the classes there are, the largest first; the legend shows name and share.
        palette: a colour for every class.
        opacity: 0 shows the picture alone, 1 the colours alone.

    Returns:
        uint8 [height', width', 3]; the picture is its top left corner.
    """
    height, width = labels.shape
    legend = _legend(areas, palette, (height, width))
    top, left = (0, width) if legend.beside else (height, 0)
    size = max(height, top + legend.height), max(width, left + legend.width)
    canvas = np.empty((*size, 3), np.uint8)
    canvas[:] = _PAPER
    _blend(canvas, picture, labels, np.asarray(palette, np.float32), opacity)
    canvas[top : top + legend.height, left : left + legend.width] = legend.draw()
    return canvas


def _blend(canvas: Pixels, picture: Pixels, labels: Array, colours: Array, opacity: float) -> None:
    height, width = labels.shape
    share = np.float32(opacity)
    for start in range(0, height, _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, height))
        mixed = colours[labels[rows]]
        mixed *= share
        mixed += picture[rows] * (np.float32(1) - share)
        canvas[rows, :width] = np.rint(mixed)


@dataclass(frozen=True)
class _Entry:
    colour: Colour | None
    name: str
    share: str


@dataclass(frozen=True)
class _Legend:
    """A legend laid out: ``columns`` columns of entries, read downwards."""

    entries: tuple[_Entry, ...]
    font: Any
    letter: int
    name_width: int
    share_width: int
    columns: int
    beside: bool

    @property
    def rows(self) -> int:
        return -(-len(self.entries) // self.columns)

    @property
    def row_height(self) -> int:
        return round(1.6 * self.letter)

    @property
    def gap(self) -> int:
        """Between columns: more than between a name and its share."""
        return 2 * self.letter

    @property
    def column_width(self) -> int:
        return round(2.4 * self.letter) + self.name_width + self.share_width

    @property
    def width(self) -> int:
        return self.columns * (self.column_width + self.gap)

    @property
    def height(self) -> int:
        return self.rows * self.row_height + self.letter

    def draw(self) -> Pixels:
        import PIL.Image
        import PIL.ImageDraw

        image = PIL.Image.new("RGB", (self.width, self.height), _PAPER)
        pen = PIL.ImageDraw.Draw(image)
        for number, entry in enumerate(self.entries):
            column, row = divmod(number, self.rows)
            left = self.gap // 2 + column * (self.column_width + self.gap)
            middle = round(self.letter / 2 + (row + 0.5) * self.row_height)
            self._draw_entry(pen, entry, left, middle)
        return np.asarray(image)

    def _draw_entry(
        self, pen: PIL.ImageDraw.ImageDraw, entry: _Entry, left: int, middle: int
    ) -> None:
        half = self.letter // 2
        if entry.colour is not None:
            box = (left, middle - half, left + 2 * half, middle + half)
            pen.rectangle(box, fill=entry.colour, outline=_OUTLINE)
        start = left + round(1.5 * self.letter)
        pen.text((start, middle), entry.name, fill=_INK, font=self.font, anchor="lm")
        end = left + self.column_width
        pen.text((end, middle), entry.share, fill=_INK, font=self.font, anchor="rm")


def _legend(
    areas: Sequence[ClassArea], palette: Sequence[Colour], size: tuple[int, int]
) -> _Legend:
    """The legend, in the form that makes the whole picture smallest."""
    letter = min(max(_SMALLEST, round(max(size) / _LETTERS)), _LARGEST)
    font = font_of(letter)
    shown = areas if len(areas) <= MOST_ENTRIES else areas[: MOST_ENTRIES - 1]
    entries = [
        _Entry(
            palette[area.index],
            cut_text(printable(area.label, area.index), font, _NAME_WIDTH * letter),
            _share(area.share),
        )
        for area in shown
    ]
    if len(shown) < len(areas):
        rest = areas[len(shown) :]
        share = _share(sum(area.share for area in rest))
        entries.append(_Entry(None, f"{len(rest)} more classes", share))
    name_width = max(text_width(entry.name, font) for entry in entries)
    share_width = max(text_width(entry.share, font) for entry in entries)
    forms = [
        _Legend(tuple(entries), font, letter, name_width, share_width, columns, beside)
        for columns in range(1, len(entries) + 1)
        for beside in _sides(size)
    ]
    return min(forms, key=lambda form: _area(form, size))


def _sides(size: tuple[int, int]) -> tuple[bool, ...]:
    """Whether a legend may stand beside the picture, below it, or either."""
    height, width = size
    if height > _ELONGATED * width:
        return (True,)
    return (False,) if width > _ELONGATED * height else (True, False)


def _area(form: _Legend, size: tuple[int, int]) -> int:
    height, width = size
    if form.beside:
        return max(height, form.height) * (width + form.width)
    return (height + form.height) * max(width, form.width)


def _share(share: float) -> str:
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def printable(label: str, index: int) -> str:
    """The name of class ``index`` in the letters that Pillow's own font has, which are ASCII.

    Accents are dropped; a name in another script is ``class N``.
    """
    plain = unicodedata.normalize("NFKD", label)
    kept = [letter for letter in plain if not unicodedata.combining(letter)]
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in kept)
    readable = sum(letter != "?" for letter in text)
    return text if 2 * readable > len(text) else f"class {index}"


def cut_text(text: str, font: Any, width: int) -> str:  # noqa: ANN401 - a Pillow font
    """``text``, or as much of its beginning as fits with three dots into ``width`` pixels."""
    if len(text) < 1000 and text_width(text, font) <= width:
        return text
    text = text[:200]
    while text and text_width(f"{text}...", font) > width:
        text = text[:-1].rstrip()
    return f"{text}..."


def text_width(text: str, font: Any) -> int:  # noqa: ANN401 - a Pillow font
    """How wide ``text`` is, in pixels."""
    return int(np.ceil(font.getlength(text)))


def font_of(size: int) -> Any:  # noqa: ANN401 - a Pillow font
    """Pillow's own font in that size, in pixels; VIM-301 for a Pillow without it."""
    import PIL.ImageFont

    try:
        return PIL.ImageFont.load_default(size)
    except ImportError as error:
        raise VimDeployError(
            "VIM-301",
            "letters on pictures need a Pillow with FreeType, which this one was built without",
            why=str(error),
            fix=f"{pip_command('install', '--force-reinstall', 'pillow')}, or leave --overlay away",
        ) from error


def save_picture(path: Path, pixels: Pixels) -> None:
    """Write uint8 [height, width, 3] as a PNG, atomically."""
    import PIL.Image

    _save(path, PIL.Image.fromarray(pixels))


def save_labels(path: Path, labels: Array, palette: Sequence[Colour]) -> None:
    """Write class indices [height, width] as a PNG, atomically.

    A pixel's value is its class: 8 bits with the classes' colours as the palette, or 16 bits of
    grey where ``labels`` are uint16.
    """
    import PIL.Image

    image = PIL.Image.fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette([part for colour in palette[:256] for part in colour])
    _save(path, image)


def _save(path: Path, image: PIL.Image.Image) -> None:
    with atomic_output(path) as temporary:
        image.save(temporary, format="PNG")
