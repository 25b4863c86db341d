"""Whose preparation of pictures a loaded model has: recipe, checkpoint, --config, command line."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import reference
from tests.support.models import perturbed, tiny_config
from vim_deploy.artifact import Artifact
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.images import batch_from_crops, crop_from_array
from vim_deploy.model.load import LoadedModel, load_model
from vim_deploy.recipe.schema import ModelRequest

PIXELS = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
MEAN = (0.485, 0.456, 0.406)
#: More than the 32 pixels up to which the official evaluation takes pictures as they are.
SIDE = 48


def saved(folder: Path, **entries: Any) -> Path:
    module = perturbed(VisionMamba(tiny_config(img_size=SIDE)))
    torch.save({"model": module.state_dict(), **entries}, folder / "best.pth")
    return folder / "best.pth"


def loaded(path: Path, **options: Any) -> LoadedModel:
    return load_model(ModelRequest(str(path), **options))


def line(model: LoadedModel) -> str:
    (found,) = (str(note) for note in model.notes if str(note).startswith("pictures: "))
    return found


def test_nothing_is_stored(tmp_path: Path) -> None:
    assert line(loaded(saved(tmp_path))) == (
        "pictures: 48 x 48, bicubic, crop 0.875, mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225 "
        "(from the defaults of ImageNet)"
    )


def test_the_checkpoint_counts_more_than_the_defaults(tmp_path: Path) -> None:
    args = Namespace(eval_crop_ratio=1.0, train_interpolation="bilinear")
    found = loaded(saved(tmp_path, args=args))
    assert (found.image.crop_ratio, found.image.interpolation) == (1.0, "bicubic")
    assert "crop from the checkpoint's args" in line(found)
    timm = {"mean": [0.5], "std": [0.25] * 3, "interpolation": "lanczos", "crop_pct": 0.95}
    found = loaded(saved(tmp_path, args=timm))
    assert found.image.mean == (0.5,) * 3
    assert (found.image.crop_ratio, found.image.interpolation) == (0.95, "lanczos")
    assert line(found).endswith("(from the checkpoint's args)")


def test_the_command_line_counts_more_than_the_checkpoint(tmp_path: Path) -> None:
    path = saved(tmp_path, args={"eval_crop_ratio": 1.0, "mean": [9.0] * 7, "std": [0.0] * 3})
    given = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5), "interpolation": "box"}
    found = loaded(path, crop_ratio=0.9, **given)
    assert (found.image.mean, found.image.crop_ratio) == ((0.1, 0.2, 0.3), 0.9)
    assert found.image.interpolation == "box"
    assert "(interpolation from --interpolation; crop from --crop-ratio; mean from" in line(found)


def test_the_checkpoint_counts_more_than_the_recipe(tmp_path: Path) -> None:
    text = Path("export/vim-digits.toml").read_text(encoding="utf-8")
    stored = torch.load(reference.SMALL / "vim_digits.pth", weights_only=False)
    changed = {"eval_crop_ratio": 0.875, "crop_pct": 0.75, "interpolation": "nearest"}
    torch.save({"model": stored["model"], "args": changed}, tmp_path / "own.pth")
    text = text.replace("vim_digits.pth", "own.pth").replace("vim-digits.labels.txt", "none")
    (tmp_path / "own.toml").write_text(text.replace('"vim-digits"', '"own"'))
    found = loaded(tmp_path / "own.toml")
    assert found.image.interpolation == "nearest"
    assert found.image.mean == (0.5,)
    assert "mean, std from the recipe own" in line(found)


def test_files_beside(tmp_path: Path) -> None:
    path = saved(tmp_path)
    processor = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 2,
        "size": {"shortest_edge": 50},
        "crop_size": {"height": 48, "width": 48},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = loaded(path)
    assert found.image.mean == (0.5,) * 3
    assert int(SIDE / found.image.crop_ratio) == 50
    assert line(found).endswith("(from preprocessor_config.json beside the checkpoint)")


@pytest.mark.parametrize(
    ("args", "words", "fix"),
    [
        ({"mean": PIXELS["mean"], "std": PIXELS["std"]}, "mean from the checkpoint's args: 123.675",
         "--mean 0.485,0.456,0.406"),
        ({"mean": [0.5] * 3, "std": [0.0] * 3}, "std from the checkpoint's args: 0.0", "--std"),
        ({"mean": [float("nan")] * 3, "std": [0.5] * 3}, "mean from", "--mean"),
        ({"mean": [0.5] * 2, "std": [0.5] * 3}, "2 numbers for 3 channels", "--mean with 3"),
        ({"eval_crop_ratio": 0}, "crop_ratio from the checkpoint's args: 0", "--crop-ratio"),
        ({"crop_pct": 1.5}, "crop_ratio from", "--crop-ratio"),
    ],
)  # fmt: skip
def test_stored_values_that_cannot_be(
    args: dict[str, Any], words: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(VimDeployError) as caught:
        loaded(saved(tmp_path, args=args))
    assert caught.value.code == "VIM-202"
    assert words in caught.value.message
    assert fix in caught.value.fix


def test_small_pictures_are_taken_as_they_are(tmp_path: Path) -> None:
    args = Namespace(input_size=SIDE, eval_crop_ratio=0.875)
    path = saved(tmp_path, args=args)
    assert loaded(path).image.crop_ratio == 0.875
    found = loaded(path, image_size=32)
    assert found.image.crop_ratio == 1.0
    assert "up to 32 pixels nothing is resized" in line(found)


def test_tensors_where_words_are_expected(tmp_path: Path) -> None:
    odd = torch.ones(3)
    names = ("interpolation", "crop_mode", "crop_pct", "input_size", "do_resize", "do_normalize",
             "test_cfg", "to_rgb", "size", "crop_size", "resample", "pixel_mean")  # fmt: skip
    table = dict.fromkeys(names, odd)
    steps = [{"type": odd, "transforms": odd}, {"type": "Resize", **table}]
    table |= {"data_preprocessor": dict(table), "test_pipeline": steps}
    with pytest.raises(VimDeployError) as caught:
        loaded(saved(tmp_path, args=table, cfg=table, meta={"cfg": table}))
    assert caught.value.code == "VIM-202"
    found = loaded(tmp_path / "best.pth", crop_ratio=1.0, mean=MEAN, std=MEAN)
    assert found.image.mean == MEAN


def segmentation(folder: Path, turned: bool, name: str = "iter.pth", **more: Any) -> Path:
    stored = torch.load(reference.dense_case("E01").checkpoint, weights_only=True)
    config = {**reference.dense_case("E01").kwargs,
              "data_preprocessor": {**PIXELS, "bgr_to_rgb": turned}}  # fmt: skip
    text = f"model = {config!r}\n" + "\n".join(f"{key} = {value!r}" for key, value in more.items())
    torch.save({"meta": {"cfg": text}, "state_dict": stored["state_dict"]}, folder / name)
    return folder / name


def test_a_model_of_bgr_pictures_takes_rgb(tmp_path: Path) -> None:
    rgb = loaded(segmentation(tmp_path, turned=True))
    bgr = loaded(segmentation(tmp_path, turned=False))
    assert np.allclose(rgb.image.mean, MEAN)
    assert np.allclose(bgr.image.mean, MEAN[::-1])
    assert any("takes BGR pictures" in str(note) for note in bgr.notes)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = rgb.module(picture.flip(1))[0]
        found = bgr.module(picture)[0]
    # The first convolution adds its three products in another order.
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, rgb.module(picture)[0], atol=1e-2)


def test_the_size_pictures_are_fitted_into(tmp_path: Path) -> None:
    steps = [{"type": "Resize", "scale": (2048, 512), "keep_ratio": True}]
    found = loaded(segmentation(tmp_path, True, test_pipeline=steps))
    assert found.module.dense is not None
    assert found.module.dense.test is not None
    assert found.module.dense.test.scale == (2048, 512)


def test_a_config_with_another_order_of_channels(tmp_path: Path) -> None:
    case = reference.dense_case("E01")
    config = {**case.kwargs, "data_preprocessor": {**PIXELS, "bgr_to_rgb": False}}
    with pytest.raises(VimDeployError) as caught:
        loaded(case.checkpoint, config=config)
    assert caught.value.code == "VIM-408"
    found = loaded(segmentation(tmp_path, turned=False), config=config)
    assert np.allclose(found.image.mean, MEAN[::-1])
    assert "mean, std from --config" in line(found)


def test_pixel_mean_of_a_detector(tmp_path: Path) -> None:
    stored = torch.load(reference.dense_case("D08").checkpoint, weights_only=True)
    state = {f"backbone.{key}": value for key, value in stored["model"].items()}
    for name, numbers in (("pixel_mean", [127.5] * 3), ("pixel_std", [51.0] * 3)):
        state[name] = torch.tensor(numbers).reshape(3, 1, 1)
    torch.save({"model": state}, tmp_path / "model_final.pth")
    found = loaded(tmp_path / "model_final.pth")
    assert np.allclose(found.image.mean, 0.5)
    assert np.allclose(found.image.std, 0.2)


def test_the_digits_are_told_apart_as_the_official_evaluation_does(tmp_path: Path) -> None:
    # 346 of 360 with the stored arrays; pictures of them are rounded to bytes. Cropped to 0.875,
    # which the stored arguments name and which is not done at 32 pixels, it were 338.
    case = reference.load_case(reference.DIGITS)
    model = loaded(reference.SMALL / "vim_digits.pth")
    pixels = np.rint((case.image * 0.5 + 0.5) * 255).astype(np.uint8)
    crops = [crop_from_array(picture[0], model.image) for picture in pixels]
    with torch.inference_mode():
        logits = model.module(torch.from_numpy(batch_from_crops(crops, model.image, "none")))
    assert int((logits.numpy().argmax(axis=1) == case.extras["labels"]).sum()) == 345


def test_export_says_it_and_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, args={"eval_crop_ratio": 1.0})
    monkeypatch.chdir(tmp_path)
    for options in ((), ("--interpolation", "bilinear", "--force")):
        assert run(["export", str(path), "--no-check", "--json", "-o", "m.onnx", *options]) == 0
        captured = capsys.readouterr()
        value = json.loads(captured.out)
        (said,) = (note for note in value["notes"] if note.startswith("pictures: "))
        assert said in captured.err
        info = Artifact.open(Path("m.onnx")).info
        assert info is not None
        assert info.image.crop_ratio == value["export"]["image"]["crop_ratio"] == 1.0
    assert info.image.interpolation == "bilinear"
    assert run(["export", str(path), "--interpolation", "cubic"]) == 2
