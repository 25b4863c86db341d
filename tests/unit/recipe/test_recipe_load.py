"""Recipe files: everything is demanded, everything unknown is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.recipe import catalog
from vim_deploy.recipe.load import MAX_BYTES, checkpoint_address, load_recipe, read_labels

TOY = (catalog.recipes_folder() / "vim-digits.toml").read_text(encoding="utf-8")


def write(folder: Path, text: str, name: str = "vim-digits") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        load_recipe(path)
    assert caught.value.code == "VIM-412"
    assert str(path) in caught.value.message
    assert caught.value.why
    assert caught.value.fix
    return caught.value


def test_the_toy_recipe_in_full(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, TOY))
    assert (recipe.name, recipe.task, recipe.model) == ("vim-digits", "classification", "custom")
    assert recipe.model_config.embed_dim == 64
    assert (recipe.image.height, recipe.image.width, recipe.image.channels) == (32, 32, 1)
    assert (recipe.image.mean, recipe.image.crop_ratio) == ((0.5,), 1.0)
    assert recipe.published.top1 == 96.1
    assert recipe.published.top5 is None
    assert recipe.tolerances.atol == 1e-4
    json.dumps(encode(recipe), allow_nan=False)


# One change each: text to replace, its replacement, what the error has to say.
CHANGES = {
    "misspelt key": ('task = "cl', 'taks = "cl', "did you mean 'task'?"),
    "misspelt key in a table": ("crop_ratio", "crop_ration", "did you mean 'crop_ratio'?"),
    "unknown table": ("[published]", "[publisher]", "did you mean 'published'?"),
    "unknown model keyword": ("embed_dim", "embed_dims", "did you mean 'embed_dim'?"),
    "the official typo": ("if_divide_out", "if_devide_out", "did you mean 'if_divide_out'?"),
    "missing key": ('part = "model"\n', "", "missing: checkpoint.part"),
    "text for a number": ("atol = 1e-4", 'atol = "tight"', "expected a number"),
    "truth for a number": ("atol = 1e-4", "atol = true", "expected a number"),
    "number for text": ('labels = "vim-digits.labels.txt"', "labels = 3", "expected text"),
    "unknown task": ('task = "classification"', 'task = "sorting"', "classification"),
    "unknown part": ('part = "model"', 'part = "model-ema"', "did you mean 'model_ema'?"),
    "unknown filter": ("bilinear", "bilinaer", "did you mean 'bilinear'?"),
    "too many means": ("mean = [0.5]", "mean = [0.5, 0.5, 0.5]", "3 numbers for 1 channels"),
    "text as mean": ("mean = [0.5]", 'mean = ["0.5"]', "image.mean[0]: expected a number"),
    "zero deviation": ("std = [0.5]", "std = [0.0]", "expected positive"),
    "mean of bytes": ("mean = [0.5]", "mean = [123.675]", "divide numbers that are for 0 to 255"),
    "crop ratio": ("crop_ratio = 1.0", "crop_ratio = 1.5", "crop ratio 1.5, expected 0.1 to 1"),
    "percentage": ("top1 = 96.1", "top1 = 961", "expected a percentage"),
    "percentage word": ('top5 = "none"', 'top5 = "high"', "published.top5: expected a number"),
    "negative tolerance": ("atol = 1e-4", "atol = -1.0", "expected 0 to below 1"),
    "infinite tolerance": ("atol = 1e-4", "atol = inf", "'atol' holds inf"),
    "number of many digits": ("atol = 1e-4", "atol = " + "1" * 5000, "not valid TOML"),
    "number above 64 bits": ("atol = 1e-4", "atol = " + "1" * 30, "more than 64 bits"),
    "deep nesting": ("mean = [0.5]", "mean = " + "[" * 5000 + "]" * 5000, "levels deep"),
    "date": ("atol = 1e-4", "atol = 2026-01-01", "'atol' holds 2026-01-01, a date"),
    "date in a free table": (
        "img_size = 32",
        "img_size = 32\ninitializer_cfg = {x = 10:00:00}",
        "'x' holds 10:00:00, a time",
    ),
    "std that float32 cannot divide by": ("std = [0.5]", "std = [1e-300]", "are no numbers"),
    "tiny crop ratio": ("crop_ratio = 1.0", "crop_ratio = 5e-324", "crop ratio"),
    "long name of labels": ('"vim-digits.labels.txt"', f'"{"x" * 300}"', "no path that a file"),
    "long address": ('"vim_digits.pth"', f'"{"x/" * 900}"', "no path that a file can have"),
    "no name at all": ('"vim_digits.pth"', '"a\\u0000b"', "no path that a file can have"),
    "agreement": ("top1_agreement = 1.0", "top1_agreement = 0.0", "expected above 0"),
    "no origin": ('origin = "f', 'origin = ""\n#', "say where"),
    "other address": ('"vim_digits.pth"', '"ftp://host/file"', "write hf://"),
    "short hub address": ('"vim_digits.pth"', '"hf://owner"', "write hf://owner/name/FILE"),
    "hub address with a gap": ('"vim_digits.pth"', '"hf://a//c"', "write hf://owner/name/FILE"),
    "other name": ('name = "vim-digits"', 'name = "digits"', "name of its file"),
    "model that cannot run": ("stride = 4", "stride = 0", "stride=0"),
    "broken TOML": ("[checkpoint]", "[checkpoint", "not valid TOML"),
    "key twice": ("atol = 1e-4", "atol = 1e-4\natol = 1", "not valid TOML"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_wrong_thing_is_refused(tmp_path: Path, change: str) -> None:
    old, new, said = CHANGES[change]
    assert old in TOY
    error = refusal(write(tmp_path, TOY.replace(old, new, 1)))
    assert said in f"{error.why} {error.fix}"


@pytest.mark.parametrize("task", ["{}", "[]", "3", "[['a']]"])
def test_a_task_that_is_no_text_is_refused(tmp_path: Path, task: str) -> None:
    changed = TOY.replace('task = "classification"', f"task = {task}")
    assert changed != TOY
    assert "task" in refusal(write(tmp_path, changed)).why


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\x80\x02\xff" * 20)
    refusal(binary)
    refusal(write(tmp_path, "", "empty"))
    refusal(write(tmp_path, "#" * (MAX_BYTES + 1), "large"))
    with pytest.raises(VimDeployError) as caught:
        load_recipe(tmp_path / "absent.toml")
    assert caught.value.code == "VIM-401"


@pytest.mark.parametrize(
    "address", ["hf://owner/name/model.pth", "hf://owner/name@v1/sub/model.pth", "hf://owner/name"]
)
def test_hub_addresses_pass_through(tmp_path: Path, address: str) -> None:
    recipe = load_recipe(write(tmp_path, TOY.replace("vim_digits.pth", address)))
    assert checkpoint_address(recipe) == address


def test_local_checkpoint_lies_beside_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, TOY))
    with pytest.raises(VimDeployError, match="vim-digits") as caught:
        checkpoint_address(recipe)
    assert caught.value.code == "VIM-401"
    (tmp_path / "vim_digits.pth").touch()
    assert checkpoint_address(recipe) == str((tmp_path / "vim_digits.pth").resolve())


def test_labels(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, TOY))
    with pytest.raises(VimDeployError) as caught:
        read_labels(recipe)
    assert caught.value.code == "VIM-401"
    labels = tmp_path / recipe.labels
    labels.write_text("\n".join("abcdefghij") + "\n", encoding="utf-8")
    assert read_labels(recipe) == tuple("abcdefghij")
    for content in (b"a\nb\n", b"\n" * 10, b"\xff\xfe\n" * 10):
        labels.write_bytes(content)
        with pytest.raises(VimDeployError) as caught:
            read_labels(recipe)
        assert caught.value.code == "VIM-412"
    none = load_recipe(write(tmp_path, TOY.replace(recipe.labels, "none")))
    assert read_labels(none) == ()
