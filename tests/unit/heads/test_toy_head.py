"""A head from outside the package: one class and one row of the table, through every stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import pytest

from tests.support.models import tiny_config
from vim_deploy import heads
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.heads.base import Head, Kind, Output
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export
from vim_deploy.stages.running import RunOptions, run
from vim_deploy.stages.verifying import VerifyOptions, verify

LABELS = ("none", "left", "right", "both", "other")


@dataclass(frozen=True)
class Sharp(Head):
    """The softmax of twice the logits."""

    name: ClassVar[str] = "sharp"
    usage: ClassVar[str] = "sharp"
    kind: ClassVar[Kind] = "classes"
    gives: ClassVar[tuple[Output, ...]] = (Output("sharpened", "scores"),)
    needs_scores: ClassVar[bool] = True

    def forward(self, network: Any, image: Any) -> Any:
        return (2 * network(image)).softmax(dim=-1)


def request(**config: Any) -> ModelRequest:
    values = encode(tiny_config(num_classes=len(LABELS), **config))
    return ModelRequest("tiny", config=values, random_weights=3, labels=LABELS)


def test_a_toy_head_goes_through_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VimDeployError, match="--head 'sharp' is not valid"):
        export(request(), tmp_path / "no.onnx", ExportOptions(head="sharp"))

    monkeypatch.setattr(heads, "TABLE", (*heads.TABLE, Sharp))
    path = tmp_path / "m.onnx"
    result = export(request(), path, ExportOptions(head="sharp"))
    assert result.info.head == "sharp"
    assert result.parity is not None

    report = verify(path, "seed:3", VerifyOptions(random=2, batches=(1,)))
    report.require_passed()
    compared = [item.output for result in report.results for item in result.comparisons]
    assert set(compared) == {"sharpened"}

    size = tiny_config().image_hw
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "p.png")
    (image,) = run(path, tmp_path / "p.png", RunOptions(top=2)).images
    assert [prediction.label in LABELS for prediction in image.top] == [True, True]
    assert image.top[0].probability >= image.top[1].probability


def test_a_model_without_classes_has_no_toy_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "TABLE", (*heads.TABLE, Sharp))
    values = encode(tiny_config(num_classes=0))
    bare = ModelRequest("tiny", config=values, random_weights=3)
    with pytest.raises(VimDeployError, match="needs class scores") as caught:
        export(bare, tmp_path / "no.onnx", ExportOptions(head="sharp"))
    assert caught.value.code == "VIM-203"
