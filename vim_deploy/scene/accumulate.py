"""Logits of overlapping windows to one label for each pixel, a band of rows at a time.

A band is as high as a window and as wide as the picture. As soon as no further window reaches a
row, its sums are divided by the number of windows, resized to the picture's own size and made
labels; so memory grows with the width of a picture and not with its area. Arrays are
[rows, columns, classes] throughout: neighbours in memory are the classes of one pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vim_deploy.runtimes.base import Array
from vim_deploy.scene.resize import STRIP_BYTES, Size, between, bilinear_taps, columns
from vim_deploy.scene.windows import Layout

Sink = Callable[[NDArray[np.float32]], None]


class WindowMean:
    """Averages windows that come row by row, and hands finished rows on.

    Args:
        layout: the windows that will come, in this order.
        classes: channels of their logits.
        sink: takes finished rows [n, columns, classes], from the top down, without what padding
            added; the array is only lent.
    """

    def __init__(self, layout: Layout, classes: int, sink: Sink) -> None:
        self._layout, self._sink = layout, sink
        self._rows, self._columns = layout.visits()
        self._top = 0
        self._band = np.zeros((layout.window[0], layout.filled[1], classes), np.float32)

    def add(self, top: int, left: int, logits: Array) -> None:
        """Add one window's logits [window height, window width, classes]."""
        if top > self._top:
            self._hand_on(top - self._top)
        self._band[:, left : left + logits.shape[1]] += logits

    def finish(self) -> None:
        """Hand on what is left after the last window."""
        self._hand_on(len(self._band))

    def _hand_on(self, count: int) -> None:
        height, width = self._layout.run
        rows = self._band[:count]
        visits = self._rows[self._top : self._top + count, None] * self._columns[None, :]
        rows /= visits[:, :, None]
        good = rows[: max(height - self._top, 0), :width]
        if len(good):
            self._sink(good)
        self._band[:-count] = self._band[count:]
        self._band[-count:] = 0
        self._top += count


class LabelRows:
    """Resizes rows of logits to a picture's own size, and keeps the class of the largest.

    Args:
        source: height and width of the logits to come.
        target: height and width of the labels.
        dtype: of the labels.
    """

    def __init__(self, source: Size, target: Size, dtype: type[np.unsignedinteger]) -> None:
        self.labels: NDArray[np.unsignedinteger] = np.zeros(target, dtype)
        self._same = source == target
        self._rows, self._columns = (
            bilinear_taps(*pair) for pair in zip(source, target, strict=True)
        )
        self._next = 0
        self._received = 0
        #: Rows from before the ones at hand that a target row may still need, by number.
        self._kept: dict[int, NDArray[np.float32]] = {}

    def take(self, rows: NDArray[np.float32]) -> None:
        """Take the next rows [n, columns, classes]; every label they settle is written."""
        first, self._received = self._received, self._received + len(rows)
        if self._same:
            self.labels[first : self._received] = rows.argmax(axis=-1)
            return

        def row(number: int) -> NDArray[np.float32]:
            return self._kept[number] if number < first else rows[number - first]

        upper = self._rows.upper
        end = int(np.searchsorted(upper, self._received))
        step = max(1, STRIP_BYTES // (4 * self.labels.shape[1] * rows.shape[2]))
        for start in range(self._next, end, step):
            strip = slice(start, min(start + step, end))
            low = np.stack([row(int(number)) for number in self._rows.lower[strip]])
            high = np.stack([row(int(number)) for number in upper[strip]])
            tall = between(low, high, self._rows.weight[strip])
            self.labels[strip] = columns(tall, self._columns).argmax(axis=-1)
        self._next = max(self._next, end)
        if self._next < len(upper):
            wanted = int(self._rows.lower[self._next])
            # A copy: the rows are only lent.
            self._kept = {n: row(n).copy() for n in range(wanted, self._received)}
