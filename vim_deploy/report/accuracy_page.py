"""``accuracy.json`` as a document: both sides on the same labelled images."""

from __future__ import annotations

from collections.abc import Iterator

from vim_deploy.parity.paired import wilson
from vim_deploy.report import charts
from vim_deploy.report.charts import Captions, Dot, DotRow, Limit, told
from vim_deploy.report.document import (
    Document,
    Figure,
    Item,
    Table,
    Text,
    Value,
    dataset_document,
    number,
    share,
)

_SIDES = ("reference", "candidate")


def accuracy_document(value: Value) -> Document:
    """The report of one ``verify --dataset``."""
    return dataset_document(value, "Accuracy", "images", _facts(value), _results(value))


def _facts(value: Value) -> Iterator[tuple[str, str]]:
    dataset = value["dataset"]
    yield "artifact", str(value["artifact"])
    yield "SHA-256", str(value["artifact_sha256"])
    yield "runs in", str(value["candidate"]["name"])
    yield "reference", str(value["reference"]["name"])
    against = value.get("against")
    if against:
        yield "against", str(against["name"])
        if against["sha256"]:
            yield "SHA-256 of that", str(against["sha256"])
    yield "data set", str(dataset["name"])
    yield "classes", str(dataset["classes_by"])
    yield "images", str(dataset["images"])
    yield "images left out", str(dataset["unreadable"])
    for line in dataset.get("left_out", ()):
        yield "beside the images", str(line)
    yield "same class on both sides", f"{value['same_class']} of {dataset['images']}"
    for name, limit in value["limits"].items():
        if limit is not None:
            yield name.replace("_", " "), f"{limit:g}"


def _results(value: Value) -> Iterator[Item]:
    images = int(value["dataset"]["images"])
    tops = [top for top in ("top1", "top5") if value[top] is not None]
    yield _sides_figure(value, tops, images)
    yield _difference_figure(value, tops)
    rows = []
    for role in _SIDES:
        side = value[role]
        cells = [_share_of(side[top], images) for top in ("top1", "top5")]
        rows.append((role, side["name"], *cells, str(side["not_a_number"])))
    columns = ("side", "runtime", "top-1", "top-5", "NaN")
    yield Table("Right answers, with 95 % intervals", columns, rows, frozenset({0, 1}))
    yield Table(
        "Images on which exactly one side is right",
        ("", "losses", "gains", "loss (95 %)", "McNemar p", "detectable"),
        [_difference_row(top, value[top]) for top in tops],
        frozenset({0, 5}),
    )
    yield Text(
        f"Method: {value['method']}. The intervals of each side are Wilson's; they "
        "say how sure each accuracy is, not the difference, for which both saw the same images."
    )


def _label(top: str) -> str:
    return f"top-{top.removeprefix('top')}"


def _share_of(right: int | None, images: int) -> str:
    if right is None:
        return "-"
    low, high = wilson(right, images)
    return f"{share(right / images)} ({share(low)} to {share(high)}; {right})"


def _difference_row(top: str, found: Value) -> tuple[str, ...]:
    interval = f"{share(found['loss'])} ({share(found['low'])} to {share(found['high'])})"
    detectable = "yes" if found["detectable"] else "no"
    losses, gains = str(found["losses"]), str(found["gains"])
    return (_label(top), losses, gains, interval, number(found["p_value"]), detectable)


def _sides_figure(value: Value, tops: list[str], images: int) -> Figure:
    rows = []
    for top in tops:
        for series, role in enumerate(_SIDES):
            right = int(value[role][top])
            low, high = (100 * end for end in wilson(right, images))
            dot = Dot(series, 100 * right / images, low, high)
            rows.append(DotRow(f"{_label(top)}, {role}", share(right / images), [dot]))
    captions = Captions(
        "Accuracy of both sides",
        f"On {images} images, with 95 % intervals: " + told(rows),
        "right answers in %",
        "figure-accuracy",
    )
    return charts.dots(captions, rows, _SIDES)


def _difference_figure(value: Value, tops: list[str]) -> Figure:
    rows = []
    for top in tops:
        found = value[top]
        dot = Dot(0, 100 * found["loss"], 100 * found["low"], 100 * found["high"])
        flips = f"{share(found['loss'])}: {found['losses']} lost, {found['gains']} gained"
        rows.append(DotRow(_label(top), flips, [dot]))
    demanded = value["limits"].get("max_loss")
    limit = Limit(0.0, "no loss") if demanded is None else Limit(100 * demanded, "largest allowed")
    captions = Captions(
        "Accuracy lost against the reference",
        "With 95 % interval of the paired difference; right of 0 is worse. " + told(rows),
        "loss in percentage points",
        "figure-loss",
    )
    return charts.dots(captions, rows, ["loss"], limit=limit)
