"""What ``scaling.py`` found, as a figure and a page of Markdown.

    python benchmarks/scaling_report.py FOLDER

makes both again from the ``scaling.json`` in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vim_deploy.bench.stats import PowerLaw, fit_power_law
from vim_deploy.bench.subject import NATIVE_OPS, PYTORCH
from vim_deploy.files import write_bytes
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
from vim_deploy.report.write import markdown
from vim_deploy.text import json_text

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
    """``scaling.json`` with its fits, ``.md``, and the figure ``.svg`` in ``folder``."""
    few = min((entry["threads"] for entry in entries), default=1)
    kinds = (("inference", inference(entries, "time", few)), *stage_lines(entries))
    fits = [
        {"what": what, "name": name, "tokens": sorted(line), **_fit(line).__dict__}
        for what, lines in kinds
        for name, line in lines.items()
        if len(line) >= _FEWEST
    ]
    write_compact(folder / "scaling.json", {**value, "entries": list(entries), "fits": fits})
    document = as_document(value, entries, fits)
    write_bytes(folder / "scaling.md", markdown(document).encode())
    drawings = [figure.drawing for figure in figures(entries)][:3]
    if drawings:
        alt = "; ".join(f"{d.findtext('title')}: {d.findtext('desc')}" for d in drawings)
        whole = svg.beside(drawings, "Cost against image size", alt, "scaling")
        write_bytes(folder / "scaling.svg", svg.standalone(whole).encode())


def write_compact(path: Path, value: Mapping[str, Any]) -> None:
    """JSON without spaces: the file is kept with the source, and read by programs."""
    write_bytes(path, (json_text(value, compact=True) + "\n").encode())


def _fit(line: Mapping[int, float]) -> PowerLaw:
    return fit_power_law(list(line), list(line.values()))


def measured(entries: Sequence[Entry], stage: str) -> list[Entry]:
    """The entries of a stage that have figures."""
    return [entry for entry in entries if entry["stage"] == stage and entry["status"] == "ok"]


def inference(entries: Sequence[Entry], kind: str, threads: int, model: str = "") -> Lines:
    """Milliseconds (``time``) or megabytes (``memory``) of each line of the figure against tokens.

    Args:
        model: with its DeiT; all models where it is empty.
    """
    lines: Lines = {}
    for entry in measured(entries, "inference"):
        if entry["threads"] != threads or model not in ("", entry["model"]):
            continue
        for result in entry["results"]:
            if result["status"] != "ok" or result["runner"] == PYTORCH:
                continue
            known = result["ms"]["value"] if kind == "time" else (result["model_bytes"] or 0) / 1e6
            if known > 0:
                line = lines.setdefault(name_of(entry, result), {})
                line[int(result["tokens"])] = float(known)
    return lines


def name_of(entry: Entry, result: Mapping[str, Any]) -> str:
    """What a measurement is called here: file names have the size in them."""
    if result["label"].startswith("DeiT"):
        return str(result["label"])
    if result["runner"] == PYTORCH:
        return str(entry["model"])
    native = result["runner"].endswith(NATIVE_OPS)
    return f"{entry['model']} {'native ops' if native else 'function bodies'}"


def stage_lines(entries: Sequence[Entry]) -> Iterator[tuple[str, Lines]]:
    """Seconds of each stage of each model against tokens."""
    for what, (stage, key) in _TIMES.items():
        lines: Lines = {}
        for entry in measured(entries, stage):
            if entry[key] > 0:
                lines.setdefault(entry["model"], {})[int(entry["tokens"])] = float(entry[key])
        yield what, lines


def figures(entries: Sequence[Entry]) -> list[Figure]:
    """Of each model time and memory on the fewest threads, time on more; then the stages."""
    found = []
    models = list(dict.fromkeys(entry["model"] for entry in entries))
    counts = sorted({entry["threads"] for entry in measured(entries, "inference")})
    for model in models:
        for number_, threads in enumerate(counts):
            on = f"{threads} thread{'s' if threads > 1 else ''}"
            kinds = [("time", f"Time of one image, {on}", "milliseconds")]
            kinds += [("memory", "Memory of one image", "MB")] if number_ == 0 else []
            for kind, title, unit in kinds:
                lines = inference(entries, kind, threads, model)
                found += _figure(title, unit, lines, entries, f"{model}-{kind}-{threads}")
    stages = list(stage_lines(entries))
    first = {what: lines[models[0]] for what, lines in stages if models and models[0] in lines}
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
        title="Cost against image size",
        passed=None,
        verdict=list(_sentences(entries, fits)),
        made_by=f"benchmarks/scaling.py, {value['state']['date']}",
        sections=[
            Section("figures", "Figures", figures(entries)),
            Section("growth", "Growth", list(_growth(fits))),
            Section("inference", "Inference in ONNX Runtime", list(_inference(value, entries))),
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
                f"Time of {fit['name']} grows with tokens to the power "
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


def _inference(value: Mapping[str, Any], entries: Sequence[Entry]) -> Iterator[Item]:
    rows = []
    for entry in measured(entries, "inference"):
        ratios = {(r["of"], r["of_runner"]): r for r in entry["ratios"]}
        for result in entry["results"]:
            runtime = "PyTorch" if result["runner"] == PYTORCH else "ONNX Runtime"
            place = (str(entry["size"]), str(entry["threads"]))
            name = (*place, name_of(entry, result), runtime)
            if result["status"] != "ok":
                rows.append((*name, f"{result['status']}: {result['reason']}", *["-"] * 4))
                continue
            ratio = ratios.get((result["label"], result["runner"]), {})
            times = (_spread(result["ms"]), _spread(result["cpu_ms"]))
            over = (_spread(ratio.get(key)) if ratio else "1" for key in ("time", "cpu_time"))
            rows.append((*name, *times, size_of(result["model_bytes"]), *over))
    columns = (
        *("image", "threads", "model", "runtime", "ms (95 %)", "CPU ms (95 %)", "memory"),
        *("time over Vim's", "CPU time over Vim's"),
    )
    if rows:
        yield Table("One image; each group in turns", columns, rows, frozenset({2, 3}))
        yield Text(
            "Ratios refer to Vim with native ops, the first line of each group: medians inside one "
            "run. DeiT: eager is plain attention, sdpa PyTorch's fused function, which ONNX spells "
            "out again, flash ONNX Runtime's MultiHeadAttention. Memory: peak while running, less "
            "the empty runtime's."
        )
        yield Text(f"{value['library']['sentence']}.")


def _spread(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "-"
    low, high = number(estimate["low"]), number(estimate["high"])
    return f"{number(estimate['value'])} ({low} to {high})"


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
            place += f" on {entry['threads']}" if entry["stage"] == "inference" else ""
            sentences.append(f"{place}: {entry['status']}; {entry['reason']}")
    if sentences:
        yield Items(sentences)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    stored = json.loads((place / "scaling.json").read_text(encoding="utf-8"))
    kept = stored.pop("entries")
    write_report(stored, kept, place)
