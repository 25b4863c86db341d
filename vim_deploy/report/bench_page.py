"""``bench.json`` as a document: latency, memory, curves over image size, an earlier run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vim_deploy.bench.table import COLUMNS, device_bytes, result_rows, scaling_text
from vim_deploy.report.bench_figures import (
    MOST_GROUPS,
    comparison_figure,
    curve_figures,
    groups_of,
    latency_figure,
    memory_figure,
    ratio_figure,
)
from vim_deploy.report.common import command_section, environment_section, made_by, notes_section
from vim_deploy.report.document import Document, Facts, Item, Section, Table, Text
from vim_deploy.report.text import number, size_of

Value = Mapping[str, Any]


def bench_document(value: Value) -> Document:
    """The report of one ``bench``."""
    passed, verdict = _verdict(value)
    environment = {"machine": value["machine"], "state": value["state"]}
    return Document(
        title="Benchmark",
        passed=passed,
        verdict=verdict,
        made_by=made_by(value),
        sections=[
            Section("latency", "Latency and throughput", list(_latency(value))),
            Section("memory", "Memory", list(_memory(value))),
            Section("scaling", "Growth with the image size", list(_scaling(value))),
            Section("comparison", "Against an earlier run", list(_comparison(value["comparison"]))),
            notes_section(value["notes"]),
            Section("models", "What was measured", list(_models(value))),
            Section("method", "Method", [Facts(list(_method(value)))]),
            environment_section(environment),
            command_section(value["command"]),
        ],
    )


def _verdict(value: Value) -> tuple[bool | None, list[str]]:
    results = value["results"]
    count = {status: sum(r["status"] == status for r in results) for status in ("ok", "failed")}
    sentences = [f"{count['ok']} of {len(results)} measurements made."]
    comparison = value["comparison"]
    worse = [e for e in (comparison or {"entries": []})["entries"] if e["verdict"] != "ok"]
    if comparison:
        sentences.append(
            f"{len(worse)} of {len(comparison['entries'])} figures are worse than in "
            f"{comparison['baseline']} by more than {comparison['max_regress']:.1%}."
        )
    if count["failed"] or worse:
        return False, sentences
    return (True if comparison else None), sentences


def _latency(value: Value) -> Iterator[Item]:
    groups = groups_of(value)
    for number_, group in enumerate(groups[:MOST_GROUPS]):
        yield latency_figure(group, number_)
    ratios = ratio_figure(value)
    if ratios is not None:
        yield ratios
    if len(groups) > MOST_GROUPS:
        yield Text(f"The table has {len(groups) - MOST_GROUPS} more image and batch sizes.")
    rows = list(result_rows(value))
    bad = frozenset(
        index for index, result in enumerate(value["results"]) if result["status"] == "failed"
    )
    yield Table("Every measurement, in milliseconds", COLUMNS, rows, frozenset({0, 1}), bad)
    yield Text(
        "Time ratio: median over that of the first line of the same image and batch size, measured "
        "in turns. Memory: peak while running, less the runtime's own; and what an engine takes of "
        "the GPU's with its contexts and buffers. -: too few calls."
    )


def _memory(value: Value) -> Iterator[Item]:
    figure = memory_figure(value)
    if figure is None:
        return
    yield figure
    columns = (
        *("model", "runtime", "image", "batch"),
        *("model", "runtime", "while loading", "process", "GPU"),
    )
    rows = []
    for result, row in zip(value["results"], result_rows(value), strict=True):
        if result["status"] == "ok":
            names = ("model_bytes", "runtime_bytes", "load_peak_bytes", "process_peak_bytes")
            sizes = (size_of(result["memory"].get(name)) for name in names)
            rows.append((*row[:4], *sizes, size_of(device_bytes(result["memory"]))))
    yield Table("Resident memory, and the GPU's", columns, rows, frozenset({0, 1}))


def _scaling(value: Value) -> Iterator[Item]:
    yield from curve_figures(value)
    entries = value["scaling"]
    if not entries:
        return
    rows = [
        (
            entry["label"],
            entry["runner"],
            str(entry["batch"]),
            f"{entry['tokens'][0]} to {entry['tokens'][-1]}",
            scaling_text(entry),
            number(entry["r_squared"], 4),
        )
        for entry in entries
    ]
    columns = ("model", "runtime", "batch", "tokens", "exponent", "R squared")
    title = "Time grows with tokens to this power (least squares on logarithms)"
    yield Table(title, columns, rows, frozenset({0, 1}))


def _comparison(comparison: Value | None) -> Iterator[Item]:
    if comparison is None:
        return
    yield comparison_figure(comparison)
    rows, worse = [], set()
    for index, entry in enumerate(comparison["entries"]):
        change = f"{100 * (entry['ratio'] - 1):+.1f} %"
        rows.append(
            (entry["what"], entry["figure"], entry["old"], entry["new"], change, entry["verdict"])
        )
        if entry["verdict"] != "ok":
            worse.add(index)
    title = f"Against {comparison['baseline']} of {comparison['baseline_date']}"
    columns = ("measurement", "figure", "then", "now", "change", "")
    yield Table(title, columns, rows, frozenset({0, 1, 5}), frozenset(worse))
    for key, text in (("only_in_baseline", "Only there"), ("only_here", "Only here")):
        if comparison[key]:
            yield Text(f"{text}: {'; '.join(comparison[key])}.")


def _models(value: Value) -> Iterator[Item]:
    """Facts of each model in each runtime: hashes, weights, attention."""
    seen = []
    for result in value["results"]:
        about = (
            result["label"],
            result["runtime"] or result["runner"],
            "; ".join(f"{key}: {fact}" for key, fact in result["facts"].items()),
        )
        if about not in seen:
            seen.append(about)
    yield Table("Models", ("model", "runtime", "facts"), seen, frozenset({0, 1, 2}))


def _method(value: Value) -> Iterator[tuple[str, str]]:
    for name, text in {**value["method"], **value["settings"]}.items():
        if text is not None:
            plain = ", ".join(map(str, text)) if isinstance(text, list) else str(text)
            yield name.replace("_", " "), plain or "-"
