"""Facts that an exported graph must show before it is written.

Counts, not numbers: two scans a block, no flip, no operator nobody expects. Numbers are the
business of ``parity``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx

from vim_deploy import contract
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.rewrite import attribute_int, constants_of, scan_nodes
from vim_deploy.recipe.model_config import ModelConfig

#: Standard operators that the trace of a VisionMamba may hold, preparation and heads included.
EXPECTED_OPS = frozenset(
    {"Add", "Cast", "Concat", "Conv", "Div", "Expand", "Gather", "Gemm", "LayerNormalization",
     "MatMul", "Mul", "Neg", "Pow", "Reciprocal", "ReduceMax", "ReduceMean", "Reshape", "Shape",
     "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "TopK", "Transpose",
     "Unsqueeze"}
)  # fmt: skip


@dataclass(frozen=True)
class GraphSummary:
    """What the checker counted."""

    blocks: int
    scans: int
    forward_scans: int
    backward_scans: int
    flips: int
    ops: dict[str, int]


def summarize(model: onnx.ModelProto, blocks: int) -> GraphSummary:
    """Count nodes of the main graph."""
    scans = scan_nodes(model.graph)
    backward = sum(attribute_int(node, "reverse") for node in scans)
    ops = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for node in model.graph.node
    )
    return GraphSummary(
        blocks=blocks,
        scans=len(scans),
        forward_scans=len(scans) - backward,
        backward_scans=backward,
        flips=_count_flips(model),
        ops=dict(sorted(ops.items())),
    )


def _count_flips(model: onnx.ModelProto) -> int:
    """Slices that run backwards; ReverseSequence is not among the expected operators."""
    constants = constants_of(model.graph)
    flips = 0
    for node in model.graph.node:
        if node.op_type == "Slice" and len(node.input) > 4:
            steps = constants.get(node.input[4])
            flips += steps is None or any(int(step) < 0 for step in steps)
    return flips


def check_graph(model: onnx.ModelProto, config: ModelConfig) -> GraphSummary:
    """Compare the graph with what ``config`` promises.

    Raises:
        VimDeployError: VIM-502 with every deviation.
    """
    summary = summarize(model, config.layers_run)
    problems = []
    expected_scans = config.layers_run * config.scans_per_layer
    if summary.scans != expected_scans:
        problems.append(f"{summary.scans} scan nodes instead of {expected_scans}")
    if config.scans_per_layer == 2 and summary.forward_scans != summary.backward_scans:
        problems.append(
            f"{summary.forward_scans} forward and {summary.backward_scans} backward scans"
        )
    # Only flip_img_sequences_ratio asks for a flipped sequence.
    if summary.flips and not config.flips_sequence:
        problems.append(f"{summary.flips} flips")
    custom = f"{contract.DOMAIN}::{contract.SELECTIVE_SCAN}"
    problems += [
        f"unexpected operator {name} ({count} times)"
        for name, count in summary.ops.items()
        if name not in EXPECTED_OPS and name != custom
    ]
    if expected_scans and [item.name for item in model.functions] != [contract.SELECTIVE_SCAN]:
        problems.append("the local function of the scan is missing")
    if problems:
        raise VimDeployError(
            "VIM-502",
            "the exported graph is not what it should be",
            why="; ".join(problems),
            fix="report this model config together with the versions of torch and onnxscript",
        )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise VimDeployError(
            "VIM-502", "the exported graph breaks ONNX's rules", why=str(error)
        ) from error
    return summary
