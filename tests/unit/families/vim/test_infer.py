"""--model auto: what is inferred equals the truth, or is stated as an assumption."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests.support import reference
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig, read_config
from vim_deploy.families.vim.names import FACTORY_NAMES
from vim_deploy.families.vim.network.infer import Inferred, infer_config
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.checkpoint import Checkpoint, read_checkpoint
from vim_deploy.recipe.catalog import find_variant

#: The case whose grid is not square: nothing in the file tells its sides.
NOT_SQUARE = "A19_nonsquare"
SMALL = VimConfig(img_size=32, patch_size=8, stride=8, embed_dim=16, depth=2, num_classes=5)


@functools.lru_cache(maxsize=64)
def checkpoint_of(name: str) -> Checkpoint:
    return read_checkpoint(reference.load_case(name).checkpoint)


def weights_of(config: VimConfig) -> dict[str, torch.Tensor]:
    """A state dict of the right shapes; the numbers do not matter, rope tables apart."""
    with torch.device("meta"):
        model = VisionMamba(config)
    shapes = {key: torch.zeros(1).expand(t.shape) for key, t in model.state_dict().items()}
    return {key: shapes[key] for key in shapes}


def differing(found: VimConfig, true: VimConfig) -> set[str]:
    a, b = encode(found), encode(true)
    return {key for key in a if a[key] != b[key]}


def check_statements(inferred: Inferred) -> None:
    """Every assumption that changes a result is said with its value."""
    text = "\n".join(inferred.statements)
    silent = {"fused_add_norm", "residual_in_fp32"}
    for name in inferred.assumed - silent - {"ssm_cfg"}:
        assert f"{name}={getattr(inferred.config, name)!r}" in text


@pytest.mark.parametrize("name", [name for name in reference.cases() if name != NOT_SQUARE])
def test_reference_cases(name: str) -> None:
    checkpoint = checkpoint_of(name)
    inferred = infer_config(checkpoint.state_dict, checkpoint.args)
    true = read_config(dict(reference.load_case(name).kwargs))
    assert differing(inferred.config, true) <= inferred.assumed
    assert inferred.name == "custom"
    check_statements(inferred)


@pytest.mark.parametrize(
    "name",
    ["A01_middle_cls", "A03_double_cls", "A04_nocls_pool_mean", "A08_bimamba_v1", "A11_rope_nocls",
     "A11c_rope_middle_cls", "A15_layernorm", "A18_d_state8", "A22_ssm_cfg",
     "A22b_ssm_cfg_noconvbias", "A25_num_classes0", "vim_digits"],
)  # fmt: skip
def test_cases_that_follow_the_published_models_are_inferred_exactly(name: str) -> None:
    checkpoint = checkpoint_of(name)
    inferred = infer_config(checkpoint.state_dict, checkpoint.args)
    assert inferred.config == read_config(dict(reference.load_case(name).kwargs))


def test_rope_scale_is_read_from_the_tables() -> None:
    checkpoint = checkpoint_of("A12b_rope_residual_head_cls_ptseq4")
    assert infer_config(checkpoint.state_dict).config.pt_hw_seq_len == 4


def test_rope_tables_of_another_formula_are_refused() -> None:
    state = dict(checkpoint_of("A11_rope_nocls").state_dict)
    state["rope.freqs_sin"] = state["rope.freqs_sin"].flip(1)
    assert error_of(state).code == "VIM-407"


def test_grid_that_is_not_square_needs_help() -> None:
    state = checkpoint_of(NOT_SQUARE).state_dict
    error = error_of(state)
    assert error.code == "VIM-407"
    assert "33 rows" in error.why
    assert "--config" in error.fix
    inferred = infer_config(state, image_size=(32, 64))
    assert inferred.config == read_config(dict(reference.load_case(NOT_SQUARE).kwargs))
    assert error_of(state, image_size=(32, 32)).code == "VIM-407"


def test_without_position_embedding_the_asked_size_is_used() -> None:
    state = checkpoint_of("A23_no_abs_pos").state_dict
    assert infer_config(state, image_size=64).config.img_size == 64
    assert infer_config(state, {"input_size": 48}).config.img_size == 48
    inferred = infer_config(state)
    assert inferred.config.img_size == 224
    assert "img_size" in inferred.assumed


@pytest.mark.parametrize("short", FACTORY_NAMES)
def test_published_variants_by_shape_and_by_stored_name(short: str) -> None:
    config = find_variant(short)
    state = weights_of(config)
    by_shape = infer_config(state)
    assert (by_shape.config, by_shape.name) == (config, short)
    assert "stride" in by_shape.assumed
    check_statements(by_shape)
    named = infer_config(state, {"model": FACTORY_NAMES[short], "input_size": 224})
    assert (named.config, named.name, named.assumed) == (config, short, frozenset())


def test_the_stored_name_decides_between_strides() -> None:
    """1024 patches: 512 pixels at stride 16, or 264 at stride 8."""
    state = weights_of(find_variant("vim-tiny").replace(img_size=512, num_classes=7))
    for args, name, size in (
        ({"input_size": 512}, "vim-tiny", 512),
        ({"input_size": 264}, "vim-tiny-plus", 264),
        ({"model": FACTORY_NAMES["vim-tiny-plus"]}, "vim-tiny-plus", 264),
        ({"model": FACTORY_NAMES["vim-tiny"], "input_size": 224}, "vim-tiny", 512),
    ):
        inferred = infer_config(state, args)
        assert (inferred.name, inferred.config.img_size) == (name, size)
        assert inferred.config.num_classes == 7


def test_a_named_model_gives_stride_and_the_checkpoint_its_size() -> None:
    state = weights_of(find_variant("vim-tiny-plus").replace(img_size=264, num_classes=7))
    inferred = infer_config(state, model="vim-tiny-plus")
    assert (inferred.config.img_size, inferred.config.num_classes) == (264, 7)
    assert inferred.assumed == frozenset()
    assert infer_config(state, model=FACTORY_NAMES["vim-tiny-plus"]) == inferred


def test_a_wrongly_named_model_is_refused_with_the_right_one() -> None:
    with pytest.raises(VimDeployError) as caught:
        infer_config(weights_of(find_variant("vim-tiny")), model="vim-small")
    assert caught.value.code == "VIM-404"
    assert "embed_dim 192, not 384" in caught.value.why
    assert "--model vim-tiny" in caught.value.fix


def test_a_stored_name_that_the_shapes_contradict_is_not_used() -> None:
    state = weights_of(SMALL)
    inferred = infer_config(state, {"model": FACTORY_NAMES["vim-tiny"]})
    assert inferred.config == SMALL.replace(final_pool_type="mean")
    assert any("the name is not used" in statement for statement in inferred.statements)


@pytest.mark.parametrize(("size", "patch", "stride"), [(48, 16, 8), (50, 8, 8), (40, 8, 4)])
def test_stride_from_the_stored_input_size(size: int, patch: int, stride: int) -> None:
    config = SMALL.replace(img_size=size, patch_size=patch, stride=stride)
    inferred = infer_config(weights_of(config), {"input_size": size})
    assert (inferred.config.img_size, inferred.config.stride) == (size, stride)
    assert not {"img_size", "stride"} & inferred.assumed


def test_training_arguments_survive() -> None:
    inferred = infer_config(weights_of(SMALL), {"drop_path": 0.05, "drop": 0.0})
    assert inferred.config.drop_path_rate == 0.05


def error_of(state: Mapping[str, torch.Tensor], **options: Any) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        infer_config(state, **options)
    assert caught.value.fix
    return caught.value


def test_other_models_are_named() -> None:
    error = error_of({"blocks.0.attn.qkv.weight": torch.ones(3, 1)})
    assert error.code == "VIM-407"
    assert "not the weights of a Vision Mamba" in error.message
    assert "blocks" in error.why


def test_missing_pieces_are_named() -> None:
    whole = weights_of(SMALL)
    for key in ("layers.0.mixer.dt_proj.weight", "layers.0.mixer.conv1d.weight"):
        error = error_of({k: v for k, v in whole.items() if k != key})
        assert error.code == "VIM-407"
        assert key in error.message
    gap = {k.replace("layers.1.", "layers.4000000."): v for k, v in whole.items()}
    error = error_of(gap)
    assert error.code == "VIM-407"
    assert "layers.1" in error.why


def test_non_square_patches_need_a_config() -> None:
    state = weights_of(SMALL.replace(patch_size=(8, 4), stride=4, img_size=(32, 28)))
    assert error_of(state).code == "VIM-407"
