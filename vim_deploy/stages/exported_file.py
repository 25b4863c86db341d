"""The file that an export writes: what it is compared with, and one that is there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.onnx_file import data_path, is_large, model_output, owned_data
from vim_deploy.codec import encode
from vim_deploy.errors import NoInnerTensorsError, VimDeployError
from vim_deploy.files import settings_hash, sha256_of
from vim_deploy.graph.verify import GraphSummary, summarize
from vim_deploy.onnx_quantized import quantized_precision
from vim_deploy.parity.blocks import part_limit
from vim_deploy.parity.cases import Case, files_case, prepared_noise, random_case
from vim_deploy.parity.metrics import Tolerance
from vim_deploy.parity.report import (
    CaseResult,
    ParityReport,
    check_parts,
    compare_runners,
    parts_of_nothing,
)
from vim_deploy.places import NECK, RPN_HEAD
from vim_deploy.precisions import TABLE
from vim_deploy.progress import stage_log
from vim_deploy.runtimes import runtime_named
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.specs import Note

if TYPE_CHECKING:
    import onnx

    from vim_deploy.runtimes.base import Runner

#: Batch sizes that a check runs: one, an odd one, and never the one the trace used.
CHECK_BATCHES = (1, 3)
#: A detector decides by cuts, and in noise many scores and overlaps lie near them: there the
#: rounding of 16 bits decides otherwise, however right the file is.
_OTHERWISE = (
    "of a detector in half precision noise tells little: export with --no-check; vim-deploy verify "
    "MODEL.onnx --against CHECKPOINT --images PICTURES"
)


#: What helps a model that 8 bits are too few for.
_LESS_QUANTIZED = (
    "calibrate on more pictures of the kind that the model will see; --activation-scales "
    "per-token; or leave the worst products out: vim-deploy verify CHECKPOINT --bisect --precision "
    "int8 --calibration DIR finds them, and writes them for --precision-policy"
)
_VERIFY = "vim-deploy verify with --images compares those of pictures"
#: How many times the limit of a part an RPN may be off: its logits are small differences of large
#: sums. Of three detectors with noisier weights than trained ones have, they were up to 1.6 times
#: off in fp16, where the maps that the RPN reads were within the limit.
_SLACK = {RPN_HEAD: 2.0}


@dataclass(frozen=True)
class Check:
    """What a written file is compared with before it gets its name.

    Attributes:
        against: that, in words.
        reference: opens it.
        tolerance: how far the file may be off.
        batch: its fixed batch size, or None.
        made: whether it is compared at all.
        pictures: files that it is compared on; none for noise.
    """

    against: str
    reference: Callable[[], Runner]
    tolerance: Tolerance
    batch: int | None = None
    made: bool = True
    pictures: tuple[Path, ...] = ()


class Existing(NamedTuple):
    """A file that is there already, made with the same settings."""

    info: ExportInfo
    summary: GraphSummary


def hashed(info: ExportInfo, batch: int | None) -> ExportInfo:
    """``info`` with the hash of itself and of what else decides the bytes."""
    info = replace(info, settings_hash="")
    return replace(info, settings_hash=settings_hash({**encode(info), "batch": batch}))


def refuse_quantized(source: Artifact) -> None:
    """VIM-203 for an ONNX file that is to be quantized and is already, by us or another tool."""
    found = quantized_precision(source.model)
    if found is None:
        return
    raise VimDeployError(
        "VIM-203",
        f"{source.name} is quantized already: its products compute in {found}",
        why="what its scales have rounded away does not come back",
        fix="use it as it is; or quantize the checkpoint that it was exported from, with other "
        "options",
    )


def write_checked(
    model: onnx.ModelProto, path: Path, info: ExportInfo, check: Check, *, force: bool
) -> tuple[ParityReport | None, tuple[Note, ...]]:
    """Write ``model``; it gets the name ``path`` when it has passed ``check``.

    Returns:
        The comparison, or None and the reason why there is none.

    Raises:
        VimDeployError: VIM-204 (a file for its weights is in the way), VIM-304, VIM-305, VIM-701
            (it does not pass; nothing is written then).
    """
    _check_data_place(model, path, force=force)
    stage_log.info("writing %s", path.name)
    with model_output(model, path) as temporary:
        parity, notes = _compared(temporary, path, check, info)
    if parity is not None:
        parity = replace(parity, artifact_sha256=sha256_of(path))
    return parity, notes


def existing_export(path: Path, info: ExportInfo) -> Existing | None:
    """The file at ``path`` if it was made with these settings; VIM-204 if with others."""
    if not path.exists():
        return None
    why = "it is not a file that vim-deploy made"
    try:
        file = Artifact.open(path)
        found = file.info
    except VimDeployError as error:
        why, found = error.message, None
    if found is not None and found.settings_hash == info.settings_hash:
        return Existing(found, summarize(file.model, found.model_config.blocks))
    if found is not None and not found.settings_hash:
        why = "a tool has changed it since it was exported"
    elif found is not None:
        why = "it differs in " + ", ".join(_differences(encode(found), encode(info)))
    raise VimDeployError(
        "VIM-204",
        f"{path} exists and was made with other settings",
        why=why,
        fix="add --force to replace it, or choose another output with -o",
    )


def _check_data_place(model: onnx.ModelProto, path: Path, *, force: bool) -> None:
    """VIM-204 when the weights need a file of their own and somebody else's has its name."""
    data = data_path(path)
    if force or not is_large(model) or not data.exists() or owned_data(path) == data:
        return
    raise VimDeployError(
        "VIM-204",
        f"{data} exists and is not part of an export to {path.name}",
        why="the weights are more than one ONNX file holds (2 GiB) and would be written there",
        fix="add --force to replace it, or choose another output with -o",
    )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys((*new, *old))
    names = [key for key in keys if key != "settings_hash" and old.get(key) != new.get(key)]
    return names or ["the batch size"]


def _compared(
    written: Path, path: Path, check: Check, info: ExportInfo
) -> tuple[ParityReport | None, tuple[Note, ...]]:
    """Compare the written file with what it is to be like; the reason when that was not done."""
    if not check.made:
        return None, (Note("not checked", f"not checked against {check.against}: --no-check"),)
    if not runtime_named("onnxruntime").is_installed():
        why = f"not checked against {check.against}: onnxruntime is not installed"
        return None, (Note("not checked", why),)
    stage_log.info("checking against %s", check.against)
    reference, candidate, tolerance = check.reference(), OrtRunner(written), check.tolerance
    batches = CHECK_BATCHES if check.batch is None else (check.batch,)
    sized = candidate.size is not None
    count, noise = max(batches), prepared_noise(info)
    cases = [random_case(candidate.input, info.preprocess, count, sized=sized, image=noise)]
    if check.pictures:
        # Scales were found on pictures, and say nothing of noise.
        cases = [files_case("calibration", check.pictures, info)]
    results = compare_runners(reference, candidate, cases, batches, tolerance)
    # Noise may hold nothing to detect.
    report = ParityReport(
        path.name,
        sha256_of(written),
        reference.name,
        candidate.name,
        tolerance,
        results,
        blocks=parts_of_nothing(reference, candidate, cases, results, info.precision),
    )
    if sized and not report.passed:
        inside = _agreeing_inside(reference, candidate, cases, results, info.precision)
        if inside is not None:
            return None, (inside,)
    report.require_passed(_otherwise(info, sized))
    return report, ()


def _otherwise(info: ExportInfo, sized: bool) -> str:
    """What to do when the file is too far off; empty where that depends on why."""
    if TABLE[info.precision].quantized:
        return _LESS_QUANTIZED
    return _OTHERWISE if sized and TABLE[info.precision].typed else ""


def _agreeing_inside(
    reference: Runner,
    candidate: Runner,
    cases: Sequence[Case],
    results: Sequence[CaseResult],
    precision: str,
) -> Note | None:
    """That a detector agrees inside, which is all that noise can tell of some.

    Pooling at boxes that are a rounding apart, stage behind stage, makes more of it than a limit in
    pixels foresees; there every part has to agree. In half precision a box that rounding keeps or
    not makes another answer; there the parts before the first decision have to. None where one does
    not, or the inner tensors are not to be had.
    """
    limit = part_limit(precision)
    given = "a few pictures" if any(case.pictures for case in cases) else "noise"
    try:
        blocks = check_parts(reference, candidate, cases, results, limit)
    except NoInnerTensorsError:
        return None
    if blocks.parts and blocks.first is None:
        return Note(
            "not checked",
            f"checked against {reference.name} part by part, {blocks.verdict}; detections in "
            f"{given} are further apart: {_VERIFY}",
        )
    if not TABLE[precision].lossy:
        return None
    # The maps, and what proposals are chosen by.
    parts = [part for part in blocks.parts if part.place.role in (NECK, RPN_HEAD)]
    if {part.place.role for part in parts} != {NECK, RPN_HEAD}:
        return None
    shares = [part.relative_l2 / (limit * _SLACK.get(part.place.role, 1.0)) for part in parts]
    if not all(share <= 1 for share in shares):
        return None
    worst = max(part.relative_l2 for part in parts)
    return Note(
        "not checked",
        f"checked against {reference.name} up to the proposals: relative L2 {worst:.1e} at most, "
        f"allowed {limit:g} for its maps; which boxes of {given} are kept, rounding decides: "
        f"{_VERIFY}",
    )
