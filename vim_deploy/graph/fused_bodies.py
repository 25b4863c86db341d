"""The meaning of the fused ops as ONNX local functions of standard operators.

Like the one-direction scan's body (``function_body``), and with its restrictions: nothing but
elementwise and reduce operators inside the Scan. A body is written for the sizes and offsets that
the nodes of a file share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import FunctionProto, NodeProto, helper

from vim_deploy import contract
from vim_deploy.graph.body_nodes import columns, constant, one_token, scalar, silu
from vim_deploy.graph.rewrite import Shapes, attribute_float, attribute_int

#: End of a slice that runs to the last element.
_TO_END = int(np.iinfo(np.int64).max)
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
    """Sums of shifted tokens: no transpose, and the same form for both directions.

    With W - 1 zeros on either side, token l + s of the padded rows is x[l - (W - 1) + s].
    """
    last = form.width - 1
    nodes = [
        *columns("xz", form.x_off, form.channels, "x", axis=2),
        constant("padding", [0, last, 0, 0, last, 0]),
        helper.make_node("Pad", ["x", "padding"], ["padded"], mode="constant"),
        constant("tokens_axis", [1]),
        constant("leading_axis", [0]),
        *_rows_of_parameters(form),
    ]
    for shift in range(2 * last + 1):
        end = shift - 2 * last
        nodes += [
            constant(f"start_{shift}", [shift]),
            constant(f"end_{shift}", [end or _TO_END]),
            helper.make_node(
                "Slice",
                ["padded", f"start_{shift}", f"end_{shift}", "tokens_axis"],
                [f"x_{shift}"],
            ),
        ]
    for number, direction in enumerate(_DIRECTIONS):
        nodes += _one_convolution(form, number, direction)
    stacked = [f"row{direction}" for direction in _DIRECTIONS]
    nodes += [helper.make_node("Concat", stacked, ["convolved"], axis=0), *silu("convolved", "u2")]
    return _function(
        contract.BI_CAUSAL_CONV,
        contract.BI_CAUSAL_CONV_INPUTS,
        contract.BI_CAUSAL_CONV_OUTPUTS,
        contract.BI_CAUSAL_CONV_ATTRIBUTES,
        nodes,
        opset,
    )


def _rows_of_parameters(form: ConvForm) -> list[NodeProto]:
    """Each tap and each bias as a tensor [1,D] of its own."""
    taps = [f"tap{d}_{tap}" for d in _DIRECTIONS for tap in range(form.width)]
    return [
        constant("flat", [len(taps), form.channels]),
        helper.make_node("Reshape", ["w", "flat"], ["flat_taps"]),
        constant("one_each", [1] * len(taps)),
        helper.make_node("Split", ["flat_taps", "one_each"], taps, axis=0),
        constant("one_each_direction", [1, 1]),
        helper.make_node(
            "Split", ["b", "one_each_direction"], [f"bias{d}" for d in _DIRECTIONS], axis=0
        ),
    ]


def _one_convolution(form: ConvForm, number: int, direction: str) -> list[NodeProto]:
    """row [1,B,L,D] = bias + sum over k of tap k times the tokens it reaches."""
    d, last = direction, form.width - 1
    nodes: list[NodeProto] = []
    total = f"bias{d}"
    for tap in range(form.width):
        shift = tap if number == 0 else 2 * last - tap
        nodes += [
            helper.make_node("Mul", [f"x_{shift}", f"tap{d}_{tap}"], [f"term{d}_{tap}"]),
            helper.make_node("Add", [total, f"term{d}_{tap}"], [f"sum{d}_{tap}"]),
        ]
        total = f"sum{d}_{tap}"
    return [*nodes, helper.make_node("Unsqueeze", [total, "leading_axis"], [f"row{d}"])]


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


def bi_scan_function(form: BiScanForm, opset: int) -> FunctionProto:
    """One Scan that runs both directions side by side, each with a state of its own."""
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
        *_recurrence(form),
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
