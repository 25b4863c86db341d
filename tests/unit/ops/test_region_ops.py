"""The ops on regions in ONNX Runtime: both bodies against the float64 references."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vim_deploy.graph.standalone import standalone
from vim_deploy.graph.trace import schema
from vim_deploy.ops import PYRAMID_ROI_ALIGN, SORTED_NMS, Op, contract
from vim_deploy.ops.functions import attach_functions, op_flaws, type_functions
from vim_deploy.ops.pyramid_roi_align import FROM

Array = NDArray[np.float32]
MAPS = ("p2", "p3", "p4", "p5")
#: float32 against float64: a sample's place is off by at most the rounding of a coordinate below
#: 128 cells, 4e-6 of a cell, at each of two axes, between cells that are at most 8 apart.
POOLED = 2 * 4e-6 * 8
BODIES = pytest.mark.parametrize("plain", [False, True], ids=["operator", "plain"])


def node_model(
    op: Op, opset: int = 18, plain: bool = False, **attributes: float
) -> onnx.ModelProto:
    """A model of one node, every size open."""
    node = helper.make_node(
        op.name, op.inputs, op.outputs, name="node", domain=contract.DOMAIN, **attributes
    )
    graph = helper.make_graph(
        [node], op.name, [_value(op, name) for name in op.inputs], [_value(op, op.outputs[0])]
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(contract.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    attach_functions(model, plain=plain)
    # In 16-bit files the bodies stay as they are.
    before = model.SerializeToString()
    type_functions(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(model, full_check=True)
    return model


def add_nms(model: onnx.ModelProto) -> None:
    """Put an NMS of stored boxes into a graph, with its output ``keep``."""
    boxes, group, valid = nms_inputs(0, 1, 5, 2)
    stored = {"boxes": boxes, "group": group, "valid": valid}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in stored.items())
    model.graph.node.append(
        helper.make_node(
            SORTED_NMS.name, [*stored], ["keep"], name="nms", domain=contract.DOMAIN,
            iou_threshold=0.5, groups=2,
        )
    )  # fmt: skip
    model.graph.output.append(helper.make_tensor_value_info("keep", TensorProto.FLOAT, [1, 5]))
    attach_functions(model, ops={SORTED_NMS.name: SORTED_NMS})


def _value(op: Op, name: str) -> onnx.ValueInfoProto:
    element = TensorProto.INT64 if name in op.int64 else TensorProto.FLOAT
    if name == "boxes":
        return helper.make_tensor_value_info(name, element, ["B", "N", 4])
    rank = 2 if op is SORTED_NMS else 4
    return helper.make_tensor_value_info(name, element, [f"{name}_{i}" for i in range(rank)])


def run(model: onnx.ModelProto, *inputs: NDArray[np.generic]) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in model.graph.input]
    (output,) = session.run(None, dict(zip(names, inputs, strict=True)))
    return output


def boxes_of(starts: NDArray[np.float64], sides: NDArray[np.float64]) -> Array:
    return np.concatenate([starts, starts + sides], axis=-1).astype(np.float32)


def nms_inputs(seed: int, images: int, count: int, groups: int) -> Iterator[NDArray[np.generic]]:
    """Boxes of every kind: on top of each other, equal, turned inside out, flat, not valid, NaN."""
    draw = np.random.default_rng(seed)
    sides = draw.random((images, count, 2)) * 30 - 1.5
    boxes = boxes_of(draw.random((images, count, 2)) * 60, sides)
    boxes[:, 1::7] = boxes[:, :-1:7]
    boxes[:, 5::9, 2] = boxes[:, 5::9, 0]
    boxes[:, 10::13] = 0.0
    boxes[:, 11::29, 3] = np.nan
    yield boxes
    yield draw.integers(0, groups, (images, count))
    yield (draw.random((images, count)) > 0.1).astype(np.float32)


@BODIES
@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize(
    ("images", "count", "groups", "limit"),
    [(1, 1, 1, 0.5), (2, 7, 1, 0.7), (3, 200, 3, 0.3), (1, 300, 80, 0.5)],
)
def test_nms(plain: bool, opset: int, images: int, count: int, groups: int, limit: float) -> None:
    attributes = {"iou_threshold": limit, "groups": groups}
    inputs = list(nms_inputs(count, images, count, groups))
    expected = SORTED_NMS.reference(inputs[0].astype(np.float64), *inputs[1:], **attributes)
    found = run(node_model(SORTED_NMS, opset, plain, **attributes), *inputs)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    live = inputs[2] > 0
    assert count < 200 or 0 < expected.sum() < live.sum()


@BODIES
def test_a_chain_of_boxes_is_settled_to_its_end(plain: bool) -> None:
    """Each overlaps the next only: every second one is kept, however long the chain is."""
    count = 101
    starts = np.stack([np.arange(count) * 4.0, np.zeros(count)], axis=-1)[None]
    boxes = boxes_of(starts, np.full((1, count, 2), 10.0))
    group, valid = np.zeros((1, count), np.int64), np.ones((1, count), np.float32)
    # Neighbours: 6 / 14; the second next: 2 / 18.
    model = node_model(SORTED_NMS, plain=plain, iou_threshold=0.4, groups=1)
    assert run(model, boxes, group, valid)[0].tolist() == [1.0, 0.0] * 50 + [1.0]
    # Equal to the threshold is not above it: 5 / 15 of a third.
    boxes = boxes_of(starts * 1.25, np.full((1, count, 2), 10.0))
    third = float(np.float32(5 / 15))
    model = node_model(SORTED_NMS, plain=plain, iou_threshold=third, groups=1)
    assert run(model, boxes, group, valid).all()


@BODIES
def test_nothing_to_keep(plain: bool) -> None:
    model = node_model(SORTED_NMS, plain=plain, iou_threshold=0.5, groups=2)
    boxes, group = np.zeros((2, 5, 4), np.float32), np.ones((2, 5), np.int64)
    assert run(model, boxes, group, np.ones((2, 5), np.float32)).tolist() == [[0.0] * 5] * 2
    boxes[..., 2:] = 3.0
    assert run(model, boxes, group, np.zeros((2, 5), np.float32)).tolist() == [[0.0] * 5] * 2


def test_no_loop_where_none_may_be() -> None:
    model = node_model(SORTED_NMS, plain=True, iou_threshold=0.5, groups=2)
    assert "Loop" in {node.op_type for node in model.functions[0].node}
    attach_functions(model, unrolled_tokens=64, plain=True)
    found = {node.op_type for node in model.functions[0].node}
    assert "NonMaxSuppression" in found
    assert "Loop" not in found


def pyramid(images: int, side: int, channels: int = 3) -> list[Array]:
    draw = np.random.default_rng(side)
    return [
        draw.standard_normal((images, channels, side // step, side // step)).astype(np.float32)
        for step in (4, 8, 16, 32)
    ]


def pooled(
    plain: bool, maps: list[Array], boxes: Array, size: int, canonical: float, opset: int = 18
) -> tuple[Array, NDArray[np.float64]]:
    """What a body gives, and the reference."""
    attributes = {"output_size": size, "canonical_size": canonical, "spatial_scale": 0.25}
    wide = [item.astype(np.float64) for item in (*maps, boxes)]
    expected = PYRAMID_ROI_ALIGN.reference(*wide, **attributes)
    model = node_model(PYRAMID_ROI_ALIGN, opset, plain, **attributes)
    found = run(model, *maps, boxes)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    return found, expected


@BODIES
@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize(
    ("images", "count", "side", "size"), [(1, 1, 64, 7), (2, 40, 128, 7), (2, 9, 96, 14)]
)
def test_pooling(plain: bool, opset: int, images: int, count: int, side: int, size: int) -> None:
    draw = np.random.default_rng(count)
    starts = draw.random((images, count, 2)) * side * 1.2 - 0.1 * side
    boxes = boxes_of(starts, draw.random((images, count, 2)) ** 2 * side * 1.4 + 1.0)
    maps = pyramid(images, side)
    found, expected = pooled(plain, maps, boxes, size, 40.0, opset)
    np.testing.assert_allclose(found, expected, rtol=0, atol=POOLED)
    if count == 40:
        sizes = np.sqrt(np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)) / 40.0
        assert np.unique(np.clip(np.floor(4 + np.log2(sizes)), 2, 5)).tolist() == [2, 3, 4, 5]


@BODIES
def test_boxes_at_the_edges_of_sense(plain: bool) -> None:
    boxes = np.array(
        [
            [5, 5, 5, 30], [5, 5, 30, 5], [9, 9, 3, 3], [9, 9, 3, 20], [0, 0, 0, 0],
            [-90, -90, -50, -60], [900, 900, 950, 930], [-3000, -2000, 4000, 3000],
            [60, 60, 64, 64], [0, 0, 0.001, 0.001], [1000, 8, 1000.00006, 9], [0, 0, 64, 0.5],
            [np.nan, 0, 8, 8],
        ],
        np.float32,
    )[None]  # fmt: skip
    found, expected = pooled(plain, pyramid(1, 64), boxes, 7, 40.0)
    assert np.isfinite(found).all()
    # A width that float32 has no room for, once half a cell is taken off.
    empty = [0, 1, 2, 3, 4, 10, 12]
    expected[10] = 0.0
    assert not expected[empty].any()
    assert not found[empty].any()
    # Hundreds of samples in each bin, and places up to 750 cells away.
    np.testing.assert_allclose(found, expected, rtol=0, atol=POOLED * 750 / 128)
    assert found[[7, 8, 9, 11]].any(axis=(1, 2, 3)).all()


@BODIES
def test_borders_of_levels(plain: bool) -> None:
    """Maps that are their level's number; sides around half, one and two canonical sizes."""
    maps = [np.full((1, 1, side, side), level, np.float32) for level, side in zip(
        (2, 3, 4, 5), (128, 64, 32, 16), strict=True)]  # fmt: skip
    sides = np.array([k * 56.0 * factor for k in (1, 2, 4) for factor in (1 - 1e-5, 1.0, 1 + 1e-5)])
    boxes = boxes_of(np.full((1, 9, 2), 20.0), sides[None, :, None] * np.ones(2))
    boxes[0, 1::3, 2:] = np.array([76.0, 132.0, 244.0])[:, None]
    found, _ = pooled(plain, maps, boxes, 1, 112.0)
    np.testing.assert_allclose(found[:, 0, 0, 0], np.round(found[:, 0, 0, 0]), rtol=1e-6)
    assert np.round(found[:, 0, 0, 0]).tolist() == [2, 3, 3, 3, 4, 4, 4, 5, 5]


def test_comparisons_are_the_formula_in_float32() -> None:
    """The 40 numbers of float32 around each border, by PyTorch's float32 operators."""
    torch = pytest.importorskip("torch", reason="not checked here: torch is not installed")
    for border, limit in zip((0.5, 1.0, 2.0), FROM.values(), strict=True):
        below = [border]
        for _ in range(20):
            below.insert(0, float(np.nextafter(np.float32(below[0]), np.float32(0))))
        sizes = torch.tensor(below + [border * (1 + k * 2**-23) for k in range(1, 20)])
        levels = torch.floor(4 + torch.log2(sizes + 1e-8))
        higher = levels > 3 + np.log2(border)
        assert torch.equal(higher, sizes >= torch.tensor(limit, dtype=torch.float32))
        assert higher.any()
        assert not higher.all()


def test_what_the_checks_know() -> None:
    model = node_model(SORTED_NMS, iou_threshold=0.5, groups=2)
    assert not list(op_flaws(model.graph.node[0]))
    node = helper.make_node(
        SORTED_NMS.name, SORTED_NMS.inputs, ["keep"], domain=contract.DOMAIN,
        iou_threshold=0.5, groups=0,
    )  # fmt: skip
    assert [flaw.rpartition(" says ")[2] for flaw in op_flaws(node)] == ["groups = 0"]
    given = {item.name: item.type_str for item in schema(SORTED_NMS).inputs}
    assert given == {
        "boxes": "tensor(float)", "group": "tensor(int64)", "valid": "tensor(float)"
    }  # fmt: skip
    assert not schema(PYRAMID_ROI_ALIGN).type_constraints


def test_nodes_of_one_file_may_differ() -> None:
    """Two poolings and two NMS of other sizes and thresholds share a function each."""
    model = node_model(PYRAMID_ROI_ALIGN, output_size=7, canonical_size=40.0, spatial_scale=0.25)
    other = onnx.NodeProto()
    other.CopyFrom(model.graph.node[0])
    other.name = other.output[0] = "small"
    next(item for item in other.attribute if item.name == "output_size").i = 2
    model.graph.node.append(other)
    model.graph.output.append(helper.make_tensor_value_info("small", 1, [None] * 4))
    for plain, tokens in ((False, None), (True, None), (False, 64)):
        attach_functions(model, tokens, plain=plain)
        (function,) = model.functions
        usual = "RoiAlign" in {node.op_type for node in function.node}
        assert usual is not (plain or tokens is not None)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        boxes = np.array([[[3, 4, 30, 40]]], np.float32)
        maps = pyramid(1, 64)
        feeds = dict(zip(MAPS, maps, strict=True)) | {"boxes": boxes}
        large, small = session.run(None, feeds)
        assert (large.shape[2:], small.shape[2:]) == ((7, 7), (2, 2))


@BODIES
@pytest.mark.parametrize("inline", [False, True])
def test_the_size_of_what_is_pooled_is_told(plain: bool, inline: bool) -> None:
    """From the sizes of inputs alone, as the sizes of an exported graph's tensors are."""
    scales = {"canonical_size": 40.0, "spatial_scale": 0.25}
    model = node_model(PYRAMID_ROI_ALIGN, plain=plain, output_size=7, **scales)
    sizes = {name: (2, 3, 64 >> i, 48 >> i) for i, name in enumerate(MAPS)}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, sizes.get(value.name, (2, 9, 4)), strict=True):
            dim.dim_value = size
    for dim in model.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    model = standalone(model) if inline else model
    told = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    (pooled,) = told.output
    assert [dim.dim_value for dim in pooled.type.tensor_type.shape.dim] == [18, 3, 7, 7]
    if inline:
        assert all(
            dim.HasField("dim_value")
            for value in told.value_info
            for dim in value.type.tensor_type.shape.dim
        )
