"""OpenVINO: reference cases (``consumers.TRIED``) within ONNX Runtime's bound, and the commands."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.support import consumers, reference
from tests.support.detector_cases import apart, detector_case
from tests.support.reference import BOUND
from vim_deploy.artifact import Artifact
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.precisions import TABLE, TYPED, Precision
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import RunnerOptions, run_in_batches
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

pytest.importorskip("openvino")

OPENVINO = RunnerOptions(runtime="openvino")


def test_reference_cases(folder_of_traces: Path) -> None:
    files = consumers.files_of(folder_of_traces.parent, "scan")
    for name in consumers.TRIED:
        stored = reference.arrays_of(files / f"{name}.npz")
        with open_runner(Artifact.open(files / f"{name}.onnx"), OPENVINO) as runner:
            found = list(runner.run(stored["image"]).values())
        wanted = [stored[f"output_{number}"] for number in range(len(stored) - 1)]
        for one, other in zip(found, wanted, strict=True):
            assert np.abs(one - other).max() <= BOUND, name


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openvino") / "digits.onnx"
    return export("vim-digits", path, ExportOptions(check=False)).path


def test_files_with_functions_run(digits: Path) -> None:
    case = reference.load_case(reference.DIGITS)
    with open_runner(Artifact.open(digits), OPENVINO) as runner:
        assert runner.name.startswith("OpenVINO ")
        for batch in (1, 3, 2, 5):
            found = runner.run(case.image[:batch])["logits"]
            assert np.abs(found - case.output[:batch]).max() <= BOUND, batch


@pytest.mark.skipif(
    not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 exports and compiles a detector"
)
def test_a_whole_detector(tmp_path: Path) -> None:
    """In one batch, one by one, with a picture of no size and one that a NaN has got into."""
    case = detector_case("F01")
    request = ModelRequest(str(case.checkpoint), config=dict(case.config))
    path = export(request, tmp_path / "f01.onnx", ExportOptions(check=False)).path
    # Whatever a host pads with.
    images, sizes = case.normalized(0, 1, 2), case.sizes(0, 1, 2)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, height:] = image[:, :, width:] = np.nan
    with open_runner(Artifact.open(path), OPENVINO) as runner:
        spoilt = images.copy()
        spoilt[0, 0, 5, 5] = np.nan
        found = runner.run(spoilt, np.array([sizes[0], [1, 1], [0, 0]]))
        assert not any(value.any() for value in found.values())
        for batch in (3, 1):
            found = run_in_batches(runner, images, batch, sizes)
            for row, picture in enumerate(case.pictures):
                assert found["count"][row] == len(picture.scores)
                # Pixels, scores and masks as is promised of detectors.
                assert (apart(found, row, picture) <= [1e-3, 1e-4, 1e-3]).all(), (batch, row)


def test_commands(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = str(reference.SMALL.parent / "digits")
    assert run(["run", str(digits), pictures, "--runtime", "openvino", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runtime"].startswith("OpenVINO ")
    assert run(["run", str(digits), pictures, "--json"]) == 0
    usual = json.loads(capsys.readouterr().out)
    tops = [[image["top"][0]["index"] for image in said["images"]] for said in (found, usual)]
    assert tops[0] == tops[1]
    words = ["verify", str(digits), "--against", str(digits), "--runtime", "openvino"]
    assert run([*words, "--per-block"]) == 0


def test_a_fixed_batch_takes_that_batch(tmp_path: Path) -> None:
    options = ExportOptions(batch=3, check=False)
    path = export("vim-digits", tmp_path / "three.onnx", options).path
    case = reference.load_case(reference.DIGITS)
    with open_runner(Artifact.open(path), OPENVINO) as runner:
        found = runner.run(case.image[:3])["logits"]
        assert np.abs(found - case.output[:3]).max() <= BOUND
        with pytest.raises(VimDeployError) as caught:
            runner.run(case.image[:2])
    assert caught.value.code == "VIM-415"


@pytest.mark.parametrize("precision", TYPED)
def test_half_precision_files_run(
    precision: Precision, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the input in half precision, too, and within the tolerance of the precision."""
    options = ExportOptions(precision=precision, io_precision=precision, check=False)
    path = export("vim-digits", tmp_path / "half.onnx", options).path
    words = ["verify", str(path), "--against", "vim-digits", "--runtime", "openvino", "--json"]
    assert run(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["passed"]
    assert TABLE[precision].dtype in json.dumps(said)


@pytest.mark.parametrize(
    "options",
    [{"provider": "cpu"}, {"ops": "native"}, {"plugin": Path("x.so")}, {"allow_plan_code": True}],
)
def test_options_of_others_are_refused(digits: Path, options: dict[str, object]) -> None:
    with pytest.raises(VimDeployError) as caught:
        open_runner(Artifact.open(digits), RunnerOptions(runtime="openvino", **options))
    assert caught.value.code == "VIM-203"
