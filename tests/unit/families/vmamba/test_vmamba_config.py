"""VMamba's architectures: what is taken, what is refused by which name, and derived sizes."""

from __future__ import annotations

import pytest

from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.base import read_config
from vim_deploy.families.vmamba.config import VMambaConfig
from vim_deploy.families.vmamba.names import SHORT, variants

#: What the published models have in place of the official defaults.
PUBLISHED = {
    "family": "vmamba",
    "dims": 96,
    "depths": [2, 2, 8, 2],
    "ssm_d_state": 1,
    "ssm_ratio": 1.0,
    "ssm_conv_bias": False,
    "forward_type": "v05_noz",
    "norm_layer": "ln2d",
    "downsample_version": "v3",
    "patchembed_version": "v2",
}


def config(**changes: object) -> VMambaConfig:
    found = read_config({**PUBLISHED, **changes})
    assert isinstance(found, VMambaConfig)
    return found


def test_sizes_of_a_published_model() -> None:
    tiny = config()
    assert tiny == variants()["vmamba-tiny-s1l8"] == variants()["vmamba_tiny_s1l8"]
    assert tiny.widths == (96, 192, 384, 768)
    assert tiny.level_hw == ((56, 56), (28, 28), (14, 14), (7, 7))
    assert (tiny.num_tokens, tiny.scan_lengths) == (3136, (3136, 784, 196, 49))
    assert (tiny.blocks, tiny.scans, tiny.fused_mixers) == (14, (28, 28), 0)
    assert (tiny.rank(0), tiny.dt_rank, tiny.width) == (6, 48, 768)
    widths = {name: variants()[name].deit_width for name in SHORT}
    assert {name for name, width in widths.items() if width == 384} == {
        "vmamba-tiny-s2l5", "vmamba-tiny-s1l8",
    }  # fmt: skip
    assert tiny.in_words == "14 blocks of width 96 to 768, patches of 4"
    assert tiny.size(native=True).weights == pytest.approx(30.2e6, rel=0.02)
    assert tiny.size(native=True).values < tiny.size(native=False).values
    assert len(set(map(str, map(variants().get, SHORT)))) == len(SHORT) == 6


def test_no_size_leaves_pixels_unread_and_halves_round_up() -> None:
    odd = config().at_size((45, 67))
    assert odd.image_hw == (45, 67)
    assert odd.level_hw == ((12, 17), (6, 9), (3, 5), (2, 3))
    assert odd.unread_hw == (0, 0)
    assert odd.at_size((45, 67), covered=True) is odd
    assert config().at_size(1).level_hw == ((1, 1),) * 4


def test_steps_without_padding_round_down_and_need_pixels() -> None:
    floored = config(downsample_version="v2")
    assert floored.at_size((45, 67)).level_hw == ((12, 17), (6, 8), (3, 4), (1, 2))
    assert floored.at_size(floored.patch_hw).level_hw[-1] == (1, 1)
    smallest = floored.patch_hw[0]
    with pytest.raises(VimDeployError, match=f"(?s)VIM-406.*--image-size {smallest}"):
        floored.at_size(smallest - 1)


def test_stored_and_read_again() -> None:
    given = config(dims=[96, 200, 384, 768], ssm_dt_rank=4, imgsize=[224, 160])
    stored = encode(given)
    assert stored["family"] == "vmamba"
    assert read_config(stored) == given
    assert given.rank(3) == given.dt_rank == 4


def test_official_defaults_are_refused() -> None:
    # Those of the constructor are an earlier model's: gates, and a plain patch embedding.
    with pytest.raises(VimDeployError, match="VIM-408"):
        VMambaConfig()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("forward_type", "v0"),
        ("forward_type", "v05"),
        ("forward_type", "v051d_noz"),
        ("forward_type", "v05_onnone_noz"),
        ("forward_type", "m0_noz"),
        ("norm_layer", "bn"),
        ("downsample_version", "v1"),
        ("patchembed_version", "v1"),
        ("patch_size", 8),
        ("patch_norm", False),
        ("posembed", True),
        ("gmlp", True),
        ("ssm_act_layer", "gelu"),
        ("mlp_act_layer", "relu"),
        ("ssm_conv", 1),
        ("ssm_conv", 4),
        ("ssm_d_state", 0),
        ("ssm_ratio", 0),
        ("ssm_dt_rank", "full"),
        ("ssm_dt_rank", 0),
        ("mlp_ratio", -1.0),
        ("mlp_ratio", 0.001),
        ("num_classes", -1),
        ("in_chans", 0),
        ("imgsize", 0),
        ("depths", [2, 0]),
        ("depths", []),
        ("depths", [1] * 17),
        ("dims", [96, 192]),
        ("dims", 97),
        ("dims", 1 << 16),
        ("dims", "96"),
    ],
)
def test_values_that_do_not_run_are_named(option: str, value: object) -> None:
    with pytest.raises(VimDeployError, match=option) as caught:
        config(**{option: value})
    assert caught.value.code == "VIM-408"


def test_layouts_and_letters_make_no_difference() -> None:
    for name in ("ln", "LN", "LN2D"):
        assert config(norm_layer=name).widths == config().widths
    assert config(ssm_act_layer="SiLU").blocks == 14


def test_an_unknown_keyword_is_an_error() -> None:
    with pytest.raises(VimDeployError, match=r"(?s)VIM-201.*'mlp_ratios'.*mlp_ratio"):
        config(mlp_ratios=4.0)


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("", ""),
        ("patch_embed.5", "patch_embed"),
        ("layers.0.blocks.1", "block_01"),
        ("layers.0.blocks.1.residual2", "block_01"),
        ("layers.2.blocks.0.norm2", "block_04/norm2"),
        ("layers.2.blocks.0.op.in_proj", "block_04/mixer/in_proj"),
        ("layers.2.blocks.0.op.act", "block_04/mixer/conv2d"),
        ("layers.2.blocks.7.op.rows_bwd.x_proj", "block_11/mixer/bwd/x_proj_rows"),
        ("layers.3.blocks.0.op.columns_fwd.scan", "block_12/mixer/fwd/scan_columns"),
        ("layers.3.blocks.0.mlp.fc1", "block_12/mlp/fc1"),
        ("layers.1.downsample.3", "downsample_1"),
        ("layers.1", "level_1"),
        ("classifier.norm", "norm_f"),
        ("classifier.head", "head"),
        ("classifier", "classifier"),
    ],
)
def test_scopes(path: str, scope: str) -> None:
    assert config().scope(path) == scope
