"""A variant that the file contradicts is refused, and two readings are both said."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.families.vim.test_infer import SMALL, weights_of
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.names import FACTORY_NAMES
from vim_deploy.families.vim.network.infer import infer_config
from vim_deploy.recipe.catalog import find_variant

TINY, PLUS = find_variant("vim-tiny"), find_variant("vim-tiny-plus")


def refusal(config: VimConfig, args: dict[str, Any] | None = None, **options: Any) -> str:
    with pytest.raises(VimDeployError) as caught:
        infer_config(weights_of(config), args, **options)
    assert caught.value.code == ("VIM-404" if "model" in options else "VIM-407")
    return f"{caught.value}"


@pytest.mark.parametrize(
    ("config", "asked", "right", "pixels"),
    [(PLUS, "vim-tiny", "vim-tiny-plus", 432), (TINY, "vim-tiny-plus", "vim-tiny", 120)],
)
def test_the_other_stride_is_refused_with_both_readings(
    config: VimConfig, asked: str, right: str, pixels: int
) -> None:
    for size in (None, 224, 512):
        text = refusal(config, model=asked, image_size=size)
        assert f"{asked} at {pixels} pixels" in text
        assert f"{right} at 224 pixels" in text
        assert f"--model {right}" in text
    kept = infer_config(weights_of(config), model=asked, image_size=pixels)
    assert (kept.name, kept.config.img_size) == (asked, pixels)


def test_the_stored_size_says_which() -> None:
    config = TINY.replace(img_size=432)
    assert (
        infer_config(weights_of(config), {"input_size": 432}, model="vim-tiny").name == "vim-tiny"
    )
    assert infer_config(weights_of(config), {"input_size": 432}).name == "vim-tiny"
    text = refusal(config, {"input_size": 224}, model="vim-tiny", image_size=432)
    assert "input_size 224" in text


@pytest.mark.parametrize("size", [256, 512])
def test_two_readings_of_no_published_size(size: int) -> None:
    config = TINY.replace(img_size=size)
    other = (size // 16 - 1) * 8 + 16
    text = refusal(config)
    assert f"vim-tiny at {size} pixels" in text
    assert f"vim-tiny-plus at {other} pixels" in text
    assert infer_config(weights_of(config), image_size=size).name == "vim-tiny"
    assert infer_config(weights_of(config), image_size=other).name == "vim-tiny-plus"
    for name in ("vim-tiny", "vim-tiny-plus"):
        found = infer_config(weights_of(config), model=name)
        assert found.name == name
        assert f"vim-tiny-plus at {other} pixels" in found.statements[0]


def test_stored_arguments_contradict_the_name() -> None:
    text = refusal(PLUS, {"model": FACTORY_NAMES["vim-tiny-plus"]}, model="vim-tiny")
    assert "vim-tiny-plus" in text
    text = refusal(TINY, {"model": FACTORY_NAMES["vim-tiny"]}, model="vim-tiny-plus")
    assert "name vim-tiny " in text
    own_name = "vim_tiny_patch16_stride8_224_my_data"
    assert "stride 8" in refusal(PLUS, {"model": own_name}, model="vim-tiny")
    assert infer_config(weights_of(PLUS), {"model": own_name}, model="vim-tiny-plus").name


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("if_bidirectional", True), ("final_pool_type", "max"), ("use_middle_cls_token", False),
     ("if_divide_out", False), ("norm_epsilon", 1e-6), ("stride", 8)],
)  # fmt: skip
def test_stored_keywords_contradict_the_name(keyword: str, value: object) -> None:
    text = refusal(TINY, {keyword: value}, model="vim-tiny")
    assert f"{keyword} {value!r}" in text


def test_stored_keywords_are_no_assumptions() -> None:
    args = {"if_bidirectional": True, "final_pool_type": "max", "norm_epsilon": 1e-6, "stride": 4}
    config = SMALL.replace(**args)
    found = infer_config(weights_of(config), args)
    assert found.config == config
    assert not {*args, "img_size"} & found.assumed


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (SMALL, "patch size"),
        (SMALL.replace(d_state=8), "d_state"),
        (SMALL.replace(if_cls_token=False), "class tokens"),
        (SMALL.replace(use_double_cls_token=True), "class tokens"),
        (SMALL.replace(bimamba_type="v1"), "bimamba_type"),
        (SMALL, "depth"),
    ],
)
def test_shapes_contradict_the_name(config: VimConfig, word: str) -> None:
    assert word in refusal(config, model="vim-tiny")
