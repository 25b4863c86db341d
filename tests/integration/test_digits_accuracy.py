"""Accuracy of the exported toy on its test split: as stored arrays and as a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.support.reference import DIGITS, SMALL, load_case
from vim_deploy.errors import VimDeployError
from vim_deploy.stages import export, verify_dataset
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.verifying_dataset import DatasetOptions

#: Large batches: the reference scan takes a step for each token, whatever the batch.
OPTIONS = DatasetOptions(batch=120)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "vim-digits.onnx"
    return export("vim-digits", path, ExportOptions(check=False)).path


def test_stored_digits(exported: Path, digits_checkpoint: Path) -> None:
    # 360 of 360 the same, and the accuracy that the official code has (346 of 360).
    case = load_case(DIGITS)
    stored = SMALL / f"{DIGITS}.npz"
    found = verify_dataset(exported, str(digits_checkpoint), stored, OPTIONS)
    right = int((case.output.argmax(axis=1) == case.extras["labels"]).sum())
    assert (found.images, found.same_class) == (360, 360)
    assert found.reference.top1 == found.candidate.top1 == right == 346
    assert (found.top1.losses, found.top1.gains) == (0, 0)
    assert found.top5 is not None
    assert found.sentences[0].startswith("no detectable loss of top-1 accuracy, upper bound 1.06 %")
    found.require_passed()


def test_digits_as_pictures(exported: Path, digits_checkpoint: Path, tmp_path: Path) -> None:
    case = load_case(DIGITS)
    # The stored images are normalised with mean and standard deviation 0.5. They were enlarged in
    # float, so that pictures of them are rounded; a quarter of them is enough here.
    pixels = np.rint((case.image[::4] * 0.5 + 0.5) * 255).astype(np.uint8)
    labels = case.extras["labels"][::4]
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        place = tmp_path / NAMES[label]
        place.mkdir(exist_ok=True)
        PIL.Image.fromarray(image[0]).save(place / f"{number:03d}.png")
    (tmp_path / "three" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = verify_dataset(exported, str(digits_checkpoint), tmp_path, OPTIONS)
    right = int((case.output[::4].argmax(axis=1) == labels).sum())
    assert found.images == found.same_class == 90
    assert abs(found.candidate.top1 - right) <= 2
    assert found.reference.top1 == found.candidate.top1
    assert found.passed
    with pytest.raises(VimDeployError, match="VIM-411: 1 images"):
        found.require_passed()
    assert found.classes_by == "folders are class names"
    assert [name for name, _ in found.unreadable] == ["three/torn.png"]
