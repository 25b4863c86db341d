"""MambaVision's constructor keywords: what is refused, sizes that follow, names of nodes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families import family_of
from vim_deploy.families.base import read_config
from vim_deploy.families.mambavision import names
from vim_deploy.families.mambavision.config import MambaVisionConfig, own_keywords

KEYWORDS: dict[str, Any] = {
    "family": "mambavision", "dim": 16, "in_dim": 8, "depths": [1, 2, 3, 3],
    "window_size": [8, 8, 5, 3], "mlp_ratio": 3, "num_heads": [1, 2, 2, 4], "num_classes": 5,
}  # fmt: skip


def config_of(**changes: object) -> MambaVisionConfig:
    config = read_config({**KEYWORDS, **changes})
    assert isinstance(config, MambaVisionConfig)
    return config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depths": [1, 2, 3]}, "depths has 3 numbers"),
        ({"num_heads": [1, 2, 3, 4, 5]}, "num_heads has 5 numbers"),
        ({"num_heads": [1, 2, 3, 4]}, "num_heads[2]=3 does not divide 64 channels"),
        ({"window_size": [8, 8, 0, 3]}, "window_size=(8, 8, 0, 3) is out of range"),
        ({"dim": 0}, "dim=0 is out of range"),
        ({"dim": 1 << 15}, "dim=32768 is out of range"),
        ({"depths": [1, -2, 3, 3]}, "is out of range"),
        ({"img_size": [64, 0]}, "img_size=(64, 0) is out of range"),
        ({"mlp_ratio": 0.01}, "mlp_ratio=0.01 is out of range"),
        ({"mlp_ratio": float("inf")}, "mlp_ratio=inf is not valid"),
        ({"layer_scale": float("nan")}, "layer_scale=nan is not valid"),
        ({"qk_scale": 0.125}, "qk_scale: expected true or false"),
        ({"dim": "16"}, "dim: expected a whole number"),
    ],
)
def test_what_cannot_run_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        config_of(**changes)
    assert caught.value.code == "VIM-408"
    assert said in caught.value.message


def test_an_unknown_keyword_is_refused_with_the_nearest() -> None:
    with pytest.raises(VimDeployError) as caught:
        config_of(window_sizes=[8, 8, 5, 3])
    assert caught.value.code == "VIM-201"
    assert "window_size" in caught.value.fix


def test_sizes() -> None:
    config = config_of(img_size=[96, 64], layer_scale=1e-5)
    assert [config.map_hw(level) for level in range(4)] == [(24, 16), (12, 8), (6, 4), (3, 2)]
    assert config.windows_hw(2) == (2, 1)
    assert (config.mixers(2), config.attention(2)) == (2, 1)
    assert (config.scans, config.blocks, config.dt_rank) == ((4, 0), 9, 8)
    assert config.num_tokens == 24 * 16
    # Zeros that fill windows are tokens, too.
    assert config_of(window_size=[8, 8, 40, 3], img_size=32).num_tokens == 40 * 40
    # Two windows of 25 positions with two heads; one of 9 with four.
    assert [config.scores(level) for level in range(4)] == [0, 0, 2 * 2 * 25**2, 4 * 9**2]
    assert config.attention_scores == 2 * 2 * 25**2
    assert config_of(depths=[1, 2, 1, 1]).attention_scores == 0
    assert (config.width, config.patch_hw, config.unread_hw) == (128, (1, 1), (0, 0))
    assert config.at_size(64).image_hw == (64, 64)
    assert config.at_size((96, 64)) is config


def test_without_img_size_pictures_have_the_resolution() -> None:
    assert config_of(resolution=96).img_size == 96
    assert config_of(resolution=96, img_size=64).img_size == 64


def test_a_stored_architecture_comes_back() -> None:
    config = config_of(img_size=[96, 64], layer_scale=0.1)
    written = json.loads(json.dumps(encode(config)))
    assert written["family"] == "mambavision"
    assert read_config(written) == config
    assert family_of(config).config is MambaVisionConfig


def test_a_config_json_of_hugging_face_is_taken() -> None:
    table = {**KEYWORDS, "model_type": "mambavision", "auto_map": {}, "crop_pct": 1.0}
    del table["family"]
    assert read_config(table) == config_of()
    assert "auto_map" not in own_keywords(table)
    assert own_keywords({**table, "model_type": "vit"}) == {}


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("", ""),
        ("patch_embed.conv_down.3", "patch_embed/conv_down/3"),
        ("levels.0.blocks.0.conv1", "block_00/conv1"),
        ("levels.1.downsample.reduction.0", "downsample_1"),
        ("levels.2", "level_2"),
        ("levels.2.blocks.0", "block_03"),
        ("levels.2.blocks.1.mixer.conv1d_x.act", "block_04/mixer/fwd/conv1d/act"),
        ("levels.2.blocks.1.mixer.conv1d_z", "block_04/mixer/conv1d_z"),
        ("levels.3.blocks.0.mixer.x_proj", "block_06/mixer/fwd/x_proj"),
        ("levels.3.blocks.2.mixer.attend", "block_08/mixer/attend"),
        ("levels.3.blocks.2.mlp.fc1", "block_08/mlp/fc1"),
        ("norm", "norm"),
    ],
)
def test_scope(path: str, scope: str) -> None:
    assert config_of().scope(path) == scope


def test_published_models_have_short_and_official_names() -> None:
    known = names.variants()
    assert known["mamba_vision_T"] == known["mambavision-tiny"]
    assert known["mamba_vision_B_21k"] == known["mambavision-base"]
    tiny = known["mambavision-tiny"]
    assert (tiny.dim, tiny.depths, tiny.window_size) == (80, (1, 3, 8, 4), (8, 8, 14, 7))
    # Fine-tuned ones are prepared as the published one; others as ImageNet's.
    crop, whose = names.usual_preparation(known["mamba_vision_S"].replace(num_classes=3))
    assert crop == {"crop_ratio": 0.93}
    assert "square" not in whose
    assert "square" in names.usual_preparation(known["mamba_vision_L2_512_21k"])[1]
    assert "mambavision-small" in whose
    assert names.usual_preparation(config_of()) == ({}, "")
