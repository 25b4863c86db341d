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


@pytest.mark.parametrize(
    ("precision", "rpn", "behind", "passes"),
    [
        ("fp16", 0.015, 1.0, "up to the proposals: relative L2 1.5e-02"),
        ("fp16", 0.03, 1.0, ""),
        ("fp16", float("nan"), 1.0, ""),
        ("fp32", 0.009, 0.009, "part by part, all 4 parts are within 0.01"),
        ("fp32", 0.009, 0.011, ""),
        ("fp32", 0.009, float("nan"), ""),
    ],
)
def test_what_agrees_inside_is_an_export_whatever_noise_holds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: Precision,
    rpn: float,
    behind: float,
    passes: str,
) -> None:
    parts = [
        PartError(place(0, "residual"), behind, 1.0),
        PartError(place(BEHIND_BLOCKS, "p2"), 0.009, 1.0),
        PartError(place(BEHIND_BLOCKS, "rpn.p2.logits"), rpn, 1.0),
        PartError(place(BEHIND_BLOCKS, "stage.0.logits"), behind, 1.0),
    ]
    found = BlockReport(tuple(parts), 0.01, outputs_passed=False)
    monkeypatch.setattr(exported_file, "check_parts", lambda *_: found)
    other = stand_in(tmp_path / "other.onnx", classes=2)
    info = dataclasses.replace(described(), precision=precision)
    check = Check("another", lambda: OrtRunner(other), tolerance_for(precision, info=info))
    path = tmp_path / "model.onnx"
    if passes:
        report, (note,) = write_checked(graph(), path, info, check, force=False)
        assert report is None
        assert passes in note.text
    else:
        with pytest.raises(VimDeployError, match="VIM-701"):
            write_checked(graph(), path, info, check, force=False)
    assert path.exists() == bool(passes)
