"""Numbers that can be meant, as texts and as values; and what is said of the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import vim_deploy
from vim_deploy import ranges
from vim_deploy.errors import VimDeployError
from vim_deploy.parity.metrics import Tolerance, adjusted
from vim_deploy.ranges import Range, Real, Whole, require_all, shown

ALL = {name: value for name, value in vars(ranges).items() if isinstance(value, Whole | Real)}
#: No number of any range, whatever its bounds are.
NEVER = ("nan", "inf", "-inf", "", " ", "x", "9" * 4400, "1e999", "0x10", "1_0", "\u0663", "\uff11",
         "1,0", "--1", "1e", "\x1b[2J")  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_both_ends_are_taken_and_what_is_beyond_is_not(name: str) -> None:
    allowed = ALL[name]
    assert allowed.low < allowed.high
    assert allowed.parse(repr(allowed.high)) == allowed.high
    beyond: list[float] = [allowed.high + 1, allowed.low - 1]
    if isinstance(allowed, Real) and allowed.above:
        beyond.append(allowed.low)
    else:
        assert allowed.parse(repr(allowed.low)) == allowed.low
    for number in beyond:
        with pytest.raises(ValueError, match="is not a"):
            allowed.parse(repr(number))
        with pytest.raises(VimDeployError, match="VIM-202") as caught:
            allowed.require("field", number)
        assert str(allowed) in caught.value.message
        assert caught.value.why == allowed.why


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("text", NEVER)
def test_what_is_no_number_is_said_in_a_line(name: str, text: str) -> None:
    with pytest.raises(ValueError, match="is not a") as caught:
        ALL[name].parse(text)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", [1], 1j])
@pytest.mark.parametrize("allowed", [Whole(0, 9, "why"), Real(0, 9, "why")])
def test_values_of_no_number_are_refused(allowed: Range, value: Any) -> None:
    with pytest.raises(VimDeployError, match="VIM-202"):
        allowed.require("field", value)


@pytest.mark.parametrize("allowed", [Whole(0, 9, "why"), Real(0, 9, "why")])
def test_a_number_that_python_does_not_write_is_refused(allowed: Range) -> None:
    with pytest.raises(VimDeployError, match="thousands of digits"):
        allowed.require("field", 10**5000)


def test_numbers_of_numpy_and_none_are_taken() -> None:
    Whole(0, 9, "").require("n", np.int64(3))
    Real(0, 9, "").require("n", np.float32(0.5))
    Real(0, 9, "").require("n", None)
    with pytest.raises(VimDeployError):
        Whole(0, 9, "").require("n", 1.5)


def test_every_number_of_a_field_is_looked_at() -> None:
    class Record:
        sizes = (1, (2, 3), 99)

    with pytest.raises(VimDeployError, match="sizes: 99"):
        require_all(Record(), sizes=Whole(1, 9, ""))


def test_a_long_value_is_shown_by_its_beginning() -> None:
    assert shown("ab") == "'ab'"
    assert len(shown("9" * 5000)) < 50
    assert "digits" in shown(10**5000)


@pytest.mark.parametrize(
    "record",
    [
        lambda: vim_deploy.ExportOptions(graph="fused_low_rank"),  # type: ignore[arg-type]
        lambda: vim_deploy.ExportOptions(scan_body=5),  # type: ignore[arg-type]
        lambda: vim_deploy.ExportOptions(precision="float16"),  # type: ignore[arg-type]
        lambda: vim_deploy.ExportOptions(io_precision=[1]),  # type: ignore[arg-type]
        lambda: vim_deploy.BenchOptions(graph=b"x"),  # type: ignore[arg-type]
        lambda: vim_deploy.SubjectOptions(precision="half"),  # type: ignore[arg-type]
        lambda: vim_deploy.ServingOptions(runtime="onnx"),
        lambda: adjusted(Tolerance(origin=""), {"cosin": 0.9}),
    ],
)
def test_names_are_looked_at_where_they_are_given(record: Callable[[], object]) -> None:
    with pytest.raises(VimDeployError) as caught:
        record()
    assert caught.value.code == "VIM-202"
    assert caught.value.fix
