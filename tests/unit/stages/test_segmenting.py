"""Runs of a segmentation artifact that is opened as an engine is: by a runner with batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.support.artifacts import told
from tests.support.models import tiny_config
from tests.support.scenes import ModelRunner, random_model
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.recipe.dense_config import read_dense
from vim_deploy.scene.records import RunOptions, SceneOptions
from vim_deploy.scene.resize import resized_pixels
from vim_deploy.specs import CheckpointInfo, ImagePreparation
from vim_deploy.stages import running

IMAGE = ImagePreparation(16, 16)


class EngineLike(ModelRunner):
    """Tuned for batches of 3, built for 2 to 4."""

    usual_batch = 3
    most = 4

    def batch_for(self, count: int) -> int:
        return max(2, count)


def description(classes: int = 5, palette=()) -> ExportInfo:
    dense = read_dense(
        {
            "task": "segmentation",
            "out_indices": [0, 1, 2, 3],
            "decode_head": {"channels": 8, "num_classes": classes},
            "test": {"mode": "slide", "crop": [16, 16], "stride": [11, 11]},
            "palette": [list(colour) for colour in palette],
        }
    )
    return ExportInfo(
        model="custom",
        model_config=tiny_config(),
        checkpoint=CheckpointInfo("seed:0", "", "seeded"),
        image=IMAGE,
        preprocess="none",
        head="logits+aux",
        graph="fused",
        precision="fp16",
        opset=18,
        pos_embed="as stored",
        tool_version="0",
        settings_hash="",
        labels=("sky", "tree", "road"),
        dense=dense,
    )


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Three pictures; the last is white."""
    coarse = np.random.default_rng(0).integers(0, 200, (4, 5, 3), dtype=np.uint8)
    files = []
    for number, size in enumerate([(30, 20), (16, 16), (25, 40)]):
        pixels = resized_pixels(coarse, size) if number < 2 else np.full((*size, 3), 255, np.uint8)
        files.append(tmp_path / f"{number}.png")
        PIL.Image.fromarray(pixels).save(files[-1])
    return files


@pytest.fixture
def engine(monkeypatch):
    """Makes ``run`` open a runner over a function; gives the runner."""

    def make(function=None, info=None) -> EngineLike:
        runner = EngineLike(function or random_model(5), IMAGE)

        runner.notes = ("a note of the engine",)
        monkeypatch.setattr(running, "open_runner", lambda artifact, options: runner)
        said = told(Path("scene.plan"), info or description())
        monkeypatch.setattr(Artifact, "open", lambda path: said)
        return runner

    return make


def test_windows_run_in_the_batches_of_the_engine(engine, pictures):
    runner = engine()
    result = running.run(Path("scene.plan"), pictures)
    # 3 x 2, 1 and 2 x 4 windows: 15 in batches of 3.
    assert [image.windows for image in result.images] == [6, 1, 8]
    assert runner.seen == [3] * 5
    assert result.notes == ("a note of the engine",)
    assert (result.artifact, result.runtime) == ("scene.plan", "a function")
    names = {area.index: area.label for image in result.images for area in image.areas}
    known = {0: "sky", 1: "tree", 2: "road", 3: "class 3", 4: "class 4"}
    assert names == {index: known[index] for index in names}
    other = engine()
    again = running.run(Path("scene.plan"), pictures, RunOptions(batch=4))
    # The last three windows are filled up by nothing; a single one would be.
    assert other.seen == [4, 4, 4, 3]
    assert again.images == result.images
    single = engine()
    running.run(Path("scene.plan"), pictures[1])
    assert single.seen == [2]


def test_nan_in_one_picture_leaves_the_others(engine, pictures, tmp_path):
    def sick(image):
        logits = random_model(5)(image)
        logits[image.mean(axis=(1, 2, 3)) > 2] = np.nan
        return logits

    engine(sick)
    scene = SceneOptions(overlay=tmp_path / "out")
    result = running.run(Path("scene.plan"), pictures, RunOptions(scene=scene))
    assert [Path(image.file).name for image in result.images] == ["0.png", "1.png"]
    assert [item.code for item in result.failures] == ["VIM-430"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "0_overlay.png",
        "1_overlay.png",
    ]
    with pytest.raises(VimDeployError, match="1 of 3 pictures could not be run") as caught:
        result.require_complete()
    assert caught.value.code == "VIM-430"
    assert "2.png" in caught.value.why
    assert "--precision-policy" in caught.value.fix


def test_stored_colours_are_used(engine, pictures):
    palette = tuple((10 * n, 0, 200) for n in range(5))
    engine(info=description(palette=palette))
    result = running.run(Path("scene.plan"), pictures)
    assert result.colours == {index: palette[index] for index in result.colours}


def test_one_class_is_refused(engine, pictures):
    engine(info=description(classes=1))
    with pytest.raises(VimDeployError, match="one class") as caught:
        running.run(Path("scene.plan"), pictures)
    assert caught.value.code == "VIM-415"


def test_an_error_of_the_runtime_leaves_no_label_file(engine, pictures, tmp_path):
    calls = []

    def breaks(image):
        calls.append(len(image))
        if len(calls) > 3:
            raise VimDeployError("VIM-906", "the GPU's memory is used up")
        return random_model(5)(image)

    engine(breaks)
    options = RunOptions(output=tmp_path / "labels.npz")
    with pytest.raises(VimDeployError, match="used up"):
        running.run(Path("scene.plan"), pictures, options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]


def test_five_channels_are_refused_before_any_picture(engine, pictures):
    info = description()
    engine(info=replace(info, image=replace(IMAGE, channels=5, mean=(0.5,) * 5, std=(1.0,) * 5)))
    with pytest.raises(VimDeployError, match="5 channels") as caught:
        running.run(Path("scene.plan"), pictures)
    assert caught.value.code == "VIM-415"


def test_pictures_that_are_no_files(engine, pictures, tmp_path):
    engine()
    options = RunOptions(scene=SceneOptions(overlay=str(tmp_path / "drawn")))
    wanted = running.run("scene.plan", pictures).images
    arrays = [np.asarray(PIL.Image.open(file)) for file in pictures]
    result = running.run("scene.plan", [arrays[0], PIL.Image.open(pictures[1]), arrays[2]], options)
    assert [image.areas for image in result.images] == [image.areas for image in wanted]
    assert [image.file for image in result.images] == ["picture-0", "picture-1", "picture-2"]
    assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == [
        f"picture-{number}_overlay.png" for number in range(3)
    ]


def test_a_turned_image_of_pillow_is_taken_upright_and_left_as_it_is(engine, pictures, tmp_path):
    engine()
    turned = PIL.Image.open(pictures[0])
    turned.getexif()[0x0112] = 6  # Exif's Orientation: to be turned by 90 degrees
    turned.save(tmp_path / "turned.jpg", quality=100, exif=turned.getexif())
    opened = PIL.Image.open(tmp_path / "turned.jpg")
    (wanted,) = running.run("scene.plan", tmp_path / "turned.jpg").images
    (found,) = running.run("scene.plan", opened).images
    assert (found.height, found.width) == (wanted.height, wanted.width) == (20, 30)
    assert found.areas == wanted.areas
    assert opened.size == (20, 30)
