"""The README's table and sentences from ``scaling.json``, so that no figure is typed by hand.

    python benchmarks/scaling_readme.py [FOLDER]

Prints Markdown. Ratios are Vim's with native ops over the others', inside one run, turned round
from the stored ones, whose base it is: a ratio of medians and its interval turn round exactly.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling_report import Entry, measured, name_of

#: Lines beside Vim with native ops, by what they are called in results and in the table.
_OTHERS = {
    "function bodies": "function bodies",
    "DeiT eager": "DeiT, plain",
    "DeiT sdpa": "DeiT, sdpa",
    "DeiT flash": "DeiT, flash",
}
_SPOKEN = {
    "function bodies": "the function bodies",
    "DeiT eager": "DeiT with plain attention",
    "DeiT sdpa": "DeiT with sdpa",
    "DeiT flash": "DeiT with flash attention",
}
_MODELS = {"vim-tiny": "Vim-Ti", "vim-small": "Vim-S", "vim-base": "Vim-B"}
_COLUMNS = ("model", "image", "threads", "native ops", *_OTHERS.values())


def lines_of(entry: Entry) -> dict[str, Mapping[str, Any]]:
    """The measurements in ONNX Runtime by the names above; ``native ops`` is Vim with them."""
    found = {}
    for result in entry["results"]:
        if result["status"] == "ok" and result["runner"] != "pytorch":
            name = name_of(entry, result).removeprefix(f"{entry['model']} ")
            kind = name.split()
            found[f"DeiT {kind[-1]}" if kind[0].startswith("DeiT") else name] = result
    return found


def ratios_of(entry: Entry) -> dict[str, tuple[float, float, float, float | None]]:
    """Vim's time with native ops over that of the others (value, low, high), and its memory."""
    found = {}
    stored = {(ratio["of"], ratio["of_runner"]): ratio for ratio in entry["ratios"]}
    for name, result in lines_of(entry).items():
        ratio = stored.get((result["label"], result["runner"]))
        if ratio is not None:
            time, memory = ratio["time"], ratio["model_memory"]
            turned = (1 / time["value"], 1 / time["high"], 1 / time["low"])
            found[name] = (*turned, 1 / memory if memory else None)
    return found


def section(value: Mapping[str, Any]) -> str:
    """All of it."""
    entries = measured(value["entries"], "inference")
    tables = (
        ("Milliseconds for one image (in brackets: Vim's time over that)", _time),
        ("MB of memory above the empty runtime's (in brackets: Vim's over that)", _memory),
    )
    parts = []
    for title, cell in tables:
        rows = [_row(entry, cell) for entry in entries]
        parts.append("\n".join([f"{title}:", "", *_table(rows)]))
    return "\n\n".join([*parts, *_sentences(entries)]) + "\n"


def _row(entry: Entry, cell: Any) -> tuple[str, ...]:  # noqa: ANN401 - one of two functions
    lines, ratios = lines_of(entry), ratios_of(entry)
    names = ("native ops", *_OTHERS)
    figures = (cell(lines.get(name), ratios.get(name)) for name in names)
    model = _MODELS.get(entry["model"], entry["model"])
    return (model, str(entry["size"]), str(entry["threads"]), *figures)


def _time(result: Mapping[str, Any] | None, ratio: Sequence[float | None] | None) -> str:
    if result is None:
        return "-"
    return _short(result["ms"]["value"]) + (f" ({ratio[0]:.2f})" if ratio else "")


def _memory(result: Mapping[str, Any] | None, ratio: Sequence[float | None] | None) -> str:
    if result is None or not result["model_bytes"]:
        return "-"
    turned = f" ({ratio[3]:.2f})" if ratio and ratio[3] else ""
    return _short(result["model_bytes"] / 1e6) + turned


def _short(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(_COLUMNS) + " |"
    yield "|---|" + "--:|" * (len(_COLUMNS) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _sentences(entries: Sequence[Entry]) -> Iterator[str]:
    """What each model's smallest and largest image show, with intervals."""
    for model in dict.fromkeys(entry["model"] for entry in entries):
        own = sorted(
            (entry for entry in entries if entry["model"] == model),
            key=lambda entry: (entry["threads"], entry["size"]),
        )
        for threads in dict.fromkeys(entry["threads"] for entry in own):
            at = [entry for entry in own if entry["threads"] == threads]
            for place in dict.fromkeys((0, len(at) - 1)):
                said = _said(at[place])
                if said:
                    yield said


def _said(entry: Entry) -> str:
    ratios = ratios_of(entry)
    if not ratios:
        return ""
    parts = [
        f"{value:.2f} ({low:.2f} to {high:.2f}) of the time of {_SPOKEN[name]}"
        + (f" and {memory:.2f} of the memory" if memory else "")
        for name, (value, low, high, memory) in ratios.items()
    ]
    many = "s" if entry["threads"] > 1 else ""
    return (
        f"{_MODELS.get(entry['model'], entry['model'])} with native ops at {entry['size']} px on "
        f"{entry['threads']} thread{many} takes " + "; ".join(parts) + "."
    )


if __name__ == "__main__":
    usual = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core" / "scaling"
    place = Path(sys.argv[1]) if sys.argv[1:] else usual
    print(section(json.loads((place / "scaling.json").read_text(encoding="utf-8"))), end="")
