"""What TensorRT-RTX is given where a file's functions or sizes are not for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support import fake_rtx, tiny_onnx
from tests.support.builds import build_engine_rtx
from tests.unit.ops.test_region_ops import node_model
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.record import read_record
from vim_deploy.errors import VimDeployError
from vim_deploy.ops import PYRAMID_ROI_ALIGN, SORTED_NMS
from vim_deploy.runtimes.building import build as building
from vim_deploy.runtimes.building.graph import TypedModel
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx
from vim_deploy.runtimes.tensorrt_rtx.lower import MOST_OF_TOPK, lower

NMS = {"iou_threshold": 0.5, "groups": 3}
ROI = {"output_size": 7, "canonical_size": 224.0, "spatial_scale": 0.25}


def typed(model: onnx.ModelProto, folder: Path) -> TypedModel:
    onnx.save(model, folder / "model.onnx")
    return TypedModel(Artifact.open(folder / "model.onnx"), model, "fp32", None)


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for item in (model.graph, *model.functions) for node in item.node}


@pytest.mark.parametrize(
    ("model", "lacking"),
    [
        (node_model(SORTED_NMS, **NMS), "NonMaxSuppression"),
        (node_model(PYRAMID_ROI_ALIGN, **ROI), "RoiAlign"),
    ],
    ids=["nms", "roi"],
)
def test_functions_are_exchanged_in_memory(
    model: onnx.ModelProto, lacking: str, tmp_path: Path
) -> None:
    assert lacking in operators(model)
    before = model.SerializeToString()
    lowered = lower(typed(model, tmp_path))
    assert not operators(lowered.model) & {"NonMaxSuppression", "RoiAlign", "NonZero"}
    assert lowered.model.graph == model.graph
    assert lowered.steps == (
        f"functions without NonMaxSuppression and RoiAlign: {model.functions[0].name}",
    )
    assert model.SerializeToString() == before


def test_other_graphs_stay(tmp_path: Path) -> None:
    graph = typed(tiny_onnx.scan_blocks(1), tmp_path)
    assert lower(graph) is graph


def test_the_record_says_what_was_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt_rtx, "capabilities", lambda: fake_rtx.CAPABILITIES)
    monkeypatch.setattr(building, "run_worker", fake_rtx.run_worker)
    model = tiny_onnx.scan_blocks(1)
    onnx.save(model, tmp_path / "scans.onnx")
    assert build_engine_rtx(tmp_path / "scans.onnx", tmp_path / "scans.plan").lowering == ()
    boxes = node_model(SORTED_NMS, **NMS)
    for value in boxes.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, (1, 5, 4), strict=False):
            dim.dim_value = size
    del boxes.graph.input[1:]
    boxes.graph.initializer.extend(
        [
            numpy_helper.from_array(np.zeros((1, 5), np.int64), "group"),
            numpy_helper.from_array(np.ones((1, 5), np.float32), "valid"),
        ]
    )
    onnx.save(boxes, tmp_path / "boxes.onnx")
    build_engine_rtx(tmp_path / "boxes.onnx", tmp_path / "boxes.plan")
    assert read_record(tmp_path / "boxes.plan").lowering == (
        "functions without NonMaxSuppression and RoiAlign: VimSortedNms",
    )


def best(count: int, name: str = "proposals/TopK") -> onnx.ModelProto:
    """The ``count`` best of a row."""
    node = helper.make_node("TopK", ["x", "count"], ["best", "index"], name=name)
    graph = helper.make_graph(
        [node],
        "best",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 9000])],
        [helper.make_tensor_value_info("best", TensorProto.FLOAT, [1, count])],
        [numpy_helper.from_array(np.array([count]), "count")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_topk_of_too_many_is_named(tmp_path: Path) -> None:
    graph = typed(best(MOST_OF_TOPK), tmp_path)
    assert lower(graph) is graph
    with pytest.raises(VimDeployError, match="TopK of more than 3840") as caught:
        lower(typed(best(MOST_OF_TOPK + 1), tmp_path))
    assert caught.value.code == "VIM-609"
    assert caught.value.why == "node proposals/TopK gives out 3841"
    assert "pre_nms_topk" in caught.value.fix


def test_operators_outside_of_functions_are_named(tmp_path: Path) -> None:
    node = helper.make_node(
        "NonMaxSuppression", ["boxes", "scores"], ["index"], name="head/NonMaxSuppression"
    )
    graph = helper.make_graph(
        [node],
        "nms",
        [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 5, 4]),
         helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, 5])],
        [helper.make_tensor_value_info("index", TensorProto.INT64, [None, 3])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(VimDeployError, match="has no NonMaxSuppression") as caught:
        lower(typed(model, tmp_path))
    assert caught.value.code == "VIM-609"
    assert "head/NonMaxSuppression" in caught.value.why
    assert "--standalone" in caught.value.fix
