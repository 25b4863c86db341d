"""This run against an earlier one on the same machine.

The limit applies to the median latency and to the memory of each measurement that both runs have.
The point estimates decide; both intervals are said, because runs at two times differ by more than
turns in one run do (the reason why speed is claimed as ratios from one run only).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vim_deploy.bench import environment
from vim_deploy.bench.report import SCHEMA, BenchReport, result_of
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file
from vim_deploy.untrusted import read_json

#: Settings that change what a figure means; they have to be equal.
_SETTINGS = ("threads",)
#: A report is small; more than this is another file.
_MAX_BYTES = 64 << 20
#: Differences of memory below this are noise: the kernel counts resident pages in batches for each
#: thread, and what the C library keeps of freed memory varies from run to run.
_MEMORY_NOISE = 8 << 20


def read_baseline(
    path: Path, machine: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """An earlier ``bench.json`` that this machine's figures may be compared with.

    Raises:
        VimDeployError: VIM-401 (no such file), VIM-418 (not a report of this kind, or made on
            another machine, with another number of threads or by another method).
    """

    def refuse(why: str) -> VimDeployError:
        return VimDeployError(
            "VIM-418",
            f"{path} cannot be compared with",
            why=why,
            fix="measure the baseline again here, with the same settings: vim-deploy bench ... "
            "--report FOLDER",
        )

    if require_file(path, "benchmark report").stat().st_size > _MAX_BYTES:
        raise refuse("it is too large to be a report of vim-deploy bench")
    value = read_json(path, lambda text: refuse(f"it is not JSON: {text}"))
    if not isinstance(value, dict) or "results" not in value or "machine" not in value:
        raise refuse("it is not a report of vim-deploy bench")
    if value.get("schema") != SCHEMA:
        raise refuse(f"it was made by another method (schema {value.get('schema')}, now {SCHEMA})")
    if not isinstance(value["machine"], dict) or not isinstance(value.get("settings"), dict):
        raise refuse("its machine or its settings cannot be read")
    differences = environment.differences(value["machine"], machine)
    differences += [
        f"{key}: {value['settings'].get(key)!r} then, {settings.get(key)!r} now"
        for key in _SETTINGS
        if value["settings"].get(key) != settings.get(key)
    ]
    if differences:
        raise refuse("it is from another machine or setting: " + "; ".join(differences))
    try:
        _figures_by_key(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise refuse(f"its results cannot be read: {type(error).__name__}: {error}") from error
    return value


def compared(
    report: BenchReport, baseline: Mapping[str, Any], name: str, max_regress: float
) -> BenchReport:
    """``report`` with its comparison.

    Args:
        baseline: from ``read_baseline``.
        name: of the baseline, for people.
        max_regress: largest share by which a figure may be worse: 0.05 for 5 %.

    Raises:
        VimDeployError: VIM-418 when the two have no measurement in common.
    """
    old = _figures_by_key(baseline)
    new = _figures_by_key({"results": [result_of(item) for item in report.measurements]})
    common = [key for key in new if key in old]
    if not common:
        raise VimDeployError(
            "VIM-418",
            f"{name} and this run have no measurement in common",
            why=f"there: {', '.join(sorted({key[0] for key in old})) or 'nothing'}; "
            f"here: {', '.join(sorted({key[0] for key in new})) or 'nothing'}",
            fix="measure files of the same names, runtimes, batches and image sizes",
        )
    entries = [entry for key in common for entry in _entries(key, old[key], new[key], max_regress)]
    comparison = {
        "baseline": name,
        "baseline_date": baseline.get("state", {}).get("date"),
        "max_regress": max_regress,
        "entries": entries,
        "only_in_baseline": [_what(key) for key in old if key not in new],
        "only_here": [_what(key) for key in new if key not in old],
    }
    return dataclasses.replace(report, comparison=comparison)


def require_no_regression(report: BenchReport) -> None:
    """VIM-1001 listing what became worse by more than the limit."""
    comparison = report.comparison or {"entries": []}
    worse = [entry for entry in comparison["entries"] if entry["verdict"] == "regression"]
    if worse:
        raise VimDeployError(
            "VIM-1001",
            f"{len(worse)} of {len(comparison['entries'])} figures are worse than in "
            f"{comparison['baseline']} by more than {comparison['max_regress']:.1%}",
            why="\n".join(
                f"{entry['what']}: {entry['figure']} {entry['old']} -> {entry['new']} "
                f"({100 * (entry['ratio'] - 1):+.1f} %)"
                for entry in worse
            ),
            fix="find the change that did it, or measure again on a quiet machine",
        )


_Key = tuple[str, str, int, tuple[int, ...]]
_Figures = dict[str, tuple[float, str]]


def _figures_by_key(value: Mapping[str, Any]) -> dict[_Key, _Figures]:
    """Value and text of each compared figure, for every measurement that succeeded."""
    found: dict[_Key, _Figures] = {}
    for result in value["results"]:
        if result["status"] != "ok":
            continue
        key = (result["label"], result["runner"], int(result["batch"]), tuple(result["image"]))
        p50 = result["latency"]["p50_ms"] or result["latency"]["mean_ms"]
        text = f"{p50['value']:.4g} ms ({p50['low']:.4g} to {p50['high']:.4g})"
        figures = {"latency": (_positive(p50["value"]), text)}
        size = result["memory"]["model_bytes"]
        if size:
            figures["memory"] = (_positive(size), f"{size / 1e6:.1f} MB")
        found[key] = figures
    return found


def _positive(value: Any) -> float:  # noqa: ANN401 - anything a file may hold
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{value!r} is not a positive figure")
    return number


def _is_worse(figure: str, old: float, new: float, max_regress: float) -> bool:
    if figure == "memory" and new - old < _MEMORY_NOISE:
        return False
    return new > old * (1 + max_regress)


def _entries(key: _Key, old: _Figures, new: _Figures, max_regress: float) -> list[dict[str, Any]]:
    entries = []
    for figure in old.keys() & new.keys():
        before, now = old[figure][0], new[figure][0]
        worse = _is_worse(figure, before, now, max_regress)
        entries.append(
            {
                "what": _what(key),
                "figure": figure,
                "old": old[figure][1],
                "new": new[figure][1],
                "ratio": now / before,
                "verdict": "regression" if worse else "ok",
            }
        )
    return sorted(entries, key=lambda entry: str(entry["figure"]))


def _what(key: _Key) -> str:
    label, runner, batch, image = key
    return f"{label}, {runner}, {'x'.join(map(str, image))}, batch {batch}"
