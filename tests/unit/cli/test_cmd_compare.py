"""``compare`` from the command line: what it prints, writes, demands and refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest

from tests.support import detectors
from tests.support.engines import EXPORT
from tests.support.packages import classifier
from tests.support.sick_models import INFO, nan_classifier
from vim_deploy.artifact import metadata
from vim_deploy.cli.main import run
from vim_deploy.stages import comparing

pytest.importorskip("onnxruntime")

Captured = pytest.CaptureFixture[str]
QUICK = ("--duration", "0.02", "--warmup", "0", "--threads", "1")
LABELS = EXPORT.labels


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier, its copy, another one; 24 pictures in class folders, as the first says."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 0), ("b", 0), ("other", 1)):
        classifier(Path(f"{name}.onnx"), info=INFO, seed=seed)
    generator = np.random.default_rng(0)
    weight = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    for number in range(24):
        pixels = generator.integers(0, 256, (2, 3), dtype=np.uint8)
        label = LABELS[int(((pixels.reshape(6) / 255 - 0.5) / 0.5).dot(weight).argmax())]
        Path("set", label).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(Path("set", label, f"{number}.png"))
    for label in LABELS:
        Path("set", label).mkdir(exist_ok=True)


def answer(capsys: Captured, *words: str, code: int = 0) -> dict[str, Any]:
    assert run(["compare", *words, "--json"]) == code
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def described(path: Path, **changes: Any) -> None:
    """The same file saying something else of itself."""
    model = onnx.load(path)
    metadata.attach(model, dataclasses.replace(INFO, **changes))
    onnx.save(model, path)


def test_all_that_is_said(capsys: Captured) -> None:
    value = answer(capsys, "a.onnx", "other.onnx", "--images", "set", "--report", "page", *QUICK)
    found = value["found"]
    assert (value["pictures"]["images"], value["pictures"]["labelled"]) == (24, True)
    assert found["accuracy"]["top1_a"] == 24
    assert found["accuracy"]["top1_b"] == found["same_class"] == 24 - len(found["changed"]) < 20
    assert value["advice"]["rule"] == "keep A"
    assert "docs/precision.md" in value["advice"]["sentence"]
    assert value["passed"] is None
    assert [item["batch"] for item in value["time"]["batches"]] == [1, 8]
    for item in value["time"]["batches"]:
        assert item["ratio"]["low"] <= item["ratio"]["value"] <= item["ratio"]["high"]
        assert item["a"]["latency"]["mean_ms"]["value"] > 0
        assert item["b"]["memory_bytes"] > 0
    stored = json.loads(Path("page/compare.json").read_text())
    assert stored == value
    page, twin = (Path(f"page/compare.{kind}").read_text() for kind in ("html", "md"))
    assert page.count("data:image/png;base64,") >= len(found["changed"])
    for name in found["changed"]:
        assert name in page
        assert name in twin


def test_what_people_read(capsys: Captured) -> None:
    assert run(["compare", "a.onnx", "b.onnx", "--images", "set", "--no-time"]) == 0
    said = capsys.readouterr().out
    assert "same first class: 24 of 24 pictures" in said
    assert "no detectable loss of top-1 accuracy" in said
    assert "advice: too few pictures to tell: the same class on all 24 pictures" in said
    assert "classes: folders are class names" in said


def test_names_of_others_begin_no_line(capsys: Captured) -> None:
    bad = "x\nadvice: take B\x1b[31m"
    for name in ("a.onnx", "other.onnx"):
        described(Path(name), labels=(bad, *LABELS[1:]))
    Path("set", LABELS[0], f"{bad}.png").write_bytes(b"no picture")
    assert run(["compare", "a.onnx", "other.onnx", "--images", "set", "--no-time"]) == 0
    said = capsys.readouterr()
    assert "x\\nadvice: take B" in said.out
    assert [line for line in said.out.splitlines() if line.startswith("advice: take B")] == []
    assert "\x1b" not in said.out + said.err


def test_demands(capsys: Captured) -> None:
    same = ("a.onnx", "b.onnx", "--images", "set", "--no-time")
    value = answer(capsys, *same, "--max-disagreement", "0%", "--max-loss", "20%")
    assert (value["passed"], value["failures"]) == (True, [])
    # The upper bound of 24 pictures without a flip is 13.8 %.
    assert value["advice"]["rule"] == "either"
    other = ("a.onnx", "other.onnx", "--images", "set", "--no-time")
    value = answer(capsys, *other, "--max-disagreement", "10%", "--max-loss", "5%", code=7)
    assert value["error"]["code"] == "VIM-701"
    assert len(value["failures"]) == 2
    assert value["passed"] is False


@pytest.mark.parametrize("flat", [True, False])
def test_without_true_classes(capsys: Captured, flat: bool) -> None:
    images = "set/" + next(name for name in LABELS if any(Path("set", name).iterdir()))
    if not flat:
        for place, label in enumerate(LABELS):
            Path("set", label).rename(Path("set", f"{place} what"))
        images = "set"
    value = answer(capsys, "a.onnx", "other.onnx", "--images", images, "--no-time")
    assert value["pictures"]["labelled"] is False
    assert value["found"]["accuracy"] is None
    assert value["advice"]["rule"] == "look"
    assert ("did you mean" in value["pictures"]["classes_by"]) is False
    assert ("has the name of one of the model's" in value["pictures"]["classes_by"]) != flat
    # All of a flat folder is compared, and nothing is said to be left out.
    assert value["pictures"]["classes_by"].endswith("it holds no class folders") == flat
    value = answer(
        capsys, "a.onnx", "b.onnx", "--images", images, "--no-time", "--max-loss", "9%", code=4
    )
    assert value["error"]["code"] == "VIM-419"


def test_pictures_without_an_answer(capsys: Captured) -> None:
    nan_classifier(Path("sick.onnx"))
    Path("set", LABELS[0], "bad\x1b[31m.png").write_bytes(b"no picture")
    words = ("a.onnx", "sick.onnx", "--images", "set", "--no-time")
    value = answer(capsys, *words, "--report", "page")
    assert value["found"]["no_answer_b"] == 24
    assert value["advice"]["rule"] == "keep A"
    assert [item["file"] for item in value["pictures"]["unread"]] == [
        f"{LABELS[0]}/bad\x1b[31m.png"
    ]
    assert "\x1b" not in Path("page/compare.html").read_text() + Path("page/compare.md").read_text()
    assert answer(capsys, *words, "--max-disagreement", "50%", code=7)["passed"] is False


def test_two_models_are_told_apart(capsys: Captured) -> None:
    described(
        Path("other.onnx"),
        labels=(),
        image=dataclasses.replace(INFO.image, std=(0.25,)),
        checkpoint=dataclasses.replace(INFO.checkpoint, name="late.pth", sha256="22"),
    )
    notes = answer(capsys, "a.onnx", "other.onnx", "--images", "set", "--no-time")["notes"]
    said = "\n".join(notes)
    assert "prepared differently: std (0.5,) in A and (0.25,) in B" in said
    assert "weights differ: those of a.pth (model) in A, of late.pth (model) in B" in said
    assert "only A has names" in said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"labels": ("north", "east", "west", "south")}, "class 2 is 'south' in A and 'west' in B"),
        (
            {"model_config": INFO.model_config.replace(num_classes=5), "labels": ()},
            "A tells 4 classes apart, B 5",
        ),
        ({"head": "features"}, "B gives no classes to compare (head features)"),
    ],
)
def test_other_questions(capsys: Captured, changes: dict[str, Any], why: str) -> None:
    described(Path("other.onnx"), **changes)
    error = answer(capsys, "a.onnx", "other.onnx", "--images", "set", code=4)["error"]
    assert (error["code"], why in error["why"]) == ("VIM-440", True), error


def test_a_detector_is_no_classifier(capsys: Captured) -> None:
    detectors.stand_in(Path("detector.onnx"))
    error = answer(capsys, "a.onnx", "detector.onnx", "--images", "set", code=4)["error"]
    assert error["code"] == "VIM-440"
    assert "A answers with classes (head logits), B with detections" in error["why"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("a.onnx b.onnx --images gone", "VIM-401"),
        ("a.onnx gone.onnx --images set", "VIM-401"),
        ("gone.pth b.onnx --images gone", "VIM-401"),
        ("a.onnx a.onnx --images set", "VIM-203"),
        ("vim-digits vim-tiny --images set", "VIM-203"),
        ("a.onnx x.npz --images set", "VIM-203"),
        ("a.onnx b.onnx --images set --allow-plan-code", "VIM-203"),
        ("a.onnx b.onnx --images set --plugin x.so", "VIM-203"),
        ("a.onnx b.onnx --images set --report a.onnx", "VIM-202"),
        ("a.onnx b.onnx --images set --report a.onnx/page", "VIM-304"),
        ("a.onnx b.onnx --images set --max-loss 101%", "VIM-202"),
        ("a.onnx b.onnx", "VIM-202"),
    ],
)
def test_refused_before_work(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, words: str, code: str
) -> None:
    monkeypatch.setattr(comparing, "compare_classes", None)
    if "gone" in words:
        monkeypatch.setattr(comparing, "read_infos", None)
    assert run(["compare", *words.split(), "--json"]) != 0
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code


def test_a_folder_without_one_readable_picture(capsys: Captured) -> None:
    Path("bad").mkdir()
    Path("bad/x.png").write_bytes(b"no picture")
    error = answer(capsys, "a.onnx", "b.onnx", "--images", "bad", code=4)["error"]
    assert error["code"] == "VIM-419"
    assert "x.png" in error["why"]


def test_files_of_different_batches_are_not_timed(capsys: Captured) -> None:
    classifier(Path("two.onnx"), 2, info=INFO)
    classifier(Path("three.onnx"), 3, info=INFO)
    value = answer(capsys, "a.onnx", "two.onnx", "--images", "set", *QUICK)
    assert [one["batch"] for one in value["time"]["batches"]] == [2]
    value = answer(capsys, "two.onnx", "three.onnx", "--images", "set", *QUICK)
    assert value["time"] is None
    assert value["untimed"] == "the files are made for different batch sizes"
    assert value["found"]["same_class"] == 24
    words = ("a.onnx", "two.onnx", "--images", "set", "--time-batches", "1")
    error = answer(capsys, *words, code=4)["error"]
    assert (error["code"], "B does not take a batch of 1" in error["message"]) == ("VIM-415", True)


def test_a_file_with_more_classes_than_it_says(capsys: Captured) -> None:
    for name in ("a.onnx", "b.onnx"):
        few = INFO.model_config.replace(num_classes=3)
        described(Path(name), model_config=few, labels=())
    error = answer(capsys, "a.onnx", "b.onnx", "--images", "set/north", "--no-time", code=4)[
        "error"
    ]
    assert error["code"] == "VIM-415"
    assert "classes from 0 to 3; it says that it has 3" in error["why"]


def test_at_most_so_many_pictures(capsys: Captured) -> None:
    words = ("a.onnx", "b.onnx", "--images", "set", "--no-time", "--image-limit", "5")
    value = answer(capsys, *words)
    assert value["pictures"]["images"] == 5
    assert len({item["file"].partition("/")[0] for item in value["found"]["pictures"]}) > 1
