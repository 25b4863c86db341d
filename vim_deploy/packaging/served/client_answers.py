"""What a model's answers say, for client.py beside this."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Output arrays by name.
Outputs = dict[str, NDArray[Any]]


class ServerError(Exception):
    """The server refused a request or answered something else than was agreed."""


def printable(text: object) -> str:
    """A text of somebody else's for a terminal: what does not print is written out."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def as_exported(outputs: Outputs, facts: dict[str, Any]) -> Outputs:
    """With one number for each picture where the model gives that: Triton sends [rows, 1]."""
    single = {spec["name"] for spec in facts["outputs"] if len(spec["shape"]) == 1}
    return {
        name: values.reshape(len(values)) if name in single and values.ndim else values
        for name, values in outputs.items()
    }


def best(
    outputs: Outputs, row: int, facts: dict[str, Any], count: int
) -> list[tuple[int, str, float]]:
    """(class, label, probability) of one picture, the most probable first; [] without scores."""
    head = facts["head"].partition(":")[0]
    if head == "logits" and outputs["logits"].ndim == 2:
        values = outputs["logits"][row].astype(np.float64)
        # One logit is that of class 1 against class 0, whose logit is 0.
        values = values if len(values) > 1 else np.array([0, *values])
        powers = np.exp(values - values.max())
        scores, classes = powers / powers.sum(), np.arange(len(values))
    elif head in ("softmax", "topk"):
        scores = outputs["probabilities"][row].astype(np.float64)
        classes = outputs["classes"][row] if head == "topk" else np.arange(len(scores))
    else:
        return []
    order = np.argsort(-scores, kind="stable")[:count]
    labels = facts["labels"]
    return [
        (int(classes[i]), labels[classes[i]] if classes[i] < len(labels) else "", float(scores[i]))
        for i in order
    ]


def areas(
    outputs: Outputs, row: int, facts: dict[str, Any], count: int
) -> list[tuple[int, str, float]]:
    """(class, label, share of the pixels) of one picture, the largest first; [] without any."""
    if "labels" in outputs:
        pixels = outputs["labels"][row]
    elif "logits" in outputs and outputs["logits"].ndim == 4:
        pixels = outputs["logits"][row].argmax(axis=0)
    else:
        return []
    classes, counts = np.unique(pixels, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:count]
    labels = facts["labels"]
    return [
        (
            int(classes[i]),
            labels[classes[i]] if classes[i] < len(labels) else "",
            float(counts[i] / pixels.size),
        )
        for i in order
    ]


def summary(outputs: Outputs, row: int) -> dict[str, dict[str, Any]]:
    """Shape, mean and root mean square of one picture's outputs, by name."""
    found = {}
    for name, values in outputs.items():
        value = values[row].astype(np.float64)
        rms = float(np.sqrt(np.mean(np.square(value))))
        found[name] = {"shape": list(value.shape), "mean": float(value.mean()), "rms": rms}
    return found


def require_rows(outputs: Outputs, rows: int) -> None:
    """ServerError for an output that does not answer each of the pictures that were sent."""
    for name, values in outputs.items():
        if values is None or values.ndim == 0 or len(values) != rows or not values.size:
            shape = None if values is None else list(values.shape)
            raise ServerError(f"output {name} has the shape {shape} for {rows} pictures")


def no_numbers(outputs: Outputs, row: int) -> str:
    """What keeps one picture's outputs from being an answer, in words; empty when nothing does."""
    counts = {name: int((~np.isfinite(values[row])).sum()) for name, values in outputs.items()}
    wrong = [f"{count} values of {name}" for name, count in counts.items() if count]
    return f"the model gives NaN or Inf: {', '.join(wrong)}" if wrong else ""


def difference(
    name: str, wanted: NDArray[Any], found: NDArray[Any], limits: dict[str, Any]
) -> list[str]:
    """A sentence when two arrays are further apart than the package allows."""
    if wanted.shape != found.shape:
        return [f"{name}: shape {list(found.shape)}, stored {list(wanted.shape)}"]
    if not wanted.size:
        return [f"{name}: there are no values to compare"]
    # NaN and Inf agree with nothing, not even with themselves.
    for side, values in (("answered", found), ("stored", wanted)):
        if not np.isfinite(values).all():
            return [f"{name}: {int((~np.isfinite(values)).sum())} {side} values are NaN or Inf"]
    if np.issubdtype(wanted.dtype, np.integer) != np.issubdtype(found.dtype, np.integer):
        return [f"{name}: type {found.dtype}, stored {wanted.dtype}"]
    if np.issubdtype(wanted.dtype, np.integer):
        wrong = int((wanted != found).sum())
        if wanted.ndim == 3 and limits.get("label_agreement") is not None:
            # A label map: of the pixels some may change where two classes are as likely.
            allowed = (1 - limits["label_agreement"]) * wanted.size
            return [f"{name}: {wrong} of {wanted.size} pixels differ"] if wrong > allowed else []
        if wrong and limits["same_integers"]:
            return [f"{name}: {wrong} of {wanted.size} classes differ"]
        return []
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    worst = float(np.abs(a - b).max())
    if limits["atol"] is None and limits["relative_l2"] is None:
        return [f"{name}: the package's tolerance limits no difference"]
    if limits["atol"] is not None and (
        not np.all(np.abs(a - b) <= limits["atol"] + limits["rtol"] * np.abs(a))
    ):
        return [f"{name}: differs by up to {worst:g}"]
    if limits["relative_l2"] is not None and not (
        np.linalg.norm(a - b) <= limits["relative_l2"] * np.linalg.norm(a)
    ):
        return [f"{name}: relative L2 beyond {limits['relative_l2']:g}, largest {worst:g}"]
    return []
