"""``bisect.json`` as a document: which parts a precision has to leave as they are, and why."""

from __future__ import annotations

from collections.abc import Iterator

from vim_deploy.parity.bisect import kept_how
from vim_deploy.report import charts
from vim_deploy.report.charts import Captions, Dot, DotRow, Limit, told
from vim_deploy.report.detection_items import limit_facts
from vim_deploy.report.document import (
    NOT_COMPARABLE,
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
    number,
)
from vim_deploy.report.parity_page import MOST_ROWS


def bisect_document(value: Value) -> Document:
    """The report of one ``verify --bisect``."""
    return Document(
        title=_title(value),
        passed=bool(value["kept"]["passed"]),
        verdict=[_verdict(value)],
        made_by=made_by(value),
        sections=[
            Section("compared", "What was compared", [Facts(list(_facts(value)))]),
            Section("parts", "Parts", list(_parts(value))),
            environment_section(value.get("environment")),
            command_section(value["command"]),
        ],
    )


def _title(value: Value) -> str:
    if _how(value) == "in float32":
        return f"Parts of {value['subject']} to keep in float32 for {value['precision']}"
    return f"Parts of {value['subject']} not to quantize to {value['precision']}"


def _how(value: Value) -> str:
    return kept_how(str(value["precision"]))


def _verdict(value: Value) -> str:
    if not value["units"]:
        return f"The tolerance is met with everything in {value['precision']}."
    kind = "none of them can be left out" if value["minimal"] else "the search was cut short"
    return (
        f"{len(value['units'])} of {value['parts']} parts have to stay {_how(value)}; {kind} "
        f"({value['evaluations']} models were run)."
    )


def _facts(value: Value) -> Iterator[tuple[str, str]]:
    yield "subject", str(value["subject"])
    against = value.get("against")
    if against and against["sha256"]:
        yield "reference file", str(against["name"])
        yield "SHA-256 of that", str(against["sha256"])
    yield "precision", str(value["precision"])
    yield "runs in", str(value["candidate"])
    yield "reference", str(value["reference"])
    yield "relative L2 with nothing kept", _distance(value["nothing_kept"])
    yield "relative L2 with the parts kept", _distance(value["kept"])
    yield from limit_facts(value["tolerance"])


def _distance(evaluation: Value) -> str:
    distance = evaluation["relative_l2"]
    text = "not finite" if distance is None else number(distance)
    return f"{text} ({evaluation['why']})" if evaluation["why"] else text


def _name(unit: Value) -> str:
    return f"{unit['role']}, block {unit['block']}" if unit["block"] is not None else unit["role"]


def _parts(value: Value) -> Iterator[Item]:
    tried = {(unit["role"], unit["block"]): unit for unit in value["without"]}
    if tried:
        yield _figure(value)
    rows = []
    for unit in value["units"]:
        alone = tried.get((unit["role"], unit["block"]))
        block = "-" if unit["block"] is None else str(unit["block"])
        rows.append((unit["role"], block, "not tried" if alone is None else _distance(alone)))
    if rows:
        columns = ("role", "block", "relative L2 without it")
        yield Table(f"Kept {_how(value)}", columns, rows, frozenset({0, 2}))
    else:
        yield Text("Nothing has to be kept.")


def _figure(value: Value) -> Figure:
    far = [(unit, unit["relative_l2"] or NOT_COMPARABLE) for unit in value["without"]]
    shown = sorted(far, key=lambda pair: -float(pair[1]))[:MOST_ROWS]
    rows = [DotRow(_name(unit), number(error), [Dot(0, error)]) for unit, error in shown]
    captions = Captions(
        "Distance without one of the parts",
        f"Relative L2 with all others kept, the {len(rows)} that matter most: " + told(rows),
        "relative L2",
        "figure-without",
    )
    allowed = value["tolerance"]["relative_l2"]
    limit = None if allowed is None else Limit(allowed, f"limit {allowed:g}")
    return charts.dots(captions, rows, ["relative L2"], limit=limit, logarithmic=True)
