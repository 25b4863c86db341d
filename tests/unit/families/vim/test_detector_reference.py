"""Whole detectors in PyTorch against what the official ones found.

Run with two threads, as one batch or in float64, the official code differs from itself by up to
1.8e-4 pixels, 1.4e-5 in scores and 1.4e-4 in masks, in logits 3.1e-4 (tests/data/README.md):
RoIAlign and three stages make that of proposals that moved by 3e-5 pixels. The bounds leave room
for sums in another order; they are what the project promises of detectors in every runtime.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.detector_cases import DetectorCase, Picture, detector_case
from tests.support.reference import Array
from vim_deploy.families.vim.network.dense.detector_heads import Detector
from vim_deploy.model.load import load_model
from vim_deploy.recipe.schema import ModelRequest

PIXELS, SCORES, MASKS, LOGITS, PROPOSALS = 1e-3, 1e-4, 1e-3, 1e-3, 5e-4
EVERY = [("F01", 0), ("F01", 1), ("F01", 2), ("F02", 0)]
Found = tuple[torch.Tensor, ...]


@pytest.fixture(scope="module")
def networks() -> dict[str, Detector]:
    found = {}
    for short in ("F01", "F02"):
        case = detector_case(short)
        module = load_model(ModelRequest(str(case.checkpoint), config=dict(case.config))).module
        assert isinstance(module, Detector)
        found[short] = module
    return found


def inputs(case: DetectorCase, *numbers: int) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.from_numpy(case.normalized(*numbers))
    return image, torch.from_numpy(case.sizes(*numbers)).float()


def detect(network: Detector, image: torch.Tensor, size: torch.Tensor) -> Found:
    with torch.inference_mode():
        found = network.detections(image, size)
    assert all(torch.isfinite(part).all() for part in found if part is not None)
    return found  # type: ignore[return-value]


def assert_found(found: Found, row: int, expected: Picture) -> None:
    boxes, scores, classes, masks, count = (part[row].numpy() for part in found)
    there = len(expected.boxes)
    assert count == there
    assert np.array_equal(classes[:there], expected.classes)
    assert_within(boxes[:there], expected.boxes, PIXELS)
    assert_within(scores[:there], expected.scores, SCORES)
    assert_within(masks[: len(expected.masks)], expected.masks, MASKS)
    assert all((np.diff(scores) <= 0).tolist())
    for part in (boxes, scores, classes, masks):
        assert not part[there:].any()


def assert_within(found: Array, expected: Array, bound: float) -> None:
    assert found.shape == expected.shape
    assert found.size == 0 or np.abs(found - expected).max() <= bound


@pytest.mark.parametrize(("short", "number"), EVERY)
def test_detections(networks: dict[str, Detector], short: str, number: int) -> None:
    case = detector_case(short)
    found = detect(networks[short], *inputs(case, number))
    whole = [part.dtype == torch.int64 for part in found]
    assert whole == [False, False, True, False, True]
    assert [tuple(part.shape[1:]) for part in found] == [
        (100, 4),
        (100,),
        (100,),
        (100, 28, 28),
        (),
    ]
    assert_found(found, 0, case.pictures[number])


@pytest.mark.parametrize(("short", "number"), EVERY)
def test_proposals_and_stages(networks: dict[str, Detector], short: str, number: int) -> None:
    """Proposals as sets, as nearly equal logits may swap; stages on the official boxes."""
    case, network = detector_case(short), networks[short]
    expected = case.pictures[number]
    image, size = inputs(case, number)
    with torch.inference_mode():
        maps = network.feature_maps(image)
        boxes, logits, valid = network.proposal_generator(maps, size)
        assert int(valid.sum()) == len(expected.proposals)
        assert not boxes[~valid].any()
        found, scores = boxes[valid].numpy(), logits[valid].numpy()
        apart = np.abs(found[:, None] - expected.proposals).max(2)
        # Two proposals may lie within the bound of each other: both have to be there.
        assert (apart.min(0) <= PROPOSALS).all()
        assert (apart.min(1) <= PROPOSALS).all()
        assert_within(scores, expected.proposal_logits, LOGITS)
        for stage, outputs in enumerate(expected.stages):
            given = torch.from_numpy(np.array(outputs.boxes))[None]
            stage_logits, _ = network.roi_heads.outputs(maps[:4], given, stage)
            assert_within(stage_logits[0].numpy(), outputs.logits, LOGITS)


def test_pictures_of_one_batch_and_one_that_is_no_number(networks: dict[str, Detector]) -> None:
    case = detector_case("F01")
    image, size = inputs(case, 0, 1, 2, 1)
    image[3, 0, 40, 40] = float("nan")
    found = detect(networks["F01"], image, size)
    for row in range(3):
        assert_found(found, row, case.pictures[row])
    assert not any(part[3].any() for part in found)


@pytest.mark.parametrize("short", ["F01", "F02"])
def test_pictures_of_no_size(networks: dict[str, Detector], short: str) -> None:
    case = detector_case(short)
    image, _ = inputs(case, 0, 0)
    image[1, :, 1:], image[1, :, :, 1:] = 0, 0
    image[0] = 0
    found = detect(networks[short], image, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert not any(part[0].any() for part in found)
    # One pixel may be anything: of F02, whose classes have boxes of their own, it is one of each.
    assert found[4].tolist() == [0, 0 if short == "F01" else 10]
    assert (found[0] <= 1).all()


def test_half_of_the_candidates(networks: dict[str, Detector]) -> None:
    """F02's first proposals alone, fewer pairs of box and class than there are detections."""
    network = networks["F02"]
    boxes = torch.tensor([[[0.0, 0.0, 60.0, 60.0], [4.0, 4.0, 90.0, 80.0]]])
    scores = torch.zeros(1, 2, 10)
    scores[0, 0, 3], scores[0, 1, 3], scores[0, 1, 4] = 0.5, 0.25, 0.05
    each = boxes[:, :, None].expand(-1, -1, 10, -1)
    found = network.roi_heads.best(each, scores)
    # 0.05 is not above the threshold, and the two boxes of class 3 overlap by less than half.
    assert found[1][0, :3].tolist() == [0.5, 0.25, 0.0]
    assert found[2][0, :2].tolist() == [3, 3]
    assert found[3][0].sum() == 2
    assert found[0].shape == (1, 100, 4)


def test_boxes_clipped_to_nothing_are_chosen(networks: dict[str, Detector]) -> None:
    """detectron2 drops them behind the best 100, so they take places; they suppress nobody."""
    boxes = torch.tensor([[[0.0, 0.0, 0.0, 60.0], [0.0, 0.0, 0.0, 60.0], [0.0, 0.0, 60.0, 60.0]]])
    scores = torch.zeros(1, 3, 10)
    scores[0, :, 3] = torch.tensor([0.5, 0.75, 0.25])
    found = networks["F02"].roi_heads.best(boxes[:, :, None].expand(-1, -1, 10, -1), scores)
    assert found[1][0, :4].tolist() == [0.75, 0.5, 0.25, 0.0]
    assert found[0][0, 2].tolist() == [0.0, 0.0, 60.0, 60.0]


def test_what_stays_behind_a_thousand_suppressed_pairs(networks: dict[str, Detector]) -> None:
    boxes = torch.tensor([0.0, 0.0, 60.0, 60.0]).repeat(1, 200, 10, 1)
    boxes[:, 199] += 100
    scores = torch.linspace(0.9, 0.1, 200).view(1, 200, 1).repeat(1, 1, 10)
    _, best, classes, valid = networks["F02"].roi_heads.best(boxes, scores)
    assert valid.sum() == 20
    assert sorted(classes[0, 10:20].tolist()) == list(range(10))
    assert np.allclose(best[0, 10:20], 0.1)
