"""Dense checkpoints and descriptions that do not belong together: a code, the thing, the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import reference
from tests.unit.families.vim.test_dense_checkpoints import weights_of
from vim_deploy.errors import VimDeployError
from vim_deploy.model.load import LoadedModel, load_model
from vim_deploy.recipe import catalog
from vim_deploy.recipe.schema import ModelRequest

E01, D01, D08 = (dict(reference.dense_case(short).kwargs) for short in ("E01", "D01", "D08"))
CLASSIFIER = dict(reference.load_case("A04_nocls_pool_mean").kwargs)


def path_of(short: str) -> str:
    name = next(n for n in (*reference.cases(), *reference.dense_cases()) if n.startswith(short))
    return str(reference.checkpoint_path(name))


def refusal(source: str | Path, **options: Any) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        load_model(ModelRequest(str(source), **options))
    assert caught.value.fix
    return caught.value


def small_recipe(folder: Path, checkpoint: str, **changes: str) -> Path:
    """The tiny UPerNet recipe cut down to E01's sizes, with ``checkpoint`` as its weights."""
    text = (catalog.recipes_folder() / "upernet-vim-tiny.toml").read_text("utf-8")
    for old, new in {
        'name = "upernet-vim-tiny"': 'name = "small"',
        'labels = "ade20k.labels.txt"': 'labels = "none"',
        'address = "none"': f'address = "{checkpoint}"',
        "img_size = 512": "img_size = 64",
        "depth = 24": "depth = 4",
        "embed_dim = 192": "embed_dim = 48",
        "[5, 11, 17, 23]": "[0, 1, 2, 3]",
        "channels = 192": "channels = 32",
        "channels = 256": "channels = 24",
        "num_classes = 150": "num_classes = 7",
        "crop = [512, 512]": "crop = [64, 64]",
        "stride = [341, 341]": "stride = [43, 43]",
        **changes,
    }.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def without(folder: Path, *prefixes: str) -> Path:
    """E01 without the weights whose keys begin so."""
    state = {k: v for k, v in weights_of("E01").items() if not k.startswith(prefixes)}
    path = folder / "cut.pth"
    torch.save({"state_dict": state}, path)
    return path


@pytest.mark.parametrize(
    ("short", "options", "found", "asked"),
    [
        ("A01", {"model": "upernet-vim-tiny"}, "a classifier", "whole segmentation network"),
        ("A01", {"model": "vimdet-tiny"}, "a classifier", "detection backbone"),
        ("A04", {"config": E01}, "a classifier", "whole segmentation network"),
        ("A04", {"config": D01}, "a classifier", "segmentation backbone"),
        ("D08", {"model": "upernet-vim-tiny"}, "a detection backbone", "segmentation network"),
        ("E01", {"model": "vimdet-tiny"}, "a whole segmentation network", "detection backbone"),
        ("E01", {"config": D01}, "a whole segmentation network", "segmentation backbone"),
        ("D01", {"config": E01}, "a segmentation backbone", "whole segmentation network"),
        ("D06", {"config": E01}, "a bare Vim", "whole segmentation network"),
        ("D06", {"config": D01}, "a bare Vim", "segmentation backbone"),
        ("D08", {"config": D01}, "a detection backbone", "segmentation backbone"),
    ],
)
def test_another_kind_of_model(short: str, options: Any, found: str, asked: str) -> None:
    error = refusal(path_of(short), **options)
    assert error.code == "VIM-404"
    assert f"this checkpoint is {found}" in error.message
    assert asked in error.message
    assert "keys begin with" in error.why


@pytest.mark.parametrize("short", ["D01", "D08", "E01"])
@pytest.mark.parametrize("options", [{"model": "vim-tiny"}, {"config": CLASSIFIER}])
def test_a_classifier_is_asked_for(short: str, options: Any) -> None:
    error = refusal(path_of(short), **options)
    assert error.code == "VIM-404"
    assert "is a classifier, and this checkpoint is a" in error.message
    assert "read off the checkpoint" in error.fix


def test_a_classification_recipe_of_a_dense_checkpoint(tmp_path: Path) -> None:
    text = (catalog.recipes_folder() / "vim-digits.toml").read_text("utf-8")
    text = text.replace("vim_digits.pth", path_of("E01")).replace('"model"', '"auto"')
    path = tmp_path / "vim-digits.toml"
    path.write_text(text, encoding="utf-8")
    error = refusal(path)
    assert error.code == "VIM-404"
    assert "vim-digits is a classifier" in error.message


def test_an_unknown_model_is_not_passed_over() -> None:
    assert refusal(path_of("E01"), model="upernet-vim-tyni").code == "VIM-201"


def test_both_a_recipe_and_a_configuration() -> None:
    error = refusal(path_of("E01"), model="upernet-vim-tiny", config=E01)
    assert error.code == "VIM-203"


def test_other_numbers_of_classes(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, path_of("E01"), **{"num_classes = 7": "num_classes = 150"})
    error = refusal(recipe)
    assert error.code == "VIM-404"
    assert "the recipe small has 150 classes, and the checkpoint 7" in error.message
    assert "num_classes = 7" in error.fix
    config = {**E01, "auxiliary_head": {**E01["auxiliary_head"], "num_classes": 5}}
    assert (
        "auxiliary_head: --config has 5 classes" in refusal(path_of("E01"), config=config).message
    )


def test_the_shipped_recipe_with_a_smaller_network() -> None:
    error = refusal(path_of("E01"), model="upernet-vim-tiny")
    assert error.code == "VIM-404"
    assert "the recipe upernet-vim-tiny does not describe these weights" in error.message
    assert "embed_dim 48, not 192" in error.why
    assert "depth 4, not 24" in error.why


def test_a_recipe_that_fits(tmp_path: Path) -> None:
    found = load_model(ModelRequest(str(small_recipe(tmp_path, path_of("E01")))))
    assert found.stem == "small"
    assert found.module.dense is not None
    assert found.module.dense.test is not None
    assert found.module.dense.test.scale == (2048, 512)


def test_labels_of_another_length(tmp_path: Path) -> None:
    error = refusal(path_of("E01"), labels=("a", "b"))
    assert error.code == "VIM-415"
    assert "2 labels for 7 classes" in error.message
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    changes = {'labels = "none"': 'labels = "three.txt"'}
    error = refusal(small_recipe(tmp_path, path_of("E01"), **changes))
    assert error.code == "VIM-412"
    assert "7 classes" in error.why
    assert refusal(path_of("D08"), labels=("a",)).code == "VIM-415"


def test_missing_parts_of_the_heads(tmp_path: Path) -> None:
    cut = without(tmp_path, "decode_head.conv_seg.")
    error = refusal(cut)
    assert error.code == "VIM-407"
    assert "decode_head.conv_seg.weight is missing" in error.message
    error = refusal(cut, config=E01)
    assert error.code == "VIM-404"
    assert "missing decode_head.conv_seg.weight, expected [7, 32, 1, 1]" in error.why
    error = refusal(without(tmp_path, "decode_head.", "auxiliary_head."), config=E01)
    assert error.code == "VIM-404"
    assert "this checkpoint is a segmentation backbone alone" in error.message
    assert "decode_head" in error.fix
    error = refusal(without(tmp_path, "auxiliary_head.convs."))
    assert error.code == "VIM-407"
    assert "auxiliary_head.convs.0.conv.weight" in error.message


def reshaped(folder: Path, key: str, value: Tensor) -> Path:
    path = folder / "reshaped.pth"
    torch.save({"state_dict": {**weights_of("E01"), key: value}}, path)
    return path


@pytest.mark.parametrize(
    "key",
    ["decode_head.conv_seg.weight", "auxiliary_head.conv_seg.weight",
     "auxiliary_head.convs.0.conv.weight", "backbone.patch_embed.proj.weight",
     "backbone.pos_embed"],
)  # fmt: skip
def test_weights_of_another_form(key: str, tmp_path: Path) -> None:
    for value in (torch.ones(3), torch.ones(()), torch.ones(0, 2, 1, 1), torch.ones(1, 1, 1, 1, 1)):
        path = reshaped(tmp_path, key, value)
        assert refusal(path).code in ("VIM-404", "VIM-407")
        assert refusal(path, config=E01).code in ("VIM-404", "VIM-407")


@pytest.mark.parametrize(
    ("short", "changes", "named"),
    [
        ("D01", {"embed_dim": 64}, "embed_dim 48, not 64"),
        ("D01", {"depth": 5}, "depth 4, not 5"),
        ("D01", {"patch_size": 8, "stride": 8}, "patch size"),
        ("D01", {"if_rope": True}, "rope False, not True"),
        ("D01", {"bimamba_type": "v1"}, "bimamba_type v2, not v1"),
    ],
)
def test_another_backbone(short: str, changes: dict[str, Any], named: str) -> None:
    error = refusal(path_of(short), config={**D01, **changes})
    assert error.code == "VIM-404"
    assert "--config does not describe these weights" in error.message
    assert named in error.why


def test_another_state_size_of_a_detector() -> None:
    # Found in the weights unless the configuration says it itself.
    config = {**D08, "net": {**D08["net"], "d_state": 8}}
    error = refusal(path_of("D08"), config=config)
    assert error.code == "VIM-404"
    assert "d_state 16, not 8" in error.why


def test_another_pyramid() -> None:
    assert "simfp_2" in refusal(path_of("D08"), config={**D08, "out_channels": 64}).why
    assert "norm" in refusal(path_of("D08"), config={**D08, "norm": "BN"}).why


@pytest.mark.parametrize(
    ("short", "size", "code", "named"),
    [
        ("E01", 8, "VIM-406", "not covered"),
        ("E01", 16, "VIM-406", "too small"),
        ("E01", 70, "VIM-406", "64 or 80"),
        ("D04", 24, "VIM-406", "too small"),
        ("D09", 16, "VIM-406", "too small"),
        ("D08", (64, 128), "VIM-408", "rope"),
    ],
)
def test_image_sizes_that_do_not_work(short: str, size: Any, code: str, named: str) -> None:
    error = refusal(path_of(short), image_size=size)
    assert error.code == code
    assert named in error.message + error.fix


@pytest.mark.parametrize("kept", [0, 100, 5_000, 600_000])
def test_cut_off_files(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(Path(path_of("E01")).read_bytes()[:kept])
    assert refusal(path).code == "VIM-402"


@pytest.mark.parametrize(
    ("model", "config", "short"),
    [("upernet-vim-tiny", None, ""), ("vimdet-tiny", None, ""), ("auto", D01, "D01")],
)
def test_seeded_weights_need_no_checkpoint(model: str, config: Any, short: str) -> None:
    source = model if config is None else "mine"
    request = ModelRequest(source, config=config, random_weights=0, image_size=64)
    found: LoadedModel = load_model(request)
    assert found.checkpoint.part == "seeded"
    assert found.module.config.image_hw == (64, 64)
    assert any("random" in str(note) for note in found.notes)
