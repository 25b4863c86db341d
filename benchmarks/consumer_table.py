"""The tables of ``docs/runtimes.md`` from ``consumers.json``, so that no figure is typed by hand.

    python benchmarks/consumer_table.py [FOLDER]

Prints Markdown: what goes between the two markers of the page.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

#: Absolute, of each element against the official outputs: what the project promises for ONNX
#: Runtime.
BOUND = 1e-4
#: What the worker says of outputs with the wrong ones.
OTHER_SHAPES = "outputs of shapes"
MARKERS = ("<!-- made by benchmarks/consumer_table.py -->", "<!-- end of what it made -->")
#: By form, what the page calls it.
_TITLES = {
    "functions": "as exported",
    "scan": "standalone",
    "unrolled": "unrolled",
    "unrolled-17": "unrolled, opset 17",
}
#: Longest quotation of what a consumer says.
_WORDS = 110

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> str:
    """All of it: who computes wrongly, the table, what was refused, the commands."""
    parts = [*_warnings(rows), "\n".join(_verdicts(rows)), "\n".join(_refusals(rows))]
    return "\n\n".join([*parts, "\n".join(_commands(rows))]) + "\n"


def _title(row: Row) -> str:
    return f"{row['shown']} {row['version']}" if "," not in row["shown"] else _inside(row)


def _inside(row: Row) -> str:
    """A name with its version before what runs the result."""
    name, _, rest = row["shown"].partition(",")
    return f"{name} {row['version']},{rest}"


def _warnings(rows: Sequence[Row]) -> Iterator[str]:
    """One sentence for every consumer that gives wrong outputs without a word."""
    lines = []
    for row in rows:
        for form, said in row["forms"].items():
            if said["wrong"]:
                count = f"{len(said['wrong'])} of {said['cases']}"
                lines.append(
                    f"- **{_title(row)}, {_TITLES[form]}: wrong in {count} cases**, "
                    f"{_how(said['wrong'])}, without a word: {_names(said['wrong'])}."
                )
    if lines:
        yield "\n".join(lines)


def _how(wrong: Mapping[str, float | str]) -> str:
    """In what the outputs of wrong cases differ."""
    shapes = [text for text in wrong.values() if str(text).startswith(OTHER_SHAPES)]
    others = [value for value in wrong.values() if value not in shapes]
    worst = [f"the outputs up to {max(others, key=float)} off"] if others else []
    return " and ".join([*worst, *map(str, shapes[:1])])


def _names(names: Sequence[str] | Mapping[str, Any]) -> str:
    short = [name.partition("_")[0] if name != "vim_digits" else "the digits" for name in names]
    return ", ".join(short) if len(short) <= 6 else f"{', '.join(short[:5])} and others"


def _verdicts(rows: Sequence[Row]) -> Iterator[str]:
    titles = " | ".join(_TITLES.values())
    yield f"| consumer | {titles} |"
    yield "|---|" + "---|" * len(_TITLES)
    for row in rows:
        cells = (_cell(row["forms"].get(form), row["exact"]) for form in _TITLES)
        yield f"| {_title(row)} | {' | '.join(cells)} |"


def _cell(said: Mapping[str, Any] | None, exact: bool) -> str:
    """What a form came to."""
    if said is None:
        return "-"
    refused = sum(map(_count, said["refused"].values()))
    if refused == said["cases"]:
        return f"refused (all {refused})"
    if not exact:
        return f"{said['within']} of {said['cases']} run, {100 * said['largest']:.0f} % off"
    largest = f" ({said['largest']:.1e})" if said["within"] else ""
    parts = [f"{said['within']} of {said['cases']}{largest}"]
    if said["wrong"]:
        parts.append(f"**{len(said['wrong'])} wrong**")
    if refused:
        parts.append(f"{refused} refused")
    return ", ".join(parts)


def _count(names: Sequence[str] | int) -> int:
    return names if isinstance(names, int) else len(names)


def _refusals(rows: Sequence[Row]) -> Iterator[str]:
    """What is said by those that refuse, forms together that hear the same."""
    yield "What is said of what is refused:"
    yield ""
    for row in rows:
        heard: dict[str, list[str]] = {}
        for form, said in row["forms"].items():
            # What most cases hear; the rest is in the file of results.
            texts = sorted(said["refused"].items(), key=lambda item: -_count(item[1]))
            for text, names in texts[:1]:
                heard.setdefault(_quoted(text), []).append(_TITLES[form] + _of(names, said))
        if heard:
            parts = "; ".join(f"{_listed(forms)}: {text}" for text, forms in heard.items())
            yield f"- {_title(row)}, {parts}"


def _of(names: Sequence[str] | int, said: Mapping[str, Any]) -> str:
    """Which cases, where they are few of many."""
    if isinstance(names, int) or len(names) == said["cases"]:
        return ""
    return f" ({_names(names)})"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _quoted(text: str) -> str:
    clean = " ".join(text.replace("`", "'").replace("|", "/").split())
    return f"`{clean[:_WORDS].rstrip()}{'...' if len(clean) > _WORDS else ''}`"


def _commands(rows: Sequence[Row]) -> Iterator[str]:
    yield "Each row again, in an environment that the script makes itself:"
    yield ""
    yield "| consumer | command | what it installs | measured |"
    yield "|---|---|---|---|"
    for row in rows:
        when = f"{row['date']}, {row['commit']}"
        command = f"python benchmarks/consumers.py --only {row['name']}"
        yield f"| {_title(row)} | `{command}` | `{row['installed_by']}` | {when} |"


if __name__ == "__main__":
    usual = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core"
    place = Path(sys.argv[1]) if sys.argv[1:] else usual
    print(table(json.loads((place / "consumers.json").read_text("utf-8"))["rows"]), end="")
