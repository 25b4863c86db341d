"""``bench`` and ``verify --dataset`` through the command line, on models that take milliseconds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest

from tests.support.models import save_tiny
from tests.support.tiny_onnx import perceptron
from vim_deploy.cli.main import run

QUICK = ("--warmup", "0", "--duration", "0.02", "--threads", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint, exported, a file without metadata and an engine by its name."""
    place = tmp_path_factory.mktemp("bench")
    save_tiny(place)
    exported = ["--config", str(place / "tiny.json"), "-o", str(place / "tiny.onnx")]
    assert run(["-q", "export", str(place / "tiny.pth"), *exported]) == 0
    onnx.save(perceptron(), str(place / "other.onnx"))
    (place / "tiny.plan").write_bytes(b"plan")
    return place


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The JSON object that a successful command prints."""
    status = run([*arguments, "--json"])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    value: dict[str, Any] = json.loads(captured.out)
    return value


def fails(capsys: pytest.CaptureFixture[str], code: str, *arguments: str) -> str:
    """Run, expect this code, a fix and its exit code; what was said."""
    status = run(list(arguments))
    said = capsys.readouterr().err
    assert f"error {code}" in said, said
    assert "fix:" in said
    assert status == int(code.removeprefix("VIM-")[:-2])
    return said


def test_bench_with_pytorch_beside_it(capsys: Any) -> None:
    value = answer(
        capsys, "bench", "tiny.onnx", "--baseline", "pytorch", "--batches", "1,3", *QUICK
    )
    results = value["results"]
    assert [(r["runner"], r["batch"], r["status"]) for r in results] == [
        ("onnxruntime", 1, "ok"),
        ("pytorch", 1, "ok"),
        ("onnxruntime", 3, "ok"),
        ("pytorch", 3, "ok"),
    ]
    assert results[0]["tokens"] == 5
    assert all(r["outputs_finite"] for r in results)
    assert all(r["latency"]["p50_ms"]["value"] > 0 for r in results)
    assert len(value["ratios"]) == 2
    assert value["ratios"][0]["of_runner"] == "pytorch"
    assert "seeded weights" in " ".join(value["notes"])
    assert value["machine"]["cpus"] >= 1
    assert value["settings"]["threads"] == 1
    assert json.loads(Path("bench.json").read_text()) == value
    assert "| tiny | onnxruntime | 16x16 | 1 |" in Path("bench.md").read_text()


def test_memory_belongs_to_the_measured_process(capsys: Any) -> None:
    # This process is far larger than the one that runs the tiny model.
    ballast = np.ones(60_000_000)
    value = answer(capsys, "bench", "tiny.onnx", *QUICK)
    memory = value["results"][0]["memory"]
    if memory["process_peak_bytes"] is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert memory["process_peak_bytes"] < ballast.nbytes
    assert memory["model_bytes"] < 100e6


@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 measures these")
@pytest.mark.slow
def test_checkpoint_at_several_sizes_keeps_its_exports(capsys: Any) -> None:
    arguments = (
        "bench",
        "vim-digits",
        "--image-sizes",
        "16,25,32x40",
        "--export-dir",
        "kept",
        "--plot",
        "sizes.svg",
        *QUICK,
    )
    value = answer(capsys, *arguments)
    assert "vim-digits, onnxruntime, batch 1" in Path("sizes.svg").read_text()
    assert [r["image"] for r in value["results"]] == [[16, 16], [25, 25], [32, 40]]
    assert [r["facts"]["weights"] for r in value["results"]] == ["vim_digits.pth"] * 3
    assert value["scaling"][0]["tokens"] == [17, 37, 81]
    unread = [note for note in value["notes"] if "not read" in note]
    assert len(unread) == 1
    assert unread[0].startswith("vim-digits at 25x25: 1 row of pixels at the bottom and 1 column")
    assert sorted(path.name for path in Path("kept").iterdir()) == [
        "vim-digits-16.onnx",
        "vim-digits-25.onnx",
        "vim-digits-32x40.onnx",
    ]


def test_a_file_that_takes_no_pictures(capsys: Any) -> None:
    fails(capsys, "VIM-415", "bench", "other.onnx", *QUICK)


def test_compare_with_itself_and_with_a_faster_past(capsys: Any) -> None:
    answer(capsys, "bench", "tiny.onnx", "--report", "old", *QUICK)
    again = ("bench", "tiny.onnx", "--compare", "old/bench.json", *QUICK)
    fails(capsys, "VIM-203", *again, "--report", "old")
    value = answer(capsys, *again, "--max-regress", "100000%", "--report", "new")
    assert value["comparison"]["entries"]
    past = json.loads(Path("old/bench.json").read_text())
    past["results"][0]["latency"]["p50_ms"]["value"] = 1e-6
    Path("old/bench.json").write_text(json.dumps(past))
    said = fails(capsys, "VIM-1001", *again, "--report", "worse")
    assert "tiny, onnxruntime, 16x16, batch 1" in said
    assert Path("worse/bench.json").exists()
    past["machine"]["cpu_model"] = "another"
    Path("old/bench.json").write_text(json.dumps(past))
    fails(capsys, "VIM-418", *again, "--report", "never")


def test_a_report_of_other_settings_is_not_replaced(capsys: Any) -> None:
    answer(capsys, "bench", "tiny.onnx", *QUICK)
    answer(capsys, "bench", "tiny.onnx", *QUICK)
    said = fails(capsys, "VIM-204", "bench", "tiny.onnx", "--batches", "2", *QUICK)
    assert "batches" in said
    answer(capsys, "bench", "tiny.onnx", "--batches", "2", "--force", *QUICK)
    Path("bench.json").write_text("[]")
    fails(capsys, "VIM-204", "bench", "tiny.onnx", *QUICK)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("tiny.plan",), "VIM-413"),
        (("missing.plan",), "VIM-401"),
        (("missing.onnx",), "VIM-401"),
        (("tiny.onnx", "--image-sizes", "32"), "VIM-203"),
        (("tiny.onnx", "--random-weights", "0"), "VIM-203"),
        (("tiny.onnx", "--plot", "x.pdf"), "VIM-202"),
        (("tiny.onnx", "--plot", "x.svg"), "VIM-203"),
        (("tiny.json",), "VIM-402"),
        (("tiny.onnx", "--compare", "missing.json"), "VIM-401"),
    ],
)
def test_bad_bench_input(capsys: Any, arguments: tuple[str, ...], code: str) -> None:
    fails(capsys, code, "bench", *arguments, *QUICK)
    assert not Path("bench.json").exists()


def test_a_batch_that_nobody_measures_is_a_usage_error(capsys: Any) -> None:
    assert run(["bench", "tiny.onnx", "--batches", "5000", *QUICK]) == 2
    assert "from 1 to 4096" in capsys.readouterr().err


def test_a_fixed_batch_is_refused_with_its_size(capsys: Any) -> None:
    arguments = ("export", "tiny.pth", "--config", "tiny.json", "--batch", "2", "-o", "two.onnx")
    assert run(["-q", *arguments]) == 0
    assert "--batches 2" in fails(capsys, "VIM-415", "bench", "two.onnx", *QUICK)


def pictures(root: Path) -> Path:
    """Seven classes of two noise pictures, and one file that is none."""
    generator = np.random.default_rng(0)
    for name in "abcdefg":
        (root / name).mkdir(parents=True)
        for number in range(2):
            pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(root / name / f"{number}.png")
    (root / "c" / "broken.jpg").write_bytes(b"\xff\xd8\xff and nothing")
    return root


def test_dataset_of_pictures(capsys: Any, tmp_path: Path) -> None:
    root = pictures(tmp_path / "set")
    arguments = ("verify", "tiny.onnx", "--against", "tiny.pth", "--dataset", str(root))
    assert run([*arguments, "--report", str(tmp_path), "--batches", "3", "--json"]) == 4
    value = json.loads(capsys.readouterr().out)
    assert value.pop("error")["code"] == "VIM-411"
    assert value["dataset"]["images"] == value["same_class"] == 14
    assert value["dataset"]["unreadable_images"][0]["name"] == "c/broken.jpg"
    assert value["passed"] is True
    assert value["statement"][0].startswith("no detectable loss of top-1 accuracy, upper bound")
    assert json.loads((tmp_path / "accuracy.json").read_text()) == value
    (root / "c" / "broken.jpg").unlink()
    assert "error" not in answer(capsys, *arguments)
    # Fourteen images can bound the loss by no less than about a fifth.
    fails(capsys, "VIM-701", *arguments, "--max-loss", "1%")


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (("--random", "3"), "VIM-203"),
        (("--atol", "1"), "VIM-203"),
        (("--batches", "1,2"), "VIM-203"),
        (("--against", "x.npz"), "VIM-203"),
    ],
)
def test_options_that_do_not_go_with_a_dataset(
    capsys: Any, tmp_path: Path, extra: tuple[str, ...], code: str
) -> None:
    arguments = ("verify", "tiny.onnx", "--against", "tiny.pth", "--dataset", str(tmp_path))
    fails(capsys, code, *arguments, *extra)


def test_max_loss_needs_a_dataset(capsys: Any) -> None:
    fails(capsys, "VIM-203", "verify", "tiny.onnx", "--against", "tiny.pth", "--max-loss", "1%")


def test_empty_dataset(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    arguments = ("verify", "tiny.onnx", "--against", "tiny.pth", "--dataset", "empty")
    fails(capsys, "VIM-419", *arguments)


def test_class_folders_that_are_not_the_models_classes(capsys: Any, tmp_path: Path) -> None:
    root = pictures(tmp_path / "set")
    (root / "g").rename(root / "extra")
    (root / "one-more").mkdir()
    PIL.Image.new("RGB", (20, 24)).save(root / "one-more" / "0.png")
    arguments = ("verify", "tiny.onnx", "--against", "tiny.pth", "--dataset", str(root))
    said = fails(capsys, "VIM-419", *arguments)
    assert "8" in said  # folders
    assert "7" in said  # classes of the model
    assert not Path("accuracy.json").exists()


def test_dataset_of_corrupt_pictures_only(capsys: Any, tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.png").write_bytes(b"\x89PNG and nothing")
    arguments = ("verify", "tiny.onnx", "--against", "tiny.pth", "--dataset", "set")
    assert "a/0.png" in fails(capsys, "VIM-419", *arguments)


def test_a_baseline_of_another_machine_is_refused_before_anything_is_measured(capsys: Any) -> None:
    answer(capsys, "bench", "tiny.onnx", "--report", "old", *QUICK)
    past = json.loads(Path("old/bench.json").read_text())
    past["machine"].update(cpu_model="another", cpus=512)
    Path("old/bench.json").write_text(json.dumps(past))
    again = ("bench", "tiny.onnx", "--compare", "old/bench.json", "--report", "new")
    # A minute of timed calls, if it came to that.
    said = fails(capsys, "VIM-418", *again, "--duration", "60", "--threads", "1")
    assert "cpu_model: 'another' then" in said
    assert "cpus: 512 then" in said
    assert not list(Path("new").glob("*"))


def test_nothing_in_common_is_refused_before_anything_is_measured(capsys: Any) -> None:
    answer(capsys, "bench", "tiny.onnx", "--report", "old", *QUICK)
    past = json.loads(Path("old/bench.json").read_text())
    past["settings"]["duration_seconds"] = 60.0
    for result in past["results"]:
        result["label"] = "another"
    Path("old/bench.json").write_text(json.dumps(past))
    again = ("bench", "tiny.onnx", "--compare", "old/bench.json", "--report", "new", *QUICK)
    said = fails(capsys, "VIM-418", *again, "--duration", "60")
    assert "there: another" in said
    assert "here: tiny" in said
    assert not list(Path("new").glob("*"))
