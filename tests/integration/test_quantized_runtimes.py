"""The digits in int8 and fp8, as the exporter writes them, in every runtime that is here."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="not checked here: torch is not installed")

from benchmarks.consumer_runs import run_folder
from tests.support import consumers, reference
from tests.support.ort_ops import built_library
from tests.support.quantized import quantized_file
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import inputs_of, outputs_of
from vim_deploy.cli.inspect_summary import summary
from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import read_by_subgraphs
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.packaging.servable import read_servable
from vim_deploy.packaging.triton import plan_repository
from vim_deploy.precisions import Precision
from vim_deploy.runtimes.onnxruntime import capability, quantized
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages import inspect
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

ALL = pytest.mark.skipif(
    not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs the other combinations"
)
#: Products of the digits: two directions of x_proj in each of six blocks, in_proj, out_proj; the
#: patch embedding and the head.
PRODUCTS = 6 * 4 + 2


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "digits.onnx"
    return export("vim-digits", path, ExportOptions(check=False, opset=19)).path


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return reference.load_case(reference.DIGITS).image[:8]


def made(
    exported: Path, precision: Precision, floats: Precision = "fp32", *, per_token: bool = False
) -> Path:
    kind = "rows" if per_token else "static"
    path = exported.with_name(f"digits.{precision}.{floats}.{kind}.onnx")
    if not path.exists():
        quantized_file(exported, path, precision, floats, per_token=per_token)
    return path


def optimized(path: Path, folder: Path, **settings: object) -> Counter[str]:
    """Operators that ONNX Runtime computes a file with."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    if settings.get("native"):
        options.register_custom_ops_library(str(built_library()))
    onnxruntime.InferenceSession(str(path), options)
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize("per_token", [False, True], ids=["static", "rows"])
@pytest.mark.parametrize("native", [False, True], ids=["functions", "native"])
@pytest.mark.parametrize("floats", ["fp32", pytest.param("fp16", marks=ALL)])
def test_every_product_of_a_block_is_one_of_integers(exported, tmp_path, per_token, native, floats):
    """Fusions decide the speed: in_proj and both halves of x_proj become one node each.

    So does each digit of what out_proj reads. The pair that is subtracted stays one.

    The head with a bias is a Gemm, and the patch embedding a Conv: ONNX Runtime computes those in
    float32 when nothing quantizes behind them. Each is there once.
    """
    path = made(exported, "int8", floats, per_token=per_token)
    ops = optimized(path, tmp_path, native=native)
    assert ops["MatMulIntegerToFloat"] == PRODUCTS - 2 + 6 + per_token
    assert ops["Gemm"] == 1 - per_token
    assert ops["DequantizeLinear"] == 2 * (2 - per_token) + 6
    assert ops["QuantizeLinear"] == PRODUCTS + 2 * 6
    # No weights alone in 8 bits: activations would be rounded once more.
    assert ops["MatMulNBits"] == 0
    assert ops["MatMul"] == (0 if native else 6)


@pytest.mark.parametrize(
    ("precision", "floats", "per_token"),
    [("int8", "fp32", False), ("fp8", "fp32", False),
     pytest.param("int8", "bf16", True, marks=ALL), pytest.param("fp8", "fp16", True, marks=ALL)],
)  # fmt: skip
def test_runners_compute_what_the_file_says(
    exported, images, monkeypatch, precision, floats, per_token
):
    """Near float32; the same on a processor without VNNI; and OpenVINO near ONNX Runtime."""
    path = made(exported, precision, floats, per_token=per_token)
    plain = OrtRunner(exported).run(images)["logits"]
    runner = OrtRunner(path)
    found = runner.run(images)["logits"]
    assert runner.input.dtype == "float32"
    assert np.linalg.norm(found - plain) <= 0.15 * np.linalg.norm(plain)
    monkeypatch.setattr(quantized, "saturates", lambda: True)
    exact = OrtRunner(path)
    assert (quantized.NOTE in exact.notes) == (precision == "int8")
    # A value at the border of two 8-bit numbers falls on either side: one step of 8 bits.
    assert np.linalg.norm(exact.run(images)["logits"] - found) <= 0.01 * np.linalg.norm(found)
    pytest.importorskip("openvino")
    from vim_deploy.runtimes.openvino.runner import OpenVinoRunner

    other = OpenVinoRunner(path)
    assert other.input.dtype == "float32"
    gap = np.linalg.norm(other.run(images)["logits"] - found) / np.linalg.norm(found)
    assert gap <= 0.05
    if precision == "int8":
        monkeypatch.setattr("vim_deploy.runtimes.openvino.runner.saturates", lambda: True)
        floats_only = OpenVinoRunner(path)
        assert "VNNI" in floats_only.notes[-1]
        near = np.linalg.norm(floats_only.run(images)["logits"] - found)
        assert near <= 0.01 * np.linalg.norm(found)


def test_inner_tensors(exported, images):
    """Every place that PyTorch has, but for norms that smoothing was folded into."""
    plain, found = (
        OrtRunner(path).parts(images[:2]) for path in (exported, made(exported, "int8"))
    )
    assert {str(place) for place in plain.keys() - found.keys()} == {"block 2 norm"}
    for place, values in found.items():
        assert values.shape == plain[place].shape
        assert np.linalg.norm(values - plain[place]) <= 0.5 * np.linalg.norm(plain[place]), place


def test_standalone_files_of_it(exported, images, tmp_path):
    """The same numbers in standard operators, whose loops read no Cast of what is stored."""
    path = made(exported, "int8")
    options = ExportOptions(check=False, standalone=True)
    alone = export(str(path), tmp_path / "alone.onnx", options).path
    assert Artifact.open(alone).require_info().standalone
    found, wanted = (OrtRunner(item).run(images)["logits"] for item in (alone, path))
    assert np.linalg.norm(found - wanted) <= 0.01 * np.linalg.norm(wanted)
    made_by = {name: node for node in onnx.load(alone).graph.node for name in node.output}
    loops = [node for node in made_by.values() if node.op_type == "Scan"]
    read = {made_by[name].op_type for loop in loops for name in read_by_subgraphs(loop)
            if name in made_by}  # fmt: skip
    assert loops
    assert "Cast" not in read


@pytest.mark.parametrize(
    ("consumer", "environment"),
    [("onnxruntime", "onnxruntime-1.18.1"), pytest.param("tract", "tract", marks=ALL)],
)
def test_runtimes_of_others(exported, images, tmp_path, pytestconfig, consumer, environment):
    """The oldest ONNX Runtime that the extra allows, without an option, and tract."""
    path = made(exported, "int8")
    wanted = OrtRunner(path).run(images)["logits"]
    options = ExportOptions(check=False, standalone=consumer == "tract")
    target = tmp_path / "digits.onnx"
    if options.standalone:
        export(str(path), target, options)
    else:
        shutil.copy(path, target)
    np.savez(tmp_path / "digits.npz", image=images, output_0=wanted)
    place = consumers.environment_of(pytestconfig, environment)
    result = run_folder(consumer, tmp_path, place)["results"]["digits"]
    assert result["differences"][0] <= 0.02 * np.abs(wanted).max()


def test_what_a_file_says(exported):
    path = made(exported, "int8", "bf16")
    file = Artifact.open(path)
    assert file.precision == "int8"
    assert file.require_info().floats == "bf16"
    assert not file.description.changed
    assert {spec.dtype for spec in (*inputs_of(file.model), *outputs_of(file.model))} == {"float32"}
    rows = dict(summary(inspect(path)))
    assert rows["quantization"] == (
        f"{PRODUCTS + 6} products in int8, static scales, minmax of 4 pictures (seed 0), "
        "the rest in bf16"
    )
    assert "quantization" not in dict(summary(inspect(exported)))


def test_a_tool_that_undoes_it_is_told(exported, tmp_path):
    """The graph counts: floats in a file that says int8 are floats."""
    model = onnx.load(made(exported, "int8"))
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    path = tmp_path / "undone.onnx"
    onnx.save(model, path)
    file = Artifact.open(path)
    assert file.precision == "fp32"
    assert file.require_info().quantization is None
    assert file.description.changed["precision"] == ("int8", "fp32")


def test_triton(exported):
    """int8 with a word about processors, fp8 where a session can be told, bfloat16 nowhere."""
    served = read_servable(made(exported, "int8"))
    plan = plan_repository(served, ServingOptions(runtime="onnxruntime", ops="function"))
    assert any("VNNI" in note for note in plan.notes)
    assert not plan.config["parameters"]
    config = plan_repository(served, ServingOptions(runtime="python", ops="function")).config
    assert config["parameters"]["PRECISION"] == {"string_value": "int8"}
    fp8 = read_servable(made(exported, "fp8"))
    plan_repository(fp8, ServingOptions(runtime="python", ops="function"))
    for model, words in ((fp8, "--runtime python"), (read_servable(made(exported, "int8", "bf16")),
                                                     "--precision")):  # fmt: skip
        with pytest.raises(VimDeployError) as caught:
            plan_repository(model, ServingOptions(runtime="onnxruntime", ops="function"))
        assert caught.value.code == "VIM-426"
        assert words in caught.value.fix


@pytest.mark.parametrize(
    ("precision", "floats", "per_token"),
    [("int8", "fp16", False), *(pytest.param(*row, marks=ALL) for row in (
        ("int8", "fp32", False), ("int8", "bf16", True), ("fp8", "fp16", False),
        ("fp8", "fp32", True)))],
)  # fmt: skip
def test_tensorrt_rtx_builds_it(exported, tmp_path, caplog, precision, floats, per_token):
    pytest.importorskip("tensorrt_rtx")
    from tests.support.builds import build_engine_rtx

    path = made(exported, precision, floats, per_token=per_token)
    plan = tmp_path / "digits.plan"
    with caplog.at_level("WARNING"):
        record = build_engine_rtx(path, plan)
    assert Artifact.engine(plan).precision == precision
    assert record.export is not None
    assert record.export.floats == floats
    assert ("no products in fp8" in caplog.text) == (precision == "fp8")


def test_fp8_for_old_gpus_is_refused(exported, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    from tests.support.builds import build_engine_rtx

    with pytest.raises(VimDeployError) as caught:
        build_engine_rtx(made(exported, "fp8"), tmp_path / "m.plan", compute_capabilities=["8.6"])
    assert caught.value.code == "VIM-203"
    assert "8.9" in caught.value.why


def test_the_entry_reaches_the_session(exported, monkeypatch):
    """Of a session that is told to be exact, and of none on a processor with VNNI."""
    seen = []
    inner = capability.create_session
    monkeypatch.setattr(
        "vim_deploy.runtimes.onnxruntime.runner.ort.create_session",
        lambda model, settings, name: seen.append(settings.entries) or inner(model, settings, name),
    )
    for wrong in (True, False):
        monkeypatch.setattr(quantized, "saturates", lambda wrong=wrong: wrong)
        OrtRunner(made(exported, "int8"))
    OrtRunner(exported)
    assert [dict(entries) for entries in seen] == [{"session.disable_quant_qdq": "1"}, {}, {}]
