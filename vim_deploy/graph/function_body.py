"""The meaning of ``VimSelectiveScan`` as an ONNX local function of standard operators.

Before: a model with ``vim_deploy::VimSelectiveScan`` nodes. After: the same nodes, and one
function of that name in the file, so that any ONNX runtime can run it without a plugin.

The recurrence is an ONNX ``Scan`` over the token axis whose body holds elementwise and reduce ops
only: TensorRT-RTX's compiler fails on Unsqueeze, Squeeze or MatMul in there next to casts, so
those happen outside. State is [B, N, D]; a token's slices are [B, 1, D] and [B, N, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, helper

from vim_deploy import contract
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.rewrite import attribute_int, opset_version, scan_nodes

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


def attach_functions(model: onnx.ModelProto) -> None:
    """Give ``model`` the local function that all its scan nodes share.

    Raises:
        VimDeployError: VIM-502 when the nodes differ in anything but the direction.
    """
    nodes = scan_nodes(model.graph)
    if not nodes:
        return
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    forms = {_form_of(node, shapes) for node in nodes}
    if len(forms) != 1:
        raise VimDeployError(
            "VIM-502",
            "the scan nodes do not share one form",
            why=f"found {len(forms)}: {sorted(map(str, forms))}",
            fix="report this model config",
        )
    kept = [item for item in model.functions if item.domain != contract.DOMAIN]
    del model.functions[:]
    model.functions.extend([*kept, scan_function(forms.pop(), opset_version(model))])


def _form_of(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> ScanForm:
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


def scan_function(form: ScanForm, opset: int) -> FunctionProto:
    """The function for one form; float32 tensors."""
    nodes = [
        *_columns("bc", form.b_off, form.state, "b_rows"),
        *_columns("bc", form.c_off, form.state, "c_rows"),
        *_step_sizes(form),
        *_recurrence(form),
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


def _constant(name: str, values: Sequence[int]) -> NodeProto:
    array = np.array(values, dtype=np.int64)
    return helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(array))


def _columns(source: str, start: int, count: int, name: str) -> list[NodeProto]:
    """``name`` = source[..., start : start + count] of a rank-3 tensor."""
    return [
        _constant(f"{name}_start", [start]),
        _constant(f"{name}_end", [start + count]),
        _constant(f"{name}_axis", [2]),
        helper.make_node("Slice", [source, f"{name}_start", f"{name}_end", f"{name}_axis"], [name]),
    ]


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
        body=_scan_body(),
        num_scan_inputs=_SCAN_INPUTS,
        scan_input_axes=[_TOKEN_AXIS] * _SCAN_INPUTS,
        scan_output_axes=[_TOKEN_AXIS] * _SCAN_OUTPUTS,
    )
    for name in (contract.SCAN_INPUT_DIRECTIONS, contract.SCAN_OUTPUT_DIRECTIONS):
        scan.attribute.append(
            AttributeProto(name=name, ref_attr_name=name, type=AttributeProto.INTS)
        )
    return [
        _constant("axis_2", [2]),
        _constant("axis_3", [3]),
        helper.make_node("Unsqueeze", ["delta", "axis_2"], ["delta_4d"]),
        helper.make_node("Unsqueeze", ["delta_u", "axis_2"], ["delta_u_4d"]),
        helper.make_node("Unsqueeze", ["b_rows", "axis_3"], ["b_4d"]),
        helper.make_node("Unsqueeze", ["c_rows", "axis_3"], ["c_4d"]),
        helper.make_node("Shape", ["u"], ["batch"], start=0, end=1),
        _constant("state_sizes", [form.state, form.channels]),
        helper.make_node("Concat", ["batch", "state_sizes"], ["state_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["state_shape"], ["state_0"]),
        scan,
    ]


def _scan_body() -> GraphProto:
    """One token: h = exp(delta A) h + delta u B; y = sum_n C h."""

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    return helper.make_graph(
        [
            helper.make_node("Mul", ["delta_t", "A"], ["delta_a_t"]),
            helper.make_node("Exp", ["delta_a_t"], ["decay_t"]),
            helper.make_node("Mul", ["decay_t", "state_in"], ["decayed_t"]),
            helper.make_node("Mul", ["delta_u_t", "b_t"], ["input_t"]),
            helper.make_node("Add", ["decayed_t", "input_t"], ["state_out"]),
            helper.make_node("Mul", ["state_out", "c_t"], ["read_t"]),
            _constant("state_axis", [1]),
            helper.make_node("ReduceSum", ["read_t", "state_axis"], ["y_t"], keepdims=0),
        ],
        "one_token",
        [value(name) for name in ("state_in", "delta_t", "delta_u_t", "b_t", "c_t")],
        [value("state_out"), value("y_t")],
    )


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
        *_columns("z", form.z_off, form.channels, "gate"),
        helper.make_node("Sigmoid", ["gate"], ["gate_sigmoid"]),
        helper.make_node("Mul", ["gate", "gate_sigmoid"], ["gate_silu"]),
        helper.make_node("Mul", [ungated, "gate_silu"], ["y"]),
    ]
