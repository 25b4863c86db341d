"""``compare.json`` as a document: the advice, both sides, and the pictures that differ."""

from __future__ import annotations

from collections.abc import Iterator

from vim_deploy.report import charts
from vim_deploy.report.charts import Captions, Dot, DotRow, Limit, told
from vim_deploy.report.compare_found import answers, pictures_shown
from vim_deploy.report.document import (
    Document,
    Facts,
    Item,
    Items,
    Section,
    Table,
    Text,
    Value,
    command_section,
    environment_section,
    image_size,
    made_by,
    notes_section,
    number,
    share,
    size_of,
)

#: Columns of ``side_rows``.
COLUMNS = ("", "A", "B", "B / A")


def compare_document(value: Value) -> Document:
    """The report of one ``compare``.

    Args:
        value: the record; ``thumbnails`` beside it has small pictures by name, as data URIs.
    """
    pictures = value["pictures"]
    advice = value["advice"]["sentence"]
    unread = [f"{item['file']}: {item['why']}" for item in pictures["unread"]]
    return Document(
        title=f"{value['a']['name']} (A) or {value['b']['name']} (B)?",
        passed=value["passed"],
        verdict=[f"{advice[:1].upper()}{advice[1:]}.", *value["failures"]],
        made_by=made_by(value),
        sections=[
            Section("sides", "Both sides", [*_sides(value)]),
            Section("answers", "Answers", [*answers(value)]),
            *pictures_shown(value),
            Section("unread", "Pictures that could not be read", [Items(unread)] if unread else []),
            Section("time", "Time", [*_time(value)]),
            notes_section(value["notes"]),
            Section("method", "What was compared", [Facts([*_method(value)])]),
            environment_section(value.get("environment")),
            command_section(value["command"]),
        ],
    )


def side_rows(value: Value) -> Iterator[tuple[str, str, str, str]]:
    """Both sides row by row, with B over A where there is a ratio."""
    a, b = value["a"], value["b"]
    yield "file", a["name"], b["name"], ""
    form_a, form_b = (f"{side['kind']}, {side['precision']}" for side in (a, b))
    yield "form", form_a, form_b, ""
    yield "size", size_of(a["bytes"]), size_of(b["bytes"]), _plain_ratio(value["size_ratio"])
    yield "runs in", a["runtime"], b["runtime"], ""
    yield from _accuracy_rows(value["found"])
    for found in (value["time"] or {"batches": ()})["batches"]:
        yield from _batch_rows(found)


def _accuracy_rows(found: Value) -> Iterator[tuple[str, str, str, str]]:
    if found["kind"] != "classes":
        return
    accuracy, images = found["accuracy"], found["images"]
    for top in (1, 5):
        rights = [accuracy[f"top{top}_{side}"] for side in "ab"] if accuracy else [None]
        if None not in rights:
            right_a, right_b = (f"{share(right / images)} ({right})" for right in rights)
            yield f"top-{top}", right_a, right_b, ""
    if found["no_answer_a"] or found["no_answer_b"]:
        yield "NaN or Inf", str(found["no_answer_a"]), str(found["no_answer_b"]), ""


def _batch_rows(found: Value) -> Iterator[tuple[str, str, str, str]]:
    a, b, batch = found["a"], found["b"], found["batch"]
    usual = [_usual(side["latency"]) for side in (a, b)]
    name = (
        "median"
        if all(side["latency"] and side["latency"]["p50_ms"] for side in (a, b))
        else "mean"
    )
    time_a, time_b = (
        _milliseconds(item, side.get("reason", ""))
        for item, side in zip(usual, (a, b), strict=True)
    )
    yield f"{name} time, batch {batch}", time_a, time_b, _ratio(found["ratio"])
    slow = [side["latency"] and side["latency"]["p90_ms"] for side in (a, b)]
    if all(slow):
        slow_a, slow_b = (f"{number(item['value'])} ms" for item in slow)
        yield f"p90, batch {batch}", slow_a, slow_b, ""
    memory_a, memory_b = (side["memory_bytes"] for side in (a, b))
    quotient = memory_b / memory_a if memory_a and memory_b else None
    yield f"memory, batch {batch}", size_of(memory_a), size_of(memory_b), _plain_ratio(quotient)
    gpu_a, gpu_b = (side.get("device_bytes") for side in (a, b))
    if gpu_a or gpu_b:
        yield f"GPU memory, batch {batch}", size_of(gpu_a), size_of(gpu_b), ""


def _usual(latency: Value | None) -> Value | None:
    """The median, or the mean of few calls; None where nothing was measured."""
    found: Value | None = latency and (latency["p50_ms"] or latency["mean_ms"])
    return found


def _milliseconds(found: Value | None, reason: str) -> str:
    if found is None:
        return reason
    return f"{number(found['value'])} ms ({number(found['low'])} to {number(found['high'])})"


def _ratio(found: Value | None) -> str:
    if found is None:
        return ""
    return f"{number(found['value'])} ({number(found['low'])} to {number(found['high'])})"


def _plain_ratio(found: float | None) -> str:
    return "" if found is None else number(found)


def _sides(value: Value) -> Iterator[Item]:
    yield Table("Both sides, and B over A", COLUMNS, [*side_rows(value)], frozenset({0, 1, 2, 3}))
    if value["time"] is None:
        yield Text(f"Time and memory were not measured: {value['untimed']}.")


def _time(value: Value) -> Iterator[Item]:
    time = value["time"]
    if time is None:
        return
    rows = [
        DotRow(
            f"batch {found['batch']}",
            _ratio(found["ratio"]),
            [Dot(0, *(found["ratio"][key] for key in ("value", "low", "high")))],
        )
        for found in time["batches"]
        if found["ratio"] is not None
    ]
    if rows:
        captions = Captions(
            "Time of B over that of A",
            "Ratio of medians, measured in turns, with 95 % intervals; above 1 B is slower: "
            + told(rows),
            "time ratio",
            "figure-time",
        )
        limit = Limit(1.0, "as fast")
        yield charts.dots(captions, rows, ["time ratio"], limit=limit, logarithmic=True)
    yield Text(
        f"One call after another on {time['threads']} threads, {number(time['duration'])} s for "
        f"each side and batch size after {number(time['warmup'])} s of warm-up. Clock: "
        f"{time['clock']}."
    )


def _method(value: Value) -> Iterator[tuple[str, str]]:
    pictures = value["pictures"]
    yield "pictures", f"{pictures['images']} of {pictures['folder']}"
    yield "true classes", str(pictures["classes_by"])
    for line in pictures["left_out"]:
        yield "beside the pictures", str(line)
    for name, side in (("A", value["a"]), ("B", value["b"])):
        yield f"{name}: output", f"{side['head']}, pictures of {image_size(side['image'])}"
        yield f"{name}: weights", str(side["checkpoint"])
        if side["sha256"]:
            yield f"{name}: SHA-256", str(side["sha256"])
        if side.get("kernels"):
            yield f"{name}: kernels", str(side["kernels"])
    for name, limit in value["limits"].items():
        if limit is not None:
            yield name.replace("_", " "), f"{limit:g}"
