"""Figures of a report: numbers are made short."""

from __future__ import annotations

import math

#: ``parity.metrics`` writes the largest number where a comparison was not possible.
NOT_COMPARABLE = 1e300


def number(value: float | None, digits: int = 3) -> str:
    """``digits`` significant digits; ``-`` for None, words where nothing could be compared."""
    if value is None:
        return "-"
    if not math.isfinite(value) or abs(value) >= NOT_COMPARABLE:
        return "not comparable"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    decimals = max(digits - 1 - math.floor(math.log10(size)), 0)
    return f"{value:.{decimals}f}"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return "-" if value is None else f"{100 * value:.2f} %"


def size_of(count: float | None) -> str:
    """Bytes for people, in decimal units."""
    if count is None:
        return "-"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{number(count / scale)} {unit}"
    return f"{count:.0f} bytes"


def image_size(sides: object) -> str:
    """Height and width, as ``224x224``."""
    return "x".join(str(side) for side in sides) if isinstance(sides, list | tuple) else "-"
