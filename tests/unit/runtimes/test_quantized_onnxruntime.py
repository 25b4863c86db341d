"""What ONNX Runtime is told of quantized files, and what they are known by."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support import tiny_onnx
from tests.support.packages import SERVED
from tests.support.quantized import scan_blocks
from vim_deploy.artifact import Artifact
from vim_deploy.onnx_quantized import precision_of, quantized_precision, quantized_products
from vim_deploy.runtimes import processor
from vim_deploy.runtimes.onnxruntime import quantized

#: Flags of processors: without such instructions, with them in 512 bits, and in 256.
OLD, WIDE, NARROW = "fpu avx2 avx512f", "fpu avx2 avx512f avx512_vnni", "fpu avx2 avx_vnni"


def pair(zero: np.generic | None, *, opset: int = 18) -> onnx.ModelProto:
    """x -> QuantizeLinear -> DequantizeLinear -> MatMul by a float matrix."""
    names = ["x", "scale", "zero"][: 2 if zero is None else 3]
    nodes = [
        helper.make_node("QuantizeLinear", names, ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", *names[1:]], ["d"], name="d"),
        helper.make_node("MatMul", ["d", "w"], ["y"], name="y"),
    ]
    constants = {"scale": np.float32(0.037), "w": np.eye(4, dtype=np.float32)}
    constants |= {} if zero is None else {"zero": zero}
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    versions = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=versions, ir_version=8 if opset < 19 else 9)


@pytest.mark.parametrize(
    ("zero", "precision"),
    [(np.int8(0), "int8"), (np.uint8(128), "int8"), (None, "int8"),
     (ml_dtypes.float8_e4m3fn(0), "fp8"), (ml_dtypes.float8_e5m2(0), None)],
)  # fmt: skip
def test_activations_say_what_a_graph_is(tmp_path, zero, precision):
    """Other tools' files, too; a type that no precision has is left to the floats around it."""
    model = pair(zero, opset=19)
    assert quantized_precision(model) == precision
    assert quantized_products(model) == 1
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    assert Artifact.open(path).precision == precision_of(model) == (precision or "fp32")


def test_weights_alone_are_no_quantization():
    model = pair(np.int8(0))
    del model.graph.node[0]
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 4), np.int8), "q"))
    assert (quantized_precision(model), quantized_products(model)) == (None, 0)
    assert precision_of(tiny_onnx.scan_blocks(1)) == "fp32"
    assert quantized_products(scan_blocks(layers=3)) == 6


def test_what_other_tools_make_of_integers():
    node = helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "g", [], [])
    assert quantized_precision(helper.make_model(graph)) == "int8"


@pytest.mark.parametrize(
    ("machine", "flags", "wrong"),
    [("x86_64", OLD, True), ("AMD64", WIDE, False), ("x86_64", NARROW, False),
     ("x86_64", None, True), ("aarch64", OLD, False)],
)  # fmt: skip
def test_processors(monkeypatch, tmp_path, machine, flags, wrong):
    """Told apart by their flags; where nothing tells, being right comes before being fast."""
    place = tmp_path / "cpuinfo"
    if flags is not None:
        place.write_text(f"processor : 0\nflags\t\t: {flags}\nbugs : none\n")
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    monkeypatch.setattr(processor, "_CPUINFO", place)
    assert processor.saturates() == wrong
    plain = {"session.disable_quant_qdq": "1"}
    assert quantized.entries_for("int8") == (plain if wrong else {})
    assert quantized.entries_for("fp8") == plain
    assert quantized.entries_for(None) == {}


@pytest.mark.parametrize("flags", [OLD, WIDE, NARROW, None])
def test_packages_tell_sessions_the_same(monkeypatch, tmp_path, flags):
    """The program of the python backend imports nothing of vim-deploy."""
    place = tmp_path / "cpuinfo"
    if flags is not None:
        place.write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(processor, "_CPUINFO", place)
    source = (SERVED / "model.py").read_text()
    start = source.index("def entries_for")
    text = source[start : source.index("\ndef ", start)].replace("/proc/cpuinfo", str(place))
    names: dict[str, object] = {"Path": Path}
    exec(text, names)
    for precision in ("int8", "fp8", ""):
        assert names["entries_for"](precision) == quantized.entries_for(precision or None)


def test_fp8_is_rounded_as_its_definition_says():
    """QuantizeLinear of ONNX Runtime against ml_dtypes, ties and the largest number included."""
    model = pair(ml_dtypes.float8_e4m3fn(0), opset=19)
    generator = np.random.default_rng(0)
    values = generator.standard_normal(20_000) * 10 ** generator.uniform(-4, 3, 20_000)
    codes = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    codes = np.sort(codes[np.isfinite(codes)])
    scale = np.float32(0.037)
    ties = (codes[1:] + codes[:-1]) / 2 * scale
    x = np.concatenate([values, ties, [0, 448 * scale, 1e6, -1e6]]).astype(np.float32)
    x = np.resize(x, (len(x) // 4, 4))
    options = onnxruntime.SessionOptions()
    for name, value in quantized.entries_for("fp8").items():
        options.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    wanted = np.clip(x / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert np.array_equal(session.run(None, {"x": x})[0], wanted * scale)
