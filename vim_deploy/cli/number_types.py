"""Types of options that are numbers: finite and in a range of ``ranges``, else refused at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from vim_deploy.ranges import BATCH, IMAGE_SIDE, Real, Whole, shown

Value = TypeVar("Value", int, float)


class WholeNumber(click.IntRange):
    """A whole number that the range has."""

    def __init__(self, allowed: Whole) -> None:
        super().__init__(allowed.low, allowed.high)
        self.allowed = allowed

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        return _parsed(self, self.allowed.parse, value, param, ctx)


class RealNumber(click.FloatRange):
    """A finite number that the range has."""

    def __init__(self, allowed: Real) -> None:
        super().__init__(allowed.low, allowed.high, min_open=allowed.above)
        self.allowed = allowed

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        return _parsed(self, self.allowed.parse, value, param, ctx)


def _parsed(
    kind: click.ParamType[Any],
    parse: Callable[[str], Value],
    value: object,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> Value:
    """The number in one text, or a usage error that says which are allowed."""
    try:
        return parse(str(value))
    except ValueError as error:
        kind.fail(str(error), param, ctx)


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers of one range, joined by commas."""

    name = "n,n,.."

    def __init__(self, allowed: Real) -> None:
        self.allowed = allowed

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        return tuple(_parsed(self, self.allowed.parse, part, param, ctx) for part in parts)


class WholeNumbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers of one range, joined by commas."""

    name = "n,n,.."

    def __init__(self, allowed: Whole) -> None:
        self.allowed = allowed

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        return tuple(_parsed(self, self.allowed.parse, part, param, ctx) for part in parts)


class Percent(click.ParamType[float]):
    """``5%`` or ``5``: a share of the range as a fraction, here 0.05."""

    name = "percent"

    def __init__(self, allowed: Real) -> None:
        self.allowed = allowed

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        if isinstance(value, float):
            return value
        percent = Real(100 * self.allowed.low, 100 * self.allowed.high, self.allowed.why)
        text = str(value).strip().removesuffix("%")
        return _parsed(self, percent.parse, text, param, ctx) / 100


class ImageSizes(click.ParamType[tuple[int | tuple[int, int], ...]]):
    """Sizes joined by commas, each as for ``ImageSize``."""

    name = "size,size,.."

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int | tuple[int, int], ...]:
        if isinstance(value, tuple):
            return value
        return tuple(ImageSize().convert(part, param, ctx) for part in str(value).split(","))


class ImageSize(click.ParamType[int | tuple[int, int]]):
    """``N`` for a square, or ``HEIGHTxWIDTH``."""

    name = "n or hxw"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int | tuple[int, int]:
        if isinstance(value, int | tuple):
            return value
        parts = str(value).lower().split("x")
        if len(parts) > 2:
            self.fail(f"{shown(value)} is not a size such as 224 or 224x320", param, ctx)
        sizes = [_parsed(self, IMAGE_SIDE.parse, part, param, ctx) for part in parts]
        return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1])


class Batch(click.ParamType[int]):
    """``dynamic`` (0) or a fixed size."""

    name = "dynamic or n"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        return 0 if value == "dynamic" else _parsed(self, BATCH.parse, value, param, ctx)
