"""The script for a machine with a GPU: its preparation for real, its steps on scripted answers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.commands import parse
from tests.support.source import REPOSITORY
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.cuda.driver import Gpu

SCRIPT = REPOSITORY / "benchmarks" / "gpu" / "engines.py"
PARTS = {"VimBiCausalConv": 24, "VimBiSelectiveScan": 24}
ENGINE: dict[str, Any] = {
    "export": {"model_config": {"depth": 24}},
    "plugin_layers": PARTS,
}


@pytest.fixture
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_engines", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Machine:
    """Answers commands as a machine with a GPU would, and checks that each can be parsed."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.commands: list[list[str]] = []
        self.limits: list[float] = []

    def run(self, command: list[str], **options: Any) -> Any:
        if command[0] == "git":
            return subprocess.CompletedProcess(command, 0, "abc\n", "")
        self.limits.append(options["timeout"])
        assert options["env"]["PYTHONPATH"].split(os.pathsep)[0] == str(REPOSITORY)
        assert command[1:3] == ["-m", "vim_deploy"]
        assert command[3] == "-q"
        arguments = command[4:]
        self.commands.append(arguments)
        parse(arguments)
        answer = self.answers.get(arguments[0], {})
        if arguments[0] == "build-engine":
            precision = arguments[arguments.index("--precision") + 1]
            types = {"float32": 4, **({"float16": 9} if precision == "fp16" else {})}
            answer = {**ENGINE, "layer_types": types, **answer}
        if arguments[:2] == ["plugin", "build"]:
            answer = {"library": "/x/libvim_plugins.so"}
        if isinstance(answer, str):
            return subprocess.CompletedProcess(command, 7, "", answer)
        return subprocess.CompletedProcess(command, 0, json.dumps(answer), "")


def started(
    check: ModuleType,
    machine: Machine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float = 60.0,
) -> tuple[int, dict[str, Any]]:
    (folder / "prepared.json").write_text(json.dumps({"models": ["vim-tiny"]}))
    run = check.Run(folder / "out", folder / "plans", seconds)
    monkeypatch.setattr(check.subprocess, "run", machine.run)
    monkeypatch.setattr(cuda_driver, "gpu", lambda: Gpu("Fake H200", 9, 0, 132))
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: object())
    # Set by the script for its own commands; here it must not outlive the test.
    monkeypatch.setenv("VIM_DEPLOY_PLUGIN", "")
    status = check.run_all(folder, run, "1,8", None)
    return status, json.loads((folder / "out" / "engines.json").read_text())


def test_every_step(check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    status, value = started(check, machine, tmp_path, monkeypatch)
    assert status == 0
    assert value["gpu"]["name"] == "Fake H200"
    assert [" ".join(command[:2]) for command in machine.commands[:3]] == [
        "doctor --json",
        "plugin build",
        "plugin test",
    ]
    names = list(value["steps"])
    for model in ("vim-digits", "vim-tiny"):
        for precision in ("fp32", "fp16"):
            for what in ("build", "plugin layers", "precision", "against PyTorch"):
                assert f"{model} {precision}: {what}" in names
    assert "vim-tiny: bench with CUDA graphs" in names
    digits = next(c for c in machine.commands if c[0] == "verify" and "vim-digits-fp32" in c[1])
    assert digits[digits.index("--top1-agree") + 1] == "0.9972"
    assert 358 / 360 < float("0.9972") <= 359 / 360
    limits = [c[c.index("--relative-l2") + 1] for c in machine.commands if c[0] == "verify"]
    assert limits == ["1e-3", "1e-2", "1e-3", "1e-2", "1e-3", "1e-2"]
    inner = [c for c in machine.commands if "--inner-tensors" in c or "--per-block" in c]
    assert [c[0] for c in inner] == ["build-engine", "verify"] * 2
    assert all("vim-digits.onnx" in " ".join(c) for c in inner)
    assert "left_out" not in value
    assert all(0 < limit <= 60 for limit in machine.limits)


@pytest.mark.parametrize(
    ("answers", "failed"),
    [
        ({"verify": "error VIM-701: too far"}, "vim-tiny fp16: against PyTorch"),
        ({"build-engine": {"plugin_layers": {}}}, "vim-tiny fp32: plugin layers"),
        ({"build-engine": {"layer_types": {"float32": 9}}}, "vim-tiny fp16: precision"),
        ({"build-engine": {"layer_types": {"float16": 9}}}, "vim-tiny fp32: precision"),
        ({"build-engine": "error VIM-603"}, "vim-tiny fp32: build"),
    ],
)
def test_a_step_that_fails_is_kept_and_the_others_go_on(
    check: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: Any,
    failed: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = Machine(**answers)
    if answers.get("build-engine") == "error VIM-603":
        monkeypatch.setattr(Machine, "run", refuse_builds(Machine.run))
    status, value = started(check, machine, tmp_path, monkeypatch)
    assert status == 1
    assert value["steps"][failed]["status"] != 0
    assert value["steps"][failed]["said"]
    assert "plugin: test on the GPU" in value["steps"]
    assert f"failed: {failed}" in capsys.readouterr().err


def refuse_builds(real: Any) -> Any:
    """The same machine, whose builds fail."""

    def run(machine: Machine, command: list[str], **options: Any) -> Any:
        if "build-engine" in command:
            return subprocess.CompletedProcess(command, 6, "", "error VIM-603")
        return real(machine, command, **options)

    return run


def test_no_step_begins_when_the_time_is_over(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    first = machine.run

    def run(command: list[str], **options: Any) -> Any:
        # Whatever is left then is too little.
        monkeypatch.setattr(check, "LEAST", 1e9)
        return first(command, **options)

    monkeypatch.setattr(machine, "run", run)
    status, value = started(check, machine, tmp_path, monkeypatch)
    assert status == 1
    assert list(value["steps"]) == ["doctor"]
    assert list(value["left_out"]) == ["plugin: build"]
    assert "the time of all steps was over" in value["left_out"]["plugin: build"]


def test_a_step_has_a_limit(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = check.Run(tmp_path, tmp_path / "plans", seconds=60, longest=0.2)
    monkeypatch.setattr(check, "_python_path", lambda: str(tmp_path))
    assert run.step("slow", ["-c", "import time; time.sleep(30)"]) is None
    assert run.value["steps"]["slow"]["said"] == "stopped after 0 s"
    assert run.failed == ["slow"]


def test_without_a_gpu_or_its_preparation(
    check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_driver, "gpu", lambda: Gpu("Fake H200", 9, 0, 132))
    run = check.Run(tmp_path / "out", tmp_path / "plans")
    assert check.run_all(tmp_path, run, "1", None) == 4
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    try:
        cuda_driver.gpu()
    except Exception:
        assert check.run_all(tmp_path, run, "1", None) == 3
    else:  # pragma: no cover - a machine with a GPU
        pytest.skip("there is a GPU here")


@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs this")
def test_prepare(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="not checked here: torch is not installed")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "prepare", str(tmp_path / "new"), "--models", ""],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "new" / "prepared.json").read_text())["models"] == []
    with np.load(tmp_path / "new" / "vim-digits.npz") as stored:
        assert stored["image"].shape[0] == stored["logits"].shape[0] == 360
    with np.load(REPOSITORY / "tests/data/reference/vim_digits.npz") as case:
        reference = case["logits"] if "logits" in case else case["output"]
        found = np.load(tmp_path / "new" / "vim-digits.npz")["logits"]
        assert (found.argmax(1) == reference.argmax(1)).all()
