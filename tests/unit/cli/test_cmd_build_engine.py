"""``build-engine`` and ``refit`` from the command line, on the fake TensorRT and without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import fake_rtx, tiny_onnx
from tests.support.builds import install_only
from tests.support.trt_builds import half_scan_blocks, make_machine, save
from vim_deploy.cli.main import run
from vim_deploy.codec import encode
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(tiny_onnx.scan_blocks(2), tmp_path / "model.onnx")
    return tmp_path


@pytest.fixture
def rtx(monkeypatch):
    """Only TensorRT-RTX is installed."""
    install_only(monkeypatch, "tensorrt-rtx")
    monkeypatch.setattr(trt_rtx, "capabilities", lambda: fake_rtx.CAPABILITIES)


@pytest.fixture
def full(monkeypatch, tmp_path):
    """TensorRT 10.14 and a GPU are here."""
    install_only(monkeypatch, "tensorrt")
    return make_machine(monkeypatch, tmp_path, "10.14")


def call(capsys, *arguments: str) -> tuple[int, dict]:
    code = run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def refused(capsys, *arguments: str) -> dict:
    code, said = call(capsys, *arguments)
    assert code == said["error"]["exit_code"]
    return said["error"]


def test_auto_takes_full_tensorrt_and_says_so(full, folder, capsys):
    code, record = call(capsys, "build-engine", "model.onnx", "--opt-level", "2")
    assert code == 0
    assert record["runtime"] == "tensorrt"
    assert record["plugin_layers"] == {"VimSelectiveScan": 2}
    assert record["options"] == {"opt_level": 2}
    assert json.loads((folder / "model.plan.json").read_text())["gpu"] == "NVIDIA H200"


def test_dry_run_with_full_tensorrt(full, folder, capsys):
    code, decided = call(
        capsys, "build-engine", "model.onnx", "--dry-run", "--refit", "--max-batch", "4"
    )
    assert code == 0
    assert decided["dry_run"]
    assert decided["runtime_version"] == "10.14.1.48"
    assert decided["flags"] == ["REFIT"]
    assert decided["plugin_layers"] == {"VimSelectiveScan": 2}
    assert decided["profiles"][0]["tokens"]["max"] == [4, 6, 8]
    assert decided["output"] == "model.plan"
    assert any("functions dropped" in step for step in decided["lowering"])
    assert not (folder / "model.plan").exists()


def test_dry_run_with_rtx(rtx, folder, capsys):
    code, decided = call(capsys, "build-engine", "model.onnx", "--dry-run")
    assert code == 0
    assert decided["runtime"] == "tensorrt-rtx"
    assert decided["plugin"] is None
    assert "later" in decided["compute_capabilities"]
    assert not (folder / "model.plan").exists()


@pytest.mark.parametrize(
    "option",
    [
        ("--refit",),
        ("--strip-weights",),
        ("--opt-level", "3"),
        ("--workspace", "100"),
        ("--timing-cache", "off"),
        ("--hardware-compat", "ampere+"),
        ("--version-compatible",),
        ("--plugin", "some.so"),
        ("--tf32",),
        ("--tactic-sources", "-CUDNN"),
        ("--export-layers", "layers.json"),
    ],
)
def test_options_of_full_tensorrt_are_refused_by_rtx(rtx, folder, capsys, option):
    error = refused(capsys, "build-engine", "model.onnx", "--dry-run", *option)
    assert error["code"] == "VIM-203"
    assert option[0] in error["message"]
    error = refused(capsys, "deploy", "vim-tiny", "--random-weights", "0", *option)
    assert error["code"] == "VIM-203"


def test_what_rtx_does_anyway_is_taken(rtx, folder, capsys):
    code, _ = call(capsys, "build-engine", "model.onnx", "--dry-run", "--plugin", "none")
    assert code == 0


def test_options_of_rtx_are_refused_by_full_tensorrt(full, folder, capsys):
    arguments = ("build-engine", "model.onnx", "--compute-capability", "8.6")
    assert refused(capsys, *arguments)["code"] == "VIM-203"


def test_precision_options(full, folder, capsys):
    save(half_scan_blocks(2), folder / "half.onnx")
    code, decided = call(capsys, "build-engine", "half.onnx", "--fp16", "--dry-run")
    assert code == 0
    assert decided["precision"] == "fp16"
    assert decided["output"] == "half.fp16.plan"
    both = ("build-engine", "half.onnx", "--fp16", "--precision", "bf16")
    assert refused(capsys, *both)["code"] == "VIM-203"
    other = ("build-engine", "half.onnx", "--precision", "fp32")
    assert refused(capsys, *other)["code"] == "VIM-203"


def test_full_tensorrt_where_there_is_none(rtx, folder, capsys):
    error = refused(capsys, "build-engine", "model.onnx", "--runtime", "tensorrt")
    assert error["code"] == "VIM-301"


def test_refit(full, folder, capsys):
    assert call(capsys, "build-engine", "model.onnx", "--refit")[0] == 0
    code, record = call(capsys, "refit", "model.plan", "model.onnx", "-o", "other.plan")
    assert code == 0
    assert record["weights_from"]["name"] == "model.onnx"
    assert refused(capsys, "refit", "model.plan", "nothing.onnx")["code"] == "VIM-401"
    with_ema = ("refit", "model.plan", "model.onnx", "--use-ema")
    assert refused(capsys, *with_ema)["code"] == "VIM-203"
    (folder / "weights.pth").write_bytes(b"x")
    error = refused(capsys, "refit", "model.plan", "weights.pth")
    assert error["code"] == "VIM-607"
    assert "ONNX file" in error["fix"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_refit_with_a_checkpoint(full, folder, capsys, precision):
    """The checkpoint is exported as the engine's own file was, and typed as the engine was."""
    pytest.importorskip("torch", reason="not checked here: torch is not installed")
    from tests.support.fake_tensorrt.plan import decode_plan
    from tests.support.models import perturbed, save_training_file, tiny_config
    from vim_deploy.families.vim.network.vim import VisionMamba

    weights = []
    for seed in (0, 1):
        module = perturbed(VisionMamba(tiny_config()), seed)
        path = save_training_file(module, folder / f"{seed}.pth")
        (folder / f"{seed}.json").write_text(json.dumps(encode(module.config)))
        export = ("export", str(path), "--config", f"{seed}.json", "--no-check")
        assert call(capsys, *export, "-o", f"{seed}.onnx")[0] == 0
        plan = ("build-engine", f"{seed}.onnx", "--refit", "-o", f"{seed}.plan")
        code, built = call(capsys, *plan, "--precision", precision)
        assert code == 0
        assert built["precision"] == built["export"]["precision"] == precision
        weights.append(decode_plan((folder / f"{seed}.plan").read_bytes())["weights"])
    assert weights[0].keys() == weights[1].keys()
    assert weights[0] != weights[1]
    code, record = call(capsys, "refit", "0.plan", "1.pth")
    assert code == 0
    assert decode_plan((folder / "0.plan").read_bytes())["weights"] == weights[1]
    assert record["weights_from"]["name"] == "1.pth"
    assert record["plugin_layers"] == {"VimBiCausalConv": 2, "VimBiSelectiveScan": 2}
    kinds = {kind for kind, _, _ in weights[1].values()}
    assert kinds == ({"FLOAT"} if precision == "fp32" else {"FLOAT", "HALF"})
