"""Named architectures and shipped recipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import reference
from vim_deploy.errors import VimDeployError
from vim_deploy.families import FAMILIES
from vim_deploy.families.vim.config import VimConfig, read_config
from vim_deploy.families.vim.names import FACTORY_NAMES
from vim_deploy.recipe import catalog
from vim_deploy.recipe.load import checkpoint_address, read_labels
from vim_deploy.recipe.schema import CUSTOM, NONE

SHORT = ("vim-tiny", "vim-tiny-plus", "vim-small", "vim-small-plus", "vim-base")
#: The official README's ImageNet-1K table: top-1, top-5.
PUBLISHED = {
    "vim-tiny": (76.1, 93.0),
    "vim-tiny-plus": (78.3, 94.2),
    "vim-small": (80.5, 95.1),
    "vim-small-plus": (81.6, 95.4),
    "vim-base": (81.9, 95.8),
}
#: The official README's table of MambaVision: top-1, top-5; crop_pct of its ``default_cfgs``.
MAMBAVISION = {
    "mambavision-tiny": (82.3, 96.2, 1.0),
    "mambavision-tiny2": (82.7, 96.3, 0.98),
    "mambavision-small": (83.3, 96.5, 0.93),
    "mambavision-base": (84.2, 96.9, 1.0),
    "mambavision-large": (85.0, 97.1, 1.0),
}

#: The paper's tables: mean intersection over union, or box and mask average precision.
DENSE: dict[str, tuple[float | None, ...]] = {
    "upernet-vim-tiny": (41.0,),
    "upernet-vim-small": (44.9,),
    "vimdet-tiny": (45.7, 39.2),
    "vimdet-small": (None, None),
    "vimdet-base": (None, None),
    "cascade-vimdet-tiny": (45.7, 39.2),
    "cascade-vimdet-tiny-lite": (None, None),
    "cascade-vimdet-small": (None, None),
    "cascade-vimdet-base": (None, None),
    "mask-rcnn-vimdet-base": (None, None),
}


def parameters(config: VimConfig) -> int:
    """Parameters of a v2 model with RMSNorm, counted from its shapes (hustvl/Vim)."""
    dim, inner, state = config.embed_dim, config.d_inner, config.d_state
    rank, width = config.ssm["dt_rank"], config.ssm["d_conv"]
    direction = inner * width + inner  # convolution
    direction += (rank + 2 * state) * inner + inner * rank + inner  # x_proj, dt_proj
    direction += inner * state + inner  # A_log, D
    layer = dim + 2 * dim * inner + inner * dim + 2 * direction
    patches = config.channels * config.patch_hw[0] * config.patch_hw[1] * dim + dim
    tokens = dim + config.num_tokens * dim
    head = config.num_classes * dim + config.num_classes
    return config.depth * layer + patches + tokens + dim + head


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # Counted on the official factories' modules.
        ("vim-tiny", 7_148_008),
        ("vim-tiny-plus", 7_250_344),
        ("vim-small", 25_796_584),
        ("vim-small-plus", 26_001_256),
        ("vim-base", 97_598_440),
    ],
)
def test_variants_have_the_official_size(name: str, count: int) -> None:
    assert parameters(catalog.find_variant(name)) == count


def test_every_variant_has_two_names() -> None:
    known = catalog.variants()
    assert tuple(known)[:5] == SHORT
    assert len(FAMILIES[0].part("names").variants()) == 10
    for family in FAMILIES:
        for name in family.part("names").SHORT:
            assert catalog.short_name(known[name]) == name
    for short, official in FACTORY_NAMES.items():
        assert known[official] == known[short]
        assert catalog.short_name(known[official]) == short


def test_the_reference_names_the_tiny_factory() -> None:
    # The name in the stored case came from the official code itself.
    assert (
        FACTORY_NAMES["vim-tiny"]
        == "vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2"
    )
    if reference.has_full_size():
        factory = reference.load_case(reference.FULL_SIZE).factory
        assert factory == FACTORY_NAMES["vim-tiny"]


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("vim-tinny", "vim-tiny"),
        ("vim-smal", "vim-small"),
        (FACTORY_NAMES["vim-base"].replace("middle_cls_token", "midclstok"), "vim_base"),
    ],
)
def test_unknown_variant_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        catalog.find_variant(wrong)
    assert caught.value.code == "VIM-201"
    assert near in caught.value.fix


def test_short_name_ignores_size_classes_and_training_only_keywords() -> None:
    tiny = catalog.find_variant("vim-tiny")
    tuned = tiny.replace(img_size=384, num_classes=10, drop_path_rate=0.0)
    assert catalog.short_name(tuned) == "vim-tiny"
    assert catalog.short_name(tiny.replace(depth=12)) == CUSTOM


def test_shipped_recipes() -> None:
    assert catalog.recipe_names() == tuple(sorted((*SHORT, *MAMBAVISION, *DENSE, "vim-digits")))


@pytest.mark.parametrize(("name", "figures"), DENSE.items())
def test_dense_recipes(name: str, figures: tuple[float | None, ...]) -> None:
    recipe = catalog.find_recipe(name)
    published = recipe.published
    found = (
        (published.miou,) if name.startswith("upernet") else (published.box_ap, published.mask_ap)
    )
    assert found == figures
    assert recipe.checkpoint.address == NONE
    with pytest.raises(VimDeployError) as caught:
        checkpoint_address(recipe)
    assert caught.value.code == "VIM-401"
    assert f"--model {name}" in caught.value.fix
    assert len(read_labels(recipe)) == recipe.num_classes
    assert catalog.find_dense_recipe(name) == recipe
    assert catalog.find_dense_recipe("vim-tiny") is None


def test_the_list_names_the_figures_of_each_task(capsys: pytest.CaptureFixture[str]) -> None:
    from vim_deploy.cli.main import run

    assert run(["recipes", "list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["recipes"]}
    assert listed["upernet-vim-tiny"]["published"]["miou"] == 41.0
    assert run(["recipes", "list"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "top-1 76.1" in words
    assert "mIoU 41" in words
    assert "box AP 45.7" in words
    assert run(["recipes", "show", "vimdet-tiny"]) == 0
    shown = capsys.readouterr().out
    assert "dense.pyramid.out_channels" in shown
    assert "published.box_ap" in shown
    assert "published.top1" not in shown


@pytest.mark.parametrize("name", SHORT)
def test_published_recipes(name: str) -> None:
    recipe = catalog.find_recipe(name)
    assert recipe.model == name
    assert recipe.model_config == catalog.find_variant(name)
    assert (recipe.published.top1, recipe.published.top5) == PUBLISHED[name]
    assert checkpoint_address(recipe).startswith("hf://hustvl/Vim-")
    assert (recipe.image.height, recipe.image.width) == (224, 224)


@pytest.mark.parametrize(("name", "figures"), MAMBAVISION.items())
def test_mambavision_recipes(name: str, figures: tuple[float, float, float]) -> None:
    recipe = catalog.find_recipe(name)
    assert recipe.model == name
    assert recipe.model_config == catalog.find_variant(name)
    published = recipe.published
    assert (published.top1, published.top5, recipe.image.crop_ratio) == figures
    assert recipe.image.interpolation == "bicubic"
    assert checkpoint_address(recipe).startswith("hf://nvidia/MambaVision-")


def test_toy_recipe_belongs_to_the_reference_case() -> None:
    recipe, case = catalog.find_recipe("vim-digits"), reference.load_case(reference.DIGITS)
    assert recipe.model_config == read_config(case.kwargs)
    assert checkpoint_address(recipe) == str(case.checkpoint)
    assert recipe.published.top1 == pytest.approx(100 * case.record["accuracy"], abs=0.05)
    assert len(read_labels(recipe)) == 10


def test_arguments_that_mean_a_recipe(tmp_path: Path) -> None:
    assert catalog.names_recipe("vim-tiny")
    assert catalog.names_recipe("my/own.toml")
    assert not catalog.names_recipe("vim-tiny.pth")
    with pytest.raises(VimDeployError) as caught:
        catalog.find_recipe("vim-digit")
    assert caught.value.code == "VIM-201"
    assert "vim-digits" in caught.value.fix
    with pytest.raises(VimDeployError) as caught:
        catalog.find_recipe(str(tmp_path / "own.toml"))
    assert caught.value.code == "VIM-401"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("embed_dim = 192", "embed_dim = 384", "embed_dim is 384 instead of 192"),
        ('model = "vim-tiny"', 'model = "vim-tny"', "vim-tny"),
    ],
)
def test_recipe_that_misnames_its_model(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (catalog.recipes_folder() / "vim-tiny.toml").read_text(encoding="utf-8")
    path = tmp_path / "vim-tiny.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(VimDeployError) as caught:
        catalog.find_recipe(str(path))
    assert caught.value.code == "VIM-412"
    assert said in caught.value.why


def test_fine_tuned_recipe_keeps_its_variant(tmp_path: Path) -> None:
    text = (catalog.recipes_folder() / "vim-tiny.toml").read_text(encoding="utf-8")
    path = tmp_path / "vim-tiny.toml"
    path.write_text(
        text.replace("num_classes = 1000", "num_classes = 7").replace("size = 224", "size = 384"),
        encoding="utf-8",
    )
    recipe = catalog.find_recipe(str(path))
    assert (recipe.model, recipe.model_config.num_classes, recipe.image.height) == (
        "vim-tiny",
        7,
        384,
    )
