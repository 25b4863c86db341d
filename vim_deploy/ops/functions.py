"""The meaning of ``VimSelectiveScan`` as an ONNX local function of standard operators.

Before: a model with ``vim_deploy::VimSelectiveScan`` nodes. After: the same nodes, and one
function of that name in the file, so that any ONNX runtime can run it without a plugin.

The fused ops' functions are written in ``fused_bodies``; ``attach_functions`` attaches them all.

The recurrence is an ONNX ``Scan`` over the token axis whose body holds elementwise and reduce ops
only: TensorRT-RTX's compiler fails on Unsqueeze, Squeeze or MatMul in there next to casts, so
those happen outside. State is [B, N, D]; a token's slices are [B, 1, D] and [B, N, 1]. Or it is the
log-step form of ``log_step_scan``, for runtimes without loops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, helper

from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import Shapes, attribute_int, opset_version
from vim_deploy.ops import contract, fused_bodies
from vim_deploy.ops.body_nodes import columns, constant, one_token, silu
from vim_deploy.ops.log_step_scan import in_scan_order, log_steps, scan_order
from vim_deploy.ops.own_nodes import nodes_of

#: Tensors that Scan slices per token: step sizes, step sizes times input, B, C; and y it stacks.
_SCAN_INPUTS = 4
_SCAN_OUTPUTS = 1
_TOKEN_AXIS = 1


@dataclass(frozen=True)
class ScanForm:
    """What one function body is specialised to: sizes and offsets shared by a model's scans."""

    state: int
    channels: int
    b_off: int
    c_off: int
    z_off: int
    delta_softplus: bool
    has_z: bool


def direction_attributes(reverse: bool) -> dict[str, list[int]]:
    """The lists that ``Scan`` wants, for a node of the given direction."""
    return {
        contract.SCAN_INPUT_DIRECTIONS: [int(reverse)] * _SCAN_INPUTS,
        contract.SCAN_OUTPUT_DIRECTIONS: [int(reverse)] * _SCAN_OUTPUTS,
    }


def attach_functions(model: onnx.ModelProto, unrolled_tokens: int | None = None) -> None:
    """Give ``model`` a local function for each of our ops that it holds.

    Args:
        model: changed in place; functions of other names stay.
        unrolled_tokens: tokens that every scan of the model sees, for bodies without a loop; None
            for ONNX Scans, which take any number.

    Raises:
        VimDeployError: VIM-502 when nodes of one op differ in what a function is written for (a
            scan's direction apart).
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    opset = opset_version(model)
    functions = [
        _function_of(nodes, shapes, form_of, function, opset)
        for op_type, form_of, function in _bodies(unrolled_tokens)
        if (nodes := nodes_of(model.graph, op_type))
    ]
    kept = [item for item in model.functions if (item.domain, item.name) not in _OWN]
    del model.functions[:]
    model.functions.extend([*kept, *functions])


def _function_of(
    nodes: list[NodeProto],
    shapes: Shapes,
    form_of: Callable[[NodeProto, Shapes], Any],
    function: Callable[[Any, int], FunctionProto],
    opset: int,
) -> FunctionProto:
    forms = {form_of(node, shapes) for node in nodes}
    if len(forms) != 1:
        raise VimDeployError(
            "VIM-502",
            f"the {nodes[0].op_type} nodes do not share one form",
            why=f"found {len(forms)}: {sorted(map(str, forms))}",
            fix="report this model config",
        )
    return function(forms.pop(), opset)


def _form_of(node: NodeProto, shapes: Shapes) -> ScanForm:
    state, channels = shapes[node.input[contract.SELECTIVE_SCAN_INPUTS.index("A")]]
    return ScanForm(
        state=state,
        channels=channels,
        b_off=attribute_int(node, "b_off"),
        c_off=attribute_int(node, "c_off"),
        z_off=attribute_int(node, "z_off"),
        delta_softplus=bool(attribute_int(node, "delta_softplus")),
        has_z=bool(attribute_int(node, "has_z")),
    )


def scan_function(form: ScanForm, opset: int, tokens: int | None = None) -> FunctionProto:
    """The function for one form; float32 tensors; without a loop when ``tokens`` are given."""
    nodes = [
        *columns("bc", form.b_off, form.state, "b_rows", axis=2),
        *columns("bc", form.c_off, form.state, "c_rows", axis=2),
        *_step_sizes(form),
        *(_recurrence(form) if tokens is None else _unrolled(tokens)),
        *_skip_and_gate(form),
    ]
    return helper.make_function(
        contract.DOMAIN,
        contract.SELECTIVE_SCAN,
        list(contract.SELECTIVE_SCAN_INPUTS),
        list(contract.SELECTIVE_SCAN_OUTPUTS),
        nodes,
        [helper.make_opsetid("", opset)],
        [
            *contract.SELECTIVE_SCAN_ATTRIBUTES,
            contract.SCAN_INPUT_DIRECTIONS,
            contract.SCAN_OUTPUT_DIRECTIONS,
        ],
    )


def _step_sizes(form: ScanForm) -> list[NodeProto]:
    """delta = softplus(dt + dt_bias); delta_u = delta * u."""
    biased = "delta_before_softplus" if form.delta_softplus else "delta"
    nodes = [helper.make_node("Add", ["dt", "dt_bias"], [biased])]
    if form.delta_softplus:
        nodes.append(helper.make_node("Softplus", [biased], ["delta"]))
    return [*nodes, helper.make_node("Mul", ["delta", "u"], ["delta_u"])]


def _recurrence(form: ScanForm) -> list[NodeProto]:
    """y_scan[B, L, D]: the Scan, its initial state and its per-token operands."""
    scan = helper.make_node(
        "Scan",
        ["state_0", "delta_4d", "delta_u_4d", "b_4d", "c_4d"],
        ["state_L", "y_scan"],
        body=one_token([""]),
        num_scan_inputs=_SCAN_INPUTS,
        scan_input_axes=[_TOKEN_AXIS] * _SCAN_INPUTS,
        scan_output_axes=[_TOKEN_AXIS] * _SCAN_OUTPUTS,
    )
    for name in (contract.SCAN_INPUT_DIRECTIONS, contract.SCAN_OUTPUT_DIRECTIONS):
        scan.attribute.append(
            AttributeProto(name=name, ref_attr_name=name, type=AttributeProto.INTS)
        )
    return [
        constant("axis_2", [2]),
        constant("axis_3", [3]),
        helper.make_node("Unsqueeze", ["delta", "axis_2"], ["delta_4d"]),
        helper.make_node("Unsqueeze", ["delta_u", "axis_2"], ["delta_u_4d"]),
        helper.make_node("Unsqueeze", ["b_rows", "axis_3"], ["b_4d"]),
        helper.make_node("Unsqueeze", ["c_rows", "axis_3"], ["c_4d"]),
        helper.make_node("Shape", ["u"], ["batch"], start=0, end=1),
        constant("state_sizes", [form.state, form.channels]),
        helper.make_node("Concat", ["batch", "state_sizes"], ["state_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["state_shape"], ["state_0"]),
        scan,
    ]


def _unrolled(tokens: int) -> list[NodeProto]:
    """y_scan[B, L, D] in log-step form, which runs forward on tokens in the scan's order."""
    nodes = [constant("axis_2", [2]), constant("axis_3", [3]), *scan_order(tokens, "reverse")]
    for source, axis, name in (
        ("delta", "axis_2", "delta_ordered"),
        ("delta_u", "axis_2", "delta_u_ordered"),
        ("b_rows", "axis_3", "b_ordered"),
        ("c_rows", "axis_3", "c_ordered"),
    ):
        nodes += [
            in_scan_order(source, f"{name}_3d"),
            helper.make_node("Unsqueeze", [f"{name}_3d", axis], [name]),
        ]
    steps = log_steps("_ordered", "A", tokens)
    return [*nodes, *steps, in_scan_order("y_scan_ordered", "y_scan")]


def _skip_and_gate(form: ScanForm) -> list[NodeProto]:
    """y = (y_scan + Dskip u) silu(z)."""
    ungated = "y_ungated" if form.has_z else "y"
    nodes = [
        helper.make_node("Mul", ["u", "Dskip"], ["skip"]),
        helper.make_node("Add", ["y_scan", "skip"], [ungated]),
    ]
    if not form.has_z:
        return nodes
    return [
        *nodes,
        *columns("z", form.z_off, form.channels, "gate", axis=2),
        *silu("gate", "gate_silu"),
        helper.make_node("Mul", [ungated, "gate_silu"], ["y"]),
    ]


def _bodies(
    tokens: int | None,
) -> tuple[tuple[str, Callable[..., Any], Callable[..., FunctionProto]], ...]:
    """Op, form of one of its nodes, and the body for a form."""
    bi_scan_function = partial(fused_bodies.bi_scan_function, tokens=tokens)
    return (
        (contract.SELECTIVE_SCAN, _form_of, partial(scan_function, tokens=tokens)),
        (contract.BI_CAUSAL_CONV, fused_bodies.conv_form, fused_bodies.conv_function),
        (contract.BI_SELECTIVE_SCAN, fused_bodies.bi_scan_form, bi_scan_function),
    )


#: Functions that are replaced, or go when the model does not hold their op.
_OWN = frozenset((contract.DOMAIN, op_type) for op_type, _, _ in _bodies(None))
