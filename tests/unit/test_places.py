"""Names of nodes are taken apart as they are made, whoever wrote them."""

from __future__ import annotations

import pytest

from vim_deploy.families.vim.config import VimConfig
from vim_deploy.places import (
    BEFORE_BLOCKS,
    BEHIND_BLOCKS,
    BLOCK_ROLES,
    DIRECTED,
    MODEL_ROLES,
    parse,
    place,
    stream_of,
)


@pytest.mark.parametrize(
    ("path", "mirrored", "scope"),
    [
        ("", False, ""),
        ("patch_embed.proj", False, "patch_embed/proj"),
        ("layers.3", False, "block_03"),
        ("layers.3.norm", False, "block_03/norm"),
        ("layers.3.mixer", False, "block_03/mixer"),
        ("layers.3.mixer.in_proj", True, "block_03/mixer/in_proj"),
        ("layers.3.mixer.x_proj", False, "block_03/mixer/fwd/x_proj"),
        ("layers.3.mixer.x_proj_b", False, "block_03/mixer/bwd/x_proj"),
        ("layers.103.mixer.scan_b", True, "block_103/mixer/fwd/scan"),
    ],
)
def test_scopes_of_modules(path: str, mirrored: bool, scope: str) -> None:
    # Odd layers are mirrored in two-layer mode.
    assert VimConfig(depth=104, if_bidirectional=mirrored).scope(path) == scope


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
@pytest.mark.parametrize("part", DIRECTED)
def test_what_is_made_is_found_again(part: str, direction: str) -> None:
    path = f"layers.7.mixer.{DIRECTED[part]}" + ("_b" if direction == "bwd" else "")
    at = parse(f"{VimConfig().scope(path)}/MatMul_2")
    assert at.place == place(7, part, direction)
    assert at.mixer == "block_07/mixer"
    assert (at.group, at.operator) == ("block_07", "MatMul_2")


@pytest.mark.parametrize(
    ("name", "part", "group", "role"),
    [
        ("block_02/Add", "residual", "block_02", "residual"),
        ("block_02/norm/Pow", "norm", "block_02", None),
        ("block_02/norm/Pow/Cast_fp32", "norm", "block_02", None),
        ("block_02/mixer/Mul", "mixed", "block_02", "scan"),
        ("block_02/mixer/other/Mul", "", "block_02", None),
        ("block_02/mixer/conv1d/VimBiCausalConv", "conv", "block_02", "conv"),
        ("block_02/mixer/fwd/in_proj/MatMul", "", "block_02", None),
        ("patch_embed/proj/Conv", "patch_embed", "outside", "patch_embed"),
        ("rope/Mul_3", "", "outside", "rope"),
        ("norm_f/Pow", "norm_f", "outside", None),
        ("head/Gemm", "head", "outside", "head"),
        ("fpn1/2/Erf", "feature_0", "neck", "neck"),
        ("fpn2/0/ConvTranspose", "feature_1", "neck", "neck"),
        ("simfp_2/1/LayerNormalization", "p2", "neck", None),
        ("simfp_3/0/Conv", "p3", "neck", "neck"),
        ("decode_head/psp_modules/3/1/Conv", "decode_head.psp_modules.3", "decode_head",
         "decode_head"),
        ("decode_head/Resize", "", "decode_head", "decode_head"),
        ("decode_head/conv_seg/Conv", "decode_head.conv_seg", "decode_head", "head"),
        ("auxiliary_head/convs/0/Relu", "auxiliary_head.convs.0", "decode_head", "decode_head"),
        ("class_tokens/Pad", "", "outside", None),
        ("Add_1", "", "outside", None),
        ("", "", "outside", None),
        ("block_03", "", "outside", None),
        ("block_1234567/mixer/Add", "", "outside", None),
        ("/".join("mixer" for _ in range(5000)), "", "outside", None),
        ("decode_head/convs/" + "1" * 5000 + "/Conv", "", "decode_head", "decode_head"),
    ],
)  # fmt: skip
def test_names_taken_apart(name: str, part: str, group: str, role: str | None) -> None:
    at = parse(name)
    assert (at.part, at.group, at.role) == (part, group, role)


def test_what_has_no_part_has_no_place() -> None:
    for name in ("Add", "rope/Mul", "block_00/mixer/x_proj/MatMul"):
        with pytest.raises(ValueError, match="not in tuple"):
            _ = parse(name).place
    assert parse("norm_f/Pow").place == place(BEHIND_BLOCKS, "norm_f")
    assert parse("patch_embed/proj/Conv").place == place(BEFORE_BLOCKS, "patch_embed")


def test_the_stream_of_the_first_block_is_the_tokens() -> None:
    assert str(stream_of(0)) == "tokens"
    assert str(stream_of(1)) == "block 1 residual"


def test_roles_of_policies() -> None:
    # The order in which a bisection lists them.
    assert MODEL_ROLES == (
        "patch_embed", "rope", "downsample", "head", "neck", "decode_head", "rpn_head", "box_head",
        "mask_head",
    )  # fmt: skip
    assert BLOCK_ROLES == (
        "residual", "conv_block", "in_proj", "conv", "x_proj", "dt_proj", "scan", "out_proj", "qkv",
        "attention", "proj", "mlp",
    )  # fmt: skip
