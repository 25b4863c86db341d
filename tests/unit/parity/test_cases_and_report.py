"""Cases from stored files, comparison of runners, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vim_deploy.errors import VimDeployError
from vim_deploy.parity.cases import Case, random_case, stored_case
from vim_deploy.parity.metrics import Tolerance
from vim_deploy.parity.report import ParityReport, compare_runners
from vim_deploy.runtimes.base import Runner
from vim_deploy.specs import ImagePreparation, TensorSpec

SPEC = TensorSpec("image", "float32", ("batch", 1, 2, 2))
PIXELS = TensorSpec("image", "uint8", ("batch", 2, 2, 1))


class Doubler(Runner):
    """Adds up an image and multiplies; notes the batch sizes it saw."""

    def __init__(self, factor: float = 2) -> None:
        self.factor = factor
        self.seen: list[int] = []
        self.name = f"times {factor}"
        self.input = SPEC
        self.outputs = ("logits",)

    def run(
        self, image: np.ndarray[Any, Any], size: Any = None
    ) -> Mapping[str, np.ndarray[Any, Any]]:
        self.seen.append(len(image))
        return {"logits": self.factor * image.reshape(len(image), -1)}


def test_every_batch_size_is_run_and_the_rest_too() -> None:
    candidate = Doubler()
    case = random_case(SPEC, "none", 5)
    results = compare_runners(Doubler(), candidate, [case], (1, 2, 5), Tolerance())
    assert candidate.seen == [1] * 5 + [2, 2, 1] + [5]
    assert [result.batch for result in results] == [1, 2, 5]
    assert all(item.rows == 5 for result in results for item in result.comparisons)


def report(results: Any) -> ParityReport:
    return ParityReport("x.onnx", "0", "reference", "candidate", Tolerance(), results)


def test_difference_raises_with_the_figures() -> None:
    case = random_case(SPEC, "none", 2)
    failed = report(compare_runners(Doubler(), Doubler(2.1), [case], (1,), Tolerance()))
    with pytest.raises(VimDeployError) as caught:
        failed.require_passed()
    assert caught.value.code == "VIM-701"
    assert "logits" in caught.value.message
    assert "max abs" in caught.value.why


def test_nothing_compared_is_not_a_pass() -> None:
    assert not report(()).passed
    with pytest.raises(VimDeployError, match="nothing was compared"):
        report(()).require_passed()


def test_stored_outputs_replace_the_reference(tmp_path: Path) -> None:
    image = np.ones((2, 1, 2, 2), np.float32)
    np.savez(tmp_path / "s.npz", image=image, output=2 * image.reshape(2, -1))
    case = stored_case(tmp_path / "s.npz", SPEC, ("logits",))
    results = compare_runners(None, Doubler(), [case], (1, 2), Tolerance())
    assert report(results).passed


def test_no_reference_and_nothing_stored() -> None:
    with pytest.raises(VimDeployError) as caught:
        compare_runners(None, Doubler(), [Case("c", np.ones((1, 1, 2, 2)))], (1,), Tolerance())
    assert caught.value.code == "VIM-203"


def test_outputs_that_a_tool_renamed_are_not_compared_in_silence() -> None:
    stored = Case("c", np.ones((1, 1, 2, 2), np.float32), {"scores": np.ones((1, 4))})
    with pytest.raises(VimDeployError, match="no output in common") as caught:
        compare_runners(None, Doubler(), [stored], (1,), Tolerance())
    assert caught.value.code == "VIM-415"
    assert caught.value.why == "logits; the reference gives scores"


def test_bytes_are_preferred_for_a_graph_that_takes_bytes(tmp_path: Path) -> None:
    pixels = np.full((1, 2, 2, 1), 9, np.uint8)
    np.savez(tmp_path / "s.npz", image_uint8=pixels, image=np.zeros(1), logits=np.zeros((1, 3)))
    assert (stored_case(tmp_path / "s.npz", PIXELS, ("logits",)).images == 9).all()


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"image": np.ones((2, 1, 2, 2), np.float32)}, "VIM-414"),
        ({"logits": np.ones((2, 3))}, "VIM-414"),
        ({"image": np.ones((2, 1, 3, 2), np.float32), "logits": np.ones((2, 3))}, "VIM-415"),
        ({"image": np.ones((2, 1, 2, 2), np.float64), "logits": np.ones((2, 3))}, "VIM-415"),
        ({"image": np.ones((2, 1, 2, 2), np.float32), "logits": np.ones((3, 3))}, "VIM-414"),
    ],
)
def test_stored_files_that_do_not_fit(
    tmp_path: Path, arrays: dict[str, np.ndarray[Any, Any]], code: str
) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(VimDeployError) as caught:
        stored_case(tmp_path / "s.npz", SPEC, ("logits",))
    assert caught.value.code == code


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut off"])
def test_stored_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(VimDeployError) as caught:
        stored_case(tmp_path / "s.npz", SPEC, ("logits",))
    assert caught.value.code == "VIM-414"


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    bomb = np.array([print], dtype=object)
    np.savez(tmp_path / "s.npz", image=bomb, logits=np.ones((1, 3)))
    with pytest.raises(VimDeployError) as caught:
        stored_case(tmp_path / "s.npz", SPEC, ("logits",))
    assert caught.value.code == "VIM-414"


def test_random_images_repeat_and_fit_the_mode() -> None:
    assert np.array_equal(random_case(SPEC, "none", 3).images, random_case(SPEC, "none", 3).images)
    scaled = random_case(SPEC, "normalize", 3).images
    assert scaled.min() >= 0
    assert scaled.max() <= 1
    assert random_case(PIXELS, "uint8", 3).images.dtype == np.uint8


def test_random_images_of_a_quantized_model_have_values_of_pictures() -> None:
    image = ImagePreparation(16, 16, 1, (0.5,), (0.25,))
    spec = TensorSpec("image", "float32", ("batch", 1, 16, 16))
    made = random_case(spec, "none", 3, image=image).images
    assert made.dtype == np.float32
    assert -2 <= made.min() < -1.5
    assert 1.5 < made.max() <= 2
