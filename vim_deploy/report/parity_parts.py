"""Inside a parity run: the error of each part of each block, and the ladder of a model's forms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vim_deploy.report import charts
from vim_deploy.report.charts import Captions, Curve, Dot, DotRow, Limit, MapRow
from vim_deploy.report.document import Facts, Figure, Item, Table, Text
from vim_deploy.report.text import number

Value = Mapping[str, Any]

#: What stands for a block in the curves: what it adds, what it hands on, and the scans inside it.
_CURVES = ("out_proj", "residual", "scan")
#: ``specs``: numbers from here on stand for what comes behind the blocks.
_BEHIND_BLOCKS = 10_000


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
            "Largest difference as a multiple of what is allowed: "
            + "; ".join(f"{row.name} {row.text}" for row in drawn)
            + ".",
            "times what is allowed",
            "figure-ladder",
        )
        limit = Limit(1.0, "limit")
        drawing = charts.dots(captions, drawn, ["difference"], limit=limit, logarithmic=True)
        yield Figure(captions.title, captions.alt, drawing)
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
    for key, what in (("first", "first part beyond it"), ("rise", "error rises most at")):
        if blocks[key]:
            error = number(blocks[key]["relative_l2"])
            facts.append((what, f"{blocks[key]['place']}, to {error}"))
    yield Facts(facts)
    parts = blocks["parts"]
    inside = [part for part in parts if 0 <= part["block"] < _BEHIND_BLOCKS]
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


def _name(part: Value) -> str:
    return f"{part['part']} {part['direction']}".strip()


def _growth(parts: Sequence[Value], limit: float, name: str) -> Figure:
    chosen = [part for part in parts if part["part"] in _CURVES] or parts
    lines: dict[str, list[tuple[float, float]]] = {}
    for part in sorted(chosen, key=_place_of_curve):
        lines.setdefault(_name(part), []).append((float(part["block"]), part["relative_l2"]))
    last = "; ".join(f"{line} {number(points[-1][1])}" for line, points in lines.items())
    captions = Captions(
        "Error through depth",
        f"Relative L2 distance of each block's parts; at the last block: {last}.",
        "relative L2",
        f"figure-{name}-depth",
    )
    drawing = charts.curves(
        captions,
        [Curve(line, points) for line, points in lines.items()],
        "block",
        limit=Limit(limit, f"limit {limit:g}"),
    )
    return Figure(captions.title, captions.alt, drawing)


def _place_of_curve(part: Value) -> tuple[int, int]:
    known = part["part"] in _CURVES
    return (_CURVES.index(part["part"]) if known else len(_CURVES), int(part["block"]))


def _map(parts: Sequence[Value], limit: float, name: str) -> Figure:
    blocks = sorted({int(part["block"]) for part in parts})
    found: dict[str, dict[int, float]] = {}
    for part in parts:
        found.setdefault(_name(part), {})[int(part["block"])] = part["relative_l2"]
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
    drawing = charts.cell_map(captions, rows, [str(block) for block in blocks], limit)
    return Figure(captions.title, captions.alt, drawing)
