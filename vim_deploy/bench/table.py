"""The results of a report as rows of text, for terminals and pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Columns of the table of results.
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


def scaling_text(entry: Mapping[str, Any]) -> str:
    """The exponent of one curve with its standard error."""
    error = entry["exponent_standard_error"]
    spread = "" if error is None else f" (standard error {error:.2f})"
    return f"{entry['exponent']:.2f}{spread}"


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


def device_bytes(memory: Mapping[str, Any]) -> int | None:
    """What engine, contexts and buffers take of the GPU's memory; None without an engine."""
    device = memory.get("device")
    if device is None:
        return None
    return int(device["engine"] + device["context"] * device["contexts"] + device["buffers"])


def _memory(memory: Mapping[str, Any]) -> str:
    """Host memory, and what an engine takes of the GPU's."""
    host, device = _megabytes(memory["model_bytes"]), device_bytes(memory)
    return host if device is None else f"{host} + GPU {_megabytes(device)}"


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.0f}"
