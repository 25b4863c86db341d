"""The check of an exported detector, on noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.support.detectors import described, graph, stand_in
from vim_deploy.errors import VimDeployError
from vim_deploy.parity.blocks import BlockReport, PartError
from vim_deploy.parity.metrics import tolerance_for
from vim_deploy.places import BEHIND_BLOCKS, place
from vim_deploy.precisions import Precision
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages import exported_file
from vim_deploy.stages.exported_file import Check, write_checked


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_half_precision_is_told_how_to_go_on(tmp_path: Path, precision: Precision) -> None:
    other = stand_in(tmp_path / "other.onnx", classes=2)
    info = dataclasses.replace(described(), precision=precision)
    tolerance = tolerance_for(info.precision, info=info)
    check = Check("another file", lambda: OrtRunner(other), tolerance)
    with pytest.raises(VimDeployError, match="VIM-701") as refused:
        write_checked(graph(), tmp_path / "model.onnx", info, check, force=False)
    assert ("--no-check" in str(refused.value)) == (precision == "fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["other.onnx"]


@pytest.mark.parametrize(("rpn", "passes"), [(0.015, True), (0.03, False), (float("nan"), False)])
def test_half_precision_is_held_to_what_comes_before_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rpn: float, passes: bool
) -> None:
    parts = [
        PartError(place(0, "residual"), 1.0, 1.0),
        PartError(place(BEHIND_BLOCKS, "p2"), 0.009, 1.0),
        PartError(place(BEHIND_BLOCKS, "rpn.p2.logits"), rpn, 1.0),
        PartError(place(BEHIND_BLOCKS, "stage.0.logits"), 1.0, 1.0),
    ]
    found = BlockReport(tuple(parts), 0.01, outputs_passed=False)
    monkeypatch.setattr(exported_file, "check_parts", lambda *_: found)
    other = stand_in(tmp_path / "other.onnx", classes=2)
    info = dataclasses.replace(described(), precision="fp16")
    check = Check("another", lambda: OrtRunner(other), tolerance_for("fp16", info=info))
    path = tmp_path / "model.onnx"
    if passes:
        report, (note,) = write_checked(graph(), path, info, check, force=False)
        assert report is None
        assert "up to the proposals: relative L2 1.5e-02" in note.text
    else:
        with pytest.raises(VimDeployError, match="VIM-701"):
            write_checked(graph(), path, info, check, force=False)
    assert path.exists() == passes
