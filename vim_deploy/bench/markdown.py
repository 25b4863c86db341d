"""A benchmark report for people: the table, and everything that is needed to believe it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Columns of the table of results, on the terminal and in ``bench.md``.
COLUMNS = (
    "model",
    "runtime",
    "image",
    "batch",
    "p50 ms (95 %)",
    "p90",
    "p95",
    "p99",
    "images/s",
    "memory MB",
    "time ratio",
)


def result_rows(value: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The table's rows from a report's dictionary."""
    ratios = {
        (entry["group"], entry["of"], entry["of_runner"]): entry["time"]
        for entry in value["ratios"]
    }
    for result in value["results"]:
        height, width = result["image"]
        name = (result["label"], result["runner"], f"{height}x{width}", str(result["batch"]))
        if result["status"] != "ok":
            yield (*name, f"{result['status']}: {result['reason']}", *[""] * 6)
            continue
        latency = result["latency"]
        ratio = ratios.get((result["group"], result["label"], result["runner"]))
        yield (
            *name,
            _with_interval(latency["p50_ms"]),
            *(_one(latency[f"p{q}_ms"]) for q in (90, 95, 99)),
            _number(result["images_per_second"]["value"]),
            _memory(result["memory"]),
            "1" if ratio is None else _with_interval(ratio),
        )


def as_markdown(value: Mapping[str, Any]) -> str:
    """The whole report as Markdown, from its dictionary."""
    machine, state = value["machine"], value["state"]
    lines = [
        "# Benchmark",
        "",
        *_table(COLUMNS, list(result_rows(value))),
        "",
        "Time ratio: median over that of the first line of the same image and batch size, "
        "measured in turns. Memory: peak while running, less the runtime's own; for engines also "
        "what engine, context and buffers take of the GPU's.",
        "",
        *_scaling(value["scaling"]),
        *_comparison(value["comparison"]),
        *_list("Notes", value["notes"]),
        *_list(
            "Machine",
            [f"{key}: {machine[key]}" for key in machine]
            + [f"{key}: {state[key]}" for key in state if key != "versions"]
            + [f"{name} {number}" for name, number in state["versions"].items()],
        ),
        *_list("Method", [f"{key}: {text}" for key, text in value["method"].items()]),
        "## Command",
        "",
        "    " + " ".join(value["command"]),
        "",
    ]
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
    ]


def _scaling(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    if not entries:
        return []
    rows = [
        (
            entry["label"],
            entry["runner"],
            str(entry["batch"]),
            f"{entry['tokens'][0]} to {entry['tokens'][-1]}",
            scaling_text(entry),
        )
        for entry in entries
    ]
    columns = ("model", "runtime", "batch", "tokens", "time grows with tokens to the power")
    return ["## Scaling", "", *_table(columns, rows), ""]


def scaling_text(entry: Mapping[str, Any]) -> str:
    """The exponent of one curve with its standard error."""
    error = entry["exponent_standard_error"]
    spread = "" if error is None else f" (standard error {error:.2f})"
    return f"{entry['exponent']:.2f}{spread}"


def _comparison(comparison: Mapping[str, Any] | None) -> list[str]:
    if comparison is None:
        return []
    rows = [
        (entry["what"], entry["figure"], f"{100 * (entry['ratio'] - 1):+.1f} %", entry["verdict"])
        for entry in comparison["entries"]
    ]
    title = f"## Against {comparison['baseline']}, at most {comparison['max_regress']:.1%} worse"
    return [title, "", *_table(("measurement", "figure", "change", ""), rows), ""]


def _list(title: str, items: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {item}" for item in items), ""] if items else []


def _number(value: float) -> str:
    """Four significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _one(estimate: Mapping[str, float] | None) -> str:
    return "-" if estimate is None else _number(estimate["value"])


def _with_interval(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "-"
    low, high = _number(estimate["low"]), _number(estimate["high"])
    return f"{_number(estimate['value'])} ({low} to {high})"


def _memory(memory: Mapping[str, Any]) -> str:
    """Host memory, and what an engine takes of the GPU's."""
    host, device = _megabytes(memory["model_bytes"]), memory.get("device")
    if device is None:
        return host
    taken = device["engine"] + device["context"] * device["contexts"] + device["buffers"]
    return f"{host} + GPU {_megabytes(taken)}"


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.0f}"
