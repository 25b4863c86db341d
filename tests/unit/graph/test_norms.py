"""The root-mean-square norms of exported graphs: what ONNX Runtime fuses, and how exact that is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from tests.support.models import tiny_config
from tests.unit.graph.test_export_graph import deployed
from vim_deploy.families.vim.network.vim import RMSNorm
from vim_deploy.graph.export_graph import export_graph
from vim_deploy.graph.inner_tensors import inner_tensors
from vim_deploy.graph.tidy import tidy
from vim_deploy.graph.trace import trace_classifier
from vim_deploy.recipe.precision_policy import PrecisionPolicy
from vim_deploy.specs import GraphForm

#: What ONNX Runtime calls a root-mean-square norm with its weight.
FUSED_NORM = "SimplifiedLayerNormalization"
#: Of float32, rounding to nearest.
UNIT_ROUNDOFF = 2.0**-24


def exported(
    graph: GraphForm = "fused",
    precision: str = "fp32",
    opset: int = 18,
    policy: PrecisionPolicy | None = None,
    rms_norm: bool = True,
) -> onnx.ModelProto:
    module, info = deployed(tiny_config(rms_norm=rms_norm))
    changes = {"graph": graph, "precision": precision, "opset": opset, "precision_policy": policy}
    return export_graph(module, replace(info, **changes), batch=None).model  # type: ignore[arg-type]


def optimized(model: onnx.ModelProto, path: Path) -> tuple[onnxruntime.InferenceSession, Counter]:
    """A session of ``model``, and the operators that ONNX Runtime runs for it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    # It warns that a file of an optimised graph is for this machine.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    ("graph", "precision", "opset", "policy"),
    [
        ("base", "fp32", 18, None),
        ("fused", "fp32", 17, None),
        ("fused", "fp32", 21, None),
        ("fused-low-rank", "fp32", 18, None),
        ("fused", "fp16", 18, None),
        # Nothing kept: the sums are half, and casts stand before the norms.
        ("fused", "fp16", 18, PrecisionPolicy()),
    ],
)
def test_every_norm_is_one_operator(
    graph: GraphForm, precision: str, opset: int, policy: PrecisionPolicy | None, tmp_path: Path
) -> None:
    model = exported(graph, precision, opset, policy)
    _, ops = optimized(model, tmp_path / "optimized.onnx")
    # One a block, and the last one.
    assert ops[FUSED_NORM] == tiny_config().depth + 1
    assert not {"Pow", "ReduceMean", "Sqrt", "Div", "Reciprocal"} & ops.keys()


def test_layer_norms_are_one_operator_in_the_file(tmp_path: Path) -> None:
    model = exported(rms_norm=False)
    _, ops = optimized(model, tmp_path / "optimized.onnx")
    assert ops["LayerNormalization"] == tiny_config().depth + 1
    assert not {"Pow", "ReduceMean", "Sqrt", FUSED_NORM} & ops.keys()


@pytest.mark.parametrize("width", [192, 768])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
def test_the_fused_norm_is_as_exact_as_float32(width: int, scale: float, tmp_path: Path) -> None:
    eps = 1e-5
    norm = RMSNorm(width, eps).eval()
    generator = np.random.default_rng(width)
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(generator.random(width, dtype=np.float32)))
    model = tidy(trace_classifier(norm, (5, width)))
    session, ops = optimized(model, tmp_path / "optimized.onnx")
    assert ops == {FUSED_NORM: 1}
    rows = (scale * generator.standard_normal((4, 3, 5, width))).astype(np.float32)
    # One channel that outweighs the others, as streams of deep models have.
    rows[..., 7] *= 100
    wide = rows.astype(np.float64)
    root = np.sqrt(np.square(wide).mean(-1, keepdims=True) + eps)
    expected = wide / root * norm.weight.detach().numpy()
    (found,) = session.run(None, {"image": rows})
    # A sum of n squares is off by n unit roundoffs at most, in any order, and the root halves that;
    # eps, mean, root, quotient and product round once each.
    bound = (width / 2 + 5) * UNIT_ROUNDOFF
    assert (np.abs(found - expected) <= bound * np.abs(expected)).all()


def test_the_norms_of_older_files_are_read_alike() -> None:
    model = exported()
    found = inner_tensors(model, dt_rank=1)
    older = onnx.ModelProto()
    older.CopyFrom(model)
    del older.graph.node[:]
    for node in model.graph.node:
        if node.op_type != "Div":
            older.graph.node.append(node)
            continue
        # Version 0.1.0 wrote x * Reciprocal(Sqrt(..)).
        stream, root = node.input
        name, inverse = node.name.replace("Div", "Reciprocal"), f"{node.name}/inverse"
        older.graph.node.append(helper.make_node("Reciprocal", [root], [inverse], name=name))
        name = node.name.replace("Div", "Mul")
        product = helper.make_node("Mul", [stream, inverse], node.output, name=name)
        older.graph.node.append(product)
    onnx.checker.check_model(older, full_check=True)
    assert len(older.graph.node) == len(model.graph.node) + tiny_config().depth + 1
    assert inner_tensors(older, dt_rank=1) == found
