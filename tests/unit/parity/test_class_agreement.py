"""Two classifiers picture by picture: classes, probabilities, margins, NaN, what cannot be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.support.sick_models import INFO
from vim_deploy.codec import encode
from vim_deploy.parity import class_agreement
from vim_deploy.parity.agreement import OpenSide, Picture, differences_of
from vim_deploy.parity.class_agreement import ClassAgreement, compare_classes
from vim_deploy.runtimes.base import Runner
from vim_deploy.scene.thumbnails import Thumbnails
from vim_deploy.specs import ImagePreparation, TensorSpec

GREY = ImagePreparation(4, 4, 1, (0.0,), (1.0,), 1.0)
INFO8 = dataclasses.replace(
    INFO, image=GREY, labels=(), model_config=INFO.model_config.replace(num_classes=8)
)


class Level(Runner):
    """Logits of eight classes: class k for grey value 10 k; ``change`` is done to them."""

    name = "level"

    def __init__(self, change: Any = lambda levels, logits: logits, batch: Any = "batch") -> None:
        self.input = TensorSpec("image", "float32", (batch, 1, 4, 4))
        self.outputs = ("logits",)
        self.seen: list[int] = []
        self._change = change

    def run(self, image: np.ndarray, size: Any = None) -> Mapping[str, np.ndarray]:
        self.seen.append(len(image))
        levels = np.rint(image[:, 0, 0, 0] * 25.5).astype(int)
        logits = -np.abs(np.arange(8) - levels[:, None]).astype(np.float32)
        return {"logits": self._change(levels, logits)}


def pictures(folder: Path, *levels: int, labelled: bool = False) -> list[Picture]:
    found = []
    for number, level in enumerate(levels):
        path = folder / f"{number}.png"
        PIL.Image.new("L", (4, 4), 10 * level).save(path)
        found.append(Picture(path.name, path, level if labelled else None))
    return found


def sides(change: Any, info: Any = INFO8, **options: Any) -> tuple[OpenSide, OpenSide]:
    return OpenSide(Level(), INFO8), OpenSide(Level(change, **options), info)


def moved(wrong: int) -> Any:
    """The next class for pictures of one level."""
    return lambda levels, logits: np.where(
        (levels == wrong)[:, None], np.roll(logits, 1, 1), logits
    )


def test_equal_sides(tmp_path: Path) -> None:
    some = pictures(tmp_path, *range(8), labelled=True)
    found, unread = compare_classes(sides(lambda _, logits: logits), some, 3)
    assert (found.images, found.same_class, found.same_top5, unread) == (8, 8, 8, ())
    assert (found.largest_difference, found.median_difference) == (0, 0)
    assert found.accuracy is not None
    assert (found.accuracy.top1_a, found.accuracy.top5_b) == (8, 8)
    assert found.pictures[3].a == found.pictures[3].b
    assert found.pictures[3].truth == "class 3"
    # The ends of the scale have one neighbour only, and so a larger lead.
    assert {*found.nearest[:6]} == {f"{number}.png" for number in range(1, 7)}
    assert found.quality(0.5).verdict == "same"
    few = found.quality(0.02)
    assert few.verdict == "too few"
    assert "about 189 pictures" in few.said


def test_another_class_is_named(tmp_path: Path) -> None:
    some = pictures(tmp_path, 0, 1, 2, 3, 2)
    seen: list[tuple[int, int]] = []
    small = Thumbnails()
    found, _ = compare_classes(
        sides(moved(2), batch=2), some, 2, lambda done, of: seen.append((done, of)), small
    )
    assert (found.same_class, found.changed) == (3, ("2.png", "4.png"))
    assert seen[-1] == (5, 5)
    row = found.pictures[2]
    assert row.a is not None
    assert row.b is not None
    assert (row.a.index, row.b.index, row.same) == (2, 3, False)
    top = np.exp([0, -1, -1, -2, -2, -3, -4, -5])
    assert row.a.probability == pytest.approx(1 / top.sum())
    assert row.a.margin == pytest.approx((1 - np.exp(-1)) / top.sum())
    assert row.difference == found.largest_difference
    assert found.quality(0.9).verdict == "different"
    assert set(small.uris) == {item.name for item in some}
    assert found.loss_bound is None


@pytest.mark.parametrize(
    ("wrong", "count", "verdict"), [(2, 60, "worse"), (5, 10, "too few"), (None, 40, "same")]
)
def test_with_true_classes(tmp_path: Path, wrong: int | None, count: int, verdict: str) -> None:
    levels = [number % 4 for number in range(count)]
    change = moved(wrong) if wrong in range(4) else lambda _, logits: logits
    found, _ = compare_classes(sides(change), pictures(tmp_path, *levels, labelled=True), 16)
    assert found.quality(0.1 if verdict == "same" else 0.02).verdict == verdict


def test_flips_that_cost_nothing(tmp_path: Path) -> None:
    """Pictures of another true class than either side says."""
    some = [dataclasses.replace(one, truth=7) for one in pictures(tmp_path, *[1, 2] * 60)]
    found, _ = compare_classes(sides(moved(2)), some, 16)
    assert found.quality(0.04).verdict == "as good"
    quality = found.quality(0.02)
    assert quality.verdict == "too few"
    assert "60 of 120 pictures get another class" in quality.said


def test_a_side_that_is_right_more_often(tmp_path: Path) -> None:
    some = [dataclasses.replace(one, truth=3) for one in pictures(tmp_path, *[2] * 20)]
    found, _ = compare_classes(sides(moved(2)), some, 16)
    assert found.quality(0.02).verdict == "better"
    assert "gains 100.00 %" in found.quality(0.02).said


def test_no_numbers(tmp_path: Path) -> None:
    def broken(levels: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return np.where((levels == 1)[:, None], np.nan, logits)

    some = pictures(tmp_path, 0, 1, 2, labelled=True)
    found, _ = compare_classes(sides(broken), some, 2)
    assert (found.no_answer_a, found.no_answer_b, found.same_class) == (0, 1, 2)
    assert found.changed == ("1.png",)
    value = encode(found)["pictures"][1]
    assert (value["b"], value["difference"], value["same"]) == (None, None, False)
    assert value["a"]["index"] == 1
    assert found.accuracy is not None
    assert (found.accuracy.top1_a, found.accuracy.top1_b) == (3, 2)
    assert found.quality(0.9).verdict == "no numbers"
    assert any("B gives NaN or Inf for 1 of 3" in line for line in found.sentences)
    turned, _ = compare_classes(tuple(reversed(sides(broken))), some, 2)
    assert turned.quality(0.9).verdict == "different"
    assert turned.quality(0.9).said == "A gives NaN or Inf for 1 pictures, and B does not"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    some = pictures(tmp_path, 0, 1)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    some += [Picture("bad.png", tmp_path / "bad.png"), Picture("gone.png", tmp_path / "gone.png")]
    found, unread = compare_classes(sides(moved(9)), some, 4)
    assert found.images == 2
    assert [item.file for item in unread] == ["bad.png", "gone.png"]
    nothing, _ = compare_classes(sides(moved(9)), some[2:], 4)
    assert nothing.images == 0


def test_heads_that_give_the_best_classes_only(tmp_path: Path) -> None:
    class Best(Level):
        outputs = ("probabilities", "classes")

        def run(self, image: np.ndarray, size: Any = None) -> Mapping[str, np.ndarray]:
            logits = super().run(image)["logits"]
            powers = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            order = np.argsort(-powers, axis=1, kind="stable")[:, :2]
            return {"probabilities": np.take_along_axis(powers, order, 1), "classes": order}

    both = (OpenSide(Level(), INFO8), OpenSide(Best(), dataclasses.replace(INFO8, head="topk:2")))
    found, _ = compare_classes(both, pictures(tmp_path, 1, 5), 2)
    assert (found.same_class, found.same_top5) == (2, None)
    assert found.largest_difference == pytest.approx(0, abs=1e-6)


def test_each_side_prepares_its_own_pictures(tmp_path: Path) -> None:
    def level_of(value: int, info: Any) -> int:
        seen: list[np.ndarray] = []

        def note(levels: np.ndarray, logits: np.ndarray) -> np.ndarray:
            seen.append(levels)
            return logits

        PIL.Image.new("L", (4, 4), value).save(tmp_path / "one.png")
        some = [Picture("one.png", tmp_path / "one.png")]
        compare_classes(sides(note, info), some, 1)
        return int(seen[0][0])

    shifted = dataclasses.replace(INFO8, image=dataclasses.replace(GREY, mean=(20 / 255,)))
    assert level_of(50, INFO8) == 5
    assert level_of(50, shifted) == 3
    (note,) = differences_of(INFO8, shifted)
    assert note.startswith("pictures are prepared differently: mean (0.0,) in A")


def test_pictures_of_a_page_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_agreement, "SHOWN", 2)
    small = Thumbnails()
    found, _ = compare_classes(sides(moved(2)), pictures(tmp_path, *[2] * 5), 2, small=small)
    assert len(found.changed) == 5
    assert list(small.uris) == list(found.changed[:2])


def test_a_picture_that_is_gone_when_the_page_is_made(tmp_path: Path) -> None:
    some = pictures(tmp_path, 1)

    def remove(levels: np.ndarray, logits: np.ndarray) -> np.ndarray:
        some[0].path.unlink()
        return logits

    small = Thumbnails()
    found, _ = compare_classes(sides(remove), some, 1, small=small)
    assert (found.images, small.left_out, small.uris) == (1, 1, {})


def test_nothing_at_all_has_no_median() -> None:
    found = ClassAgreement(())
    assert (found.largest_difference, found.median_difference, found.same_top5) == (
        None,
        None,
        None,
    )
