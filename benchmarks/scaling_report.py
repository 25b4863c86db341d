"""What ``scaling.py`` found, as a figure, a page, and its Markdown twin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vim_deploy.bench.stats import PowerLaw, fit_power_law
from vim_deploy.files import write_bytes, write_json
from vim_deploy.report import charts, svg
from vim_deploy.report.charts import Captions, Curve
from vim_deploy.report.document import (
    Document,
    Figure,
    Item,
    Items,
    Section,
    Table,
    Text,
    command_section,
    environment_section,
    number,
    size_of,
)
from vim_deploy.report.write import html, markdown

Entry = Mapping[str, Any]
#: Name -> tokens -> value.
Lines = dict[str, dict[int, float]]

#: Fewer points than this do not show a curve.
_FEWEST = 3
#: Stage -> where its seconds stand in an entry, and what it is called.
_TIMES = {
    "export": ("export", "export_seconds"),
    "fusion passes": ("export", "passes_seconds"),
    "verify": ("verify", "seconds"),
    "TensorRT-RTX build": ("build", "build_seconds"),
}


def write_report(value: Mapping[str, Any], entries: Sequence[Entry], folder: Path) -> None:
    """``scaling.json`` with its fits, ``.md``, ``.html``, and the figure ``.svg`` in ``folder``."""
    fits = [
        {"what": what, "name": name, "tokens": sorted(line), **_fit(line).__dict__}
        for what, lines in (("inference", inference(entries, "time")), *stage_lines(entries))
        for name, line in lines.items()
        if len(line) >= _FEWEST
    ]
    write_json(folder / "scaling.json", {**value, "entries": list(entries), "fits": fits})
    document = as_document(value, entries, fits)
    write_bytes(folder / "scaling.md", markdown(document).encode())
    write_bytes(folder / "scaling.html", html(document).encode())
    drawings = [figure.drawing for figure in figures(entries)][:3]
    if drawings:
        alt = "; ".join(f"{d.findtext('title')}: {d.findtext('desc')}" for d in drawings)
        whole = svg.beside(drawings, "Cost against image size", alt, "scaling")
        write_bytes(folder / "scaling.svg", svg.standalone(whole).encode())


def _fit(line: Mapping[int, float]) -> PowerLaw:
    return fit_power_law(list(line), list(line.values()))


def measured(entries: Sequence[Entry], stage: str) -> list[Entry]:
    """The entries of a stage that have figures."""
    return [entry for entry in entries if entry["stage"] == stage and entry["status"] == "ok"]


def inference(entries: Sequence[Entry], kind: str) -> Lines:
    """Milliseconds (``time``) or megabytes (``memory``) of each model against tokens."""
    lines: Lines = {}
    for entry in measured(entries, "inference"):
        for result in entry["results"]:
            if result["status"] != "ok" or result["runner"] == "pytorch":
                continue
            if kind == "time":
                latency = result["latency"]
                figure = (latency["p50_ms"] or latency["mean_ms"])["value"]
            else:
                figure = (result["memory"]["model_bytes"] or 0) / 1e6
            vim = result["tokens"] == entry["tokens"] and not result["label"].startswith("DeiT")
            name = entry["model"] if vim else result["label"]
            if figure > 0:
                lines.setdefault(name, {})[int(result["tokens"])] = float(figure)
    return lines


def stage_lines(entries: Sequence[Entry]) -> Iterator[tuple[str, Lines]]:
    """Seconds of each stage of each model against tokens."""
    for what, (stage, key) in _TIMES.items():
        lines: Lines = {}
        for entry in measured(entries, stage):
            if entry[key] > 0:
                lines.setdefault(entry["model"], {})[int(entry["tokens"])] = float(entry[key])
        yield what, lines


def figures(entries: Sequence[Entry]) -> list[Figure]:
    """Inference time, its memory, the stages of the first model, and each stage of all models."""
    found = []
    kinds = (("time", "Inference, ONNX Runtime, one image", "milliseconds"),)
    kinds += (("memory", "Memory of inference, one image", "MB"),)
    for kind, title, unit in kinds:
        found += _figure(title, unit, inference(entries, kind), entries, kind)
    stages = list(stage_lines(entries))
    models = list(dict.fromkeys(entry["model"] for entry in entries))
    first = {what: lines[models[0]] for what, lines in stages if models[0] in lines}
    found += _figure(f"Stages of {models[0]}", "seconds", first, entries, "stages")
    for what, lines in stages:
        if len(models) > 1:
            found += _figure(f"Time of {what}", "seconds", lines, entries, what.replace(" ", "-"))
    return found


def _figure(
    title: str, unit: str, lines: Lines, entries: Sequence[Entry], name: str
) -> list[Figure]:
    if not lines:
        return []
    ticks = {float(entry["tokens"]): str(entry["size"]) for entry in entries}
    found = [
        Curve(key, sorted((float(x), y) for x, y in line.items())) for key, line in lines.items()
    ]
    ends = [f"{c.name} {number(c.points[0][1])} to {number(c.points[-1][1])} {unit}" for c in found]
    captions = Captions(
        title, f"From the smallest to the largest image: {'; '.join(ends)}.", unit, f"figure-{name}"
    )
    axis = "image size in pixels, spaced by log of tokens"
    places = list(ticks.items())
    return [charts.curves(captions, found, axis, x_ticks=places, logarithmic_x=True)]


def as_document(
    value: Mapping[str, Any], entries: Sequence[Entry], fits: Sequence[Mapping[str, Any]]
) -> Document:
    """Figures, tables, and what is not in them and why."""
    return Document(
        title="Cost of every stage against image size",
        passed=None,
        verdict=list(_sentences(entries, fits)),
        made_by=f"benchmarks/scaling.py, {value['state']['date']}",
        sections=[
            Section("figures", "Figures", figures(entries)),
            Section("growth", "Growth", list(_growth(fits))),
            Section("inference", "Inference", list(_inference(entries))),
            Section("stages", "Stages", list(_stages(entries))),
            Section("missing", "What is not measured", list(_missing(entries))),
            environment_section({"machine": value["machine"], "state": value["state"]}),
            command_section(value["command"]),
        ],
    )


def _sentences(entries: Sequence[Entry], fits: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for fit in fits:
        if fit["what"] == "inference":
            yield (
                f"Inference time of {fit['name']} grows with tokens to the power "
                f"{fit['exponent']:.2f} ({fit['tokens'][0]} to {fit['tokens'][-1]} tokens)."
            )
    missing = [entry for entry in entries if entry["status"] != "ok"]
    if missing:
        yield f"{len(missing)} of {len(entries)} steps have no figure; the reasons are below."


def _growth(fits: Sequence[Mapping[str, Any]]) -> Iterator[Item]:
    if not fits:
        return
    rows = []
    for fit in fits:
        error = fit["standard_error"]
        span = f"{fit['tokens'][0]} to {fit['tokens'][-1]}"
        spread = "-" if error is None else f"{error:.2f}"
        growth = (f"{fit['exponent']:.2f}", spread, f"{fit['r_squared']:.3f}")
        rows.append((fit["what"], fit["name"], span, *growth))
    columns = ("what", "model", "tokens", "exponent", "standard error", "R squared")
    yield Table("Exponent of time against tokens", columns, rows, frozenset({0, 1}))
    yield Text(
        "Least squares on logarithms. An exponent counts where R squared is near 1; a stage that "
        "hardly depends on the image, such as the export, has one near 0."
    )


def _inference(entries: Sequence[Entry]) -> Iterator[Item]:
    rows = []
    for entry in measured(entries, "inference"):
        ratios = {(r["of"], r["of_runner"]): r["time"] for r in entry["ratios"]}
        for result in entry["results"]:
            name = (str(entry["size"]), entry["model"], result["label"], result["runner"])
            if result["status"] != "ok":
                rows.append((*name, f"{result['status']}: {result['reason']}", "-", "-"))
                continue
            latency = result["latency"]
            middle = latency["p50_ms"] or latency["mean_ms"]
            time = (
                f"{number(middle['value'])} ({number(middle['low'])} to {number(middle['high'])})"
            )
            ratio = ratios.get((result["label"], result["runner"]))
            over = (
                "1"
                if ratio is None
                else (
                    f"{number(ratio['value'])} ({number(ratio['low'])} to {number(ratio['high'])})"
                )
            )
            rows.append((*name, time, size_of(result["memory"]["model_bytes"]), over))
    columns = ("image", "group of", "model", "runtime", "ms (95 %)", "memory", "time over Vim's")
    if rows:
        yield Table("One image; each group in turns", columns, rows, frozenset({1, 2, 3}))


def _stages(entries: Sequence[Entry]) -> Iterator[Item]:
    rows = []
    for entry in entries:
        if entry["status"] == "ok" and entry["stage"] != "inference":
            for what, (stage, key) in _TIMES.items():
                if stage == entry["stage"]:
                    peak = entry.get("build_peak_bytes", entry["peak_bytes"])
                    place = (str(entry["size"]), str(entry["tokens"]), entry["model"], what)
                    rows.append((*place, number(entry[key]), size_of(peak)))
    columns = ("image", "tokens", "model", "stage", "seconds", "peak memory")
    if rows:
        yield Table("Seconds of each stage", columns, rows, frozenset({2, 3}))
        yield Text(
            "Export and passes: inside the process, without its start. Verify: the whole process, "
            "one random image, ONNX Runtime against PyTorch's reference scan. Build: the builder's "
            "process. Peak memory: of the process."
        )


def _missing(entries: Sequence[Entry]) -> Iterator[Item]:
    sentences = []
    for entry in entries:
        if entry["status"] != "ok":
            place = f"{entry['model']} at {entry['size']}, {entry['stage']}"
            sentences.append(f"{place}: {entry['status']}; {entry['reason']}")
    if sentences:
        yield Items(sentences)
