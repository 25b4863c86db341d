"""``parity.json`` as a document: every output of every case, and the way of the error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vim_deploy.report import charts
from vim_deploy.report.charts import Captions, Dot, DotRow, Limit
from vim_deploy.report.common import command_section, environment_section, made_by, notes_section
from vim_deploy.report.document import Document, Facts, Figure, Item, Section, Table, Text
from vim_deploy.report.parity_parts import block_items, ladder_items
from vim_deploy.report.text import number, share

#: Rows a figure has room for; the worst are drawn.
MOST_ROWS = 24

_LIMITS = {
    "relative_l2": "largest relative L2",
    "cosine": "smallest cosine",
    "top1_agreement": "smallest top-1 agreement",
    "kl": "largest KL of the softmax (nats)",
}

Value = Mapping[str, Any]


def parity_document(value: Value) -> Document:
    """The report of one ``verify``."""
    return Document(
        title=f"Parity of {value['artifact']}",
        passed=bool(value["passed"]),
        verdict=verdict(value),
        made_by=made_by(value),
        sections=[
            *parity_sections(value),
            notes_section(value["notes"]),
            environment_section(value.get("environment")),
            command_section(value["command"]),
        ],
    )


def verdict(value: Value) -> list[str]:
    """The outcome in sentences: of the outputs, and of the parts where the run looked at them."""
    entries = list(outputs_of(value))
    compared = f"{len(entries)} comparisons of {value['candidate']} with {value['reference']}"
    failed = sum(not entry["passed"] for entry in entries)
    found = [str(value[key]["verdict"]) for key in ("ladder", "blocks") if value.get(key)]
    parts = [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in found]
    if not entries:
        return parts or ["Nothing was compared."]
    if failed:
        return [f"{failed} of {compared} exceed what is allowed.", *parts]
    worst = number(max(entry["worst"] for entry in entries))
    return [
        f"All {compared} are within tolerance; the largest difference is {worst} of it.",
        *parts,
    ]


def parity_sections(value: Value) -> list[Section]:
    """What was compared, the results, and the blocks where the run looked into them."""
    return [
        Section("compared", "What was compared", [Facts(list(_facts(value)))]),
        Section("results", "Results", list(_results(value))),
        Section("ladder", "From PyTorch to the file", list(ladder_items(value.get("ladder")))),
        Section("blocks", "Error through depth", list(block_items(value.get("blocks"), "blocks"))),
    ]


def outputs_of(value: Value) -> Iterator[dict[str, Any]]:
    """Every comparison with its case and batch size."""
    for result in value["results"]:
        for entry in result["outputs"]:
            yield {"case": result["case"], "batch": result["batch"], **entry}


def _facts(value: Value) -> Iterator[tuple[str, str]]:
    yield "artifact", str(value["artifact"])
    yield "SHA-256", str(value["artifact_sha256"])
    yield "runs in", str(value["candidate"])
    yield "reference", str(value["reference"])
    against = value.get("against")
    if against:
        yield "against", str(against["name"])
        if against["sha256"]:
            yield "SHA-256 of that", str(against["sha256"])
    labels = value["tolerance"].get("label_agreement")
    if labels is not None and any(map(_is_per_pixel, outputs_of(value))):
        yield "smallest share of equal pixels of a label map", f"{labels:g}"
    yield from limit_facts(value["tolerance"])


def _is_per_pixel(entry: Value) -> bool:
    """Whether shares of classes are of pixels; reports from before segmentation have no IoU."""
    return entry.get("mean_iou") is not None


def limit_facts(tolerance: Value) -> Iterator[tuple[str, str]]:
    """What was demanded, and why."""
    if tolerance["atol"] is not None:
        yield "largest difference", f"{tolerance['atol']:g} + {tolerance['rtol']:g} |reference|"
    for name, text in _LIMITS.items():
        if tolerance.get(name) is not None:
            yield text, f"{tolerance[name]:g}"
    yield (
        "class indices of pictures",
        "must be equal" if tolerance["same_integers"] else "reported only",
    )
    yield "reason of the limits", str(tolerance["origin"])


def _results(value: Value) -> Iterator[Item]:
    entries = list(outputs_of(value))
    if not entries:
        return
    shown = sorted(entries, key=lambda entry: (entry["passed"], -entry["worst"]))[:MOST_ROWS]
    if len(shown) < len(entries):
        yield Text(f"The figures show the worst {len(shown)} of {len(entries)} comparisons.")
    per_pixel = any(map(_is_per_pixel, entries))
    yield _share_figure(shown)
    with_distance = [entry for entry in shown if not entry.get("indices")]
    if with_distance:
        yield _distance_figure(with_distance)
    columns = (
        *("case", "batch", "output", "rows", "max abs", "mean abs", "rel L2", "cosine", "KL"),
        *(("pixels top-1", "pixels top-5", "mean IoU") if per_pixel else ("top-1", "top-5")),
        *("of allowed", ""),
    )
    rows = [
        (
            entry["case"],
            str(entry["batch"]),
            entry["output"],
            str(entry["rows"]),
            *_distances(entry),
            number(entry.get("kl")),
            share(entry["top1_agreement"]),
            share(entry["top5_agreement"]),
            *((share(entry.get("mean_iou")),) if per_pixel else ()),
            number(entry["worst"]),
            "ok" if entry["passed"] else "; ".join(entry["failures"]),
        )
        for entry in entries
    ]
    failed = frozenset(index for index, entry in enumerate(entries) if not entry["passed"])
    words = frozenset({0, 2, len(columns) - 1})
    yield Table("Every output of every case and batch size", columns, rows, words, failed)


def _distances(entry: Value) -> Iterator[str]:
    """Max abs, mean abs, relative L2 and cosine; class indices have none."""
    if entry.get("indices"):
        yield from ("-",) * 4
        return
    yield from (number(entry[name]) for name in ("max_abs", "mean_abs", "relative_l2"))
    yield f"{entry['cosine']:.7f}"


def _name(entry: Value) -> str:
    return f"{entry['output']}: {entry['case']}, batch {entry['batch']}"


def _share_figure(entries: Sequence[Value]) -> Figure:
    rows = [
        DotRow(_name(entry), number(entry["worst"]), [Dot(0, entry["worst"])]) for entry in entries
    ]
    worst = max(entries, key=lambda entry: float(entry["worst"]))
    captions = Captions(
        "Difference as a multiple of what is allowed",
        f"Largest: {number(worst['worst'])}, {_name(worst)}. 1 is the limit; "
        "hollow marks are exactly 0 or not comparable.",
        "times what is allowed",
        "figure-share",
    )
    drawing = charts.dots(
        captions, rows, ["difference"], limit=Limit(1.0, "limit"), logarithmic=True
    )
    return Figure(captions.title, captions.alt, drawing)


def _distance_figure(entries: Sequence[Value]) -> Figure:
    rows = [
        DotRow(
            _name(entry),
            f"{number(entry['max_abs'])} / {number(entry['relative_l2'])}",
            [Dot(0, entry["max_abs"]), Dot(1, entry["relative_l2"])],
        )
        for entry in entries
    ]
    worst = max(entries, key=lambda entry: float(entry["relative_l2"]))
    captions = Captions(
        "Distance from the reference",
        f"Largest difference of an element, and relative L2 of the whole output. Largest relative "
        f"L2: {number(worst['relative_l2'])}, {_name(worst)}.",
        "largest absolute / relative L2",
        "figure-distance",
    )
    series = ["max abs", "relative L2"]
    return Figure(
        captions.title, captions.alt, charts.dots(captions, rows, series, logarithmic=True)
    )
