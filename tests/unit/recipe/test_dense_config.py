"""What stands behind the blocks: values that fit, values that do not, and official keywords."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import reference
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig, read_config
from vim_deploy.families.vim.official_dense import is_dense, read_official
from vim_deploy.recipe import catalog
from vim_deploy.recipe.dense_config import read_dense

E01 = dict(reference.dense_case("E01").kwargs)
D01 = dict(reference.dense_case("D01").kwargs)
D08 = dict(reference.dense_case("D08").kwargs)
DENSE_RECIPES = (
    "cascade-vimdet-base", "cascade-vimdet-small", "cascade-vimdet-tiny",
    "cascade-vimdet-tiny-lite", "mask-rcnn-vimdet-base", "upernet-vim-small", "upernet-vim-tiny",
    "vimdet-base", "vimdet-small", "vimdet-tiny",
)  # fmt: skip
SEGMENTOR = encode(read_official(E01).dense)
DETECTOR = encode(read_official(D08).dense)


def changed(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with one value at a dotted path replaced, added, or (``...``) removed."""
    result = copy.deepcopy(values)
    *tables, name = path.split(".")
    table = result
    for part in tables:
        table = table[part]
    if value is ...:
        del table[name]
    else:
        table[name] = value
    return result


def refusal(call: Callable[[], object]) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        call()
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("values", [SEGMENTOR, DETECTOR, encode(read_official(D01).dense)])
def test_round_trip(values: dict[str, Any]) -> None:
    found = read_dense(json.loads(json.dumps(values)))
    assert encode(found) == values
    assert hash(found) == hash(read_dense(values))


# Path, value, what the message names.
WRONG = [
    ("task", "sorting", "task"),
    ("task", ["segmentation"], "task"),
    ("out_indices", [], "out_indices"),
    ("out_indices", [3, 1], "out_indices"),
    ("out_indices", [1, 1], "out_indices"),
    ("out_indices", [0, 1, 2, 3, 4], "five"),
    ("out_indices", [0, 1], "feature maps"),
    ("out_indices", [True, 2, 3, 4], "out_indices"),
    ("out_indices", ["a"], "out_indices"),
    ("out_indices", 3, "out_indices"),
    ("use_residual_as_feature", 1, "use_residual_as_feature"),
    ("last_layer_process", "ad", "last_layer_process"),
    ("last_layer_process", None, "last_layer_process"),
    ("if_fpn", "yes", "if_fpn"),
    ("decode_head", 5, "decode_head"),
    ("decode_head", None, "decode head"),
    ("decode_head.channels", 0, "decode_head.channels"),
    ("decode_head.channels", True, "decode_head.channels"),
    ("decode_head.channels", 10**9, "decode_head.channels"),
    ("decode_head.num_classes", -3, "num_classes"),
    ("decode_head.num_classes", ..., "num_classes"),
    ("decode_head.pool_scales", [], "pool_scales"),
    ("decode_head.pool_scales", [0, 1], "pool_scales"),
    ("decode_head.pool_scales", [1] * 100, "pool_scales"),
    ("decode_head.pool_scales", [1.5], "pool_scales"),
    ("auxiliary_head.in_index", 4, "in_index"),
    ("auxiliary_head.in_index", -1, "in_index"),
    ("auxiliary_head.kernel_size", 2, "kernel_size"),
    ("auxiliary_head.num_convs", 1000, "num_convs"),
    ("test.mode", "tiles", "test.mode"),
    ("test.crop", [64], "test.crop"),
    ("test.stride", [65, 43], "test.stride"),
    ("test.scale", [0, 5], "test.scale"),
    ("palette", [[0, 0, 0]], "colours"),
    ("palette", 7, "palette"),
    ("palette", [[0, 0, 256]] * 7, "palette"),
    ("palette", [[0, 0]] * 7, "palette"),
    ("palette", ["red"] * 7, "palette"),
    ("pyramid", {"out_channels": 8}, "pyramid"),
]


@pytest.mark.parametrize(("path", "value", "named"), WRONG)
def test_values_that_do_not_fit(path: str, value: object, named: str) -> None:
    error = refusal(lambda: read_dense(changed(SEGMENTOR, path, value)))
    assert error.code == "VIM-408"
    if named == "five":
        assert "5 feature maps" in error.message
    else:
        assert named in error.message + error.why


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("pyramid", None, "pyramid"),
        ("pyramid.norm", "GN", "pyramid.norm"),
        ("pyramid.scale_factors", [4.0, 2.0], "scale_factors"),
        ("pyramid.scale_factors", ["a"], "scale_factors"),
        ("pyramid.out_channels", 0, "out_channels"),
        ("pyramid.top_block", "LastLevelP6P7", "top_block"),
        ("last_layer_process", "add & norm", "add & norm"),
        ("out_indices", [2, 3], "last block"),
        ("use_residual_as_feature", True, "last block"),
        ("decode_head", {"channels": 8, "num_classes": 2}, "segmentation head"),
    ],
)
def test_detection_values_that_do_not_fit(path: str, value: object, named: str) -> None:
    error = refusal(lambda: read_dense(changed(DETECTOR, path, value)))
    assert error.code == "VIM-408"
    assert named in error.message + error.why


@pytest.mark.parametrize("path", ["palete", "decode_head.chanels", "test.strides", "test.stride.x"])
def test_unknown_keywords_get_the_nearest_one(path: str) -> None:
    values = changed(SEGMENTOR, "test.stride", {}) if path.endswith(".x") else SEGMENTOR
    error = refusal(lambda: read_dense(changed(values, path, 1)))
    assert error.code in ("VIM-201", "VIM-408")


BACKBONE = read_config(
    {"img_size": 64, "embed_dim": 48, "depth": 4, "num_classes": 0, "if_cls_token": False}
)


@pytest.mark.parametrize(
    ("values", "changes", "code", "named"),
    [
        (SEGMENTOR, {"depth": 3}, "VIM-408", "block 3"),
        (SEGMENTOR, {"if_cls_token": True}, "VIM-408", "class token"),
        (SEGMENTOR, {"if_bidirectional": True}, "VIM-408", "if_bidirectional"),
        (SEGMENTOR, {"patch_size": 4, "stride": 4}, "VIM-408", "4x4 pixels"),
        (SEGMENTOR, {"img_size": 16}, "VIM-406", "16x16 pixels"),
        (SEGMENTOR, {"patch_size": 8, "stride": 8, "img_size": (64, 24)}, "VIM-406", "64x24"),
        (DETECTOR, {"img_size": (16, 64)}, "VIM-406", "16x64 pixels"),
    ],
)
def test_backbones_that_do_not_carry_it(
    values: dict[str, Any], changes: dict[str, Any], code: str, named: str
) -> None:
    BACKBONE.require_dense(read_dense(values))
    config = BACKBONE.replace(**changes)
    error = refusal(lambda: config.require_dense(read_dense(values)))
    assert error.code == code
    assert named in error.message


def test_the_published_configurations() -> None:
    for name in DENSE_RECIPES:
        recipe = catalog.find_recipe(name)
        assert recipe.dense is not None
        assert catalog.model_name(recipe.model_config, recipe.dense) == name
        if recipe.task == "segmentation":
            assert recipe.dense.num_classes == 150
            assert recipe.dense.test is not None
            assert recipe.dense.test.crop == recipe.model_config.image_hw == (512, 512)
        else:
            assert recipe.dense.feature_names == ("p2", "p3", "p4", "p5", "p6")
            assert recipe.model_config.image_hw == (1024, 1024)


@pytest.mark.parametrize("name", reference.dense_cases())
def test_official_keywords_of_the_cases(name: str) -> None:
    case = reference.load_case(name)
    found = read_official(case.kwargs)
    assert is_dense(case.kwargs)
    stored = [key for key in case.outputs if key != "output"]
    if stored:
        assert len(found.dense.feature_names) == len(stored)
    written = case.kwargs.get("backbone", case.kwargs)
    assert found.slots == (
        (written["in_chans"], written["num_classes"]) if "net" not in written else (3, None)
    )


def test_keywords_of_a_classifier_are_not_dense() -> None:
    for name in reference.cases():
        assert not is_dense(reference.load_case(name).kwargs)


# Official configuration, path, value, code, what the message names.
OFFICIAL_WRONG = [
    (E01, "type", "CascadeEncoderDecoder", "VIM-408", "CascadeEncoderDecoder"),
    (E01, "backbone.type", "VisionTransformer", "VIM-408", "VisionTransformer"),
    (E01, "neck", {"type": "FPN"}, "VIM-201", "model.neck"),
    (E01, "backbone.embed_dims", 48, "VIM-201", "embed_dims"),
    (E01, "backbone.in_chans", "three", "VIM-408", "in_chans"),
    (E01, "backbone.num_classes", None, "VIM-408", "num_classes"),
    (E01, "backbone.out_indices", 3, "VIM-408", "out_indices"),
    (E01, "backbone.norm_epsilon", "small", "VIM-408", "norm_epsilon"),
    (E01, "backbone.ssm_cfg", 4, "VIM-408", "ssm_cfg"),
    (E01, "backbone.ssm_cfg", {"expand": "x"}, "VIM-408", "expand"),
    (E01, "decode_head", [{}], "VIM-408", "decode_head"),
    (E01, "decode_head.type", "SegformerHead", "VIM-408", "SegformerHead"),
    (E01, "decode_head.align_corners", True, "VIM-408", "align_corners"),
    (E01, "decode_head.norm_cfg", None, "VIM-408", "norm_cfg"),
    (E01, "decode_head.norm_cfg.type", "GN", "VIM-408", "norm_cfg"),
    (E01, "decode_head.norm_cfg.eps", 1e-3, "VIM-408", "eps"),
    (E01, "decode_head.act_cfg", None, "VIM-408", "act_cfg"),
    (E01, "decode_head.act_cfg", {"type": "GELU"}, "VIM-408", "act_cfg"),
    (E01, "decode_head.in_index", [0, 1, 2], "VIM-408", "in_index"),
    (E01, "decode_head.in_index", 2, "VIM-408", "in_index"),
    (E01, "decode_head.out_channels", 1, "VIM-408", "out_channels"),
    (E01, "decode_head.chanels", 32, "VIM-201", "chanels"),
    (E01, "decode_head.num_classes", ..., "VIM-408", "num_classes"),
    (E01, "auxiliary_head.concat_input", True, "VIM-408", "concat_input"),
    (E01, "auxiliary_head.concat_input", ..., "VIM-408", "concat_input"),
    (E01, "auxiliary_head.type", "PSPHead", "VIM-408", "PSPHead"),
    (E01, "test_cfg", ["slide"], "VIM-408", "test_cfg"),
    (E01, "test_cfg.mode", "tiles", "VIM-408", "tiles"),
    (E01, "test_cfg.stride", None, "VIM-408", "test_cfg"),
    (E01, "test_cfg.strides", 2, "VIM-201", "strides"),
    (D08, "net.type", "ViT", "VIM-408", "ViT"),
    (D08, "net.window_size", 14, "VIM-201", "window_size"),
    (D08, "net.depth", "deep", "VIM-408", "depth"),
    (D08, "net", 4, "VIM-408", "net"),
    (D08, "out_channels", None, "VIM-408", "out_channels"),
    (D08, "norm", "", "VIM-408", "norm"),
    (D08, "norm", {"type": "LN"}, "VIM-408", "norm"),
    (D08, "top_block", "LastLevelP6P7", "VIM-408", "LastLevelP6P7"),
    (D08, "top_block", 3, "VIM-408", "top_block"),
    (D08, "scale_factors", 4.0, "VIM-408", "scale_factors"),
    (D08, "scale_factor", [4.0], "VIM-201", "scale_factor"),
]


@pytest.mark.parametrize(("config", "path", "value", "code", "named"), OFFICIAL_WRONG)
def test_official_keywords_that_cannot_be_exported(
    config: dict[str, Any], path: str, value: object, code: str, named: str
) -> None:
    def read() -> VimConfig:
        found = read_official(changed(config, path, value))
        return read_config(found.backbone)

    error = refusal(read)
    assert error.code == code
    assert named in error.message


def test_defaults_of_the_frameworks() -> None:
    found = read_official(
        changed(changed(E01, "auxiliary_head.in_index", ...), "test_cfg", {"mode": "whole"})
    ).dense
    assert found.auxiliary_head is not None
    assert found.auxiliary_head.in_index == 3  # mmsegmentation's -1
    assert found.test is not None
    assert (found.test.mode, found.test.crop, found.test.stride) == ("whole", (64, 64), (64, 64))
    names = {"_target_": "detectron2.modeling.backbone.fpn.LastLevelMaxPool"}
    assert read_official(changed(D08, "top_block", names)).dense.feature_names[-1] == "p6"
    assert read_official(changed(D08, "top_block", None)).dense.feature_names[-1] == "p5"
    scoped = changed(changed(E01, "type", "mmseg.EncoderDecoder"), "data_preprocessor", {"x": 1})
    assert read_official(scoped).dense == read_official(E01).dense


def leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield f"{path}{name}"
            yield from leaves(item, f"{path}{name}.")


@pytest.mark.parametrize("config", [E01, D01, D08], ids=["E01", "D01", "D08"])
def test_whatever_a_keyword_is_set_to_gets_a_code(config: dict[str, Any]) -> None:
    tried, codes = 0, []
    for path in leaves(config):
        for value in (None, "x", -1, 0, 3.5, True, [], [[]], {}, {"a": 1}, float("nan"), 1 << 40):
            tried += 1
            try:
                found = read_official(changed(config, path, value))
                read_config({**found.backbone, "d_state": 16})
            except VimDeployError as error:
                codes.append(error.code)
    assert 0 < len(codes) < tried
    assert set(codes) <= {"VIM-201", "VIM-406", "VIM-408"}
