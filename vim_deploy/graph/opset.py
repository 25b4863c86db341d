"""The traced opset-18 graph in another opset, and an IR version that old parsers take.

Only changes that were read in the operators' changelog are made; an operator whose definition
changed in another way stops the export.
"""

from __future__ import annotations

import onnx
from onnx import AttributeProto, NodeProto, defs, helper

from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import constants_of, drop_unused_initializers, opset_version

OPSETS = (17, 18, 19, 20, 21)
DEFAULT_OPSET = 18

#: Lowest IR version that goes with each opset (ONNX release table). IR 8 is the first with local
#: functions and the last that TensorRT 8.6's parser reads.
_IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10}

#: Reductions whose axes were an attribute before opset 18.
_AXES_WERE_ATTRIBUTE = ("ReduceMean", "ReduceMax")
#: Operators that got new element types, optional attributes or values of those between opsets 17
#: and 21, with the meaning of what we emit unchanged.
_ONLY_EXTENDED = frozenset(
    {"Cast", "Constant", "ConstantOfShape", "Expand", "Flatten", "Identity", "Reshape", "Scan",
     "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Concat", "Gather", "Pad",
     "ReduceSum", "Div", "Sub", "Add", "Mul", "Pow", "ReduceMax", "Softplus", "Conv", "MatMul",
     "Gemm", "Resize", "ScatterND"}
)  # fmt: skip
#: Options of Resize since opset 18, and the values that mean what it did before.
_RESIZE_SINCE_18 = {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"}


def convert_opset(model: onnx.ModelProto, opset: int) -> None:
    """Rewrite ``model``, without local functions, from the traced opset to ``opset``, in place.

    Raises:
        VimDeployError: VIM-202 for an opset outside 17 to 21, VIM-503 when an operator of the
            graph has no form there.
    """
    if opset not in OPSETS:
        raise VimDeployError(
            "VIM-202",
            f"--opset {opset} is not supported",
            fix=f"--opset {DEFAULT_OPSET}, or one of {', '.join(map(str, OPSETS))}",
        )
    traced = opset_version(model)
    for node in model.graph.node:
        if node.domain == "" and _version_of(node, opset) != _version_of(node, traced):
            _convert(model, node, opset)
    drop_unused_initializers(model.graph)
    for entry in model.opset_import:
        if entry.domain == "":
            entry.version = opset
    model.ir_version = _IR_VERSIONS[opset]


def _version_of(node: NodeProto, opset: int) -> int:
    try:
        return int(defs.get_schema(node.op_type, opset, "").since_version)
    except defs.SchemaError:
        return 0


def _convert(model: onnx.ModelProto, node: NodeProto, opset: int) -> None:
    if opset < 18 and node.op_type in _AXES_WERE_ATTRIBUTE and len(node.input) == 2:
        axes = constants_of(model.graph).get(node.input[1])
        if axes is not None:
            del node.input[1]
            kept: list[AttributeProto] = [
                item for item in node.attribute if item.name != "noop_with_empty_axes"
            ]
            del node.attribute[:]
            values = [int(axis) for axis in axes]
            node.attribute.extend([*kept, helper.make_attribute("axes", values)])
            return
    plain = opset >= 18 or node.op_type != "Resize" or _drop_new_resize_options(node)
    if plain and node.op_type in _ONLY_EXTENDED and _version_of(node, opset):
        return
    raise VimDeployError(
        "VIM-503",
        f"opset {opset} has no form of {node.op_type} that this model needs",
        why=f"node {node.name}",
        fix=f"--opset {DEFAULT_OPSET}",
    )


def _drop_new_resize_options(node: NodeProto) -> bool:
    """Remove the options of opset 18 from a Resize that uses none of them; False when it does."""
    if any(item.name == "axes" for item in node.attribute):
        return False
    for name, usual in _RESIZE_SINCE_18.items():
        for item in [item for item in node.attribute if item.name == name]:
            if helper.get_attribute_value(item) != usual:
                return False
            node.attribute.remove(item)
    return True
