"""From photographs to detections on them: the reference detector F01 in PyTorch, to the end."""

from __future__ import annotations

import numpy as np

from tests.support.detector_cases import detector_case
from vim_deploy import RunOptions
from vim_deploy.heads import parse_head
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.load import load_model
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.torch.runner import TorchRunner
from vim_deploy.scene.paste import pasted
from vim_deploy.scene.pictures import pictures
from vim_deploy.stages.export_options import ExportOptions, export_info
from vim_deploy.stages.running import run_through

#: What is promised of detectors: pixels of the network, scores, and pasted pixels of a case.
PIXELS, SCORES, PASTED = 1e-3, 1e-4, 5


def test_official_detections_of_photographs(tmp_path):
    case = detector_case("F01")
    loaded = load_model(ModelRequest(str(case.checkpoint), config=dict(case.config)))
    network = loaded.module
    head = parse_head(None, network.config, network.dense)
    info = export_info(loaded, ExportOptions(head=head.text), "uint8")
    runner = TorchRunner(DeployedModel(network, loaded.image, "uint8", head))
    photographs = pictures([item.picture for item in case.pictures], ())
    options = RunOptions(output=tmp_path / "found.npz", batch=3)
    result = run_through(runner, info, case.name, photographs, options)
    result.require_complete()
    differ = 0
    with np.load(tmp_path / "found.npz") as stored:
        for number, expected in enumerate(case.pictures):
            own = slice(*stored["offsets"][number : number + 2])
            index, size = expected.final_index, expected.picture.shape[:2]
            np.testing.assert_array_equal(stored["classes"][own], expected.classes[index])
            np.testing.assert_allclose(
                stored["scores"][own], expected.scores[index], rtol=0, atol=SCORES
            )
            scale = size[1] / expected.size[1]
            np.testing.assert_allclose(
                stored["boxes"][own], expected.final_boxes, rtol=0, atol=PIXELS * scale
            )
            parts = (stored["masks"][own], stored["boxes"][own], expected.final_masks)
            for mask, box, whole in zip(*parts, strict=True):
                found = pasted(mask, box, size)
                rows, columns = found.pixels.shape
                pixels = np.zeros(size, bool)
                pixels[found.top : found.top + rows, found.left : found.left + columns] = (
                    found.pixels
                )
                differ += int((pixels != whole).sum())
    assert [item.found for item in result.images] == [7, 15, 0]
    assert differ <= PASTED
