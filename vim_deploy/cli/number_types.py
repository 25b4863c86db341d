"""Types of options that are numbers: finite and in a range of ``ranges``, else refused at once."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import click

from vim_deploy.ranges import BATCH, IMAGE_SIDE, Range, Real, Whole, shown


class Parsed(click.ParamType[Any]):
    """What is read out of a text; a default is a value already."""

    @abstractmethod
    def parse(self, text: str) -> object:
        """The value; ValueError with a sentence for a text that has none."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # noqa: ANN401 - what ``parse`` gives
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _InRange(Parsed):
    allowed: Range

    def parse(self, text: str) -> float:
        return self.allowed.parse(text)


class WholeNumber(_InRange, click.IntRange):
    """A whole number that the range has."""

    def __init__(self, allowed: Whole) -> None:
        super().__init__(allowed.low, allowed.high)
        self.allowed = allowed


class RealNumber(_InRange, click.FloatRange):
    """A finite number that the range has."""

    def __init__(self, allowed: Real) -> None:
        super().__init__(allowed.low, allowed.high, min_open=allowed.above)
        self.allowed = allowed


class Numbers(Parsed):
    """Numbers of one range, joined by commas."""

    name = "n,n,.."

    def __init__(self, allowed: Range) -> None:
        self.allowed = allowed

    def parse(self, text: str) -> tuple[float, ...]:
        return tuple(self.allowed.parse(part) for part in text.split(","))


class Percent(Parsed):
    """``5%`` or ``5``: a share of the range as a fraction, here 0.05."""

    name = "percent"

    def __init__(self, allowed: Real) -> None:
        self.percent = Real(100 * allowed.low, 100 * allowed.high, allowed.why)

    def parse(self, text: str) -> float:
        return self.percent.parse(text.strip().removesuffix("%")) / 100


class ImageSize(Parsed):
    """``N`` for a square, or ``HEIGHTxWIDTH``."""

    name = "n or hxw"

    def parse(self, text: str) -> int | tuple[int, int]:
        parts = text.lower().split("x")
        if len(parts) > 2:
            raise ValueError(f"{shown(text)} is not a size such as 224 or 224x320")
        sizes = [IMAGE_SIDE.parse(part) for part in parts]
        return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1])


class ImageSizes(ImageSize):
    """Sizes joined by commas."""

    name = "size,size,.."

    def parse(self, text: str) -> Any:  # noqa: ANN401 - a tuple of what ``ImageSize`` gives
        return tuple(super(ImageSizes, self).parse(part) for part in text.split(","))


class Batch(Parsed):
    """``dynamic`` (0) or a fixed size."""

    name = "dynamic or n"

    def parse(self, text: str) -> int:
        return 0 if text == "dynamic" else BATCH.parse(text)
