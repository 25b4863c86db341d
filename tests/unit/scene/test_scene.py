"""Pictures of any size through a model of one size: against the official code and a plain loop."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.reference import dense_case
from tests.support.scenes import (
    ModelRunner,
    export_e01,
    opened_e01,
    random_model,
    scene_logits,
    sliding_by_definition,
)
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import find
from vim_deploy.images import batch_from_crops
from vim_deploy.precisions import TABLE
from vim_deploy.recipe.dense_config import read_dense
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.scene.resize import resized_maps, resized_pixels
from vim_deploy.scene.segment import Scene, SceneModel, run_scenes, window_batch
from vim_deploy.scene.windows import SceneSettings, lay_out, require_band, scene_settings
from vim_deploy.specs import ImagePreparation

IMAGE = ImagePreparation(16, 16)
PATCH = (4, 4)


def model(head: str = "logits", classes: int = 5, **values) -> SceneModel:
    given = {"patch": PATCH, "image": IMAGE, "preprocess": "none", **values}
    return SceneModel(head=find(head, dense=True), classes=classes, **given)


def slide(stride=(11, 11), **values) -> SceneSettings:
    return SceneSettings("slide", (16, 16), stride, **values)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture with regions, so that resizing keeps classes apart."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return resized_pixels(coarse, (height, width))


def labels_of(runner, pixels, settings, kind=None, batch=4) -> np.ndarray:
    kind = kind or model()
    (done,) = run_scenes(runner, [Scene("p", pixels, settings, kind)], kind, batch)
    if done.failure:
        raise done.failure
    return done.labels


@pytest.fixture(scope="module")
def e01(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """UperNet exports: both heads of logits, and half precision."""
    folder = tmp_path_factory.mktemp("e01")
    return {
        "logits": export_e01(folder, "logits"),
        "upsampled": export_e01(folder, "upsampled", head="upsampled+aux"),
        "fp16": export_e01(folder, "fp16", precision="fp16"),
    }


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", ["logits", "upsampled"])
def test_slide_is_that_of_the_official_code(e01, name, batch):
    case = dense_case("E01")
    kind, settings = opened_e01(e01[name])
    image = case.extras["image_slide"][0].transpose(1, 2, 0)
    found = scene_logits(OrtRunner(e01[name], threads=1), image, settings, kind, batch)
    expected = case.extras["slide_output"][0]
    assert found.shape == (7, 96, 112)
    found = found[:, ::2, ::2]
    assert found.shape == expected.shape
    # 1e-4 relative to the largest logit: the tolerance of the reference data; measured 8e-7.
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    np.testing.assert_array_equal(found.argmax(0), expected.argmax(0))


def test_slide_in_half_precision(e01):
    case = dense_case("E01")
    kind, settings = opened_e01(e01["fp16"])
    image = case.extras["image_slide"][0].transpose(1, 2, 0)
    found = scene_logits(OrtRunner(e01["fp16"], threads=1), image, settings, kind, 4)[:, ::2, ::2]
    expected = case.extras["slide_output"][0]
    relative = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    # The limit of every float16 output (parity.metrics says why); measured 7e-4.
    assert 1e-5 < relative < TABLE["fp16"].relative_l2


@pytest.mark.parametrize("name", ["logits", "upsampled"])
def test_whole_is_that_of_the_official_code(e01, name):
    case = dense_case("E01")
    kind, settings = opened_e01(e01[name], mode="whole")
    runner = OrtRunner(e01[name], threads=1)
    for image, expected in zip(case.image, case.extras["whole_output"], strict=True):
        found = scene_logits(runner, image.transpose(1, 2, 0), settings, kind)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


SIZES = [(16, 16), (17, 16), (16, 40), (31, 33), (38, 27), (27, 60), (64, 16)]
STRIDES = [(11, 11), (16, 16), (5, 7), (1, 13), (16, 3)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", STRIDES)
def test_windows_are_averaged_as_by_definition(size, stride):
    image = np.random.default_rng(0).standard_normal((*size, 3)).astype(np.float32)
    function = random_model(5)
    runner = ModelRunner(function, IMAGE)
    found = scene_logits(runner, image, slide(stride), model(), batch=3)
    expected = sliding_by_definition(function, image, (16, 16), stride)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert set(runner.seen[:-1]) <= {3}


@pytest.mark.parametrize("seed", range(40))
def test_windows_cover_every_pixel(seed):
    generator = np.random.default_rng(seed)
    window = tuple(int(side) for side in generator.integers(1, 40, 2))
    stride = tuple(int(generator.integers(1, side + 1)) for side in window)
    size = tuple(int(side + generator.integers(0, 200)) for side in window)
    layout = lay_out(size, SceneSettings("slide", window, stride), (1, 1))
    visits = np.zeros(size, int)
    for top, left in layout.windows:
        assert 0 <= top <= size[0] - window[0]
        assert 0 <= left <= size[1] - window[1]
        visits[top : top + window[0], left : left + window[1]] += 1
    assert visits.min() >= 1
    rows, columns = layout.visits()
    np.testing.assert_array_equal(rows[:, None] * columns[None, :], visits)
    assert len(set(layout.windows)) == len(layout.windows)
    # mmsegmentation's count of the grid.
    counts = [
        max(length - side + step - 1, 0) // step + 1
        for length, side, step in zip(size, window, stride, strict=True)
    ]
    assert [len(layout.tops), len(layout.lefts)] == counts


@pytest.mark.parametrize("own", [(40, 50), (23, 90), (16, 16), (120, 31), (200, 260)])
def test_labels_are_those_of_resized_logits(own):
    """Resized in bands as the windows come: the same as all at once."""
    settings = slide(scale=(64, 24), pad=True)
    runner = ModelRunner(random_model(5), IMAGE)
    pixels = picture(*own)
    found = labels_of(runner, pixels, settings)
    logits = scene_logits(runner, pixels, settings, model())
    layout = lay_out(own, settings, PATCH)
    assert logits.shape[1:] == layout.run
    full = resized_maps(logits.transpose(1, 2, 0), own)
    np.testing.assert_array_equal(found, full.argmax(-1))
    assert found.dtype == np.uint8
    assert len(np.unique(found)) > 1


def test_whole_resizes_twice():
    """To the model's input and back, as mmsegmentation's whole_inference."""
    runner = ModelRunner(random_model(5), IMAGE)
    pixels = picture(50, 70)
    settings = SceneSettings("whole", (16, 16), (16, 16))
    small = resized_pixels(pixels, (16, 16))
    logits = runner.run(batch_from_crops([small], IMAGE, "none"))["logits"][0]
    expected = resized_maps(resized_maps(logits.transpose(1, 2, 0), (16, 16)), (50, 70))
    np.testing.assert_array_equal(labels_of(runner, pixels, settings), expected.argmax(-1))


def test_padding_is_cut_off_again():
    runner = ModelRunner(random_model(5), IMAGE)
    image = np.random.default_rng(0).standard_normal((9, 30, 3)).astype(np.float32)
    found = scene_logits(runner, image, slide(pad=True), model())
    filled = np.zeros((16, 30, 3), np.float32)
    filled[:9] = image
    expected = scene_logits(runner, filled, slide(), model())[:, :9]
    np.testing.assert_array_equal(found, expected)
    both = scene_logits(runner, image[:, :7], slide(pad=True), model())
    assert both.shape == (5, 9, 7)


@pytest.mark.parametrize("preprocess", ["none", "normalize", "uint8"])
def test_padding_is_zero_after_normalisation(preprocess):
    cut = np.full((10, 7, 3), 200, np.uint8)
    batch = window_batch([cut, np.full((16, 16, 3), 200, np.uint8)], IMAGE, preprocess)
    full = batch_from_crops([np.full((16, 16, 3), 200, np.uint8)], IMAGE, preprocess)[0]
    np.testing.assert_array_equal(batch[1], full)
    mean, std = (np.array(part)[:, None, None] for part in (IMAGE.mean, IMAGE.std))
    values = batch[0].astype(np.float64)
    if preprocess == "uint8":
        values = values.transpose(2, 0, 1) / 255
    if preprocess != "none":
        values = (values - mean) / std
    # Half a level of 255, where only bytes can be given.
    limit = 0.5 / 255 / min(IMAGE.std) if preprocess == "uint8" else 1e-6
    assert np.abs(values[:, 10:]).max() <= limit
    assert np.abs(values[:, :, 7:]).max() <= limit
    assert np.abs(values[:, :10, :7]).min() > 0.5


def test_pictures_share_batches():
    """Windows of one picture and of the next run together, and come back apart."""
    runner = ModelRunner(random_model(5), IMAGE)
    sizes = [(16, 16), (40, 16), (16, 30), (16, 16), (50, 50)]
    pictures = [picture(*size, seed=seed) for seed, size in enumerate(sizes)]
    scenes = [Scene(str(n), p, slide(), model()) for n, p in enumerate(pictures)]
    done = list(run_scenes(runner, scenes, model(), 4))
    total = sum(len(scene.windows) for scene in scenes)
    assert runner.seen == [4] * (total // 4) + [total % 4] * bool(total % 4)
    assert [scene.name for scene in done] == ["0", "1", "2", "3", "4"]
    for scene, pixels in zip(done, pictures, strict=True):
        alone = labels_of(ModelRunner(random_model(5), IMAGE), pixels, slide(), batch=1)
        np.testing.assert_array_equal(scene.labels, alone)


def test_a_fixed_batch_is_filled_up():
    runner = ModelRunner(random_model(5), IMAGE, batch=4)
    pixels = picture(40, 30)
    free = labels_of(ModelRunner(random_model(5), IMAGE), pixels, slide())
    np.testing.assert_array_equal(labels_of(runner, pixels, slide()), free)
    assert set(runner.seen) == {4}


@pytest.mark.parametrize("scale", [None, (1500, 30)])
def test_memory_grows_with_the_width_only(scale):
    """The logits of this picture take 30 MB; a band of them 0.3 MB."""
    classes, settings = 60, slide(scale=scale)
    kind = model(classes=classes)
    runner = ModelRunner(random_model(classes), IMAGE)
    pixels = picture(2000, 64)
    labels_of(runner, pixels[:100], settings, kind)
    tracemalloc.start()
    labels_of(runner, pixels, settings, kind)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 4 * classes * 2000 * 64 > 30e6
    assert peak < 6e6


def test_labels_head_takes_one_window():
    def classes(image):
        return random_model(5, stride=1)(image).argmax(1)

    runner = ModelRunner(classes, IMAGE, "labels")
    kind = model("labels")
    logits = ModelRunner(random_model(5, stride=1), IMAGE)
    whole = SceneSettings("whole", (16, 16), (16, 16))
    expected = labels_of(logits, picture(16, 16), slide(), model("upsampled"))
    np.testing.assert_array_equal(labels_of(runner, picture(16, 16), slide(), kind), expected)
    assert labels_of(runner, picture(40, 50), whole, kind).shape == (40, 50)
    cut = labels_of(runner, picture(9, 12), slide(pad=True), kind)
    assert cut.shape == (9, 12)
    with pytest.raises(VimDeployError, match="--head logits") as caught:
        labels_of(runner, picture(40, 16), slide(), kind)
    assert caught.value.code == "VIM-415"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_an_error_of_that_picture(value):
    def sick(image):
        logits = random_model(5)(image)
        logits[image.mean(axis=(1, 2, 3)) > 0, 2] = value
        return logits

    dark, bright = np.zeros((16, 30, 3), np.uint8), np.full((16, 30, 3), 255, np.uint8)
    scenes = [Scene(str(n), p, slide(), model()) for n, p in enumerate((dark, bright, dark))]
    done = list(run_scenes(ModelRunner(sick, IMAGE), scenes, model(), 8))
    assert [scene.failure and scene.failure.code for scene in done] == [None, "VIM-430", None]
    assert done[0].labels.shape == (16, 30)


@pytest.mark.parametrize(
    ("head", "output", "shape"),
    [
        ("logits", "logits", (1, 4, 4, 4)),
        ("logits", "scores", (1, 5, 4, 4)),
        ("logits", "logits", (1, 5)),
        ("upsampled", "logits", (1, 5, 4, 4)),
        ("labels", "labels", (1, 4, 4)),
    ],
)
def test_other_outputs_than_said_are_refused(head, output, shape):
    runner = ModelRunner(lambda image: np.zeros(shape, np.float32), IMAGE, output)
    with pytest.raises(VimDeployError, match="does not give what its head") as caught:
        labels_of(runner, picture(16, 16), slide(), model(head), batch=1)
    assert caught.value.code == "VIM-415"


def test_labels_outside_the_classes_are_refused():
    runner = ModelRunner(lambda image: np.full((len(image), 16, 16), 9), IMAGE, "labels")
    with pytest.raises(VimDeployError, match="labels from 9 to 9"):
        labels_of(runner, picture(16, 16), slide(), model("labels"))


@pytest.mark.parametrize(
    ("size", "settings", "part"),
    [
        ((3, 40), {"pad": True}, "smaller than a patch"),
        ((15, 40), {}, "window of 16 x 16 pixels is larger than the picture of 15 x 40"),
        ((40, 15), {}, "larger"),
        ((30, 300), {"scale": (100, 16)}, "larger than the picture of 10 x 100"),
        ((40, 40), {"scale": (100_000, 50_000)}, "too large"),
        ((5, 4000), {"scale": (500, 100), "pad": True}, "smaller than a patch"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(size, settings, part):
    with pytest.raises(VimDeployError, match=part) as caught:
        lay_out(size, slide(**settings), PATCH)
    assert caught.value.code == "VIM-429"
    assert caught.value.fix


DENSE = read_dense(
    {
        "task": "segmentation",
        "out_indices": [0, 1, 2, 3],
        "decode_head": {"channels": 8, "num_classes": 5},
        "test": {"mode": "slide", "crop": [16, 16], "stride": [10, 12], "scale": [64, 32]},
    }
)


def test_settings_are_the_models_own_or_the_callers():
    own = SceneSettings("slide", (16, 16), (10, 12), (64, 32))
    assert scene_settings(DENSE, IMAGE) == own
    assert scene_settings(DENSE, IMAGE, scale="none", pad=True) == replace(
        own, scale=None, pad=True
    )
    assert scene_settings(DENSE, IMAGE, stride=(4, 4), scale=(9, 8)) == replace(
        own, stride=(4, 4), scale=(9, 8)
    )
    assert scene_settings(DENSE, IMAGE, mode="whole").mode == "whole"
    untold = scene_settings(replace(DENSE, test=None), ImagePreparation(512, 512))
    assert untold == SceneSettings("slide", (512, 512), (341, 341))


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"mode": "slid"}, "VIM-202"),
        ({"stride": (0, 4)}, "VIM-202"),
        ({"stride": (17, 4)}, "VIM-202"),
        ({"scale": (0, 4)}, "VIM-202"),
        ({"mode": "whole", "pad": True}, "VIM-203"),
        ({"mode": "whole", "stride": (4, 4)}, "VIM-203"),
    ],
)
def test_settings_that_do_not_fit(values, code):
    with pytest.raises(VimDeployError) as caught:
        scene_settings(DENSE, IMAGE, **values)
    assert caught.value.code == code


def test_windows_of_another_size_than_the_input_are_refused():
    with pytest.raises(VimDeployError, match="windows of 16 x 16, but takes 32 x 32") as caught:
        scene_settings(DENSE, ImagePreparation(32, 32))
    assert caught.value.code == "VIM-415"


def test_a_band_beyond_the_memory_is_refused():
    layout = lay_out((16, 4_000_000), slide(), PATCH)
    with pytest.raises(VimDeployError, match="too large") as caught:
        require_band(layout, 150, slide())
    assert caught.value.code == "VIM-429"
    require_band(layout, 2, slide())


def test_float_pictures_go_through_as_they_are():
    image = np.zeros((20, 20, 3), np.float32)
    for settings, kind in ((slide(scale=(40, 40)), model()), (slide(), model(preprocess="uint8"))):
        with pytest.raises(VimDeployError) as caught:
            Scene("p", image, settings, kind)
        assert caught.value.code == "VIM-415"
