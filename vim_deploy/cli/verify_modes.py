"""What ``vim-deploy verify`` does: compare outputs, compare accuracy, climb the ladder, bisect."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vim_deploy.artifact.file import named
from vim_deploy.cli.options import take_request, take_runner
from vim_deploy.cli.output import command_line, image_progress, say
from vim_deploy.cli.output import result as print_result
from vim_deploy.cli.quantization_options import TRIAL, take_quantize_options
from vim_deploy.cli.verify_tables import (
    print_accuracy,
    print_bisection,
    print_coco,
    print_ladder,
    print_report,
    say_rung,
    say_trial,
)
from vim_deploy.errors import VimDeployError
from vim_deploy.recipe.schema import ModelRequest

if TYPE_CHECKING:
    from vim_deploy.parity.accuracy import AccuracyReport
    from vim_deploy.parity.bisect import BisectReport
    from vim_deploy.parity.coco_accuracy import CocoReport
    from vim_deploy.parity.report import ParityReport
    from vim_deploy.stages.subjects import SubjectOptions
    from vim_deploy.stages.verifying import VerifyOptions

    Report = ParityReport | AccuracyReport | CocoReport | BisectReport

#: Options that are limits (``parity.metrics.adjusted``), and their names there.
LIMITS = {
    **{name: name for name in ("atol", "rtol", "relative_l2", "cosine", "top1_agreement", "kl")},
    "box_pixels": "boxes",
    "score_difference": "scores",
    "mask_difference": "masks",
}
#: Options of which at most one says what is done.
MODES = ("dataset", "ladder", "bisect")


def mode_of(options: dict[str, Any]) -> str:
    """The mode asked for; ``outputs`` without one. VIM-203 for two."""
    given = [name for name in MODES if options[name]]
    if len(given) > 1:
        raise VimDeployError(
            "VIM-203", f"--{given[0]} and --{given[1]} are two comparisons", fix="give one"
        )
    return given[0] if given else "outputs"


def run_mode(source: str, options: dict[str, Any]) -> tuple[str, Report, Callable[[], None]]:
    """What was asked for: the kind of its report, the report, and what raises when it is bad."""
    mode = mode_of(options)
    if mode == "bisect":
        return "bisect", bisect_policy(source, options), lambda: None
    if mode == "dataset":
        accuracy = compare_accuracy(source, options)
        return "accuracy", accuracy, accuracy.require_passed
    if mode == "ladder":
        ladder = climb_ladder(source, options)
        return "parity", ladder, ladder.require_passed
    # Without parts the next thing to try are those, which stored outputs do not have.
    learns = not options["per_block"] and named(options["against"] or "") != "stored"
    advice = "--per-block names the part where it begins" if learns else ""
    outputs = compare_outputs(source, options)
    return "parity", outputs, partial(outputs.require_passed, advice)


def compare_outputs(source: str, options: dict[str, Any]) -> ParityReport:
    """Outputs, and with ``--per-block`` inner tensors, of an artifact and its reference."""
    from vim_deploy.stages import verify

    against = _take_against(source, options)
    _refuse(options, ("max_loss",), "it belongs to --dataset")
    _refuse_subject(source, options)
    result = verify(Path(source), against, _verify_options(options), command_line())
    print_report(result)
    return result


def climb_ladder(source: str, options: dict[str, Any]) -> ParityReport:
    """Every form of the model, rung by rung."""
    from vim_deploy.stages import verify_ladder

    _refuse(options, ("max_loss",), "it belongs to --dataset")
    _refuse(options, ("output", "force", "max_trials"), "it belongs to --bisect")
    against, subject = options["against"], _subject_options(source, options)
    result = verify_ladder(
        source, against, _verify_options(options), subject, command_line(), say_rung
    )
    print_ladder(result)
    return result


def bisect_policy(source: str, options: dict[str, Any]) -> BisectReport:
    """Write the smallest policy that meets the tolerance."""
    from vim_deploy.files import prepare_folder, write_bytes
    from vim_deploy.stages import bisect_precision

    _refuse(options, ("max_loss",), "it belongs to --dataset")
    output, force = options.pop("output"), options.pop("force")
    path: Path = output or Path(f"{Path(source).stem}.policy.toml")
    if path.exists() and not force:
        raise VimDeployError(
            "VIM-204",
            f"{path} exists",
            fix="add --force to replace it, or choose another output with -o",
        )
    prepare_folder(path.parent, "-o")
    trials = {} if options["max_trials"] is None else {"most": options["max_trials"]}
    against, subject = options["against"], _subject_options(source, options)
    chosen = _verify_options(options)
    result = bisect_precision(
        source, against, chosen, subject, command=command_line(), progress=say_trial, **trials
    )
    print_bisection(result)
    comment = (
        f"Found by vim-deploy verify --bisect for {result.subject} in {result.precision}:\n"
        f"{result.tolerance.limits()} against {result.reference}."
    )
    write_bytes(path, result.bisection.policy.as_toml(comment).encode())
    calibration = " --calibration DIR" if result.bisection.rest is not None else ""
    say(f"wrote {path}: vim-deploy export ... --precision {result.precision}{calibration} "
        f"--precision-policy {path}")  # fmt: skip
    print_result(str(path))
    return result


def compare_accuracy(source: str, options: dict[str, Any]) -> AccuracyReport | CocoReport:
    """Accuracy on a labelled data set, of a detector average precision."""
    from vim_deploy.parity.accuracy import Limits
    from vim_deploy.parity.coco_accuracy import CocoReport
    from vim_deploy.stages import verify_dataset
    from vim_deploy.stages.verifying_dataset import DatasetOptions

    against = _take_against(source, options)
    unused = ("images", "random", *(name for name in LIMITS if name != "top1_agreement"))
    _refuse(options, unused, "--dataset compares classes, not values")
    _refuse(options, ("per_block",), "--dataset compares classes, not values")
    _refuse_subject(source, options)
    batches = options["batches"] or (None,)
    if len(batches) > 1:
        raise VimDeployError(
            "VIM-203", "--dataset is gone through once", fix=f"--batches {batches[0]}"
        )
    limits = Limits(options["max_loss"], options["top1_agreement"])
    chosen = DatasetOptions(
        batches[0], options["image_limit"], limits, options["twin"], take_runner(options)
    )
    result = verify_dataset(
        Path(source), against, options["dataset"], chosen, command_line(), image_progress()
    )
    if isinstance(result, CocoReport):
        print_coco(result)
    else:
        print_accuracy(result)
    return result


def _take_against(source: str, options: dict[str, Any]) -> str:
    against: str | None = options["against"]
    if against is None:
        raise VimDeployError(
            "VIM-203",
            f"nothing to compare {Path(source).name} with",
            fix="--against CHECKPOINT, ANOTHER.onnx or STORED.npz; or --ladder, which makes every "
            "form of a checkpoint itself",
        )
    return against


def _refuse(options: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    """An option that would be without effect is an error."""
    for name in names:
        if options[name] not in (None, False):
            option = "--" + name.replace("_", "-")
            raise VimDeployError("VIM-203", f"{option} has no effect: {why}", fix="leave it out")


def _refuse_subject(source: str, options: dict[str, Any]) -> None:
    """The artifact says itself what it is."""
    _refuse(options, ("output", "force", "max_trials"), "it belongs to --bisect")
    lower = ("precision", "precision_policy", *TRIAL)
    _refuse(options, lower, "it belongs to --ladder and --bisect")
    if take_request({**options, "source": source}) != ModelRequest(source):
        raise VimDeployError(
            "VIM-203",
            "--model, --config, --image-size and the like say how a checkpoint is read",
            why="they belong to --ladder and --bisect on a checkpoint; a file says it itself",
            fix="leave them out",
        )


def _subject_options(source: str, options: dict[str, Any]) -> SubjectOptions:
    from vim_deploy.stages.subjects import SubjectOptions

    request = dataclasses.replace(take_request({**options, "source": source}), source="")
    quantize = take_quantize_options(options, options["precision"])
    return SubjectOptions(options["precision"], options["precision_policy"], request, quantize)


def _verify_options(options: dict[str, Any]) -> VerifyOptions:
    from vim_deploy.stages.verifying import VerifyOptions

    names = ("image_limit", "batches")
    given = {name: options[name] for name in names if options[name] is not None}
    return VerifyOptions(
        images=options["images"],
        random=options["random"],
        limits={
            limit: options[name] for name, limit in LIMITS.items() if options[name] is not None
        },
        twin=options["twin"],
        per_block=options["per_block"],
        runner=take_runner(options),
        **given,
    )
