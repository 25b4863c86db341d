"""A whole detector part by part: F01 in ONNX Runtime against PyTorch, and faults in its heads."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from tests.support.detector_cases import detector_case
from vim_deploy.artifact import Artifact
from vim_deploy.graph.export_graph import finish_graph, named_trace
from vim_deploy.heads import parse_head
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.load import load_model
from vim_deploy.parity.blocks import BlockReport, part_limit
from vim_deploy.parity.cases import image_case
from vim_deploy.parity.metrics import tolerance_for
from vim_deploy.parity.report import CaseResult, check_parts, compare_runners
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.torch.runner import TorchRunner
from vim_deploy.stages.export_options import ExportOptions, export_info

MORE = pytest.mark.skipif(
    not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 plants faults in every head"
)
Looked = tuple[tuple[CaseResult, ...], BlockReport]


class Bench:
    """F01 in PyTorch and as files, and the official pictures of the case."""

    def __init__(self, folder: Path) -> None:
        case = detector_case("F01")
        loaded = load_model(ModelRequest(str(case.checkpoint), config=dict(case.config)))
        head = parse_head(None, loaded.module.config, loaded.module.dense)
        self.module = DeployedModel(loaded.module, loaded.image, "none", head)
        self.loaded, self.folder = loaded, folder
        self.trace = named_trace(self.module, None)
        self.reference = TorchRunner(self.module, threads=1)
        pictures = folder / "pictures"
        pictures.mkdir()
        for number, picture in enumerate(case.pictures):
            Image.fromarray(picture.picture).save(pictures / f"{number}.png")
        self.pictures = pictures

    def export(self, precision: str = "fp32") -> Path:
        """The file of one precision, made once."""
        path = self.folder / f"{precision}.onnx"
        if path.exists():
            return path
        options = ExportOptions(head="detections", precision=precision)  # type: ignore[arg-type]
        info = export_info(self.loaded, options, "none")
        model = onnx.ModelProto()
        model.CopyFrom(self.trace)
        finish_graph(model, self.loaded.module.config, info)
        onnx.save(model, path)
        return path

    def look(self, path: Path) -> Looked:
        """The outputs of the pictures, and the parts of the worst batch of two."""
        file = Artifact.open(path)
        info = file.require_info("")
        with open_runner(file, RunnerOptions()) as runner:
            cases = [image_case(self.pictures, info, 3)]
            tolerance = tolerance_for(info.precision, info=info)
            results = compare_runners(self.reference, runner, cases, (2,), tolerance)
            limit = part_limit(info.precision)
            return results, check_parts(self.reference, runner, cases, results, limit)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("f01"))


def test_every_part_of_the_right_file(bench: Bench) -> None:
    results, blocks = bench.look(bench.export())
    assert all(item.passed for item in results[0].comparisons)
    found = results[0].comparisons[0].found
    assert found is not None
    # 7, 15 and none, as the official code.
    assert (found.reference, found.matched) == (22, 22)
    assert blocks.passed
    behind = [str(part.place) for part in blocks.parts if part.place.block > 100]
    levels = [f"rpn.p{level}.{what}" for level in range(2, 7) for what in ("logits", "deltas")]
    stages = [f"stage.{stage}.{what}" for stage in range(3) for what in ("logits", "deltas")]
    assert behind == ["p2", "p3", "p4", "p5", *levels, "proposals", *stages, "boxes", "masks"]
    assert not [place for place in blocks.missing if "dt_proj" not in place]


@pytest.mark.parametrize(
    ("weight", "part"),
    [
        ("roi_heads.box_predictor.1.cls_score.bias", "stage.1.logits"),
        pytest.param("proposal_generator.rpn_head.anchor_deltas.bias", "rpn.p2.deltas", marks=MORE),
        pytest.param("roi_heads.mask_head.predictor.bias", "masks", marks=MORE),
    ],
)
def test_the_first_part_that_differs_is_named(bench: Bench, weight: str, part: str) -> None:
    path = bench.export()
    model = onnx.load(path)
    (tensor,) = (item for item in model.graph.initializer if item.name == weight)
    value = numpy_helper.to_array(tensor).copy()
    value += np.linspace(0, 0.3, value.size, dtype=value.dtype)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    wrong = path.with_name("wrong.onnx")
    onnx.save(model, wrong)
    results, blocks = bench.look(wrong)
    assert not all(item.passed for item in results[0].comparisons)
    assert blocks.first is not None
    assert str(blocks.first.place) == part


def test_half_precision_raises_no_false_alarm(bench: Bench) -> None:
    results, blocks = bench.look(bench.export("fp16"))
    assert [item.failures for item in results[0].comparisons if item.failures] == []
    assert blocks.first is None, blocks.verdict
