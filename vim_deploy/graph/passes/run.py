"""The passes in order, and the run of them with its checks and dumps.

Each pass leaves a valid graph of the same meaning, so that a dump of any step can be run. What to
fuse is decided once, before the first pass, for whole mixers: none is ever left half fused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from vim_deploy.artifact.onnx_file import model_output
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import output_errors, write_json
from vim_deploy.graph.passes.admission import require_distinct_names, require_fusable
from vim_deploy.graph.passes.branch_pattern import Refusal
from vim_deploy.graph.passes.class_tokens import place_class_tokens
from vim_deploy.graph.passes.directions import fusions
from vim_deploy.graph.passes.mixer_pattern import find_mixers
from vim_deploy.onnx_graph import Rewriter
from vim_deploy.ops.functions import attach_functions

_CLASS_TOKENS = "class_tokens"
PASSES = (_CLASS_TOKENS, *fusions(low_rank=False))


@dataclass(frozen=True)
class PassReport:
    """The outcome of one pass.

    Attributes:
        name: of the pass.
        matched: places that were rewritten.
        expected: places there had to be, or None when any number is right.
        refused: places that were left as they are, and why.
        nodes_before, nodes_after: of the main graph.
    """

    name: str
    matched: int
    expected: int | None
    refused: tuple[Refusal, ...]
    nodes_before: int
    nodes_after: int

    @property
    def as_expected(self) -> bool:
        """Whether the count is the promised one."""
        return self.expected is None or self.matched == self.expected


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
    mixers, outside = find_mixers(model.graph)
    fuse_by = fusions(low_rank)
    reports: list[PassReport] = []
    _dump(model, dump, "00_base", unrolled_tokens)
    for number, name in enumerate(PASSES, start=1):
        before, promised = len(model.graph.node), expected
        graph = Rewriter(model.graph)
        if name == _CLASS_TOKENS:
            (matched, refused), promised = place_class_tokens(graph), None
        elif (fuse := fuse_by[name]) is None:
            matched, refused, promised = 0, (), 0
        else:
            matched, refused = len(mixers), outside
            for mixer in mixers:
                fuse(graph, mixer)
        graph.finish()
        after = len(model.graph.node)
        reports.append(PassReport(name, matched, promised, refused, before, after))
        _dump(model, dump, f"{number:02d}_{name}", unrolled_tokens)
        _check(reports[-1])
    require_distinct_names(model.graph)
    if dump is not None:
        write_json(dump / "passes.json", {"passes": [encode(report) for report in reports]})
    return tuple(reports)


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
