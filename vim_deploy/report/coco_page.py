"""``accuracy.json`` of a detector as a document: average precision of both sides."""

from __future__ import annotations

from collections.abc import Iterator

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
    share,
)

_SIDES = ("reference", "candidate")
_KINDS = ("box", "mask")


def coco_document(value: Value) -> Document:
    """The report of one ``verify --dataset`` of a detector."""
    return dataset_document(value, "Average precision", "pictures", _facts(value), _results(value))


def _facts(value: Value) -> Iterator[tuple[str, str]]:
    dataset = value["dataset"]
    yield "artifact", str(value["artifact"])
    yield "SHA-256", str(value["artifact_sha256"])
    yield "runs in", str(value["candidate"]["name"])
    yield "reference", str(value["reference"]["name"])
    against = value.get("against")
    if against:
        yield "against", str(against["name"])
    yield "data set", str(dataset["name"])
    yield "classes", str(dataset["classes_by"])
    yield "pictures", str(dataset["images"])
    yield "annotated objects", str(dataset["objects"])
    yield "pictures left out", str(dataset["unreadable"])
    for line in dataset["left_out"]:
        yield "beside them", str(line)
    if value["limits"]["max_loss"] is not None:
        yield "max loss", f"{value['limits']['max_loss']:g}"


def _results(value: Value) -> Iterator[Item]:
    kinds = [kind for kind in _KINDS if value[kind] is not None]
    yield _loss_figure(value, kinds)
    rows = [
        (
            role,
            value[role]["name"],
            str(value[role]["detections"]),
            kind,
            *(share(value[role][kind][name]) for name in ("ap", "ap_50", "ap_75")),
        )
        for role in _SIDES
        for kind in kinds
    ]
    columns = ("side", "runtime", "detections", "of", "AP", "AP 50", "AP 75")
    yield Table("Average precision", columns, rows, frozenset({0, 1, 3}))
    yield Text(f"Method: {value['method']}.")


def _loss_figure(value: Value, kinds: list[str]) -> Figure:
    rows = []
    for kind in kinds:
        found = value[kind]
        dot = Dot(0, 100 * found["loss"], 100 * found["low"], 100 * found["high"])
        rows.append(DotRow(f"{kind} AP", share(found["loss"]), [dot]))
    demanded = value["limits"]["max_loss"]
    limit = Limit(0.0, "no loss") if demanded is None else Limit(100 * demanded, "largest allowed")
    captions = Captions(
        "AP lost against the reference",
        "With 95 % interval of the paired difference; right of 0 is worse. " + told(rows),
        "loss in percentage points",
        "figure-loss",
    )
    return charts.dots(captions, rows, ["loss"], limit=limit)
