"""Time and memory against image size, as in figure 1 of the Vim paper (arXiv 2401.09417)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError, missing_package
from vim_deploy.files import atomic_output, output_errors

FORMATS = (".png", ".svg")
_PACKAGE = "matplotlib"
_MARKERS = "osD^vPX*"

#: Tokens and value of each measured point of one line.
_Curve = list[tuple[int, float]]


def check_plot(path: Path) -> None:
    """Before minutes are spent: VIM-202 for another format, VIM-301 without matplotlib."""
    if path.suffix not in FORMATS:
        raise VimDeployError(
            "VIM-202", f"cannot draw {path.name}", fix=f"a name ending in {' or '.join(FORMATS)}"
        )
    if importlib.util.find_spec(_PACKAGE) is None:
        raise missing_package(_PACKAGE, "plot", "drawing the plot")


def draw(value: Mapping[str, Any], path: Path) -> None:
    """Draw a report's dictionary to ``path``; one line for each model, runtime and batch size.

    Raises:
        VimDeployError: VIM-202, VIM-301, VIM-304 and VIM-305 (output).
    """
    check_plot(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure = Figure(figsize=(10, 4.8), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = ("time for one image", "peak memory above the empty runtime")
    for axes, kind, unit, title in zip(panels, _FIGURES, ("ms", "MB"), titles, strict=True):
        for number, (name, curve) in enumerate(curves(value, kind).items()):
            tokens, numbers = zip(*curve, strict=True)
            axes.plot(tokens, numbers, marker=_MARKERS[number % len(_MARKERS)], label=name)
        axes.set(xscale="log", yscale="log", ylabel=unit, title=title)
        axes.set_xlabel("image size in pixels, spaced by the logarithm of its tokens")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.grid(visible=True, alpha=0.25)
        sizes = _sizes(value)
        axes.set_xticks(list(sizes), list(sizes.values()))
        axes.minorticks_off()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize="small", loc="outside lower center", ncols=3)
    machine = value["machine"]
    figure.suptitle(
        f"{machine['cpu_model']}, {value['settings']['threads']} threads, {value['state']['date']}",
        fontsize="small",
    )
    with atomic_output(path) as temporary, output_errors(path):
        # No date in the file: the same report gives the same picture.
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=metadata)


def _milliseconds_for_one(result: Mapping[str, Any]) -> float | None:
    latency = result["latency"]
    return float((latency["p50_ms"] or latency["mean_ms"])["value"]) / int(result["batch"])


def _megabytes(result: Mapping[str, Any]) -> float | None:
    size = result["memory"]["model_bytes"]
    return float(size) / 1e6 if size else None


_FIGURES = {"time": _milliseconds_for_one, "memory": _megabytes}


def curves(value: Mapping[str, Any], kind: str) -> dict[str, _Curve]:
    """Points of each line, sorted by tokens; ``kind`` is ``time`` (ms) or ``memory`` (MB)."""
    found: dict[str, _Curve] = {}
    for result in value["results"]:
        if result["status"] != "ok" or result["tokens"] is None:
            continue
        number = _FIGURES[kind](result)
        if number is not None:
            name = f"{result['label']}, {result['runner']}, batch {result['batch']}"
            found.setdefault(name, []).append((int(result["tokens"]), number))
    return {name: sorted(points) for name, points in found.items()}


def _sizes(value: Mapping[str, Any]) -> dict[int, str]:
    """Image size of each number of tokens that is on the axis."""
    return {
        result["tokens"]: "x".join(str(side) for side in dict.fromkeys(result["image"]))
        for result in value["results"]
        if result["tokens"] is not None
    }
