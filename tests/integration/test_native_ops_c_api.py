"""Native ops in a program of C++: the calls it makes, on the library of ONNX Runtime's wheel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

pytest.importorskip("onnxruntime")

from tests.support.ort_c_api import OrtError, opened, run_with_ops
from tests.support.ort_ops import built_library
from vim_deploy.ops import BI_CAUSAL_CONV, contract

#: float32 against float64 over sums of four terms, as for the function's body.
RELATIVE_L2 = 2e-6
CHANNELS, WIDTH, X_OFF = 6, 4, 2


def convolution(path: Path, constants: dict[str, np.ndarray]) -> Path:
    """A file of one node without its function: nothing but a kernel can run it."""
    op = BI_CAUSAL_CONV
    node = helper.make_node(op.name, list(op.inputs), ["y"], domain=contract.DOMAIN, x_off=X_OFF)
    graph = helper.make_graph(
        [node],
        op.name,
        [helper.make_tensor_value_info("xz", onnx.TensorProto.FLOAT, ["B", "L", 2 * CHANNELS])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, "B", "L", CHANNELS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(contract.DOMAIN, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_one_call_registers_the_ops(tmp_path: Path) -> None:
    library = built_library()
    generator = np.random.default_rng(0)
    constants = {
        "w": generator.standard_normal((2, WIDTH, CHANNELS)).astype(np.float32),
        "b": generator.standard_normal((2, CHANNELS)).astype(np.float32),
    }
    xz = generator.standard_normal((3, 33, 2 * CHANNELS)).astype(np.float32)
    model = convolution(tmp_path / "convolution.onnx", constants)
    found = np.full((2, 3, 33, CHANNELS), np.nan, np.float32)
    with opened() as api:
        with pytest.raises(OrtError, match="VimBiCausalConv"):
            run_with_ops(api, model, None, {"xz": xz}, found)
        assert np.isnan(found).all()
        run_with_ops(api, model, library, {"xz": xz}, found)
    operands = (xz, constants["w"], constants["b"])
    expected = BI_CAUSAL_CONV.reference(
        *(value.astype(np.float64) for value in operands), x_off=X_OFF
    )
    assert np.linalg.norm(found - expected) <= RELATIVE_L2 * np.linalg.norm(expected)
