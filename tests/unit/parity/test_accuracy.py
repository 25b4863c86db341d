"""Data sets and accuracies: class order, bad files, paired counts, with a runner made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.parity.accuracy import (
    AccuracyReport,
    Limits,
    compare_accuracy,
    rank_classes,
    unreadable_lines,
)
from vim_deploy.parity.dataset import Unreadable, open_dataset
from vim_deploy.runtimes.base import Runner
from vim_deploy.specs import CheckpointInfo, ImagePreparation, TensorSpec

SPEC = TensorSpec("image", "float32", ("batch", 1, 4, 4))


def info(classes: int = 3, labels: tuple[str, ...] = (), head: str = "logits") -> ExportInfo:
    """A record of a model of 4 x 4 grey pictures whose value is the pixel's."""
    return ExportInfo(
        model="custom",
        model_config=VimConfig(num_classes=classes),
        checkpoint=CheckpointInfo("x.pth", "", "model"),
        image=ImagePreparation(4, 4, 1, (0.0,), (1.0,), 1.0),
        preprocess="none",
        head=head,
        graph="fused",
        precision="fp32",
        opset=18,
        pos_embed="as stored",
        tool_version="0",
        settings_hash="",
        labels=labels,
    )


class Level(Runner):
    """Says class k for a picture of grey value k / 10; ``wrong`` values get the next class."""

    name = "level"

    def __init__(self, classes: int = 3, wrong: tuple[int, ...] = (), batch: Any = "batch") -> None:
        self.input = dataclasses.replace(SPEC, shape=(batch, 1, 4, 4))
        self.outputs = ("logits",)
        self.seen: list[int] = []
        self._classes = classes
        self._wrong = wrong

    def run(self, image: np.ndarray, size: Any = None) -> Mapping[str, np.ndarray]:
        self.seen.append(len(image))
        values = np.rint(image[:, 0, 0, 0] * 255 / 10).astype(int)
        values = np.where(np.isin(values, self._wrong), values + 1, values) % self._classes
        return {"logits": -np.abs(np.arange(self._classes) - values[:, None]).astype(np.float32)}


def folder(root: Path, names: tuple[str, ...] = ("a", "b", "c"), each: int = 3) -> Path:
    """Class number k of ``names`` has pictures of grey value 10 k."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for index in range(each):
            PIL.Image.new("L", (4, 4), 10 * number).save(root / name / f"{index}.png")
    return root


def report(counts: dict[str, Any], limits: Limits = Limits()) -> AccuracyReport:  # noqa: B008
    return AccuracyReport("m.onnx", "", limits=limits, **counts)


def test_equal_runners_have_no_detectable_loss(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path / "set"), info(), SPEC)
    found = report(compare_accuracy(Level(), Level(), dataset, batch=4))
    assert found.images == 9
    assert found.reference.top1 == found.candidate.top1 == found.same_class == 9
    assert found.top5 is None  # three classes have no five first ones
    assert not found.failures
    assert "no detectable loss" in found.sentences[0]
    found.require_passed()


def test_a_worse_runner_is_noticed(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path / "set", each=10), info(), SPEC)
    seen: list[tuple[int, int]] = []
    counts = compare_accuracy(
        Level(), Level(wrong=(1,)), dataset, 7, lambda done, of: seen.append((done, of))
    )
    found = report(counts)
    assert (found.top1.losses, found.top1.gains, found.same_class) == (10, 0, 20)
    assert seen[-1] == (30, 30)
    with pytest.raises(VimDeployError, match="VIM-701") as caught:
        found.require_passed()
    assert "loss of top-1 accuracy: 33.33 %" in str(caught.value)


@pytest.mark.parametrize("limits", [Limits(max_loss=0.01), Limits(top1_agreement=0.999)])
def test_limits(tmp_path: Path, limits: Limits) -> None:
    dataset = open_dataset(folder(tmp_path / "set"), info(), SPEC)
    counts = compare_accuracy(Level(), Level(wrong=(2,)), dataset, 4)
    assert not report(counts).failures  # three flips in nine are not beyond chance
    assert report(counts, limits).failures


def test_a_corrupt_image_is_counted_and_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    (root / "b" / "broken.png").write_bytes((root / "b" / "0.png").read_bytes()[:40])
    (root / "c" / "empty.jpg").write_bytes(b"")
    counts = compare_accuracy(Level(), Level(), open_dataset(root, info(), SPEC), 4)
    assert counts["images"] == 9
    assert [name for name, _ in counts["unreadable"]] == ["b/broken.png", "c/empty.jpg"]
    value = encode(report(counts))["dataset"]
    assert value["unreadable"] == 2
    assert value["unreadable_images"][1]["why"] == "the file is empty"
    assert any("b/broken.png" in line for line in unreadable_lines(counts["unreadable"]))
    assert report(counts).passed
    with pytest.raises(VimDeployError, match=r"2 images of set could not be read") as caught:
        report(counts).require_passed()
    assert caught.value.code == "VIM-411"
    assert "c/empty.jpg: the file is empty" in caught.value.why


def test_only_corrupt_images(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"no picture")
    with pytest.raises(VimDeployError, match=r"VIM-419: no image .* could be read"):
        compare_accuracy(Level(), Level(), open_dataset(tmp_path, info(), SPEC), 4)


@pytest.mark.parametrize(
    ("names", "reason"),
    [((), "no class folders"), (("a", "b"), "2 class folders, the model 3")],
)
def test_class_count(tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(VimDeployError, match=f"VIM-419(.|\n)*{reason}"):
        open_dataset(folder(tmp_path, names), info(), SPEC)


def test_empty_class_folders(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError, match=r"VIM-419(.|\n)*hold no images"):
        open_dataset(folder(tmp_path, each=0), info(), SPEC)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError, match="VIM-401"):
        open_dataset(tmp_path / "none", info(), SPEC)


def test_what_lies_beside_the_images_is_said(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    (tmp_path / "far").mkdir()
    PIL.Image.new("L", (4, 4), 20).save(tmp_path / "far" / "x.pgm")
    (root / "c" / "more").symlink_to(tmp_path / "far")
    (root / "c" / "up").symlink_to(root)
    (root / "linked").symlink_to(tmp_path / "far")
    (root / "d").mkdir()
    for name in ("readme.txt", "stray.png", ".DS_Store", "a/notes.xml", "b/.0.png"):
        (root / name).touch()
    (root / ".cache").mkdir()
    dataset = open_dataset(root, info(5), SPEC)
    assert len(dataset) == 11
    assert dataset.left_out == (
        "left out as hidden: 3",
        "left out as files beside the class folders: 2",
        "left out as links in a circle, or to folders that were searched already: 1",
        "left out for another suffix (.xml): 1",
        "class folders without an image: 1 (d)",
    )
    found = report(compare_accuracy(Level(5), Level(5), dataset, 4))
    assert encode(found)["dataset"]["left_out"] == list(dataset.left_out)
    assert found.images == 11


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    (root / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    counts = compare_accuracy(Level(), Level(), open_dataset(root, info(), SPEC), 4)
    assert counts["unreadable"] == (("a/gone.png", "there is no such file"),)


def test_one_logit_tells_two_classes_apart(tmp_path: Path) -> None:
    class Binary(Level):
        def run(self, image: np.ndarray, size: Any = None) -> Mapping[str, np.ndarray]:
            return {"logits": np.where(image[:, :1, 0, 0] > 5 / 255, 3, -3).astype(np.float32)}

    dataset = open_dataset(folder(tmp_path / "set", ("no", "yes")), info(1, ("no", "yes")), SPEC)
    found = report(compare_accuracy(Binary(), Binary(), dataset, 4))
    assert (found.images, found.candidate.top1, found.top5) == (6, 6, None)
    ranking = rank_classes({"logits": np.array([[0.1], [0.0], [-2], [np.nan]])}, Binary())
    assert ranking.tolist() == [[1, 0], [0, 1], [0, 1], [-1, -1]]


def test_a_model_without_classes(tmp_path: Path) -> None:
    for record in (info(classes=0), info(head="features")):
        with pytest.raises(VimDeployError, match="VIM-419"):
            open_dataset(tmp_path, record, SPEC)


def test_pictures_need_a_record_of_their_preparation(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError, match="VIM-410"):
        open_dataset(folder(tmp_path), None, SPEC)


def test_limit_takes_images_of_all_classes(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path, each=10), info(), SPEC, limit=3)
    labels = [label for part in dataset.batches(2, Unreadable()) for label in part.labels]
    assert labels == [0, 1, 2]


def test_a_fixed_batch_is_filled_up_and_cut_again(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path), info(), SPEC)
    fixed = Level(batch=4)
    counts = compare_accuracy(Level(), fixed, dataset, batch=6)
    assert set(fixed.seen) == {4}
    assert counts["candidate"].top1 == counts["images"] == 9


def stored(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_stored_arrays(tmp_path: Path) -> None:
    images = np.repeat(np.array([0, 10, 20], np.float32) / 255, 16).reshape(3, 1, 4, 4)
    path = stored(tmp_path / "set.npz", image=images, labels=np.array([0, 1, 1]))
    counts = compare_accuracy(Level(), Level(), open_dataset(path, None, SPEC), 2)
    assert (counts["images"], counts["candidate"].top1) == (3, 2)


IMAGES = np.zeros((2, 1, 4, 4), np.float32)
SOME_NAN = np.where(np.arange(2).reshape(2, 1, 1, 1) == 1, np.nan, IMAGES)


@pytest.mark.parametrize(
    ("arrays", "code", "why"),
    [
        ({"image": IMAGES}, "VIM-414", r"found \['image'\]; wanted 'image' and 'labels'"),
        ({"image": IMAGES, "labels": np.zeros(3, int)}, "VIM-414",
         r"int64 \[3\] for images float32 \[2, 1, 4, 4\]"),
        ({"image": IMAGES, "labels": np.zeros(2)}, "VIM-414", r"labels are float64 \[2\]"),
        ({"image": IMAGES, "labels": np.eye(2, 3, dtype=int)}, "VIM-414", r"int64 \[2, 3\]"),
        ({"image": IMAGES, "labels": np.array(["a", "b"])}, "VIM-414", "not numbers"),
        ({"image": np.float32(3), "labels": np.zeros(1, int)}, "VIM-414", r"images float32 \[\]"),
        ({"image": IMAGES, "labels": np.array([0, 3])}, "VIM-419",
         r"1 of 2 labels are no class: 3 at image 1, and the model's classes are 0 to 2"),
        ({"image": IMAGES, "labels": np.array([-1, 0])}, "VIM-419", r"-1 at image 0"),
        ({"image": IMAGES[:0], "labels": np.zeros(0, int)}, "VIM-419", "no images"),
        ({"image": IMAGES[:, :, :3], "labels": np.zeros(2, int)}, "VIM-415",
         r"float32 \[1, 1, 3, 4\], expected float32"),
        ({"image": IMAGES.astype(np.float64), "labels": np.zeros(2, int)}, "VIM-415", "float64"),
        ({"image": SOME_NAN.astype(np.float32), "labels": np.zeros(2, int)}, "VIM-414",
         r"1 images of 'image' hold NaN or Inf: image 1"),
        ({"image": np.array([{}]), "labels": np.zeros(1, int)}, "VIM-414", "object"),
    ],
)  # fmt: skip
def test_bad_stored_arrays(tmp_path: Path, arrays: dict[str, Any], code: str, why: str) -> None:
    with pytest.raises(VimDeployError, match=why) as caught:
        open_dataset(stored(tmp_path / "set.npz", **arrays), info(), SPEC)
    assert caught.value.code == code


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(VimDeployError, match="VIM-414"):
        open_dataset(tmp_path / "set.npz", info(), SPEC)


def test_ranking_of_ties_nan_and_topk() -> None:
    runner = Level()
    scores = np.array([[1, 2, 2], [np.nan, 0, 1], [3, 1, 2]], np.float32)
    ranking = rank_classes({"logits": scores}, runner)
    assert ranking.tolist() == [[1, 2, 0], [-1, -1, -1], [0, 2, 1]]
    best = {"probabilities": scores[:2], "classes": np.array([[7, 1, 0], [2, 1, 0]])}
    assert rank_classes(best, runner).tolist() == [[7, 1, 0], [-1, -1, -1]]
    infinite = np.array([[np.inf, 0, 1], [0, -np.inf, 1]], np.float32)
    assert rank_classes({"logits": infinite}, runner).tolist() == [[-1] * 3] * 2
    with pytest.raises(VimDeployError, match="VIM-415"):
        rank_classes({"logits": np.zeros((2, 3, 4))}, runner)


def test_an_image_with_nan_is_wrong_on_its_side_and_no_agreement(tmp_path: Path) -> None:
    class Broken(Level):
        def run(self, image: np.ndarray, size: Any = None) -> Mapping[str, np.ndarray]:
            return {"logits": np.full((len(image), 3), np.nan, np.float32)}

    dataset = open_dataset(folder(tmp_path), info(), SPEC)
    counts = compare_accuracy(Broken(), Broken(), dataset, 4)
    assert counts["candidate"].top1 == counts["same_class"] == 0
    assert counts["candidate"].not_a_number == 9
    report = AccuracyReport(artifact="a", artifact_sha256="", **counts)
    named = "NaN or Inf for 9 of 9 images: a/0.png, a/1.png, a/2.png, b/0.png, b/1.png, ..."
    assert len([text for text in report.failures if text.endswith(named)]) == 2
    assert encode(report)["reference"]["unanswered"][-1] == "c/2.png"
    assert not encode(report)["passed"]
    with pytest.raises(VimDeployError, match="VIM-701"):
        report.require_passed()
