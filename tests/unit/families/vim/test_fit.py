"""Weights into a model: strict keys, other image sizes, rope tables."""

from __future__ import annotations

import functools

import pytest
import torch

from tests.support import reference
from vim_deploy.errors import VimDeployError
from vim_deploy.families.base import unread_note
from vim_deploy.families.vim.config import VimConfig, read_config
from vim_deploy.families.vim.network.dense.load import sized
from vim_deploy.families.vim.network.fit import KeyReport, load_into
from vim_deploy.families.vim.network.pos_embed import interpolate_grid, interpolate_official
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.checkpoint import read_checkpoint
from vim_deploy.recipe.catalog import find_recipe, find_variant

State = dict[str, torch.Tensor]


@functools.lru_cache(maxsize=16)
def case(name: str) -> tuple[VimConfig, State]:
    stored = reference.load_case(name)
    config = read_config(dict(stored.kwargs))
    return config, dict(read_checkpoint(stored.checkpoint).state_dict)


def load(
    config: VimConfig, state: State, **options: object
) -> tuple[VisionMamba, KeyReport]:  # fmt: skip
    model = VisionMamba(config)
    return model, load_into(model, state, config=config, **options)


def error_of(config: VimConfig, state: State, **options: object) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        load(config, state, **options)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("name", reference.cases())
def test_reference_checkpoints_load_as_stored(name: str) -> None:
    config, state = case(name)
    model, report = load(config, state, stored_config=config)
    assert report.pos_embed == ("as stored" if config.if_abs_pos_embed else "none")
    assert report.tensors == len(state)
    assert report.parameters == sum(tensor.numel() for tensor in state.values())
    assert report.notes == ()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[key]), key


def test_all_misfits_are_listed() -> None:
    config, state = case("A01_middle_cls")
    broken = {key: tensor for key, tensor in state.items() if key != "norm_f.weight"}
    broken["extra.bias"] = torch.ones(3)
    broken["head.weight"] = torch.ones(4, 48)
    broken["layers.0.mixer.D"] = torch.ones(96, dtype=torch.int64)
    error = error_of(config, broken)
    assert error.code == "VIM-404"
    assert error.message.startswith("4 keys")
    assert "missing norm_f.weight, expected [48]" in error.why
    assert "unexpected extra.bias, found [3]" in error.why
    assert "head.weight: found [4, 48], expected [10, 48]" in error.why
    assert "layers.0.mixer.D: found [96] torch.int64" in error.why


def test_long_lists_end_with_a_count() -> None:
    config, state = case("A01_middle_cls")
    error = error_of(config.replace(embed_dim=64), state)
    lines = error.why.splitlines()
    assert len(lines) == 21
    assert lines[-1].startswith("and ")
    assert "--model auto" in error.fix


def test_the_variant_that_fits_is_named() -> None:
    small = find_variant("vim-tiny").replace(img_size=32, depth=24)
    with torch.device("meta"):
        shapes = VisionMamba(find_variant("vim-tiny")).state_dict()
    state = {key: torch.zeros(1).expand(tensor.shape) for key, tensor in shapes.items()}
    error = error_of(small.replace(embed_dim=48), state)
    assert "--model vim-tiny" in error.fix


def test_nothing_is_loaded_when_a_key_does_not_fit() -> None:
    config, state = case("A01_middle_cls")
    model = VisionMamba(config)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(VimDeployError):
        load_into(model, {**state, "extra": torch.ones(1)}, config=config)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "size"),
    [("A01_middle_cls", 64), ("A02_head_cls", 48), ("A03_double_cls", 96),
     ("A04_nocls_pool_mean", 24), ("A01_middle_cls", (32, 64)), ("A19_nonsquare", (64, 32))],
)  # fmt: skip
@pytest.mark.parametrize("told", [True, False])
def test_grid_fit(name: str, size: int | tuple[int, int], told: bool) -> None:
    stored, state = case(name)
    config = stored.at_size(size)
    if not told and name == "A19_nonsquare":
        # As many patches as the model has, and nobody says that they lie otherwise.
        assert load(config, state)[1].pos_embed == "as stored"
        return
    model, report = load(config, state, stored_config=stored if told else None)
    expected = interpolate_grid(
        state["pos_embed"],
        stored.grid_hw,
        config.grid_hw,
        stored.cls_positions,
        config.cls_positions,
    )
    assert torch.equal(model.pos_embed, expected)
    assert report.pos_embed.startswith("grid ")
    assert any("interpolated" in note for note in report.notes)
    image = torch.zeros(1, config.channels, *config.image_hw)
    with torch.inference_mode():
        assert model(image).shape == (1, 10)


@pytest.mark.parametrize(
    ("name", "shifted"),
    [("A01_middle_cls", True), ("A02_head_cls", False), ("A03_double_cls", True)],
)
def test_official_fit(name: str, shifted: bool) -> None:
    stored, state = case(name)
    size = 96 if name == "A03_double_cls" else 64
    config = stored.at_size(size)
    model, report = load(config, state, stored_config=stored, pos_embed="official")
    expected = interpolate_official(
        state["pos_embed"], config.num_patches, len(config.cls_positions)
    )  # fmt: skip
    assert torch.equal(model.pos_embed, expected)
    assert report.pos_embed.startswith("official ")
    assert any("shifted" in note for note in report.notes) == shifted


def test_official_fit_is_for_squares() -> None:
    stored, state = case("A01_middle_cls")
    config = stored.at_size((32, 64))
    error = error_of(config, state, stored_config=stored, pos_embed="official")
    assert error.code == "VIM-406"
    assert "--pos-embed grid" in error.fix


def test_unknown_way_to_fit() -> None:
    config, state = case("A01_middle_cls")
    error = error_of(config, state, pos_embed="offical")
    assert error.code == "VIM-202"
    assert "official" in error.fix


def test_position_embedding_that_contradicts_the_stated_size() -> None:
    stored, state = case("A01_middle_cls")
    wrong = stored.replace(img_size=64)
    error = error_of(wrong, state, stored_config=wrong)
    assert error.code == "VIM-404"
    assert "17 rows" in error.why
    assert "img_size=32" in error.fix


def test_position_embedding_of_an_unknown_grid() -> None:
    _, state = case("A19_nonsquare")
    config, _ = case("A01_middle_cls")
    error = error_of(config, state)
    assert error.code == "VIM-406"
    assert "--config" in error.fix


def test_rope_tables_of_another_size_are_computed() -> None:
    stored, state = case("A11_rope_nocls")
    config = stored.at_size(64)
    model, report = load(config, state, stored_config=stored)
    assert torch.equal(model.rope.freqs_cos, VisionMamba(config).rope.freqs_cos)
    assert any("rope" in note and "8x8" in note for note in report.notes)


def test_rope_tables_of_another_formula_are_refused() -> None:
    stored, state = case("A12b_rope_residual_head_cls_ptseq4")
    error = error_of(stored.replace(pt_hw_seq_len=14), state)
    assert error.code == "VIM-404"
    assert "pt_hw_seq_len" in error.fix
    cut = {**state, "rope.freqs_sin": state["rope.freqs_sin"][:3]}
    assert error_of(stored, cut).code == "VIM-404"


def test_image_size() -> None:
    config = find_variant("vim-tiny-plus")
    assert config.at_size(224) is config
    assert config.at_size(264).num_patches == 1024
    assert config.at_size((224, 224)) is config
    wide = config.at_size((224, 448))
    assert wide.grid_hw == (27, 55)


@pytest.mark.parametrize(
    ("size", "fix"),
    [
        (225, "--image-size 224 or 232"),
        (230, "--image-size 224 or 232"),
        (15, "--image-size 16"),
        (0, "--image-size 16"),
        (-8, "--image-size 16"),
        ((224, 225), "--image-size 224 or 224x232"),
        ((9, 230), "--image-size 16x224 or 16x232"),
    ],
)
def test_image_size_that_patches_have_to_cover(size: int | tuple[int, int], fix: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        find_variant("vim-tiny-plus").at_size(size, covered=True)
    assert caught.value.code == "VIM-406"
    assert caught.value.fix == fix


@pytest.mark.parametrize("size", [15, 0, -8, (9, 230)])
def test_image_smaller_than_a_patch(size: int | tuple[int, int]) -> None:
    with pytest.raises(VimDeployError, match="smaller than one") as caught:
        find_variant("vim-tiny-plus").at_size(size)
    assert caught.value.code == "VIM-406"


def test_maps_of_a_dense_model_have_to_fit_the_picture() -> None:
    recipe = find_recipe("upernet-vim-tiny")
    assert recipe.dense is not None
    with pytest.raises(VimDeployError) as caught:
        sized(recipe.model_config, recipe.dense, 738)
    assert (caught.value.code, caught.value.fix) == ("VIM-406", "--image-size 736 or 752")
    assert sized(recipe.model_config, recipe.dense, 736)[0].grid_hw == (46, 46)


@pytest.mark.parametrize(
    ("size", "tokens", "unread", "note"),
    [
        # A size of the paper's figure 1.
        (738, 46 * 46 + 1, (2, 2), "2 rows of pixels at the bottom and 2 columns of pixels at the "
         "right are not read: no patch reaches there"),
        ((224, 225), 197, (0, 1), "1 column of pixels at the right is not read: no patch reaches "
         "there"),
        ((230, 224), 197, (6, 0), "6 rows of pixels at the bottom are not read: no patch reaches "
         "there"),
        (640, 1601, (0, 0), ""),
    ],
)  # fmt: skip
def test_pixels_that_no_patch_reaches(
    size: int | tuple[int, int], tokens: int, unread: tuple[int, int], note: str
) -> None:
    config = find_variant("vim-tiny").at_size(size)
    assert config.num_tokens == tokens
    assert config.unread_hw == unread
    assert unread_note(config.unread_hw) == note


def test_overlapping_patches_reach_further() -> None:
    config = find_variant("vim-tiny-plus").at_size(738)
    assert (config.grid_hw, config.unread_hw) == ((91, 91), (2, 2))


def test_the_rest_is_computed_as_without_these_pixels() -> None:
    stored, state = case("A01_middle_cls")
    whole, _ = load(stored.at_size(48), state, stored_config=stored)
    floored, report = load(stored.at_size((50, 49)), state, stored_config=stored)
    assert report.pos_embed == f"grid {stored.grid_hw[0]}x{stored.grid_hw[1]} to 6x6"
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((2, stored.channels, 50, 49), generator=generator)
    with torch.inference_mode():
        assert torch.equal(floored(image), whole(image[:, :, :48, :48].contiguous()))


def test_own_size_is_accepted_even_when_pixels_are_left_over() -> None:
    """The official code floors, so a checkpoint may have such a size."""
    config = find_variant("vim-tiny").replace(img_size=230)
    assert config.at_size(230) is config


def test_rope_needs_an_even_grid() -> None:
    with pytest.raises(VimDeployError) as caught:
        case("A11_rope_nocls")[0].at_size(40)
    assert caught.value.code == "VIM-408"
