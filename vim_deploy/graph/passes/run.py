"""The passes in order, and the run of them with its checks and dumps.

Each pass leaves a valid graph of the same meaning, so that a dump of any step can be run. What to
fuse is decided once, before the first pass, for whole mixers: none is ever left half fused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from vim_deploy.artifact.onnx_file import model_output
from vim_deploy.errors import VimDeployError
from vim_deploy.files import output_errors, write_json
from vim_deploy.graph.passes.admission import require_distinct_names, require_fusable
from vim_deploy.graph.passes.bi_causal_conv import fuse_convolutions
from vim_deploy.graph.passes.bi_selective_scan import fuse_scans
from vim_deploy.graph.passes.class_tokens import place_class_tokens
from vim_deploy.graph.passes.dt_proj import merge_dt_proj
from vim_deploy.graph.passes.mixer_pattern import find_mixers
from vim_deploy.graph.passes.report import Outcome, PassReport, Plan
from vim_deploy.graph.passes.x_proj import merge_x_proj
from vim_deploy.ops.functions import attach_functions

#: Changes the model in place.
Pass = Callable[[onnx.ModelProto, Plan], Outcome]

PASSES: tuple[tuple[str, Pass], ...] = (
    ("class_tokens", place_class_tokens),
    ("bi_causal_conv", fuse_convolutions),
    ("x_proj", merge_x_proj),
    ("dt_proj", merge_dt_proj),
    ("bi_selective_scan", fuse_scans),
)
#: The passes that rewrite something in every mixer.
_OF_MIXERS = ("bi_causal_conv", "x_proj", "dt_proj", "bi_selective_scan")


def run_passes(
    model: onnx.ModelProto,
    *,
    expected: int | None = None,
    low_rank: bool = False,
    dump: Path | None = None,
    unrolled_tokens: int | None = None,
) -> tuple[PassReport, ...]:
    """Fuse the bidirectional mixers of ``model`` in place; its functions are left alone.

    Args:
        model: a base graph.
        expected: mixers that must be found; None takes any number.
        low_rank: let the scan op compute dt from its low-rank weight.
        dump: folder that takes the graph before the first and after each pass, and the reports.
        unrolled_tokens: as in ``attach_functions``, for the graphs in ``dump``.

    Raises:
        VimDeployError: VIM-502 when a pass rewrote another number of places than expected,
            VIM-504 when the graph is not of the kind that the passes read. ``model`` is of no use
            after VIM-502.
    """
    require_fusable(model)
    # Shapes of inner tensors would be stale.
    del model.graph.value_info[:]
    mixers, refused = find_mixers(model.graph)
    plan = Plan(mixers, refused, expected, low_rank)
    reports: list[PassReport] = []
    _dump(model, dump, "00_base", unrolled_tokens)
    for number, (name, rewrite) in enumerate(PASSES, start=1):
        before = len(model.graph.node)
        outcome = rewrite(model, plan)
        promised = _promised(name, plan)
        after = len(model.graph.node)
        reports.append(PassReport(name, outcome.matched, promised, outcome.refused, before, after))
        _dump(model, dump, f"{number:02d}_{name}", unrolled_tokens)
        _check(reports[-1])
    require_distinct_names(model.graph)
    if dump is not None:
        write_json(dump / "passes.json", {"passes": [report.as_dict() for report in reports]})
    return tuple(reports)


def _promised(name: str, plan: Plan) -> int | None:
    """How many places the pass must rewrite."""
    if name not in _OF_MIXERS:
        return None
    return 0 if plan.low_rank and name == "dt_proj" else plan.expected


def _dump(
    model: onnx.ModelProto, folder: Path | None, name: str, unrolled_tokens: int | None
) -> None:
    """Write the graph as a file that runs: with the functions of the ops it holds."""
    if folder is None:
        return
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    attach_functions(copy, unrolled_tokens)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with model_output(copy, folder / f"{name}.onnx"):
        pass


def _check(report: PassReport) -> None:
    if report.as_expected:
        return
    reasons = "; ".join(f"{item.place}: {item.reason}" for item in report.refused[:4])
    raise VimDeployError(
        "VIM-502",
        f"pass {report.name} rewrote {report.matched} mixers instead of {report.expected}",
        why=reasons or "the graph holds another number of mixers than the model config",
        fix="--graph base exports the model without fused ops; report this model config",
    )
