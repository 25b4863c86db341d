"""What all bodies of all ops hold, in every form, beside their numbers."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import pytest
from onnx import FunctionProto, NodeProto, numpy_helper

from tests.support.mixed_scans import GATED, mixed_model
from tests.unit.ops import test_function_body as single
from tests.unit.ops import test_fused_bodies as pair
from tests.unit.ops import test_region_ops as regions
from vim_deploy.onnx_graph import subgraphs_of
from vim_deploy.ops import BI_CAUSAL_CONV, OPS, PYRAMID_ROI_ALIGN, SORTED_NMS
from vim_deploy.ops.functions import attach_functions, type_functions


def models() -> Iterator[onnx.ModelProto]:
    """A model for every way in which the nodes of an op make its body another."""
    for flag in (False, True):
        for softplus in (False, True):
            yield single.scan_model(reverse=True, softplus=softplus, gate=flag)
            for scale in (0.5, 1.0):
                yield pair.scan_model(pair.scan_inputs(2, flag)[0], flag, softplus, scale)
    yield mixed_model(GATED)
    weights = {"w": pair.np.ones((2, 4, 6)), "b": pair.np.ones((2, 6))}
    yield pair.model_of(BI_CAUSAL_CONV.name, BI_CAUSAL_CONV.inputs, "u2", weights, x_off=0)
    yield regions.node_model(SORTED_NMS, iou_threshold=0.5, groups=3)
    scales = {"canonical_size": 224.0, "spatial_scale": 0.25}
    yield regions.node_model(PYRAMID_ROI_ALIGN, output_size=7, **scales)


def bodies() -> list[FunctionProto]:
    """Each of them with and without a loop, in float32 and for any element type."""
    found = []
    for model in models():
        for tokens, plain in ((None, False), (1, False), (2, True), (9, False), ((3, 9), False)):
            for typed in (False, True):
                attach_functions(model, tokens, plain=plain)
                if typed:
                    type_functions(model)
                (function,) = model.functions
                copy = FunctionProto()
                copy.CopyFrom(function)
                found.append(copy)
    return found


def nodes(holder: FunctionProto | onnx.GraphProto) -> Iterator[NodeProto]:
    """Those of subgraphs included."""
    for node in holder.node:
        yield node
        for graph in subgraphs_of(node):
            yield from nodes(graph)


@pytest.fixture(scope="module")
def every() -> list[FunctionProto]:
    return bodies()


def test_the_bodies_are_those_of_all_ops(every: list[FunctionProto]) -> None:
    assert {function.name for function in every} == set(OPS)
    for function in every:
        op = OPS[function.name]
        assert tuple(function.input) == op.inputs
        assert tuple(function.output) == op.outputs
        assert tuple(function.attribute) == tuple(op.attributes)


def test_every_node_has_a_name_of_its_own(every: list[FunctionProto]) -> None:
    # ONNX Runtime 1.18 to 1.21 refuse a model after merging nodes that have none.
    for function in every:
        names = [node.name for node in nodes(function)]
        assert all(names)
        assert len(set(names)) == len(names)


def test_no_pad_is_negative(every: list[FunctionProto]) -> None:
    pads = 0
    for function in every:
        constants = {
            node.output[0]: numpy_helper.to_array(node.attribute[0].t)
            for node in function.node
            if node.op_type == "Constant" and node.attribute[0].HasField("t")
        }
        for node in function.node:
            if node.op_type == "Pad":
                pads += 1
                assert (constants[node.input[1]] >= 0).all()
            for attribute in node.attribute:
                assert attribute.name != "pads" or min(attribute.ints) >= 0
    assert pads


def test_constant_of_shape_says_its_value(every: list[FunctionProto]) -> None:
    found = [
        node for function in every for node in nodes(function) if node.op_type == "ConstantOfShape"
    ]
    assert found
    for node in found:
        (value,) = (item.t for item in node.attribute if item.name == "value")
        assert numpy_helper.to_array(value).tolist() == [0.0]
        assert value.data_type == onnx.TensorProto.FLOAT


def test_the_same_node_has_the_same_bytes(every: list[FunctionProto]) -> None:
    assert [item.SerializeToString(deterministic=True) for item in bodies()] == [
        item.SerializeToString(deterministic=True) for item in every
    ]
