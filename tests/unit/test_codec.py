"""Records to plain values and back: what is written, what is read, what is refused and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import pytest

from vim_deploy.codec import Number, decode, encode, stored
from vim_deploy.errors import VimDeployError


def bad(why: str) -> VimDeployError:
    return VimDeployError("VIM-416", "bad", why=why)


def unknown(key: str, fix: str) -> VimDeployError:
    return VimDeployError("VIM-201", f"unknown {key}", fix=fix)


@dataclass(frozen=True)
class Part:
    name: str
    count: int


@dataclass(frozen=True)
class Whole:
    kind: Literal["a", "b"]
    share: float
    parts: Mapping[str, Part]
    sizes: tuple[int, ...] = ()
    rest: Any = None
    first: Part | None = None
    scale: Number = 1

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share {self.share} is no share")
        if self.kind == "b" and not self.sizes:
            raise VimDeployError("VIM-408", "b without sizes", why="it has some")


@stored(inner="sides")
@dataclass(frozen=True)
class Range:
    sides: Mapping[str, tuple[int, int]]


@stored(
    head={"format": 1},
    keys=("name", "seconds", "total", "ranges", "note"),
    sparse=("note",),
    decimals={"seconds": 1},
)
@dataclass(frozen=True)
class Report:
    LIMIT: ClassVar[int] = 3
    ranges: tuple[Range, ...]
    name: Path
    seconds: float
    note: str = ""
    found: bool = False

    @property
    def total(self) -> int:
        return len(self.ranges)


VALUE = {"kind": "a", "share": 1, "parts": {"x": {"name": "n", "count": 2}}, "sizes": [1, 2]}


def test_a_record_has_the_types_it_names() -> None:
    whole = decode({**VALUE, "later": 1}, Whole, bad)
    assert whole == Whole("a", 1.0, {"x": Part("n", 2)}, (1, 2))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "c"}, "kind"),
        ({"share": "1"}, "share"),
        ({"share": 2.0}, "no share"),
        ({"parts": []}, "parts"),
        ({"parts": {"x": {"name": "n"}}}, "count"),
        ({"parts": {"x": {"name": "n", "count": True}}}, "count"),
        ({"parts": {"x": {"name": "n", "count": 1.5}}}, "count"),
        ({"sizes": [1, None]}, "sizes"),
        ({"first": 1}, "first"),
        ({"kind": "b", "sizes": []}, "b without sizes: it has some"),
    ],
)
def test_a_field_of_another_type_is_named(change: dict[str, Any], why: str) -> None:
    with pytest.raises(VimDeployError, match=why) as caught:
        decode({**VALUE, **change}, Whole, bad)
    assert caught.value.code == "VIM-416"


def test_a_records_own_errors_are_kept_on_demand() -> None:
    with pytest.raises(VimDeployError, match="b without sizes") as caught:
        decode({**VALUE, "kind": "b", "sizes": []}, Whole, bad, on_own=lambda error: error)
    assert caught.value.code == "VIM-408"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"share_": 1}, "share_"),
        ({"parts": {"x": {"name": "n", "count": 2, "nane": 1}}}, "parts.x.nane"),
        ({"first": {"name": "n", "count": 2, "nane": 1}}, "first.nane"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(change: dict[str, Any], key: str) -> None:
    value = {**VALUE, **change}
    with pytest.raises(VimDeployError, match=f"unknown {key}") as caught:
        decode(value, Whole, bad, on_unknown=unknown)
    assert caught.value.code == "VIM-201"
    assert "did you mean" in caught.value.fix
    assert decode(value, Whole, bad).kind == "a"


def test_types_have_peoples_names_in_files_that_people_write() -> None:
    for change, said in (
        ({"share": "1"}, "share: expected a number, got text"),
        ({"parts": {"x": {"name": "n", "count": 1.5}}}, "expected a whole number, got a number"),
        ({"first": {"name": 3, "count": 1}}, "first.name: expected text, got a whole number"),
    ):
        with pytest.raises(VimDeployError) as caught:
            decode({**VALUE, **change}, Whole, bad, on_unknown=unknown)
        assert said in caught.value.why


def test_numbers_keep_the_form_they_were_written_in() -> None:
    assert encode(decode({**VALUE, "scale": 2}, Whole, bad))["scale"].__class__ is int
    assert encode(decode({**VALUE, "scale": 2.0}, Whole, bad))["scale"].__class__ is float


def test_what_is_written_is_plain_and_in_order() -> None:
    whole = Whole("a", 0.5, MappingProxyType({"x": Part("n", 2)}), (1, 2), rest=Path("p") / "q")
    assert list(encode(whole).items()) == [
        ("kind", "a"),
        ("share", 0.5),
        ("parts", {"x": {"name": "n", "count": 2}}),
        ("sizes", [1, 2]),
        ("rest", "p/q"),
        ("first", None),
        ("scale", 1),
    ]


def test_a_class_says_what_it_stores_otherwise() -> None:
    report = Report((Range({"width": (1, 2)}),), Path("x"), 1.26, found=True)
    value = encode(report)
    assert list(value.items()) == [
        ("format", 1),
        ("name", "x"),
        ("seconds", 1.3),
        ("total", 1),
        ("ranges", [{"width": [1, 2]}]),
    ]


@stored(head={"format": 2}, without=("found",))
@dataclass(frozen=True)
class Read:
    ranges: tuple[Range, ...] = ()
    found: bool = False


def test_what_is_stored_otherwise_is_read_back() -> None:
    value = {"format": 2, "ranges": [{"width": [1, 2]}], "found": True}
    assert decode(value, Read, bad) == Read((Range({"width": (1, 2)}),))
    with pytest.raises(VimDeployError, match="unknown found"):
        decode(value, Read, bad, on_unknown=unknown)
    for other in ({"format": 1}, {}, 3):
        with pytest.raises(VimDeployError, match=r"format is|Expected `object`"):
            decode(other, Read, bad)
    assert encode(Read(found=True)) == {"format": 2, "ranges": []}


@stored(keys=("title", "*part", "*sizes"))
@dataclass(frozen=True)
class Folded:
    title: str
    part: Part | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)


def test_a_part_that_is_stored_in_its_owners_place_is_read_back() -> None:
    whole = Folded("t", Part("n", 2), {"more": 1})
    value = {"title": "t", "name": "n", "count": 2, "more": 1}
    assert encode(whole) == value
    assert decode(value, Folded, bad) == Folded("t", Part("n", 2))
    assert encode(Folded("t")) == {"title": "t"}
    assert decode({"title": "t"}, Folded, bad) == Folded("t")
    with pytest.raises(VimDeployError, match="count"):
        decode({"title": "t", "name": "n"}, Folded, bad)
    with pytest.raises(VimDeployError, match="unknown more"):
        decode(value, Folded, bad, on_unknown=unknown)
