"""``bench.json`` as a document: latency, memory, curves over image size, an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vim_deploy.bench.table import COLUMNS, device_bytes, result_rows, scaling_text
from vim_deploy.report import charts
from vim_deploy.report.charts import BarRow, Captions, Curve, Dot, DotRow, Limit, told
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
    image_size,
    made_by,
    notes_section,
    number,
    size_of,
)

#: Figures of latency, and rows of a figure, that a page has room for.
MOST_GROUPS = 8
MOST_ROWS = 30
_PERCENTILES = (50, 90, 95, 99)
#: Slowest over fastest above which a latency figure has a logarithmic axis.
_WIDE = 12.0


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


def measured(value: Value) -> list[Value]:
    """The measurements that have figures."""
    return [result for result in value["results"] if result["status"] == "ok"]


def groups_of(value: Value) -> list[list[Value]]:
    """The measurements by group: the same image and batch size, measured in turns."""
    found: dict[int, list[Value]] = {}
    for result in measured(value):
        found.setdefault(int(result["group"]), []).append(result)
    return list(found.values())


def latency_figure(group: Sequence[Value], place: int) -> Figure:
    """Percentiles of every measurement of one group."""
    rows = []
    for result in group:
        name = f"{result['label']}, {result['runner']}"
        rows.append(_latency_row(name, result["latency"]))
        if result["device_latency"] is not None:
            rows.append(_latency_row(f"{name}, device clock", result["device_latency"]))
    image, batch = image_size(group[0]["image"]), group[0]["batch"]
    captions = Captions(
        f"Latency at {image}, batch {batch}",
        "Percentiles of the time of one call; the median with its 95 % interval: " + told(rows),
        "milliseconds",
        f"figure-latency-{place}",
    )
    values = [dot.value for row in rows for dot in row.dots]
    wide = min(values) > 0 and max(values) / min(values) > _WIDE
    names = [f"p{q}" for q in _PERCENTILES]
    return charts.dots(captions, rows, names, logarithmic=wide)


def _latency_row(name: str, latency: Value) -> DotRow:
    """The percentiles that enough calls were made for; without any, the mean."""
    dots = []
    for series, q in enumerate(_PERCENTILES):
        found = latency[f"p{q}_ms"]
        if found is not None:
            ends = (found["low"], found["high"]) if q == _PERCENTILES[0] else (None, None)
            dots.append(Dot(series, found["value"], *ends))
    if latency["p50_ms"] is not None:
        return DotRow(name, f"{number(latency['p50_ms']['value'])} ms", dots)
    mean = latency["mean_ms"]
    text = f"mean {number(mean['value'])} ms"
    return DotRow(name, text, dots or [Dot(0, mean["value"], mean["low"], mean["high"])])


def ratio_figure(value: Value) -> Figure | None:
    """Time over that of the first model of the same group, with its interval."""
    ratios = value["ratios"][:MOST_ROWS]
    if not ratios:
        return None
    rows = [
        DotRow(
            f"{ratio['of']}, {ratio['of_runner']}, {image_size(ratio['image'])}, "
            f"batch {ratio['batch']}",
            number(ratio["time"]["value"]),
            [Dot(0, ratio["time"]["value"], ratio["time"]["low"], ratio["time"]["high"])],
        )
        for ratio in ratios
    ]
    base = f"{ratios[0]['to']}, {ratios[0]['to_runner']}"
    captions = Captions(
        f"Time over that of {base}",
        "Ratio of medians inside one run, with 95 % intervals; above 1 is slower: " + told(rows),
        "time ratio",
        "figure-ratio",
    )
    return charts.dots(
        captions, rows, ["time ratio"], limit=Limit(1.0, "as fast"), logarithmic=True
    )


def memory_figure(value: Value) -> Figure | None:
    """Memory of the model above the empty runtime, of the runtime, and of the GPU."""
    known = [r for r in measured(value) if r["memory"].get("model_bytes") is not None]
    rows = [
        BarRow(
            f"{r['label']}, {r['runner']}, {image_size(r['image'])}, batch {r['batch']}",
            size_of(r["memory"]["model_bytes"]),
            [size / 1e6 for size in _sizes(r)],
        )
        for r in known[:MOST_ROWS]
    ]
    if not rows:
        return None
    captions = Captions(
        "Memory while running",
        "Peak resident memory of the model, above the empty runtime's own: " + told(rows),
        "MB",
        "figure-memory",
    )
    gpu = any(len(row.lengths) > 2 for row in rows)
    names = ["model", "runtime", *(["GPU"] if gpu else [])]
    return charts.bars(captions, rows, names)


def _sizes(result: Value) -> list[int]:
    """Bytes of model and runtime in the process, and those on the GPU where an engine ran."""
    memory, device = result["memory"], device_bytes(result["memory"])
    host = [int(memory["model_bytes"]), int(memory["runtime_bytes"] or 0)]
    return host if device is None else [*host, device]


def _milliseconds_for_one(result: Value) -> float:
    latency = result["latency"]
    return float((latency["p50_ms"] or latency["mean_ms"])["value"]) / int(result["batch"])


def _megabytes(result: Value) -> float:
    return float(result["memory"].get("model_bytes") or 0) / 1e6


def _gpu_megabytes(result: Value) -> float:
    return float(device_bytes(result["memory"]) or 0) / 1e6


def curve_figures(value: Value) -> Iterator[Figure]:
    """Time and memory against image size, as in figure 1 of the Vim paper (arXiv 2401.09417).

    Where engines ran, also their memory on the GPU, which is what the paper's figure shows.
    """
    kinds: tuple[tuple[str, str, str, Callable[[Value], float]], ...] = (
        ("time", "Time for one image", "milliseconds", _milliseconds_for_one),
        ("space", "Memory above the empty runtime", "MB", _megabytes),
        ("gpu", "GPU memory of engine, contexts and buffers", "MB", _gpu_megabytes),
    )
    results = [result for result in measured(value) if result["tokens"] is not None]
    sizes = {float(r["tokens"]): image_size(list(dict.fromkeys(r["image"]))) for r in results}
    if len(sizes) < 2:
        return
    for name, title, unit, figure_of in kinds:
        lines: dict[str, list[tuple[float, float]]] = {}
        for result in results:
            figure = figure_of(result)
            if figure > 0:
                key = f"{result['label']}, {result['runner']}, batch {result['batch']}"
                lines.setdefault(key, []).append((float(result["tokens"]), figure))
        if not lines:
            continue
        found = [Curve(key, sorted(points)) for key, points in lines.items()]
        ends = [f"{curve.name} {number(curve.points[-1][1])} {unit}" for curve in found]
        captions = Captions(
            title,
            f"Against image size; at the largest of each: {'; '.join(ends)}.",
            unit,
            f"figure-curve-{name}",
        )
        axis = "image size in pixels, spaced by log of tokens"
        ticks = list(sizes.items())
        yield charts.curves(captions, found, axis, x_ticks=ticks, logarithmic_x=True)


def comparison_figure(comparison: Value) -> Figure:
    """Now over then, for every figure that both runs have."""
    entries = sorted(comparison["entries"], key=lambda entry: -float(entry["ratio"]))[:MOST_ROWS]
    rows = [
        DotRow(
            f"{entry['figure']}: {entry['what']}",
            f"{100 * (entry['ratio'] - 1):+.1f} %",
            [Dot(0, entry["ratio"])],
        )
        for entry in entries
    ]
    captions = Captions(
        f"Now over {comparison['baseline']}",
        "Above 1 is worse than then: " + told(rows),
        "ratio",
        "figure-comparison",
    )
    limit = Limit(1 + comparison["max_regress"], "largest allowed")
    return charts.dots(captions, rows, ["ratio"], limit=limit)
