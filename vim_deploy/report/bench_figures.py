"""Figures of a benchmark report, from its dictionary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vim_deploy.bench.table import device_bytes
from vim_deploy.report import charts
from vim_deploy.report.charts import BarRow, Captions, Curve, Dot, DotRow, Limit
from vim_deploy.report.document import Figure
from vim_deploy.report.text import image_size, number, size_of

Value = Mapping[str, Any]

#: Figures of latency, and rows of a figure, that a page has room for.
MOST_GROUPS = 8
MOST_ROWS = 30
_PERCENTILES = (50, 90, 95, 99)
#: Slowest over fastest above which a latency figure has a logarithmic axis.
_WIDE = 12.0


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
        "Percentiles of the time of one call; the median with its 95 % interval: "
        + "; ".join(f"{row.name} {row.text}" for row in rows)
        + ".",
        "milliseconds",
        f"figure-latency-{place}",
    )
    values = [dot.value for row in rows for dot in row.dots]
    wide = min(values) > 0 and max(values) / min(values) > _WIDE
    names = [f"p{q}" for q in _PERCENTILES]
    drawing = charts.dots(captions, rows, names, logarithmic=wide)
    return Figure(captions.title, captions.alt, drawing)


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
        "Ratio of medians inside one run, with 95 % intervals; above 1 is slower: "
        + "; ".join(f"{row.name} {row.text}" for row in rows)
        + ".",
        "time ratio",
        "figure-ratio",
    )
    drawing = charts.dots(
        captions, rows, ["time ratio"], limit=Limit(1.0, "as fast"), logarithmic=True
    )
    return Figure(captions.title, captions.alt, drawing)


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
        "Peak resident memory of the model, above the empty runtime's own: "
        + "; ".join(f"{row.name} {row.text}" for row in rows)
        + ".",
        "MB",
        "figure-memory",
    )
    gpu = any(len(row.lengths) > 2 for row in rows)
    names = ["model", "runtime", *(["GPU"] if gpu else [])]
    return Figure(captions.title, captions.alt, charts.bars(captions, rows, names))


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
        drawing = charts.curves(captions, found, axis, x_ticks=ticks, logarithmic_x=True)
        yield Figure(captions.title, captions.alt, drawing)


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
        "Above 1 is worse than then: " + "; ".join(f"{row.name} {row.text}" for row in rows) + ".",
        "ratio",
        "figure-comparison",
    )
    limit = Limit(1 + comparison["max_regress"], "largest allowed")
    drawing = charts.dots(captions, rows, ["ratio"], limit=limit)
    return Figure(captions.title, captions.alt, drawing)
