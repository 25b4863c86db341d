"""Which images are compared part by part: the batch that came out worst, as it was run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vim_deploy.parity.blocks import compare_parts
from vim_deploy.parity.cases import Case
from vim_deploy.parity.metrics import Tolerance, compare
from vim_deploy.parity.report import CaseResult, check_parts, worst_images
from vim_deploy.places import Place, place
from vim_deploy.runtimes.base import Array, PartSource, Runner
from vim_deploy.specs import TensorSpec

CASES = (
    Case("pictures", np.arange(5, dtype=np.float32).reshape(5, 1)),
    Case("random", 10 + np.arange(5, dtype=np.float32).reshape(5, 1)),
)


def results(case: str, batch: int, wrong_row: int) -> tuple[CaseResult, ...]:
    """Both cases at batch 1 and ``batch``; one row of one of them is wrong at ``batch``."""
    right = np.zeros((5, 3), dtype=np.float32)
    wrong = right.copy()
    wrong[wrong_row] = 1
    return tuple(
        CaseResult(
            item.name,
            size,
            (compare("logits", right, wrong if (item.name, size) == (case, batch) else right,
                     Tolerance()),),
        )
        for item in CASES
        for size in (1, batch)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("case", "batch", "row", "expected", "name"),
    [
        ("pictures", 2, 3, [2, 3], "pictures, image 4 of 5 in a batch of 2"),
        ("random", 2, 4, [14], "random, image 5 of 5"),
        ("random", 5, 0, [10, 11, 12, 13, 14], "random, image 1 of 5 in a batch of 5"),
    ],
)
def test_the_batch_with_the_worst_image(
    case: str, batch: int, row: int, expected: list[float], name: str
) -> None:
    found = worst_images(CASES, results(case, batch, row))
    assert found.images[:, 0].tolist() == expected
    assert found.name == name
    assert found.sizes is None


def test_a_fixed_batch_is_filled_with_the_last_image() -> None:
    sized = tuple(dataclasses.replace(case, sizes=np.arange(10).reshape(5, 2)) for case in CASES)
    found = worst_images(sized, results("random", 4, 4), fixed_batch=4)
    assert found.images[:, 0].tolist() == [14, 14, 14, 14]
    assert found.sizes is not None
    assert found.sizes.tolist() == [[8, 9]] * 4


class _Inner(Runner):
    """Gives out the images themselves, and remembers them."""

    name, outputs = "inner", ("logits",)
    input = TensorSpec("image", "float32", ("batch", 1))

    def __init__(self, where: Place) -> None:
        self.where = where
        self.seen: list[list[float]] = []

    def run(self, image: Array, size: Array | None = None) -> dict[str, Array]:
        return {"logits": image}

    @property
    def parts(self) -> PartSource:
        return self._run_parts

    def _run_parts(self, images: Array, _size: Array | None = None) -> dict[Place, Array]:
        self.seen.append(images[:, 0].tolist())
        return {self.where: images}


def test_both_sides_see_the_same_images() -> None:
    where = place(0, "norm")
    runner = _Inner(where)
    report = check_parts(runner, runner, CASES, results("pictures", 2, 1), 1e-4)
    assert runner.seen == [[0, 1], [0, 1]]
    assert report.images == "pictures, image 2 of 5 in a batch of 2"
    assert report.first is None
    # The outputs of those images were wrong, and that is not lost.
    assert not report.outputs_passed
    seen = {where: CASES[0].images[:2]}
    assert report == compare_parts(seen, seen, 1e-4, False, report.images, runner.name)
