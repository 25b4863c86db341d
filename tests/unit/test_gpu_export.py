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
def test_models_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers", reason="pip install 'vim-deploy[deit]'")
    from export_models import main

    given = ["export_models.py", str(tmp_path), "--sizes", "32,8"]
    monkeypatch.setattr(sys, "argv", given)
    # Eight pixels are less than a patch of either model.
    assert main() == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert "vim-8: VimDeployError: VIM-4" in last
    assert "deit-8: VimDeployError: VIM-406" in last
    made = json.loads((tmp_path / "models.json").read_text())
    for precision in ("fp32", "fp16"):
        name = f"vim-32-{precision}"
        assert made[name]["graph"] == "fused-low-rank"
        nodes = list(made[name]["plugin_nodes"].values())
        assert nodes.count("VimBiCausalConv") == nodes.count("VimBiSelectiveScan") == 24
        model = onnx.load(tmp_path / f"{name}.onnx")
        assert not model.functions
        assert {node.op_type for node in model.graph.node if node.domain} == set(EXPECTED)
        assert next(entry.version for entry in model.opset_import if not entry.domain) == 17
    assert (tmp_path / "vim-32.in").stat().st_size == 8 * 3 * 32 * 32 * 4
    for stem in ("vim-32", "deit-32"):
        logits = np.fromfile(tmp_path / f"{stem}.out", np.float32)
        assert logits.size == 8 * 1000
        assert np.isfinite(logits).all()
