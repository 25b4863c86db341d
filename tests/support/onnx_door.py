"""A small model with a weight and a local function, changed and sent through the ONNX door."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vim_deploy.artifact.onnx_file import read_onnx

Change = Callable[[onnx.ModelProto], object]


def model() -> onnx.ModelProto:
    """``logits = own(image @ w)``, image float32 [batch, 3]."""
    weight = numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
    body = helper.make_function(
        "own", "Body", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "w"], ["m"], name="mul"),
         helper.make_node("Body", ["m"], ["logits"], domain="own", name="call")],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [weight],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[body], ir_version=9)


def read(tmp_path: Path, change: Change | None = None) -> onnx.ModelProto:
    """The model after ``change``, written and read again."""
    changed = model()
    if change is not None:
        change(changed)
    path = tmp_path / "m.onnx"
    path.write_bytes(changed.SerializeToString())
    return read_onnx(path).model
