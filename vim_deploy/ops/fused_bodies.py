"""The meaning of the fused ops as ONNX local functions of standard operators.

Like the one-direction scan's body (``function_body``), and with its restrictions: nothing but
elementwise and reduce operators inside the Scan, or no Scan at all (``log_step_scan``). A body is
written for the sizes and offsets that the nodes of a file share.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import FunctionProto, NodeProto, helper

from vim_deploy.onnx_graph import Shapes, attribute_float, attribute_int
from vim_deploy.ops import contract
from vim_deploy.ops.body_nodes import columns, constant, one_token, scalar, silu
from vim_deploy.ops.log_step_scan import log_steps

_DIRECTIONS = ("_fwd", "_bwd")
#: Tensors that Scan slices per token and direction: delta, delta * u, B and C.
_SLICED = ("delta", "delta_u", "b", "c")
_TOKEN_AXIS = 1


@dataclass(frozen=True)
class ConvForm:
    """What a body of ``VimBiCausalConv`` is specialised to."""

    channels: int
    width: int
    x_off: int


def conv_form(node: NodeProto, shapes: Shapes) -> ConvForm:
    """The form of one node; ``shapes`` are those of the initialisers."""
    _, width, channels = shapes[node.input[1]]
    return ConvForm(channels, width, attribute_int(node, "x_off"))


def conv_function(form: ConvForm, opset: int) -> FunctionProto:
    """Two depthwise convolutions on channels-first tokens, then SiLU on both at once.

    Nodes that read constants only, which a runtime folds, reorder the kernels from the contract's
    layout [2,W,D]. Sums of shifted tokens would need no transposes, but twice the nodes:
    ONNX Runtime then loads a model more slowly, and TensorRT-RTX builds it more slowly.
    """
    last = form.width - 1
    nodes = [
        *columns("xz", form.x_off, form.channels, "x", axis=2),
        helper.make_node("Transpose", ["x"], ["x_channels_first"], perm=[0, 2, 1]),
        helper.make_node("Transpose", ["w"], ["w_channels_first"], perm=[0, 2, 1]),
        constant("axis_0", [0]),
        constant("axis_2", [2]),
        helper.make_node("Unsqueeze", ["w_channels_first", "axis_2"], ["kernels"]),
        *_taken("kernels", 0, "kernel_fwd"),
        *_taken("kernels", 1, "kernel_newest_last"),
        # The contract counts taps towards the token itself, from the right here.
        constant("newest_first", range(last, -1, -1)),
        helper.make_node("Gather", ["kernel_newest_last", "newest_first"], ["kernel_bwd"], axis=2),
        *_taken("b", 0, "bias_fwd"),
        *_taken("b", 1, "bias_bwd"),
    ]
    for direction, pads in zip(_DIRECTIONS, ([last, 0], [0, last]), strict=True):
        nodes += _one_convolution(form, direction, pads)
    nodes += [
        helper.make_node("Concat", [f"row{d}" for d in _DIRECTIONS], ["rows"], axis=0),
        helper.make_node("Transpose", ["rows"], ["convolved"], perm=[0, 1, 3, 2]),
        *silu("convolved", "u2"),
    ]
    return _function(
        contract.BI_CAUSAL_CONV,
        contract.BI_CAUSAL_CONV_INPUTS,
        contract.BI_CAUSAL_CONV_OUTPUTS,
        contract.BI_CAUSAL_CONV_ATTRIBUTES,
        nodes,
        opset,
    )


def _taken(source: str, number: int, name: str) -> list[NodeProto]:
    """``name`` = source[number]."""
    return [
        scalar(f"{name}_index", number),
        helper.make_node("Gather", [source, f"{name}_index"], [name], axis=0),
    ]


def _one_convolution(form: ConvForm, direction: str, pads: list[int]) -> list[NodeProto]:
    """row [1,B,D,L] of one direction."""
    inputs = ["x_channels_first", f"kernel{direction}", f"bias{direction}"]
    return [
        helper.make_node(
            "Conv",
            inputs,
            [f"convolved{direction}"],
            group=form.channels,
            kernel_shape=[form.width],
            pads=pads,
        ),
        helper.make_node("Unsqueeze", [f"convolved{direction}", "axis_0"], [f"row{direction}"]),
    ]


@dataclass(frozen=True)
class BiScanForm:
    """What a body of ``VimBiSelectiveScan`` is specialised to; rank 0 when dt is given."""

    states: int
    channels: int
    b_off: int
    c_off: int
    dt_off: int
    z_off: int
    rank: int
    delta_softplus: bool
    scale: float


def bi_scan_form(node: NodeProto, shapes: Shapes) -> BiScanForm:
    """The form of one node; ``shapes`` are those of the initialisers."""
    inputs = dict(zip(contract.BI_SELECTIVE_SCAN_INPUTS, node.input, strict=True))
    _, states, channels = shapes[inputs["A"]]
    low_rank = attribute_int(node, "low_rank")
    return BiScanForm(
        states=states,
        channels=channels,
        b_off=attribute_int(node, "b_off"),
        c_off=attribute_int(node, "c_off"),
        dt_off=attribute_int(node, "dt_off"),
        z_off=attribute_int(node, "z_off"),
        rank=shapes[inputs["dt"]][2] if low_rank else 0,
        delta_softplus=bool(attribute_int(node, "delta_softplus")),
        scale=attribute_float(node, "scale"),
    )


def bi_scan_function(form: BiScanForm, opset: int, tokens: int | None = None) -> FunctionProto:
    """One Scan that runs both directions side by side, each with a state of its own.

    With ``tokens``, the log-step form for that many instead, once for each direction.
    """
    nodes = [
        constant("axis_1", [1]),
        constant("axis_3", [3]),
        constant("axis_4", [4]),
        constant("parameter_axes", [1, 2]),
        *_step_sizes(form),
        *columns("xdbl", form.b_off, form.states, "b_rows", axis=3),
        *columns("xdbl", form.c_off, form.states, "c_rows", axis=3),
        helper.make_node("Unsqueeze", ["delta", "axis_3"], ["delta_5d"]),
        helper.make_node("Unsqueeze", ["delta_u", "axis_3"], ["delta_u_5d"]),
        helper.make_node("Unsqueeze", ["b_rows", "axis_4"], ["b_5d"]),
        helper.make_node("Unsqueeze", ["c_rows", "axis_4"], ["c_5d"]),
        *_picked(),
        *(_recurrence(form) if tokens is None else _unrolled(tokens)),
        *_sum_and_gate(form),
    ]
    return _function(
        contract.BI_SELECTIVE_SCAN,
        contract.BI_SELECTIVE_SCAN_INPUTS,
        contract.BI_SELECTIVE_SCAN_OUTPUTS,
        (*contract.BI_SELECTIVE_SCAN_ATTRIBUTES, *contract.BI_SELECTIVE_SCAN_FLOAT_ATTRIBUTES),
        nodes,
        opset,
    )


def _step_sizes(form: BiScanForm) -> list[NodeProto]:
    """delta [2,B,L,D] = softplus(dt + dt_bias), delta_u = delta * u, skip = u * Dskip."""
    nodes, dt = [], "dt"
    if form.rank:
        nodes = [
            *columns("xdbl", form.dt_off, form.rank, "dt_rows", axis=3),
            helper.make_node("Transpose", ["dt"], ["dt_weight"], perm=[0, 2, 1]),
            helper.make_node("Unsqueeze", ["dt_weight", "axis_1"], ["dt_weight_4d"]),
            helper.make_node("MatMul", ["dt_rows", "dt_weight_4d"], ["dt_full"]),
        ]
        dt = "dt_full"
    biased = "delta_before_softplus" if form.delta_softplus else "delta"
    nodes += [
        helper.make_node("Unsqueeze", ["dt_bias", "parameter_axes"], ["dt_bias_4d"]),
        helper.make_node("Add", [dt, "dt_bias_4d"], [biased]),
    ]
    if form.delta_softplus:
        nodes.append(helper.make_node("Softplus", [biased], ["delta"]))
    return [
        *nodes,
        helper.make_node("Mul", ["delta", "u2"], ["delta_u"]),
        helper.make_node("Unsqueeze", ["Dskip", "parameter_axes"], ["Dskip_4d"]),
        helper.make_node("Mul", ["u2", "Dskip_4d"], ["skip"]),
    ]


def _picked() -> list[NodeProto]:
    """Each direction's own tensors, out of the stacked ones."""
    nodes = []
    for number, d in enumerate(_DIRECTIONS):
        nodes.append(scalar(f"index{d}", number))
        sources = {"A": "A", "skip": "skip", **{name: f"{name}_5d" for name in _SLICED}}
        nodes += [
            helper.make_node("Gather", [source, f"index{d}"], [f"{name}{d}"], axis=0)
            for name, source in sources.items()
        ]
    return nodes


def _recurrence(form: BiScanForm) -> list[NodeProto]:
    """y_scan_fwd and y_scan_bwd [B,L,D]: the Scan and its initial states."""
    directions = [number for number in range(2) for _ in _SLICED]
    sliced = [f"{name}{d}" for d in _DIRECTIONS for name in _SLICED]
    scan = helper.make_node(
        "Scan",
        ["state_0", "state_0", *sliced],
        ["state_L_fwd", "state_L_bwd", "y_scan_fwd", "y_scan_bwd"],
        body=one_token(_DIRECTIONS),
        num_scan_inputs=len(sliced),
        scan_input_axes=[_TOKEN_AXIS] * len(sliced),
        scan_input_directions=directions,
        scan_output_axes=[_TOKEN_AXIS] * 2,
        scan_output_directions=[0, 1],
    )
    return [
        helper.make_node("Shape", ["xz"], ["batch"], start=0, end=1),
        constant("state_sizes", [form.states, form.channels]),
        helper.make_node("Concat", ["batch", "state_sizes"], ["state_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["state_shape"], ["state_0"]),
        scan,
    ]


def _unrolled(tokens: int) -> list[NodeProto]:
    """y_scan_fwd and y_scan_bwd [B,L,D] in log-step form."""
    nodes = []
    for reverse, d in enumerate(_DIRECTIONS):
        nodes += log_steps(d, f"A{d}", tokens, reverse=bool(reverse))
    return nodes


def _sum_and_gate(form: BiScanForm) -> list[NodeProto]:
    """y = scale * (y_fwd + y_bwd) * silu(z), each direction with its skip."""
    nodes = [helper.make_node("Add", [f"y_scan{d}", f"skip{d}"], [f"y{d}"]) for d in _DIRECTIONS]
    nodes.append(helper.make_node("Add", ["y_fwd", "y_bwd"], ["y_sum"]))
    total = "y_sum"
    if form.scale != 1:
        nodes += [scalar("factor", form.scale), helper.make_node("Mul", [total, "factor"], ["ys"])]
        total = "ys"
    return [
        *nodes,
        *columns("xz", form.z_off, form.channels, "gate", axis=2),
        *silu("gate", "gate_silu"),
        helper.make_node("Mul", [total, "gate_silu"], ["y"]),
    ]


def _function(
    name: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    attributes: tuple[str, ...],
    nodes: list[NodeProto],
    opset: int,
) -> FunctionProto:
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_function(
        contract.DOMAIN, name, list(inputs), list(outputs), nodes, opsets, list(attributes)
    )
