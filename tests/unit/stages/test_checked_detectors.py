"""The check of an exported detector, on noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.support.detectors import described, graph, stand_in
from vim_deploy.errors import VimDeployError
from vim_deploy.parity.metrics import tolerance_for
from vim_deploy.precisions import Precision
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
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
