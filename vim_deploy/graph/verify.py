"""Facts that an exported graph must show before it is written.

Counts, not numbers: two scans a block, fused where that was asked for, no flip, no operator nobody
expects. Numbers are the business of ``parity``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx

from vim_deploy.artifact.metadata import SIZE_INPUT
from vim_deploy.artifact.onnx_file import is_large
from vim_deploy.errors import VimDeployError
from vim_deploy.families import family_of
from vim_deploy.families.base import ModelConfig
from vim_deploy.graph.common_forms import BACKWARDS
from vim_deploy.graph.standalone import is_standalone
from vim_deploy.onnx_graph import attribute_int, constants_of, half_tensors, without_weights
from vim_deploy.ops import BI_CAUSAL_CONV, BI_SELECTIVE_SCAN, OPS, SELECTIVE_SCAN, contract
from vim_deploy.ops.functions import inlined_calls, loops, nodes_of
from vim_deploy.places import DIRECTIONS, parse
from vim_deploy.specs import GraphChoice, GraphForm

#: Largest rank of dt for which ``auto`` lets the scan compute it, Vim-Ti's: by measurement on
#: CPUs, by count on GPUs (docs/fused-graph.md).
LOW_RANK = 12

#: Standard operators that the trace of a VisionMamba may hold, preparation and heads included, and
#: from ArgMax on those of dense models.
EXPECTED_OPS = frozenset(
    {"Add", "Cast", "Concat", "Conv", "Div", "Expand", "Gather", "Gemm", "LayerNormalization",
     "MatMul", "Mul", "Neg", "Pad", "Pow", "ReduceMax", "ReduceMean", "Reshape",
     "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "TopK", "Transpose",
     "Unsqueeze", "ArgMax", "ConvTranspose", "Erf", "Gelu", "MaxPool", "Relu", "Resize"}
)  # fmt: skip

#: Operators that choose boxes and decode them, in a detector and nowhere else.
_DETECTOR_OPS = frozenset(
    {"Abs", "And", "Clip", "Exp", "Floor", "GatherElements", "GatherND", "Greater", "Less", "Min",
     "Range", "ReduceSum", "Sign", "Where"}
)  # fmt: skip

#: What quantizing adds, scales per token included.
_QUANTIZED_OPS = frozenset({"Abs", "DequantizeLinear", "Max", "QuantizeLinear"})

#: Those of the bodies of our ops' functions beside them.
_BODY_OPS = frozenset({"CastLike", "ConstantOfShape", "Exp", "ReduceSum", "Scan", "Softplus"})
#: Those of the bodies of ops on boxes.
_BOX_BODY_OPS = frozenset(
    {"Ceil", "Equal", "GreaterOrEqual", "LessOrEqual", "Loop", "Max", "NonMaxSuppression", "Not",
     "RoiAlign", "ScatterND"}
)  # fmt: skip

#: Operators of norms and softmax: float32 in every precision.
_WIDE_OPS = frozenset({"LayerNormalization", "Pow", "ReduceMean", "Softmax", "Sqrt"})
#: Of these, what a model's part may hold in 16 bits: attention, and the cube in GELU's tanh form.
_NARROW_OPS = frozenset({"Pow", "Softmax"})

#: Control flow: what the unrolled scan bodies are there to do without.
_LOOPS = frozenset({"If", "Loop", "Scan"})
_OWN_OPS = frozenset(f"{contract.DOMAIN}::{name}" for name in OPS)


@dataclass(frozen=True)
class GraphSummary:
    """What the checker counted.

    Attributes:
        blocks: as the model config says.
        scans: directions scanned; a fused scan node counts twice.
        forward_scans, backward_scans: of those, each way.
        fused_scans, fused_convolutions: nodes that do both directions.
        flips: slices that run backwards, or what stands for them in a standalone graph.
        ops: nodes of the main graph by operator.
        loops: Scan, Loop and If nodes, of the main graph and of all local functions.
    """

    blocks: int
    scans: int
    forward_scans: int
    backward_scans: int
    fused_scans: int
    fused_convolutions: int
    flips: int
    ops: dict[str, int]
    loops: int


def summarize(model: onnx.ModelProto, blocks: int) -> GraphSummary:
    """Count nodes of the main graph."""
    found = Counter(_ops_of(model))
    singles = found[SELECTIVE_SCAN.name, False] + found[SELECTIVE_SCAN.name, True]
    backward = found[SELECTIVE_SCAN.name, True]
    fused = found[BI_SELECTIVE_SCAN.name, False]
    ops = Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for node in model.graph.node
    )
    return GraphSummary(
        blocks=blocks,
        scans=singles + 2 * fused,
        forward_scans=singles - backward + fused,
        backward_scans=backward + fused,
        fused_scans=fused,
        fused_convolutions=found[BI_CAUSAL_CONV.name, False],
        flips=_count_flips(model),
        ops=dict(sorted(ops.items())),
        loops=_count_loops(model),
    )


def _ops_of(model: onnx.ModelProto) -> Iterator[tuple[str, bool]]:
    """Our ops with whether they run in reverse: nodes, and what stands in the places of such."""
    for node in nodes_of(model.graph):
        yield node.op_type, attribute_int(node, "reverse", 0) == 1
    for (_, op), nodes in inlined_calls(model.graph.node).items():
        yield op, parse(nodes[0].name).direction == DIRECTIONS[1]


def _count_loops(model: onnx.ModelProto) -> int:
    held = (model.graph, *model.functions)
    return sum(node.op_type in _LOOPS and node.domain == "" for item in held for node in item.node)


def _count_flips(model: onnx.ModelProto) -> int:
    """Slices that run backwards; ReverseSequence is not among the expected operators."""
    constants = constants_of(model.graph)
    flips = 0
    for node in model.graph.node:
        if node.op_type == "Gather":
            flips += any(name.startswith(BACKWARDS) for name in node.input[1:])
        if node.op_type == "Slice" and len(node.input) > 4:
            steps = constants.get(node.input[4])
            flips += steps is None or any(int(step) < 0 for step in steps)
    return flips


def fused_mixers(config: ModelConfig, graph: str) -> int:
    """How many mixers the form ``graph`` fuses."""
    return 0 if graph == "base" else config.fused_mixers


def form_for(choice: GraphChoice, config: ModelConfig) -> GraphForm:
    """The form that ``choice`` means for a model.

    ``auto`` is ``fused-low-rank`` for a rank of dt of at most ``LOW_RANK``, where anything is
    fused, else ``fused``; ``base`` for a family without fusions.

    Raises:
        VimDeployError: VIM-203 for a fused form of such a family.
    """
    family = family_of(config)
    if not family.fusion:
        if choice not in ("auto", "base"):
            raise VimDeployError(
                "VIM-203",
                f"--graph {choice}: a {family.title} has nothing to fuse",
                why="no pass fuses its mixers",
                fix="leave --graph out",
            )
        return "base"
    if choice != "auto":
        return choice
    low = config.dt_rank <= LOW_RANK and fused_mixers(config, "fused-low-rank") > 0
    return "fused-low-rank" if low else "fused"


def missing_functions(model: onnx.ModelProto) -> list[str]:
    """Our ops that the graph holds, but not as local functions."""
    held = {(item.domain, item.name) for item in model.functions}
    used = {node.op_type for node in nodes_of(model.graph)}
    return sorted(name for name in used if (contract.DOMAIN, name) not in held)


def _half_reductions(model: onnx.ModelProto) -> list[str]:
    """Reductions and norms in 16 bits: they overflow, and TensorRT warns of "layernorm in FP16"."""
    half = half_tensors(model)
    return [
        f"{node.name} reduces in 16 bits"
        for node in model.graph.node
        if node.op_type in _WIDE_OPS
        and any(name in half for name in (*node.input, *node.output))
        and not (node.op_type in _NARROW_OPS and parse(node.name).narrow)
    ]


def check_graph(
    model: onnx.ModelProto,
    config: ModelConfig,
    graph: str = "base",
    scan_body: str = "scan",
    *,
    quantized: bool = False,
) -> GraphSummary:
    """Compare the graph with what ``config``, the form ``graph`` and ``scan_body`` promise.

    ``quantized``: whether products may be in 8 bits.

    Raises:
        VimDeployError: VIM-502 with every deviation.
    """
    summary = summarize(model, config.blocks)
    fused = fused_mixers(config, graph)
    looped = [op for op in OPS.values() if loops(op) and nodes_of(model.graph, op)]
    counts = (
        ("scans forward", summary.forward_scans, config.scans[0]),
        ("scans in reverse", summary.backward_scans, config.scans[1]),
        ("fused scan nodes", summary.fused_scans, fused),
        ("fused convolution nodes", summary.fused_convolutions, fused),
        # One Scan in the function of each scan op, or none anywhere.
        ("loops", summary.loops, 0 if scan_body == "unrolled" else len(looped)),
    )
    problems = [
        f"{found} {what} instead of {wanted}" for what, found, wanted in counts if found != wanted
    ]
    # Only flip_img_sequences_ratio asks for a flipped sequence.
    if summary.flips and not config.flips_sequence:
        problems.append(f"{summary.flips} flips")
    allowed = EXPECTED_OPS | config.operators | _OWN_OPS
    allowed |= _DETECTOR_OPS if _detects(model) else frozenset()
    allowed |= _QUANTIZED_OPS if quantized else frozenset()
    problems += [
        f"unexpected operator {name} ({count} times)"
        for name, count in summary.ops.items()
        if name not in allowed
    ]
    problems += [f"the local function of {name} is missing" for name in missing_functions(model)]
    _require_none(problems)
    _require_valid(model)
    _require_none(_half_reductions(model))
    return summary


def _detects(model: onnx.ModelProto) -> bool:
    """Whether it is a detector's graph, as its inputs say."""
    return any(value.name == SIZE_INPUT for value in model.graph.input)


def _require_valid(model: onnx.ModelProto) -> None:
    """VIM-502 for a graph that breaks ONNX's rules."""
    try:
        # In full: the types of a mixed-precision graph must meet everywhere.
        checked = without_weights(model) if is_large(model) else model
        onnx.checker.check_model(checked, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VimDeployError(
            "VIM-502", "the exported graph breaks ONNX's rules", why=str(error)
        ) from error


def check_standalone(
    model: onnx.ModelProto,
    before: GraphSummary,
    *,
    operators: frozenset[str] = frozenset(),
    quantized: bool = False,
) -> GraphSummary:
    """Compare a graph of standard operators alone with what was counted before it became one.

    Args:
        model: what ``standalone`` has made.
        before: of the graph with its functions, as ``check_graph`` found it.
        operators: those of the model's family (``ModelConfig.operators``).
        quantized: whether products may be in 8 bits.

    Raises:
        VimDeployError: VIM-502 with every deviation.
    """
    summary = summarize(model, before.blocks)
    calls = Counter(op for _, op in inlined_calls(model.graph.node))
    each = sum(calls[op.name] for op in OPS.values() if loops(op))
    expected = replace(before, ops=summary.ops, loops=each if before.loops else 0)
    problems = [
        f"{found} {name} instead of {wanted}"
        for (name, found), wanted in zip(
            vars(summary).items(), vars(expected).values(), strict=True
        )
        if found != wanted
    ]
    if not is_standalone(model):
        problems.append("there are functions, or nodes of other domains than ONNX's")
    allowed = EXPECTED_OPS | operators | _BODY_OPS
    allowed |= _QUANTIZED_OPS if quantized else frozenset()
    if _detects(model):
        allowed |= _DETECTOR_OPS | _BOX_BODY_OPS
    problems += [f"unexpected operator {name}" for name in summary.ops if name not in allowed]
    names = Counter(node.name for node in model.graph.node)
    problems += [f"{count} nodes are called {name!r}" for name, count in names.items() if count > 1]
    _require_none(problems)
    _require_valid(model)
    return summary


def _require_none(problems: list[str]) -> None:
    if problems:
        raise VimDeployError(
            "VIM-502",
            "the exported graph is not what it should be",
            why="; ".join(problems),
            fix="report this model config together with the versions of torch and onnxscript",
        )
