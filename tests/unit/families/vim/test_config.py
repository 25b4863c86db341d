"""The official constructor's keywords: round trip, derived sizes, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import reference
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import read_config


def refused(code: str, **values: Any) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        read_config(values)
    assert caught.value.code == code
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("name", reference.cases())
def test_round_trip_through_json(name: str) -> None:
    config = read_config(reference.load_case(name).kwargs)
    assert read_config(json.loads(json.dumps(encode(config)))) == config


def test_unknown_keyword_names_the_nearest() -> None:
    # The misspelling of the official vim_base factory.
    assert "if_divide_out" in refused("VIM-201", if_devide_out=True).fix


@pytest.mark.parametrize(
    "values",
    [
        {
            "if_rope": True,
            "use_double_cls_token": True,
            "img_size": 32,
            "patch_size": 8,
            "stride": 8,
        },
        {"if_rope": True, "if_cls_token": False, "img_size": 40, "patch_size": 8, "stride": 8},
        {"if_rope": True, "img_size": 40, "patch_size": 8, "stride": 8},
        {
            "if_rope": True,
            "if_cls_token": False,
            "img_size": [32, 64],
            "patch_size": 8,
            "stride": 8,
        },
        {"if_rope": True, "img_size": 48, "patch_size": 16, "stride": 8},
        {"if_rope": True, "embed_dim": 50},
        {"stride": [8, 8]},
        {"img_size": True},
        {"img_size": [True, 224]},
        {"norm_epsilon": float("nan")},
        {"norm_epsilon": float("inf")},
        {"drop_rate": float("nan")},
        {"init_layer_scale": float("inf")},
        {"initializer_cfg": 5},
        {"ft_seq_len": "many"},
        {"ssm_cfg": {"d_conv": 1 << 62}},
        {"ssm_cfg": {"dt_rank": 1 << 62}},
        {"ssm_cfg": {"conv_bias": "yes"}},
        {"ssm_cfg": {"expand": float("nan")}},
        {"depth": 1 << 62},
        {"ssm_cfg": {"d_state": 8}},
        {"final_pool_type": "avg"},
        {"bimamba_type": "v3"},
        {"flip_img_sequences_ratio": 0.5},
        {"embed_dim": 0},
        {"depth": -1},
        {"norm_epsilon": 0.0},
        {"rms_norm": 1},
        {"d_state": True},
        {"img_size": [32, 32, 32]},
        {"img_size": 0},
        {"ssm_cfg": {"d_conv": 0}},
        {"dtype": "float16"},
    ],
    ids=str,
)
def test_what_cannot_run_is_refused(values: dict[str, Any]) -> None:
    refused("VIM-408", **values)


def test_image_smaller_than_a_patch() -> None:
    refused("VIM-406", img_size=8, patch_size=16)


def test_unknown_ssm_key_names_the_nearest() -> None:
    assert "dt_rank" in refused("VIM-201", ssm_cfg={"dt_rnak": 4}).fix


@pytest.mark.parametrize(
    ("values", "tokens", "positions"),
    [
        ({}, 197, (98,)),
        ({"stride": 8}, 730, (364,)),
        ({"use_middle_cls_token": False}, 197, (0,)),
        ({"use_double_cls_token": True}, 198, (0, 197)),
        ({"if_cls_token": False}, 196, ()),
        ({"img_size": [32, 64], "patch_size": 8, "stride": 8}, 33, (16,)),
    ],
    ids=str,
)
def test_tokens(values: dict[str, Any], tokens: int, positions: tuple[int, ...]) -> None:
    config = read_config(values)
    assert (config.num_tokens, config.cls_positions) == (tokens, positions)


@pytest.mark.parametrize(
    ("values", "layers", "scans"),
    [
        ({"depth": 3}, 3, 2),
        ({"depth": 3, "if_bidirectional": True}, 2, 2),
        ({"bimamba_type": "none"}, 24, 1),
        ({"bimamba_type": "none", "if_bimamba": True}, 24, 2),
        ({"ssm_cfg": {"use_fast_path": False}}, 24, 1),
    ],
    ids=str,
)
def test_layers_and_scans(values: dict[str, Any], layers: int, scans: int) -> None:
    config = read_config(values)
    assert (config.layers_run, config.scans_per_layer) == (layers, scans)


def test_derived_mixer_sizes() -> None:
    config = read_config({"embed_dim": 100, "ssm_cfg": {"expand": 3}})
    assert (config.d_inner, config.ssm["dt_rank"], config.ssm["d_conv"]) == (300, 7, 4)
