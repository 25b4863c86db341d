"""``benchmarks/gpu``: models for TensorRT 8.6, and the judging of what its engines answer."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support.fake_tensorrt import personality
from tests.support.source import REPOSITORY
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.runtimes.tensorrt.capability import capabilities_of

GPU = REPOSITORY / "benchmarks" / "gpu"
TYPES = {"a_output_0": "float16", "b_output_0": "float32"}
NODES = {"conv_0": "VimBiCausalConv", "scan_0": "VimBiSelectiveScan"}
EXPECTED = {"VimBiCausalConv": 1, "VimBiSelectiveScan": 1}


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GPU))


def layer(name: str, kind: str, output: str, dtype: str) -> dict[str, Any]:
    outputs = [{"Name": output, "Format/Datatype": f"Row major linear {dtype} format"}]
    return {"Name": name, "LayerType": kind, "Outputs": outputs}


def inspection(*, scan: str = "scan_0", half: str = "FP16") -> str:
    """As 8.6 tells it: plugins without their types."""
    layers = [
        layer("conv_0", "PluginV2", "u2_output_0", "FP16"),
        layer(scan, "PluginV2", "y_output_0", "FP16"),
        layer("MatMul_1", "MatrixMultiply", "a_output_0", half),
        layer("Add_1", "ElementWise", "b_output_0", "FP32"),
    ]
    return json.dumps({"Layers": layers})


def test_what_8_6_can_do_is_what_the_package_finds_there() -> None:
    pytest.importorskip("onnxscript", reason="pip install 'vim-deploy[torch]'")
    from export_models import TENSORRT_8_6

    found = capabilities_of(personality("8.6"))
    # Lowering asks nothing of builder flags and hardware levels, and a literal would only age.
    ignored = {"builder_flags": frozenset(), "hardware_levels": frozenset()}
    assert vars(TENSORRT_8_6) == {**vars(found), **ignored}


def test_names_that_would_not_come_back() -> None:
    pytest.importorskip("onnxscript", reason="pip install 'vim-deploy[torch]'")
    from export_models import type_lines

    assert type_lines(TYPES) == "a_output_0 float16\nb_output_0 float32\n"
    for name in ("a b", "", "a\n"):
        with pytest.raises(ValueError, match="white space"):
            type_lines({name: "float32"})


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, None),
        ({"scan": "other"}, "VimBiSelectiveScan: 1 in the graph, 0 in the engine"),
        ({"half": "FP32"}, "a_output_0 is float32, asked float16"),
    ],
)
def test_layers(given: dict[str, str], why: str | None) -> None:
    from judge import layers

    row = layers(inspection(**given), TYPES, NODES, EXPECTED)
    assert row["ok"] is (why is None)
    assert (why or "") in row.get("why", "")


@pytest.mark.parametrize(
    ("values", "ok", "why"),
    [
        ([3.0, 4.0], True, ""),
        ([3.0, 4.004], True, ""),
        ([3.0, 4.01], False, ""),
        ([3.0], False, "1 numbers, expected 2"),
        ([3.0, float("nan")], False, "1 numbers are not finite"),
    ],
)
def test_parity(tmp_path: Path, values: list[float], ok: bool, why: str) -> None:
    from judge import parity

    np.array([3.0, 4.0], np.float32).tofile(tmp_path / "want")
    np.array(values, np.float32).tofile(tmp_path / "got")
    row = parity(tmp_path / "got", tmp_path / "want", 1e-3)
    assert (row["ok"], row.get("why", "")) == (ok, why)


def test_judging_as_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from judge import main

    def judged(*arguments: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["judge.py", *arguments])
        status = main()
        return status, json.loads(capsys.readouterr().out)

    (tmp_path / "m.types").write_text("a_output_0 float16\nb_output_0 float32\n")
    (tmp_path / "models.json").write_text(json.dumps({"m": {"plugin_nodes": NODES}}))
    told = tmp_path / "told.json"
    told.write_text(inspection())
    given = ("layers", str(told), str(tmp_path), "m", "--plugins")
    assert judged(*given, "VimBiCausalConv=1,VimBiSelectiveScan=1")[0] == 0
    status, row = judged(*given, "VimBiCausalConv=1,VimBiSelectiveScan=2")
    assert status == 1
    assert "2 in the graph, 1 in the engine" in row["why"]
    status, row = judged("parity", str(tmp_path / "none"), str(tmp_path / "none"), "--limit", "1")
    assert (status, row["ok"]) == (1, False)
    assert "FileNotFoundError" in row["why"]


@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs this")
def test_a_vim_is_made(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'vim-deploy[torch]'")
    from export_models import export_vim

    config = {"img_size": 32, "depth": 2, "embed_dim": 32, "num_classes": 10}
    config |= {"bimamba_type": "v2", "final_pool_type": "mean"}
    request = ModelRequest("tiny", config=config, random_weights=0)
    made = export_vim(tmp_path, request, "vim-32")
    for precision in ("fp32", "fp16"):
        name = f"vim-32-{precision}"
        assert made[name]["graph"] == "fused-low-rank"
        nodes = list(made[name]["plugin_nodes"].values())
        assert nodes.count("VimBiCausalConv") == nodes.count("VimBiSelectiveScan") == 2
        model = onnx.load(tmp_path / f"{name}.onnx")
        assert not model.functions
        assert {node.op_type for node in model.graph.node if node.domain} == set(EXPECTED)
        assert next(entry.version for entry in model.opset_import if not entry.domain) == 17
        kinds = {line.split()[1] for line in (tmp_path / f"{name}.types").read_text().splitlines()}
        assert kinds == ({"float32"} if precision == "fp32" else {"float16", "float32"})
    assert (tmp_path / "vim-32.in").stat().st_size == 8 * 3 * 32 * 32 * 4
    assert np.isfinite(np.fromfile(tmp_path / "vim-32.out", np.float32)).sum() == 8 * 10


@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs this")
def test_a_deit_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="pip install 'vim-deploy[deit]'")
    from export_models import export_deit

    monkeypatch.setattr("vim_deploy.model.deit.DEPTH", 1)
    export_deit(tmp_path, 32, "deit-32")
    with OrtRunner(tmp_path / "deit-32.onnx") as runner:
        image = np.fromfile(tmp_path / "deit-32.in", np.float32).reshape(8, 3, 32, 32)
        logits = runner.run(image)["logits"]
    expected = np.fromfile(tmp_path / "deit-32.out", np.float32).reshape(8, 1000)
    assert np.linalg.norm(logits - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs this")
def test_what_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers", reason="pip install 'vim-deploy[deit]'")
    from export_models import main

    # Eight pixels are less than a patch of either model.
    monkeypatch.setattr(sys, "argv", ["export_models.py", str(tmp_path), "--sizes", "8"])
    assert main() == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert "vim-8: VimDeployError: VIM-406" in last
    assert "deit-8: VimDeployError: VIM-406" in last
    assert set(json.loads((tmp_path / "models.json").read_text())) == {"vim-8", "deit-8"}
