"""The kernels of detectors' ops in ONNX Runtime: beside the functions, and on odd inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.support import ort_ops
from tests.support.ort_ops import Array
from vim_deploy.ops import PYRAMID_ROI_ALIGN, SORTED_NMS, Op, contract
from vim_deploy.ops.functions import attach_functions
from vim_deploy.ops.pyramid_roi_align import FROM

POOLING = {"output_size": 3, "canonical_size": 32.0, "spatial_scale": 0.25}
SUPPRESSION = {"iou_threshold": 0.5, "groups": 3}
INF, NAN = np.inf, np.nan


@pytest.fixture(scope="module")
def library() -> Path:
    return ort_ops.built_library()


def model_of(op: Op, feeds: dict[str, Array], **attributes: Any) -> bytes:
    """A node with its function, every size open."""
    node = helper.make_node(
        op.name, op.inputs, op.outputs, name="node", domain=contract.DOMAIN, **attributes
    )
    inputs = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(values.dtype),
            [f"{name}_{axis}" for axis in range(values.ndim)],
        )
        for name, values in feeds.items()
    ]
    output = helper.make_tensor_value_info(op.outputs[0], onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], op.name, inputs, [output])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(contract.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    attach_functions(model)
    return bytes(model.SerializeToString())


def run(op: Op, feeds: dict[str, Array], *libraries: Path, threads: int = 1, **said: Any) -> Array:
    session = ort_ops.open_session(model_of(op, feeds, **said), *libraries, threads=threads)
    return np.asarray(session.run(None, feeds)[0])


def pooling_feeds(boxes: Any, batch: int = 1, channels: int = 5) -> dict[str, Array]:
    draw = np.random.default_rng(0).standard_normal
    maps = {f"p{k}": draw((batch, channels, 128 >> k, 128 >> k), np.float32) for k in (2, 3, 4, 5)}
    return {**maps, "boxes": np.asarray(boxes, np.float32).reshape(batch, -1, 4)}


def suppression_feeds(boxes: Any, group: Any, batch: int = 1) -> dict[str, Array]:
    boxes = np.asarray(boxes, np.float32).reshape(batch, -1, 4)
    group = np.asarray(group, np.int64).reshape(batch, -1)
    return {"boxes": boxes, "group": group, "valid": np.ones(group.shape, np.float32)}


def test_a_level_begins_where_the_function_has_it(library: Path) -> None:
    """Boxes whose relative sizes are the floats around each bound."""
    sides = []
    for bound in FROM.values():
        side = np.float32(bound * POOLING["canonical_size"])
        sides += [np.nextafter(side, np.float32(0)), side, np.nextafter(side, np.float32(INF))]
    boxes = np.array([[0.0, 0.0, side, side] for side in sides], np.float32)
    feeds = pooling_feeds(boxes)
    for level in range(2, 6):
        feeds[f"p{level}"] = np.full_like(feeds[f"p{level}"], level)
    native, function = (run(PYRAMID_ROI_ALIGN, feeds, *way, **POOLING) for way in ([library], []))
    np.testing.assert_array_equal(native.round(3), function.round(3))
    assert native.reshape(9, -1)[:, 0].round().tolist() == [2, 3, 3, 3, 4, 4, 4, 5, 5]


def test_the_function_decides_alike(library: Path) -> None:
    """In float32, overlaps close to the threshold among them."""
    draw = np.random.default_rng(1)
    # Whole numbers, so that many overlaps are a half, a third or equal to another.
    starts = draw.integers(0, 12, (2, 400, 2))
    boxes = np.concatenate([starts, starts + draw.integers(-1, 9, (2, 400, 2))], axis=-1)
    group = draw.integers(0, 3, (2, 400))
    for threshold in (0.5, 1 / 3, 0.2, 0.0, 1.0):
        said = {"iou_threshold": threshold, "groups": 3}
        feeds = suppression_feeds(boxes, group, batch=2)
        native, function = (run(SORTED_NMS, feeds, *way, **said) for way in ([library], []))
        np.testing.assert_array_equal(native, function)
        assert 0 < native.sum() < 800


def test_groups_that_there_are_not_are_not_kept(library: Path) -> None:
    """Also those that are a known group in their lower 32 bits."""
    group = [0, 1 << 32, -1, 3, (1 << 63) - 1, -(1 << 63), 2]
    feeds = suppression_feeds([[0, 0, 9, 9]] * 7, group)
    assert run(SORTED_NMS, feeds, library, **SUPPRESSION).tolist() == [[1, 0, 0, 0, 0, 0, 1]]


def test_boxes_that_are_none(library: Path) -> None:
    odd = [[NAN, 0, 9, 9], [0, 0, NAN, 9], [9, 0, 0, 9], [0, 5, 9, 5], [0, 0, 0, 0]]
    feeds = suppression_feeds([*odd, [0, 0, 9, 9]], [0] * 6)
    assert run(SORTED_NMS, feeds, library, **SUPPRESSION).tolist() == [[0, 0, 0, 0, 0, 1]]
    # And such as no picture has: of infinite or unknown place, or farther than floats can tell.
    odd += [[-INF, 0, INF, 9], [0, 0, INF, INF], [0, 0, 1e30, 1e30], [3e8, 0, 3e8 + 64, 9]]
    pooled = run(PYRAMID_ROI_ALIGN, pooling_feeds(odd), library, **POOLING)
    np.testing.assert_array_equal(pooled, np.zeros((len(odd), 5, 3, 3)))


def test_a_pixel_that_is_no_number_stays_where_it_is(library: Path) -> None:
    feeds = pooling_feeds([[0, 0, 12, 12], [16, 0, 28, 12], [60, 60, 72, 72]])
    clean = run(PYRAMID_ROI_ALIGN, feeds, library, **POOLING)
    feeds["p2"][0, 2, 1, 5] = NAN
    found = run(PYRAMID_ROI_ALIGN, feeds, library, **POOLING)
    assert np.isnan(found[1, 2]).any()
    found[1, 2] = clean[1, 2]
    np.testing.assert_array_equal(found, clean)


def test_a_long_box_takes_no_longer(library: Path) -> None:
    """Sixteen million cells, of which a few are in the map: only those are gone through."""
    feeds = pooling_feeds([[-3e7, 0, 3e7, 8], [0, 0, 8, 4e7]])
    pooled = run(PYRAMID_ROI_ALIGN, feeds, library, **POOLING)
    assert np.isfinite(pooled).all()
    assert (abs(pooled) < 1e-3).all()


@pytest.mark.parametrize(
    ("batch", "count", "channels"), [(0, 3, 5), (2, 0, 5), (1, 3, 0), (0, 0, 0)]
)
def test_nothing_gives_nothing(library: Path, batch: int, count: int, channels: int) -> None:
    feeds = pooling_feeds(np.ones((1, 3, 4)))
    feeds = {
        name: np.resize(values, (batch, channels, *values.shape[2:]))
        for name, values in feeds.items()
        if name != "boxes"
    }
    feeds["boxes"] = np.zeros((batch, count, 4), np.float32)
    pooled = run(PYRAMID_ROI_ALIGN, feeds, library, **POOLING)
    assert pooled.shape == (batch * count, channels, 3, 3)
    feeds = {"boxes": feeds["boxes"], "group": np.zeros((batch, count), np.int64)}
    feeds["valid"] = np.ones((batch, count), np.float32)
    assert run(SORTED_NMS, feeds, library, **SUPPRESSION).shape == (batch, count)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output_size": 0}, "output_size is below 1"),
        ({"output_size": contract.MAX_ROI_OUTPUT + 1}, "output_size is above 64"),
        ({"output_size": 1 << 40}, "attribute output_size is 1099511627776, must lie between"),
        ({"output_size": 2.0}, "attribute output_size is missing or not an integer"),
        ({"canonical_size": 0.0}, "canonical_size and spatial_scale must be finite and above 0"),
        ({"spatial_scale": NAN}, "canonical_size and spatial_scale must be finite and above 0"),
    ],
)
def test_attributes_are_refused_in_words(library: Path, change: dict[str, Any], words: str) -> None:
    feeds = pooling_feeds(np.ones((1, 3, 4)))
    graph = helper.make_graph(
        [
            helper.make_node(
                "VimPyramidRoiAlign", list(feeds), ["y"], domain="vim_deploy", **POOLING | change
            )
        ],
        "g",
        [helper.make_tensor_value_info(name, 1, values.shape) for name, values in feeds.items()],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("vim_deploy", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(Exception, match=f"VimPyramidRoiAlign: {words}"):
        ort_ops.open_session(model.SerializeToString(), library).run(None, feeds)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("p3", (1, 4, 16, 16), r"input p3 has shape \[1, 4, 16, 16\], expected \[1, 5, 16, 16\]"),
        ("p5", (1, 5, 0, 4), "a map has no cells"),
        ("p2", (5, 32, 32), r"input p2 has shape \[5, 32, 32\], expected 4 dimensions"),
        ("boxes", (1, 3, 5), r"input boxes has shape \[1, 3, 5\], expected \[1, 3, 4\]"),
        ("boxes", (2, 3, 4), r"input boxes has shape \[2, 3, 4\], expected \[1, 3, 4\]"),
    ],
)
def test_shapes_are_refused_in_words(
    library: Path, name: str, shape: tuple[int, ...], words: str
) -> None:
    feeds = pooling_feeds(np.ones((1, 3, 4))) | {name: np.zeros(shape, np.float32)}
    with pytest.raises(Exception, match=f"VimPyramidRoiAlign: {words}"):
        run(PYRAMID_ROI_ALIGN, feeds, library, **POOLING)


def test_threads_decide_nothing(library: Path) -> None:
    draw = np.random.default_rng(2)
    starts = draw.random((1, 5000, 2)) * 100
    boxes = np.concatenate([starts, starts + draw.random((1, 5000, 2)) * 30], axis=-1)
    ways = (1, 2, 5)
    feeds = suppression_feeds(boxes, draw.integers(0, 3, 5000))
    first, *others = [run(SORTED_NMS, feeds, library, threads=n, **SUPPRESSION) for n in ways]
    assert 0 < first.sum() < 5000
    pools = [
        run(
            PYRAMID_ROI_ALIGN,
            pooling_feeds(boxes[:, :1100], channels=18),
            library,
            threads=n,
            **POOLING,
        )
        for n in ways
    ]
    for base, again in ((first, others), (pools[0], pools[1:])):
        for other in again:
            np.testing.assert_array_equal(base, other)
