"""One file, one read: what a command asks of an ONNX file comes from one parse of its bytes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.support import fake_rtx
from tests.support.builds import build_engine_rtx
from tests.support.packages import classifier
from vim_deploy.artifact import onnx_file
from vim_deploy.cli.main import run
from vim_deploy.runtimes.building import build as building
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx
from vim_deploy.untrusted import OnError, read_bytes

pytest.importorskip("onnxruntime")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the door has read each file, by its name."""
    found: Counter[str] = Counter()

    def counted(path: Path, on_error: OnError, *, max_bytes: int) -> bytes:
        found[path.name] += 1
        return read_bytes(path, on_error, max_bytes=max_bytes)

    monkeypatch.setattr(onnx_file, "read_bytes", counted)
    return found


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "foreign.onnx"),
        ("verify", "toy.onnx", "--against", "toy.onnx"),
        ("package", "toy.onnx", "-o", "made"),
        ("run", "toy.onnx", "picture.png"),
        ("compare", "toy.onnx", "other.onnx", "--images", "picture.png", "--no-time"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_reads_its_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Counter[str], command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    classifier(Path("toy.onnx"))
    classifier(Path("other.onnx"), seed=1)
    classifier(Path("foreign.onnx"), info=None)
    PIL.Image.fromarray(np.zeros((4, 4), np.uint8)).save("picture.png")
    assert run(list(command)) == 0
    assert reads == {name: 1 for name in command if name.endswith(".onnx")}


def test_a_build_reads_its_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Counter[str]
) -> None:
    monkeypatch.setattr(trt_rtx, "capabilities", lambda: fake_rtx.CAPABILITIES)
    monkeypatch.setattr(building, "run_worker", fake_rtx.run_worker)
    model = classifier(tmp_path / "toy.onnx")
    build_engine_rtx(model, tmp_path / "toy.plan")
    assert reads == {"toy.onnx": 1}
