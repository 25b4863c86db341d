"""int8 and fp8 on the trained digits: how many answers change, what a file weighs, what is refused.

Calibrated on pictures of the images it was trained on, and counted on the 360 it never saw.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from tests.support.reference import DIGITS, load_case
from vim_deploy.artifact import Artifact
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.recipe.quantization import QuantizeOptions
from vim_deploy.runtimes.base import run_in_batches
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.specs import CalibrationMethod
from vim_deploy.stages import export
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import ExportResult

#: Seconds each; others are checked by the default ones' code.
MORE = pytest.mark.skipif(
    not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs the other forms"
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 1,437 images of training as PNG files, enlarged as those of the reference are."""
    datasets = pytest.importorskip("sklearn.datasets")
    folder = tmp_path_factory.mktemp("train")
    images = datasets.load_digits().images
    train = np.delete(images, load_case(DIGITS).extras["test_index"], axis=0)
    wide = torch.nn.functional.interpolate(
        torch.from_numpy(train / 16)[:, None], size=(32, 32), mode="bilinear"
    )
    for number, pixels in enumerate(np.rint(wide[:, 0].numpy() * 255).astype(np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number:04}.png")
    assert len(train) == 1437
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("single") / "fp32.onnx"
    return export("vim-digits", path, ExportOptions(check=False)).path


def changed(path: Path, single: Path) -> int:
    """Of the 360 held-out images as pictures, those of another class than in float32."""
    images = load_case(DIGITS).image
    bytes_of_pictures = np.rint((images * 0.5 + 0.5) * 255).astype(np.float32)
    pictures = (bytes_of_pictures / 255 - 0.5) / 0.5
    found = logits(path, pictures)
    assert np.isfinite(found).all()
    return int((found.argmax(axis=1) != logits(single, pictures).argmax(axis=1)).sum())


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    with OrtRunner(Artifact.open(path)) as runner:
        return run_in_batches(runner, images, 120)["logits"]


@pytest.fixture(scope="module")
def static(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """With static scales; its calibration is saved beside it."""
    path = tmp_path_factory.mktemp("static") / "int8.onnx"
    saved = path.with_name("saved.json")
    options = QuantizeOptions(calibration=pictures, save_calibration=saved)
    return export("vim-digits", path, ExportOptions(precision="int8", quantize=options))


def test_static_scales_change_one_answer_at_most(static: ExportResult, single: Path) -> None:
    assert changed(static.path, single) <= 1
    assert static.path.stat().st_size <= 0.41 * single.stat().st_size
    assert static.parity is not None
    assert static.parity.passed
    stored = {tensor.data_type for tensor in onnx.load(static.path).graph.initializer}
    assert onnx.TensorProto.INT8 in stored


def test_only_close_decisions_change(static: ExportResult) -> None:
    # The reference's own images are floats; three of them are nearly ties in float32.
    case = load_case(DIGITS)
    best = np.sort(case.output, axis=1)
    clear = best[:, -1] - best[:, -2] > 0.05
    assert clear.sum() >= 355
    same = logits(static.path, case.image).argmax(axis=1) == case.output.argmax(axis=1)
    assert same[clear].all()
    # Their margins in float32 are 0.0018, 0.023 and 0.031.
    assert (~same).sum() <= 1


def test_the_result_and_the_file_say_how(static: ExportResult) -> None:
    assert static.quantization is not None
    errors = {layer.name: layer.error for layer in static.quantization.layers}
    # The patch embedding, the classifier, and of each of 6 mixers in_proj, out_proj and an x_proj
    # for each direction.
    assert len(errors) == 2 + 6 * 4
    assert all(error is not None and 0 < error < 0.05 for error in errors.values()), errors
    worst = max(errors, key=lambda name: errors[name] or 0)
    assert static.quantization.in_words.startswith("26 products, ")
    assert f"furthest off (relative L2): {worst} " in static.quantization.in_words
    # Weights that are read back to float32 are no activations: with them there were 0.47 MB.
    assert static.activations is not None
    assert static.activations.peak_bytes < 0.32e6
    said = Artifact.open(static.path).require_info().quantization
    assert said is not None
    assert said.calibration is not None
    assert (said.activations, said.calibration.images, said.calibration.seed) == ("static", 128, 0)


def test_the_same_again_is_up_to_date(static: ExportResult, pictures: Path) -> None:
    before = static.path.read_bytes()
    options = ExportOptions(precision="int8", quantize=QuantizeOptions(calibration=pictures))
    assert export("vim-digits", static.path, options).up_to_date
    other = replace(options, quantize=QuantizeOptions(calibration=pictures, seed=1))
    with pytest.raises(VimDeployError, match="VIM-204"):
        export("vim-digits", static.path, other)
    assert static.path.read_bytes() == before


@MORE
def test_the_same_pictures_give_the_same_bytes(
    static: ExportResult, pictures: Path, tmp_path: Path
) -> None:
    before = static.path.read_bytes()
    saved = tmp_path / "again.json"
    quantize = QuantizeOptions(calibration=pictures, save_calibration=saved)
    options = ExportOptions(precision="int8", quantize=quantize)
    # A calibration that is not there yet has the file made again.
    assert not export("vim-digits", static.path, options).up_to_date
    assert static.path.read_bytes() == before
    assert saved.read_bytes() == static.path.with_name("saved.json").read_bytes()
    assert export("vim-digits", static.path, options).up_to_date


def test_scales_per_token_need_no_pictures(single: Path, tmp_path: Path) -> None:
    options = QuantizeOptions(activations="per-token")
    wanted = ExportOptions(precision="int8", quantize=options, check=False)
    made = export("vim-digits", tmp_path / "tokens.onnx", wanted)
    assert changed(made.path, single) <= 1
    assert made.path.stat().st_size <= 0.41 * single.stat().st_size


@MORE
@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_methods(
    method: CalibrationMethod, pictures: Path, single: Path, tmp_path: Path
) -> None:
    options = QuantizeOptions(calibration=pictures, method=method)
    made = export(
        "vim-digits", tmp_path / "m.onnx", ExportOptions(precision="int8", quantize=options)
    )
    assert changed(made.path, single) <= 2


@MORE
def test_fp8(pictures: Path, single: Path, tmp_path: Path) -> None:
    options = QuantizeOptions(calibration=pictures)
    made = export(
        "vim-digits", tmp_path / "8.onnx", ExportOptions(precision="fp8", quantize=options)
    )
    assert changed(made.path, single) <= 8


def test_what_is_refused(
    static: ExportResult, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few, black = tmp_path / "few", tmp_path / "black"
    few.mkdir()
    black.mkdir()
    for file in sorted(pictures.iterdir())[:3]:
        shutil.copy(file, few)
    for number in range(20):
        Image.new("L", (32, 32)).save(black / f"{number}.png")
    saved = str(static.path.with_name("saved.json"))
    for words, code, says in (
        (("vim-digits", "--calibration", str(few)), "VIM-441", "3 different pictures in"),
        (("vim-digits", "--calibration", str(black)), "VIM-441", "20 of one colour"),
        (("vim-digits", "--calibration", saved, "--mean", "0.4"), "VIM-442", "image mean"),
        (("vim-digits", "--calibration", saved, "--image-size", "48"), "VIM-442", "image height"),
        (("vim-digits", "--calibration", saved, "--use-ema"), "VIM-442", "model_ema"),
        ((str(static.path), "--calibration", str(pictures)), "VIM-203", "is quantized already"),
    ):
        output = str(tmp_path / "none.onnx")
        assert run(["export", *words, "--precision", "int8", "-o", output]) in (2, 4)
        err = " ".join(capsys.readouterr().err.split())
        assert code in err, words
        assert says in err, words
        assert not Path(output).exists()
