"""Pictures of detections: masks in colour over the picture, boxes, names and scores.

The picture keeps its size, so that a pixel of the overlay is the same pixel of the picture. The
better a detection, the later it is drawn, and names come after all boxes, so that no line crosses
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vim_deploy.images import Pixels
from vim_deploy.recipe.dense_config import Colour
from vim_deploy.runtimes.base import Array
from vim_deploy.scene.classes import linear_light
from vim_deploy.scene.detections import Detected
from vim_deploy.scene.overlay import cut_text, font_of, printable, text_width
from vim_deploy.scene.paste import Pasted

#: Letters and lines are these parts of the picture's longer side, at least so many pixels.
_LETTERS, _SMALLEST, _LARGEST = 60, 13, 160
_LINES, _THINNEST = 400, 2
_ROWS_AT_ONCE = 256
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
#: Share of each channel in a colour's luminance, and the luminance on which black and white letters
#: are told equally well (WCAG 2.2: relative luminance and contrast ratio).
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_EQUAL_CONTRAST = 0.179


def canvas_of(picture: Pixels) -> Pixels:
    """A copy of a picture [height, width, 1 or 3] to be drawn on, uint8 [height, width, 3]."""
    return np.repeat(picture, 3 // picture.shape[2], axis=2)


def tint(canvas: Pixels, mask: Pasted, colour: Colour, opacity: float) -> None:
    """Mix ``colour`` into the pixels of a mask, in place.

    Args:
        canvas: uint8 [height, width, 3].
        mask: on it.
        colour: of the class.
        opacity: its share, 0 to 1.
    """
    share = np.float32(opacity)
    added = np.array(colour, np.float32) * share
    columns = slice(mask.left, mask.left + mask.pixels.shape[1])
    for start in range(0, len(mask.pixels), _ROWS_AT_ONCE):
        pixels = mask.pixels[start : start + _ROWS_AT_ONCE]
        rows = slice(mask.top + start, mask.top + start + len(pixels))
        region = canvas[rows, columns]
        region[pixels] = np.rint(region[pixels] * (np.float32(1) - share) + added)


def with_boxes(
    canvas: Pixels, found: Detected, names: Sequence[str], palette: Sequence[Colour]
) -> Pixels:
    """The canvas with boxes, names and scores.

    Args:
        canvas: uint8 [height, width, 3].
        found: detections on it.
        names: of each detection's class.
        palette: a colour for every class.

    Returns:
        uint8 of the same shape.
    """
    import PIL.Image
    import PIL.ImageDraw

    longer = max(canvas.shape[:2])
    letter = min(max(_SMALLEST, round(longer / _LETTERS)), _LARGEST)
    line = max(_THINNEST, round(longer / _LINES))
    image = PIL.Image.fromarray(canvas)
    pen = PIL.ImageDraw.Draw(image)
    # The best come first, and are drawn last.
    order = range(len(found) - 1, -1, -1)
    colours = [palette[int(index)] for index in found.classes]
    for place in order:
        pen.rectangle(_corners(found.boxes[place]), outline=colours[place], width=line)
    for place in order:
        name = printable(names[place], int(found.classes[place]))
        score = f"{found.scores[place]:.2f}"
        _write(pen, image.size, found.boxes[place], (name, score), colours[place], letter)
    return np.asarray(image)


def _corners(box: Array) -> tuple[int, int, int, int]:
    """The first and the last pixel that a box touches: left, top, right, bottom."""
    left, top = (int(edge) for edge in np.floor(box[:2]))
    right, bottom = (int(edge) - 1 for edge in np.ceil(box[2:]))
    return left, top, max(right, left), max(bottom, top)


def _write(
    pen: Any,  # noqa: ANN401 - Pillow's ImageDraw
    size: tuple[int, int],
    box: Array,
    text: tuple[str, str],
    colour: Colour,
    letter: int,
) -> None:
    """Name and score on the upper edge of a box: above it where there is room, else within it."""
    font, margin = font_of(letter), max(letter // 4, 1)
    name, score = text
    room = size[0] - 2 * margin - text_width(f" {score}", font)
    label = f"{cut_text(name, font, max(room, 0))} {score}"
    width, height = text_width(label, font) + 2 * margin, letter + 2 * margin
    left, top, _, _ = _corners(box)
    left = max(min(left, size[0] - width), 0)
    top = top - height if top >= height else max(min(top, size[1] - height), 0)
    pen.rectangle((left, top, left + width - 1, top + height - 1), fill=colour)
    middle = (left + margin, top + height / 2)
    pen.text(middle, label, fill=_ink(colour), font=font, anchor="lm")


def _ink(colour: Colour) -> Colour:
    """Black or white, whichever is told better from ``colour``."""
    luminance = float(linear_light(np.array(colour)) @ _LUMINANCE)
    return _BLACK if luminance > _EQUAL_CONTRAST else _WHITE
