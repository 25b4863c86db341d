"""``deploy`` of a segmentation network: export, proof, engine and report in one numbered folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.builds import needs_rtx
from tests.support.reference import checkpoint_path
from vim_deploy.cli.main import run

pytestmark = [
    pytest.mark.rtx,
    needs_rtx,
]


def test_a_label_map_from_checkpoint_to_engine(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    words = ["deploy", str(checkpoint_path("E01_upernet")), "--work", str(tmp_path / "work")]
    words += ["--head", "labels", "--precision", "fp16", "--runtime", "tensorrt-rtx"]
    assert run(["-q", *words, "--report", str(tmp_path / "page")]) == 0
    folder = tmp_path / "work" / "001-E01_upernet"
    value = json.loads((folder / "deploy.json").read_text())
    assert value["failure"] is None
    (output,) = value["parity"]["results"][0]["outputs"]
    assert output["output"] == "labels"
    assert output["top1_agreement"] >= value["parity"]["tolerance"]["label_agreement"] == 0.98
    record = json.loads((folder / "model.plan.json").read_text())
    assert [item["dtype"] for item in record["outputs"]] == ["int64"]
    assert record["export"]["dense"]["task"] == "segmentation"
    assert "mean IoU" in (tmp_path / "page" / "deploy.html").read_text()
