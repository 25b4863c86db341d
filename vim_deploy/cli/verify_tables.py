"""What ``vim-deploy verify`` prints for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vim_deploy.cli.output import print_table, say, say_notes
from vim_deploy.cli.output import result as print_result

if TYPE_CHECKING:
    from vim_deploy.parity.accuracy import AccuracyReport
    from vim_deploy.parity.bisect import BisectReport, Evaluation
    from vim_deploy.parity.blocks import BlockReport, PartError
    from vim_deploy.parity.coco_accuracy import CocoReport
    from vim_deploy.parity.comparison import Comparison
    from vim_deploy.parity.ladder import Rung
    from vim_deploy.parity.report import CaseResult, ParityReport


def print_accuracy(result: AccuracyReport) -> None:
    """One row for each side, and what the comparison says."""
    from vim_deploy.parity.accuracy import unreadable_lines

    def share(count: int | None) -> str:
        return "-" if count is None else f"{100 * count / result.images:.2f} %  ({count})"

    rows = [
        (role, side.name, share(side.top1), share(side.top5), str(side.not_a_number))
        for role, side in (("reference", result.reference), ("artifact", result.candidate))
    ]
    print_table(
        f"{result.artifact} on {result.dataset}: {result.images} images",
        ("", "runtime", "top-1", "top-5", "NaN"),
        rows,
    )
    print_result(f"classes: {result.classes_by}")
    print_result(f"same class on both sides: {result.same_class} of {result.images}")
    say_notes(result.notes)
    for line in (*result.sentences, *result.left_out, *unreadable_lines(result.unreadable)):
        print_result(line)


def print_coco(result: CocoReport) -> None:
    """One row for each side and kind of AP, and what the comparison says."""
    from vim_deploy.parity.accuracy import unreadable_lines

    rows = [
        (
            role,
            side.name,
            str(side.detections),
            kind,
            *(f"{100 * value:.2f} %" for value in (found.ap, found.ap_50, found.ap_75)),
        )
        for role, side in (("reference", result.reference), ("artifact", result.candidate))
        for kind, found in (("box", side.box), ("mask", side.mask))
        if found is not None
    ]
    print_table(
        f"{result.artifact} on {result.dataset}: {result.images} pictures, "
        f"{result.objects} objects",
        ("", "runtime", "detections", "of", "AP", "AP 50", "AP 75"),
        rows,
    )
    print_result(f"classes: {result.classes_by}")
    say_notes(result.notes)
    for line in (*result.sentences, *result.left_out, *unreadable_lines(result.unreadable)):
        print_result(line)


def print_report(result: ParityReport) -> None:
    """One row for each case, batch size and output, of native ops and of the functions."""
    _print_results(f"{result.candidate} against {result.reference}", result.results)
    if result.functions is not None:
        title = f"{result.functions.candidate} against {result.reference}"
        _print_results(title, result.functions.results)
        print_result(result.functions.statement)
    if result.average_precision is not None:
        print_result(result.average_precision.in_words)
    say_notes(result.notes)
    if result.blocks is not None:
        if result.blocks.candidate not in ("", result.candidate):
            print_result(f"the parts are those of {result.blocks.candidate}, which alone differs")
        print_blocks(result.blocks)
    if result.results:
        state = "agrees" if result.passed else "does not agree"
        found = result.worst.in_words
        print_result(f"{result.artifact} {state} with {result.reference}: {found}")


def _print_detections(title: str, results: Sequence[CaseResult]) -> None:
    """One row for each case and batch size: what was found, and how far it is off."""
    rows = []
    for entry in results:
        items = {item.output: item for item in entry.comparisons}
        failures = [failure for item in entry.comparisons for failure in item.failures]
        values = (items.get(name) for name in ("boxes", "scores", "masks"))
        figures = ("-" if item is None else f"{item.max_abs:.2e}" for item in values)
        first = entry.comparisons[0]
        found = first.in_words if first.found else "not compared"
        rows.append((entry.case, str(entry.batch), found, *figures, "; ".join(failures) or "ok"))
    columns = ("case", "batch", "detections", "boxes, px", "scores", "masks", "")
    print_table(f"{title}: largest differences", columns, rows)
    for entry in results:
        for item in (item.found for item in entry.comparisons if item.found):
            lone = [("the reference", one) for one in item.only_reference]
            lone += [("the artifact", one) for one in item.only_candidate]
            for side, one in lone[:_LONE]:
                print_result(f"only {side} has {one.in_words}: {one.excuse or 'not excused'}")


#: Detections of one side alone that are listed for each case and batch size.
_LONE = 5


def _print_results(title: str, results: Sequence[CaseResult]) -> None:
    if any(item.found for entry in results for item in entry.comparisons):
        _print_detections(title, results)
        return
    compared = [item for entry in results for item in entry.comparisons]
    per_pixel = any(item.mean_iou is not None for item in compared)
    rows = [
        (
            entry.case,
            str(entry.batch),
            item.output,
            *_distances(item),
            _share(item.top1_agreement),
            _share(item.top5_agreement),
            *((_share(item.mean_iou),) if per_pixel else ()),
            "-" if item.kl is None else f"{item.kl:.1e}",
            "ok" if item.passed else "; ".join(item.failures),
        )
        for entry in results
        for item in entry.comparisons
    ]
    shares = ("pixels top-1", "top-5", "mean IoU") if per_pixel else ("top-1", "top-5")
    columns = ("case", "batch", "output", "max abs", "rel L2", "cosine", *shares, "KL", "")
    print_table(title, columns, rows)


def _distances(item: Comparison) -> tuple[str, str, str]:
    """Max abs, relative L2 and cosine; class indices have none."""
    if item.indices:
        return "-", "-", "-"
    return f"{item.max_abs:.2e}", f"{item.relative_l2:.2e}", f"{item.cosine:.7f}"


def print_blocks(blocks: BlockReport) -> None:
    """One row for each block: its worst part, and its residual and out_proj; then the verdict."""
    rows: list[tuple[str, ...]] = []
    for block, parts in blocks.by_block().items():
        if not parts[0].place.in_block:
            rows += [
                ("-", item.name, _error(item), "", "", _beyond(item, blocks)) for item in parts
            ]
            continue
        worst = max(parts, key=lambda item: item.relative_l2)
        named = {item.place.part: item for item in parts}
        through = (_error(named[name]) if name in named else "-" for name in _THROUGH)
        name = f"{worst.place.part} {worst.place.direction}".rstrip()
        rows.append((str(block), name, _error(worst), *through, _beyond(worst, blocks)))
    print_table(
        f"part by part (relative L2, limit {blocks.limit:g}): {blocks.images}",
        ("block", "worst part", "rel L2", *_THROUGH, ""),
        rows,
    )
    if blocks.missing:
        say_notes([f"only one side has {', '.join(blocks.missing)}"])
    print_result(blocks.verdict)


#: Parts whose error is shown through depth.
_THROUGH = ("residual", "out_proj")


def _error(item: PartError) -> str:
    return f"{item.relative_l2:.2e}"


def _beyond(worst: PartError, blocks: BlockReport) -> str:
    return "ok" if worst.relative_l2 <= blocks.limit else "beyond the limit"


def say_rung(rung: Rung) -> None:
    """One line for a rung that has been tried."""
    if not rung.against:
        print_result(f"{rung.name}: the reference ({rung.runner}, {rung.seconds:.1f} s)")
        return
    if rung.error:
        print_result(f"{rung.name}: BROKEN, it could not be made: {rung.error}")
        return
    from vim_deploy.parity.report import worst_of

    worst = worst_of(rung.results)[1]
    state = "holds" if rung.passed else "BROKEN"
    figures = ", ".join(_figures(worst))
    print_result(f"{rung.name}: {state} against {rung.against} ({figures}; {rung.seconds:.1f} s)")


def _figures(item: Comparison) -> Iterator[str]:
    """What was measured, in words; nothing for what the output does not have."""
    if item.found is not None:
        yield item.in_words
        return
    if not item.indices:
        names = ("max abs", "relative L2", "cosine")
        yield from (" ".join(pair) for pair in zip(names, _distances(item), strict=True))
    if item.top1_agreement is not None:
        pixels = "" if item.mean_iou is None else "of the pixels "
        yield f"{pixels}top-1 {_share(item.top1_agreement)}"
    if item.top5_agreement is not None:
        yield f"top-5 {_share(item.top5_agreement)}"
    if item.mean_iou is not None:
        yield f"mean IoU {_share(item.mean_iou)}"
    if item.kl is not None:
        yield f"KL {item.kl:.1e}"


def print_ladder(result: ParityReport) -> None:
    """What the ladder says, the rungs themselves having been said one by one."""
    assert result.ladder is not None
    if result.functions is not None:
        print_result(result.functions.statement)
    say_notes(result.notes)
    for blocks in (result.ladder.blocks, result.blocks):
        if blocks is not None:
            print_blocks(blocks)
    print_result(result.ladder.verdict)
    if result.ladder.note:
        print_result(result.ladder.note)
    if result.ladder.left_out:
        print_result(f"not tried: {', '.join(result.ladder.left_out)}")


def say_trial(number: int, kept: int, found: Evaluation) -> None:
    """One line for each model that a bisection has run."""
    state = "met" if found.passed else "not met"
    size = _distance(found.relative_l2)
    say(f"trial {number}: {kept} parts kept, relative L2 {size}: {state}")


def print_bisection(result: BisectReport) -> None:
    """The parts to keep, and what happens without each."""
    found = result.bisection
    limits = result.tolerance.limits()
    if not found.units:
        print_result(f"{result.subject} meets {limits} with everything in {result.precision}")
        return
    without = dict(found.without)
    rows = []
    for role, blocks in found.blocks_by_role().items():
        tried = [without[unit] for unit in found.units if unit.role == role and unit in without]
        rows.append((role, blocks, _distance(max(item.relative_l2 for item in tried))
                     if tried else "not tried"))  # fmt: skip
    print_table(
        f"keep {len(found.units)} of {len(found.universe)} parts {result.kept_how} for {limits}",
        ("role", "blocks", "relative L2 without one of them, at most"),
        rows,
    )
    kind = "none can be left out" if found.minimal else "the search was cut short: fewer may do"
    print_result(f"{found.evaluations} trials; {kind}")


def _distance(relative_l2: float) -> str:
    return f"{relative_l2:.2e}" if relative_l2 < float("inf") else "not finite"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
