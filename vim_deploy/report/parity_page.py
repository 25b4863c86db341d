"""``parity.json`` as a document: every output of every case, and the way of the error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from vim_deploy.places import BEHIND_BLOCKS
from vim_deploy.report import charts
from vim_deploy.report.charts import Captions, Curve, Dot, DotRow, Limit, MapRow, told
from vim_deploy.report.detection_items import detection_items, limit_facts
from vim_deploy.report.document import (
    Document,
    Facts,
    Figure,
    Item,
    Section,
    Table,
    Text,
    Value,
    command_section,
    environment_section,
    made_by,
    notes_section,
    number,
    share,
)

#: Rows a figure has room for; the worst are drawn.
MOST_ROWS = 24

#: What stands for a block in the curves: what it adds, what it hands on, and the scans inside it.
_CURVES = ("out_proj", "residual", "scan")


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
    functions = value.get("functions")
    if functions:
        state = "are" if functions["passed"] else "are NOT"
        parts.append(f"Those of {functions['candidate']} {state} within tolerance.")
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
        Section("functions", "The same file without native ops", list(_functions(value))),
        Section("ladder", "From PyTorch to the file", list(ladder_items(value.get("ladder")))),
        Section("blocks", "Error through depth", list(block_items(value.get("blocks"), "blocks"))),
    ]


def _functions(value: Value) -> Iterator[Item]:
    """What the functions in the file give, where native ops gave the results above."""
    functions = value.get("functions")
    if not functions:
        return
    entries = list(outputs_of(functions))
    yield Text(
        f"{functions['candidate']} against {value['reference']}, with the same limits; and native "
        "ops against the functions, where the distance is stated and has no limit."
    )
    between = list(outputs_of({"results": functions["native"]}))
    rows = [
        (
            what,
            entry["case"],
            str(entry["batch"]),
            entry["output"],
            *_distances(entry),
            state,
        )
        for what, entry, state in (
            *(("functions", e, "ok" if e["passed"] else "; ".join(e["failures"])) for e in entries),
            *(("native against functions", e, "-") for e in between),
        )
    ]
    columns = ("", "case", "batch", "output", "max abs", "mean abs", "rel L2", "cosine", "")
    failed = frozenset(index for index, entry in enumerate(entries) if not entry["passed"])
    yield Table("Functions in the file", columns, rows, frozenset({0, 1, 3, 8}), failed)


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


def _results(value: Value) -> Iterator[Item]:
    entries = list(outputs_of(value))
    if not entries:
        return
    yield from detection_items(entries, value.get("average_precision"))
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
    return charts.dots(captions, rows, ["difference"], limit=Limit(1.0, "limit"), logarithmic=True)


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
    return charts.dots(captions, rows, series, logarithmic=True)


def ladder_items(ladder: Value | None) -> Iterator[Item]:
    """The rungs, each against the one it must equal; inside the broken one the blocks."""
    if not ladder:
        return
    yield Text(_sentence(ladder["verdict"]))
    rungs = [(rung, _worst(rung)) for rung in ladder["rungs"]]
    drawn = [
        DotRow(f"{rung['name']}, against {rung['against']}", number(worst), [Dot(0, worst)])
        for rung, (worst, _) in rungs
        if rung["against"]
    ]
    if drawn:
        captions = Captions(
            "Each rung against the one it must equal",
            "Largest difference as a multiple of what is allowed: " + told(drawn),
            "times what is allowed",
            "figure-ladder",
        )
        limit = Limit(1.0, "limit")
        yield charts.dots(captions, drawn, ["difference"], limit=limit, logarithmic=True)
    rows = [
        (
            rung["name"],
            rung["runner"],
            rung["against"] or "the reference",
            number(worst) if rung["against"] else "-",
            number(distance) if rung["against"] else "-",
            f"{number(rung['seconds'])} s",
            _outcome(rung),
        )
        for rung, (worst, distance) in rungs
    ]
    failed = frozenset(index for index, (rung, _) in enumerate(rungs) if not rung["passed"])
    columns = ("rung", "runtime", "against", "of allowed", "rel L2", "time", "")
    yield Table("Rungs in order", columns, rows, frozenset({0, 1, 2, 6}), failed)
    if ladder["left_out"]:
        yield Text(f"Not tried above the broken rung: {', '.join(ladder['left_out'])}.")
    yield from block_items(ladder["blocks"], "ladder")
    if ladder["note"]:
        yield Text(_sentence(ladder["note"]))


def _outcome(rung: Value) -> str:
    if rung["passed"]:
        return "ok"
    return f"broken: {rung['error']}" if rung["error"] else "broken"


def _worst(rung: Value) -> tuple[float, float]:
    """Largest difference as a multiple of what is allowed, and largest relative L2."""
    if rung["error"]:
        return math.inf, math.inf
    outputs = [output for result in rung["results"] for output in result["outputs"]]
    return (
        max((float(output["worst"]) for output in outputs), default=0.0),
        max((float(output["relative_l2"]) for output in outputs), default=0.0),
    )


def _sentence(text: object) -> str:
    words = str(text)
    return f"{words[:1].upper()}{words[1:]}."


def block_items(blocks: Value | None, name: str) -> Iterator[Item]:
    """The error through depth as curves, every part as a map, and all in a table.

    Args:
        blocks: ``parity.blocks``' record.
        name: makes the figures' ids unique in the page.
    """
    if not blocks:
        return
    yield Text(_sentence(blocks["verdict"]))
    facts = [("images", blocks["images"]), ("limit", f"relative L2 {blocks['limit']:g}")]
    if blocks.get("candidate"):
        facts.insert(0, ("of", blocks["candidate"]))
    for key, what in (("first", "first part beyond it"), ("rise", "error rises most at")):
        if blocks[key]:
            error = number(blocks[key]["relative_l2"])
            facts.append((what, f"{blocks[key]['place']}, to {error}"))
    yield Facts(facts)
    parts = blocks["parts"]
    inside = [part for part in parts if 0 <= part["block"] < BEHIND_BLOCKS]
    if inside:
        yield _growth(inside, float(blocks["limit"]), name)
        yield _map(inside, float(blocks["limit"]), name)
    rows = [
        (part["place"], part["role"], number(part["relative_l2"]), number(part["max_abs"]))
        for part in parts
    ]
    failed = frozenset(
        index for index, part in enumerate(parts) if part["relative_l2"] > blocks["limit"]
    )
    if rows:
        columns = ("part", "role", "relative L2", "max abs")
        title = "Every part in the order of computation"
        yield Table(title, columns, rows, frozenset({0, 1}), failed, folded=True)
    if blocks["missing"]:
        yield Text(f"Parts that only one side has: {', '.join(map(str, blocks['missing']))}.")


def _part_name(part: Value) -> str:
    return f"{part['part']} {part['direction']}".strip()


def _growth(parts: Sequence[Value], limit: float, name: str) -> Figure:
    chosen = [part for part in parts if part["part"] in _CURVES] or parts
    lines: dict[str, list[tuple[float, float]]] = {}
    for part in sorted(chosen, key=_place_of_curve):
        lines.setdefault(_part_name(part), []).append((float(part["block"]), part["relative_l2"]))
    last = "; ".join(f"{line} {number(points[-1][1])}" for line, points in lines.items())
    captions = Captions(
        "Error through depth",
        f"Relative L2 distance of each block's parts; at the last block: {last}.",
        "relative L2",
        f"figure-{name}-depth",
    )
    return charts.curves(
        captions,
        [Curve(line, points) for line, points in lines.items()],
        "block",
        limit=Limit(limit, f"limit {limit:g}"),
    )


def _place_of_curve(part: Value) -> tuple[int, int]:
    known = part["part"] in _CURVES
    return (_CURVES.index(part["part"]) if known else len(_CURVES), int(part["block"]))


def _map(parts: Sequence[Value], limit: float, name: str) -> Figure:
    blocks = sorted({int(part["block"]) for part in parts})
    found: dict[str, dict[int, float]] = {}
    for part in parts:
        found.setdefault(_part_name(part), {})[int(part["block"])] = part["relative_l2"]
    rows = [MapRow(row, [cells.get(block) for block in blocks]) for row, cells in found.items()]
    beyond = [part["place"] for part in parts if part["relative_l2"] > limit]
    worst = max(parts, key=lambda part: float(part["relative_l2"]))
    above = f"{len(beyond)} above the limit, the first {beyond[0]}" if beyond else "none above it"
    captions = Captions(
        "Error of every part of every block",
        f"Darker is further apart; largest: {worst['place']}, {number(worst['relative_l2'])}; "
        f"{above}.",
        "block",
        f"figure-{name}-parts",
    )
    return charts.cell_map(captions, rows, [str(block) for block in blocks], limit)
