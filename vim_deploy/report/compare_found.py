"""What two files answered, for the page of ``compare.json``: findings, a figure, the pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vim_deploy.parity.class_agreement import SHOWN
from vim_deploy.report import charts
from vim_deploy.report.charts import BarRow, Captions, told
from vim_deploy.report.document import (
    Figure,
    Gallery,
    Item,
    Items,
    Section,
    Shot,
    Table,
    Value,
    number,
    share,
)

#: Rows of the table of pictures that differ, and of classes; the JSON has all.
_MOST_ROWS, _MOST_CLASSES = 200, 20
_NO_NUMBERS = "NaN or Inf"


def answers(value: Value) -> Iterator[Item]:
    """The findings in words, and how large the differences are."""
    found = value["found"]
    yield Items(value["statement"])
    if found["kind"] == "classes":
        yield _difference_figure(found)
    elif found["kind"] == "segmentation":
        yield _class_figure(found)
        yield _class_table(found)
    else:
        yield _detection_figure(found)


def pictures_shown(value: Value) -> Iterator[Section]:
    """Pictures that differ, and those nearest to it."""
    found, small = value["found"], value.get("thumbnails", {})
    other = pictures_named(found, found["changed"])
    items: list[Item] = []
    if other:
        caption = _of(_CAPTIONS[found["kind"]], min(len(other), SHOWN), len(other))
        items.append(Gallery(caption, _shots(found, other[:SHOWN], small)))
        items.append(_table(found, other))
    yield Section("differ", "Pictures that differ", items)
    near = pictures_named(found, found.get("nearest", ()))
    caption = (
        "The same class on both sides, and the second one close behind: with other rounding these "
        "would be the first to change"
    )
    shots = [Gallery(caption, _shots(found, near, small))] if near else []
    yield Section("near", "Pictures nearest to another class", shots)


_CAPTIONS = {
    "classes": "Another class; those furthest apart",
    "segmentation": "Changed pixels in red, over the picture in grey; those with the most",
    "detections": "Boxes of A in blue, of B in orange; those with the most on one side alone",
}


def pictures_named(found: Value, names: Sequence[str]) -> list[Value]:
    """What is known of pictures of these names, in this order."""
    known = {item["file"]: item for item in found["pictures"]}
    return [known[name] for name in names]


def picture_lines(found: Value, item: Value) -> list[str]:
    """What is said of one picture."""
    if found["kind"] == "segmentation":
        pixels, every = item["pixels"], item["height"] * item["width"]
        if pixels is None:
            return [item["no_answer"]]
        return [f"another class at {pixels} of {every} pixels ({share(pixels / every)})"]
    if found["kind"] == "detections":
        return _detection_lines(item)
    lines = [f"{name}: {_answer(side)}" for name, side in (("A", item["a"]), ("B", item["b"]))]
    if item.get("truth") is not None:
        lines.append(f"true: {item['truth']}")
    return lines


def _answer(side: Value | None) -> str:
    if side is None:
        return _NO_NUMBERS
    return f"{side['label']} ({share(side['probability'])}, leads by {share(side['margin'])})"


def _detection_lines(item: Value) -> list[str]:
    if item.get("no_answer"):
        return [str(item["no_answer"])]
    lines = [f"A: {item['a']} detections, B: {item['b']}; {item['matched']} belong together"]
    if item["box"] is not None:
        lines.append(f"boxes up to {number(item['box'])} px apart, scores {number(item['score'])}")
    return lines


def _shots(found: Value, items: Sequence[Value], small: Mapping[str, Any]) -> list[Shot]:
    return [
        Shot(item["file"], str(small.get(item["file"], "")), picture_lines(found, item))
        for item in items
    ]


def _of(what: str, count: int, every: int) -> str:
    return what if count == every else f"{what}: {count} of {every}"


def _table(found: Value, items: Sequence[Value]) -> Table:
    caption = _of("Pictures that differ", min(len(items), _MOST_ROWS), len(items))
    if found["kind"] != "classes":
        rows = [(item["file"], "; ".join(picture_lines(found, item))) for item in items]
        columns = ("picture", "what differs")
        return Table(caption, columns, rows[:_MOST_ROWS], frozenset({0, 1}), folded=True)
    known = any(item.get("truth") is not None for item in items)
    cells = [
        (
            item["file"],
            *([item.get("truth") or ""] if known else []),
            *_class_cells(item["a"]),
            *_class_cells(item["b"]),
            number(item["difference"]),
        )
        for item in items[:_MOST_ROWS]
    ]
    columns = ("picture", *(("true",) if known else ()), "A", "", "B", "", "largest difference")
    words = frozenset({0, 1, 2, 4}) if known else frozenset({0, 1, 3})
    return Table(caption, columns, cells, words, folded=True)


def _class_cells(side: Value | None) -> tuple[str, str]:
    return (_NO_NUMBERS, "") if side is None else (side["label"], share(side["probability"]))


def _difference_figure(found: Value) -> Figure:
    """How many pictures differ by how much, a row for each power of ten."""
    names = [_decade(item["difference"]) for item in found["pictures"]]
    rows = [
        BarRow(name, str(names.count(name)), [names.count(name)])
        for name in _DECADES
        if name in names
    ]
    captions = Captions(
        "Pictures by the largest difference of a class's probability",
        "How many pictures there are: " + told(rows),
        "pictures",
        "figure-differences",
    )
    return charts.bars(captions, rows, ["pictures"])


_LEAST = -8
_NOT_COMPARED = "not compared"
_DECADES = (
    "no difference",
    f"below 1e{_LEAST}",
    *(f"1e{power} to 1e{power + 1}" for power in range(_LEAST, 0)),
    _NOT_COMPARED,
)


def _decade(difference: float | None) -> str:
    if difference is None:
        return _NOT_COMPARED
    if difference == 0:
        return _DECADES[0]
    power = min(math.floor(math.log10(difference)), -1)
    return _DECADES[1] if power < _LEAST else f"1e{power} to 1e{power + 1}"


def _class_figure(found: Value) -> Figure:
    worst = sorted(found["classes"], key=lambda item: item["iou"])[:_MOST_CLASSES]
    rows = [BarRow(item["label"], share(item["iou"]), [100 * item["iou"]]) for item in worst]
    captions = Captions(
        "Intersection over union between both sides, by class",
        "Pixels that both give a class, over those that either does: " + told(rows),
        "IoU in %",
        "figure-classes",
    )
    return charts.bars(captions, rows, ["IoU"])


def _class_table(found: Value) -> Table:
    rows = [
        (item["label"], *(str(item[key]) for key in ("a", "b", "both")), share(item["iou"]))
        for item in found["classes"]
    ]
    columns = ("class", "pixels of A", "pixels of B", "of both", "IoU")
    return Table("Classes", columns, rows, folded=True)


def _detection_figure(found: Value) -> Figure:
    names = {"matched": "of both", "missing": "of A alone", "extra": "of B alone"}
    rows = [BarRow(name, str(found[key]), [found[key]]) for key, name in names.items()]
    captions = Captions(
        "Detections", "How many there are: " + told(rows), "detections", "figure-detections"
    )
    return charts.bars(captions, rows, ["detections"])
