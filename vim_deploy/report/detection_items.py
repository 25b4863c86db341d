"""What pages of comparisons say of limits, and of detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vim_deploy.report.document import Facts, Item, Items, Table, Text, Value

_LIMITS = {
    "relative_l2": "largest relative L2",
    "cosine": "smallest cosine",
    "top1_agreement": "smallest top-1 agreement",
    "kl": "largest KL of the softmax (nats)",
}
_DETECTION_LIMITS = {
    "boxes": "largest difference of a box's side (px of the input)",
    "scores": "largest difference of a score",
    "masks": "largest difference of a mask's value",
    "margin": "may be on one side alone within this of the cut",
    "score_threshold": "score threshold",
    "nms_threshold": "IoU that suppresses",
}


def limit_facts(tolerance: Value) -> Iterator[tuple[str, str]]:
    """What was demanded, and why."""
    detections = tolerance.get("detections")
    if detections:
        yield from _detection_limits(detections)
        return
    if tolerance["atol"] is not None:
        yield "largest difference", f"{tolerance['atol']:g} + {tolerance['rtol']:g} |reference|"
    for name, text in _LIMITS.items():
        if tolerance.get(name) is not None:
            yield text, f"{tolerance[name]:g}"
    yield (
        "class indices of pictures",
        "must be equal" if tolerance["same_integers"] else "reported only",
    )
    yield "reason of the limits", str(tolerance["origin"])


def _detection_limits(limits: Value) -> Iterator[tuple[str, str]]:
    for name, text in _DETECTION_LIMITS.items():
        if limits.get(name) is not None:
            yield text, f"{limits[name]:g}"
    yield "reason of the limits", str(limits["origin"])


def detection_items(entries: Sequence[Value], precision: Value | None) -> Iterator[Item]:
    """How many detections belong together, those of one side alone, and parity AP."""
    found = [entry for entry in entries if entry.get("found")]
    if not found:
        return
    rows = [
        (
            entry["case"],
            str(entry["batch"]),
            *(str(entry["found"][name]) for name in ("reference", "candidate", "matched")),
            str(entry["found"]["unexcused"]),
        )
        for entry in found
    ]
    columns = ("case", "batch", "reference", "artifact", "pairs", "alone without an excuse")
    failed = frozenset(place for place, entry in enumerate(found) if not entry["passed"])
    yield Table("Detections of both sides", columns, rows, frozenset({0}), failed)
    lone = [
        f"{entry['case']}, batch {entry['batch']}, only {side}: class {item['label']} with "
        f"{item['score']:.4f} in image {item['picture'] + 1}; {item['excuse'] or 'not excused'}"
        for entry in found
        for side, key in (("the reference", "only_reference"), ("the artifact", "only_candidate"))
        for item in entry["found"][key]
    ]
    if lone:
        yield Items(lone)
    if all(not entry["found"]["reference"] and not entry["found"]["candidate"] for entry in found):
        yield Text("Neither side found anything: no detection was compared.")
    if precision:
        masks = precision.get("masks")
        facts = [("box AP", f"{precision['boxes']:.4f}")]
        facts += [("mask AP", f"{masks:.4f}")] if masks is not None else []
        facts += [("pictures", str(precision["pictures"]))]
        yield Text("Average precision with the reference's detections as truth:")
        yield Facts(facts)
