"""``inspect`` of dense checkpoints: what they hold, by their keys and shapes."""

from __future__ import annotations

import pytest

from tests.support.reference import checkpoint_path
from vim_deploy.model.describe import describe_checkpoint


@pytest.mark.parametrize(
    ("case", "holds"),
    [
        ("E01_upernet", "segmentation network"),
        ("D01_seg_fpn", "segmentation backbone"),
        ("D08_det_sfp", "detection backbone"),
        ("A01_middle_cls", "classifier"),
    ],
)
def test_what_a_checkpoint_holds(case: str, holds: str) -> None:
    found = describe_checkpoint(checkpoint_path(case))
    assert found["holds"] == holds
    assert found["architecture"]["embed_dim"] == 48
    assert (found["dense"] is None) == (holds == "classifier")
    assert not any("there is no head" in text for text in found["statements"])
    if holds != "classifier":
        assert found["dense"]["task"] == holds.split()[0]


def test_the_swapped_slots_are_said() -> None:
    found = describe_checkpoint(checkpoint_path("D07_seg_shipped_positional_bug"))
    assert (found["architecture"]["d_state"], found["architecture"]["channels"]) == (3, 5)
    assert any("wrong slots" in text for text in found["statements"])


def test_a_classifier_without_head_still_says_so() -> None:
    found = describe_checkpoint(checkpoint_path("A25_num_classes0"))
    assert any("there is no head" in text for text in found["statements"])
