"""This run against an earlier one on the same machine.

The limit applies to the median latency and to the memory of each measurement that both runs have.
The point estimates decide; both intervals are said, because runs at two times differ by more than
turns in one run do (the reason why speed is claimed as ratios from one run only).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy.bench import environment
from vim_deploy.bench.measure import OK
from vim_deploy.bench.report import SCHEMA, BenchReport, ComparedFigure, Comparison, Result
from vim_deploy.bench.subject import NATIVE_OPS, SubjectKey
from vim_deploy.codec import decode
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
#: The verdict on a figure that became worse by more than the limit.
REGRESSION = "regression"
#: In words: whose kernels compute our ops in ONNX Runtime.
_WAY = "the way that our ops run"
#: A nanosecond, which is what clocks count, and a year.
_SHORTEST_MS, _LONGEST_MS = 1e-6, 3.2e10


@dataclass(frozen=True)
class _State:
    """When the baseline was made."""

    date: str | None = None


@dataclass(frozen=True)
class Baseline:
    """An earlier ``bench.json``, as far as runs are compared."""

    results: tuple[Result, ...]
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    state: _State = _State()

    def __post_init__(self) -> None:
        """ValueError for times whose ratio may be no number; no clock tells such times either."""
        for latency in (item.figures.latency for item in self.results if item.figures):
            for time in (latency.usual.value, latency.mean_ms.value):
                if not _SHORTEST_MS <= time <= _LONGEST_MS:
                    raise ValueError(f"{time!r} ms is no time that was measured")


def read_baseline(path: Path, machine: Mapping[str, Any], settings: Mapping[str, Any]) -> Baseline:
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

    value = read_json(
        require_file(path, "benchmark report"),
        lambda text: refuse(f"it is not JSON: {text}"),
        max_bytes=_MAX_BYTES,
    )
    if not isinstance(value, dict) or "results" not in value or "machine" not in value:
        raise refuse("it is not a report of vim-deploy bench")
    if value.get("schema") != SCHEMA:
        raise refuse(f"it was made by another method (schema {value.get('schema')}, now {SCHEMA})")
    found = decode(value, Baseline, lambda text: refuse(f"it cannot be read: {text}"))
    differences = environment.differences(found.machine, machine)
    differences += [
        f"{key}: {found.settings.get(key)!r} then, {settings.get(key)!r} now"
        for key in _SETTINGS
        if found.settings.get(key) != settings.get(key)
    ]
    if differences:
        raise refuse("it is from another machine or setting: " + "; ".join(differences))
    return found


def compared(report: BenchReport, baseline: Baseline, name: str, max_regress: float) -> BenchReport:
    """``report`` with its comparison.

    Args:
        baseline: from ``read_baseline``.
        name: of the baseline, for people.
        max_regress: largest share by which a figure may be worse: 0.05 for 5 %.

    Raises:
        VimDeployError: VIM-418 when the two have no measurement in common.
    """
    old = _figures_by_key(baseline.results)
    new = _figures_by_key(report.results)
    require_common(baseline, new, name)
    common = [key for key in new if key in old]
    kernels = tuple(_other_kernels(common, baseline.results, report.results))
    comparison = Comparison(
        baseline=name,
        baseline_date=baseline.state.date,
        max_regress=max_regress,
        entries=tuple(
            entry for key in common for entry in _entries(key, old[key], new[key], max_regress)
        ),
        only_in_baseline=tuple(_what(key) for key in old if key not in new),
        only_here=tuple(_what(key) for key in new if key not in old),
        kernels=kernels,
    )
    notes = (f"compared with {name}: {sentence}" for sentence in kernels)
    return dataclasses.replace(report, comparison=comparison, notes=(*report.notes, *notes))


def require_common(baseline: Baseline, keys: Iterable[SubjectKey], name: str) -> None:
    """VIM-418 when no measurement is in the baseline; says what keeps the nearest two apart.

    Args:
        baseline: called ``name``.
        keys: of what was measured, or is to be.
    """
    old = _figures_by_key(baseline.results)
    there, here = sorted(old), sorted(keys)
    if any(key in old for key in here):
        return
    why = f"there: {_all_of(there)}; here: {_all_of(here)}"
    fix = "measure files of the same names, runtimes, batches and image sizes"
    pairs = [(_apart(one, other), one, other) for one in there for other in here]
    alike = [pair for pair in pairs if pair[1][0] == pair[2][0]]
    if alike:
        apart, one, other = min(alike, key=lambda pair: len(pair[0]))
        why += f"; the nearest two differ in {' and '.join(apart)}"
        if _WAY in apart:
            ways = [NATIVE_OPS if _is_native(key) else "functions" for key in (one, other)]
            why += f": {ways[0]} there, {ways[1]} here"
            fix = f"--ops {'native' if _is_native(one) else 'function'} measures what is there"
    raise VimDeployError(
        "VIM-418", f"{name} and this run have no measurement in common", why=why, fix=fix
    )


def _apart(one: SubjectKey, other: SubjectKey) -> tuple[str, ...]:
    """What two measurements of one name differ in, in words."""
    suffix = f", {NATIVE_OPS}"
    unequal = {
        "the runtime": one[1].removesuffix(suffix) != other[1].removesuffix(suffix),
        _WAY: _is_native(one) != _is_native(other),
        "the batch": one[2] != other[2],
        "the image size": one[3] != other[3],
    }
    return tuple(what for what, differs in unequal.items() if differs)


def _is_native(key: SubjectKey) -> bool:
    return key[1].endswith(f", {NATIVE_OPS}")


def _all_of(keys: Iterable[SubjectKey]) -> str:
    return " and ".join(map(_what, keys)) or "nothing"


def _other_kernels(
    common: Iterable[SubjectKey], old: Iterable[Result], new: Iterable[Result]
) -> Iterator[str]:
    """A sentence for each pair of libraries that computed the same measurement then and now."""
    # What an earlier report says there may be anything.
    then, now = ({_key(item): str(item.facts.get("library", "")) for item in some}
                 for some in (old, new))  # fmt: skip
    for before, after in dict.fromkeys((then[key], now[key]) for key in common):
        if before and after and before != after:
            yield f"other kernels then, {before}; now {after}"


def require_no_regression(report: BenchReport) -> None:
    """VIM-1001 listing what became worse by more than the limit."""
    found = report.comparison
    worse = [entry for entry in found.entries if entry.verdict == REGRESSION] if found else []
    if found and worse:
        raise VimDeployError(
            "VIM-1001",
            f"{len(worse)} of {len(found.entries)} figures are worse than in {found.baseline} by "
            f"more than {found.max_regress:.1%}",
            why="\n".join(
                f"{entry.what}: {entry.figure} {entry.old} -> {entry.new} "
                f"({100 * (entry.ratio - 1):+.1f} %)"
                for entry in worse
            )
            + "".join(f"\n{sentence}" for sentence in found.kernels),
            fix="find the change that did it, or measure again on a quiet machine",
        )


_Figures = dict[str, tuple[float, str]]


def _figures_by_key(results: Iterable[Result]) -> dict[SubjectKey, _Figures]:
    """Value and text of each compared figure, for every measurement that succeeded."""
    found: dict[SubjectKey, _Figures] = {}
    for result in results:
        if result.status != OK or result.figures is None:
            continue
        time, size = result.figures.latency.usual, result.figures.memory.model_bytes
        text = f"{time.value:.4g} ms ({time.low:.4g} to {time.high:.4g})"
        figures = {"latency": (time.value, text)}
        if size:
            figures["memory"] = (float(size), f"{size / 1e6:.1f} MB")
        found[_key(result)] = figures
    return found


def _key(result: Result) -> SubjectKey:
    return result.label, result.runner, result.batch, result.image


def _is_worse(figure: str, old: float, new: float, max_regress: float) -> bool:
    if figure == "memory" and new - old < _MEMORY_NOISE:
        return False
    return new > old * (1 + max_regress)


def _entries(
    key: SubjectKey, old: _Figures, new: _Figures, max_regress: float
) -> Iterator[ComparedFigure]:
    for figure in sorted(old.keys() & new.keys()):
        (before, old_text), (now, new_text) = old[figure], new[figure]
        verdict = REGRESSION if _is_worse(figure, before, now, max_regress) else "ok"
        yield ComparedFigure(_what(key), figure, old_text, new_text, now / before, verdict)


def _what(key: SubjectKey) -> str:
    label, runner, batch, image = key
    return f"{label}, {runner}, {'x'.join(map(str, image))}, batch {batch}"
