"""Small artifacts to package: an ONNX classifier that runs in a millisecond, stand-in engines."""

from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.engines import EXPORT, record_of, write_engine, write_record
from tests.support.source import PACKAGE
from vim_deploy.artifact import metadata
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.record import PluginIdentity
from vim_deploy.files import sha256_of
from vim_deploy.ops import BI_CAUSAL_CONV, contract
from vim_deploy.ops.functions import attach_functions

SIZES = (1, 2, 3)
#: The programs that packages carry.
SERVED = PACKAGE / "packaging" / "served"


def names_of(path: Path) -> SimpleNamespace:
    """The names of one of them; nothing is written beside it, and this process stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "dont_write_bytecode", True)
        return SimpleNamespace(**runpy.run_path(str(path)))


def classifier(
    path: Path, batch: int | str = "batch", *, info: ExportInfo | None = EXPORT, seed: int = 0
) -> Path:
    """``logits = flatten(image) @ w``: float32 [batch, 1, 2, 3] to [batch, 4]."""
    weight = np.random.default_rng(seed).standard_normal((6, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["rows"], axis=1),
            helper.make_node("MatMul", ["rows", "w"], ["logits"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (batch, *SIZES))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (batch, 4))],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if info is not None:
        metadata.attach(model, info)
    onnx.save(model, path)
    return path


def own_op_classifier(path: Path) -> Path:
    """A classifier around one of our own ops, with its function: [batch, 1, 2, 3] to [batch, 4]."""
    generator = np.random.default_rng(1)
    op = BI_CAUSAL_CONV
    constants = {
        "rows": np.array([-1, 3, 2]),
        "w": generator.standard_normal((2, 4, 2)).astype(np.float32),
        "b": generator.standard_normal((2, 2)).astype(np.float32),
        "first": np.array(0),
        "head": generator.standard_normal((6, 4)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["image", "rows"], ["xz"]),
            helper.make_node(op.name, list(op.inputs), ["u2"], domain=contract.DOMAIN, x_off=0),
            helper.make_node("Gather", ["u2", "first"], ["forward"], axis=0),
            helper.make_node("Flatten", ["forward"], ["features"], axis=1),
            helper.make_node("MatMul", ["features", "head"], ["logits"]),
        ],
        "own_op",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("batch", *SIZES))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 4))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(contract.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    attach_functions(model)
    metadata.attach(model, EXPORT)
    onnx.save(model, path)
    return path


def bytes_classifier(path: Path) -> Path:
    """The same from bytes: uint8 [batch, 2, 3, 1], with preprocess ``uint8`` in the metadata."""
    weight = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["values"], ["rows"], axis=1),
            helper.make_node("MatMul", ["rows", "w"], ["logits"]),
        ],
        "bytes",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ("batch", 2, 3, 1))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 4))],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    metadata.attach(model, dataclasses.replace(EXPORT, preprocess="uint8"))
    onnx.save(model, path)
    return path


def engine(
    folder: Path,
    *,
    profiles: tuple[tuple[int, int, int], ...] = ((1, 2, 4),),
    plugin: Path | None = None,
    **changes: Any,
) -> Path:
    """A stand-in's plan with the record of a build; ``plugin`` is the library it needs."""
    path = write_engine(folder, profiles=profiles)
    if plugin is not None:
        changes["plugin"] = PluginIdentity(
            plugin.name, sha256_of(plugin), "1.0", 1, "V3", ("VimBiSelectiveScan",)
        )
        changes["plugin_layers"] = {"VimBiSelectiveScan": 2}
    write_record(path, record_of(path, profiles=profiles, **changes))
    return path
