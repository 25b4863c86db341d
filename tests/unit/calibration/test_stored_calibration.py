"""A calibration as a file: what comes back, what is damaged, and what it is not for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.detectors import described
from vim_deploy.calibration.stored import (
    StoredCalibration,
    load,
    require_place,
    require_products,
    save,
)
from vim_deploy.errors import VimDeployError
from vim_deploy.files import settings_hash
from vim_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan
from vim_deploy.recipe.quantization import CalibrationInfo, QuantizeOptions
from vim_deploy.specs import CheckpointInfo

INFO = replace(
    described(), precision="int8", checkpoint=CheckpointInfo("a.pth", "ab" * 32, "model")
)
PLAN = QuantizationPlan(
    (
        LayerPlan("blocks.0/in_proj", 0.1, (0.5, 1.0, 1.5e-7), 2, 0.01),
        LayerPlan("head", 2.0**-20),
    )
)
PICTURES = CalibrationInfo("minmax", 128, 0, "cd" * 32)
OPTIONS = QuantizeOptions()
Edit = Callable[[dict[str, Any]], object]


def saved(folder: Path, calibration: StoredCalibration | None = None) -> Path:
    path = folder / "c.json"
    save(path, calibration or StoredCalibration.of(INFO, "static", PICTURES, PLAN))
    return path


def refused(path: Path, code: str, **asked: Any) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        load(path, asked.get("info", INFO), asked.get("options", OPTIONS))
    assert caught.value.code == code
    return caught.value


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = saved(tmp_path)
    found = load(path, INFO, OPTIONS)
    assert found.plan == PLAN
    assert found.pictures == PICTURES
    first = path.read_bytes()
    save(path, found)
    assert path.read_bytes() == first
    # What changes no scale may differ.
    other = replace(INFO, preprocess="uint8", graph="fused", opset=20, labels=(), head="labels")
    assert load(path, other, replace(OPTIONS, high_precision="fp16", seed=5)).plan == PLAN


def test_scales_per_token_are_none(tmp_path: Path) -> None:
    plan = QuantizationPlan((LayerPlan("head", None, (1.0,)),))
    options = QuantizeOptions(activations="per-token")
    path = saved(tmp_path, StoredCalibration.of(INFO, "per-token", PICTURES, plan))
    assert load(path, INFO, options).plan == plan
    assert "'per-token', asked for 'static'" in refused(path, "VIM-442").why


def test_a_method_that_is_asked_for_is_compared(tmp_path: Path) -> None:
    entropy = StoredCalibration.of(INFO, "static", replace(PICTURES, method="entropy"), PLAN)
    path = saved(tmp_path, entropy)
    assert load(path, INFO, OPTIONS).pictures.method == "entropy"
    assert load(path, INFO, replace(OPTIONS, method="entropy")).plan == PLAN
    error = refused(path, "VIM-442", options=replace(OPTIONS, method="percentile"))
    assert error.why == "method: saved for 'entropy', asked for 'percentile'"


def test_every_difference_is_named_with_both_values(tmp_path: Path) -> None:
    path = saved(tmp_path)
    image = replace(INFO.image, height=128, width=128, mean=(0.5, 0.5, 0.5))
    other = replace(
        INFO,
        image=image,
        model_config=replace(INFO.model_config, img_size=128),
        checkpoint=CheckpointInfo("b.pth", "ef" * 32, "model_ema"),
        precision="fp8",
        pos_embed="official",
    )
    why = refused(path, "VIM-442", info=other).why
    assert "saved for 'a.pth' ('model', SHA-256 'abababababab')" in why
    assert "asked for 'b.pth' ('model_ema', SHA-256 'efefefefefef')" in why
    for text in (
        "image height: saved for 64, asked for 128",
        "img_size: saved for 64, asked for 128",
        "image mean: saved for [0.485, 0.456, 0.406], asked for [0.5, 0.5, 0.5]",
        "pos_embed: saved for '', asked for 'official'",
        "precision: saved for 'int8', asked for 'fp8'",
    ):
        assert text in why, text
    # Seeded weights have no hash.
    seeded = replace(INFO, checkpoint=CheckpointInfo("seed:0", "", "seeded"))
    path = saved(tmp_path, StoredCalibration.of(seeded, "static", PICTURES, PLAN))
    load(path, seeded, OPTIONS)
    again = replace(seeded, checkpoint=CheckpointInfo("seed:1", "", "seeded"))
    assert "'seed:0'" in refused(path, "VIM-442", info=again).why
    # The same file under another name is the same.
    path = saved(tmp_path)
    load(path, replace(INFO, checkpoint=CheckpointInfo("c.pth", "ab" * 32, "model")), OPTIONS)


def hashed_again(value: dict[str, Any]) -> None:
    value["plan_sha256"] = settings_hash(value["plan"])


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda v: v.pop("plan"), "plan"),
        (lambda v: v.update(more=1), "more"),
        (lambda v: v["plan"]["layers"][0].update(zero_point=3), "zero_point"),
        (lambda v: v.update(vim_deploy_calibration=2), "expected 1"),
        (lambda v: v["plan"]["layers"][0].update(scale=0.2), "not those that were saved"),
        (lambda v: v["plan"]["layers"][0].update(scale=0.0), "0.0 is no scale"),
        (lambda v: v["plan"]["layers"][0].update(scale=-0.1), "-0.1 is no scale"),
        (lambda v: v["plan"]["layers"][0].update(scale=1e39), "1e+39 is no scale"),
        (lambda v: v["plan"]["layers"][0].update(scale="0.1"), "scale"),
        (lambda v: v["plan"]["layers"][0].pop("scale"), "its scale is None"),
        (lambda v: v["plan"]["layers"][0].update(smoothing=[1.0, 0.0, 1.0]), "0.0 is no scale"),
        (lambda v: v["plan"]["layers"][0].update(smoothing=[]), "no channels"),
        (lambda v: v["plan"]["layers"][0].update(digits=3), "3 digits"),
        (lambda v: v["plan"]["layers"][0].update(digits=1.5), "digits"),
        (lambda v: v["plan"]["layers"][0].update(error=-1.0), "no error"),
        (lambda v: v["plan"]["layers"][0].update(name="head"), "twice"),
        (lambda v: v["plan"].update(layers=[]), "no scales"),
        (lambda v: v["pictures"].update(images=3), "3 pictures"),
        (lambda v: v["pictures"].update(sha256="\x1b[2J"), "pictures"),
        (lambda v: v["pictures"].update(method="median"), "method"),
        (lambda v: v["image"].update(std=[0.0, 0.1, 0.1]), "std"),
        (lambda v: v.update(precision="int4"), "precision"),
    ],
)  # fmt: skip
def test_damaged_files(tmp_path: Path, edit: Edit, said: str) -> None:
    path = saved(tmp_path)
    value = json.loads(path.read_bytes())
    edit(value)
    if said != "not those that were saved" and "plan" in value:
        hashed_again(value)
    path.write_text(json.dumps(value))
    error = refused(path, "VIM-441")
    assert said in error.why
    assert "--save-calibration" in error.fix


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{", b'{"vim_deploy_calibration": 1}', b"\xff", b"[" * 10_000,
             b'{"plan": NaN}', b" " * ((32 << 20) + 1)],
    ids=len,
)  # fmt: skip
def test_other_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(data)
    refused(path, "VIM-441")


def test_which_paths_are_files_of_ours(tmp_path: Path) -> None:
    assert QuantizeOptions(calibration=tmp_path / "c.json").takes_stored
    refused(tmp_path / "c.json", "VIM-401")
    (tmp_path / "pictures.json").mkdir()
    assert not QuantizeOptions(calibration=tmp_path / "pictures.json").takes_stored
    assert not QuantizeOptions(calibration=tmp_path / "pictures").takes_stored
    assert not OPTIONS.takes_stored


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(VimDeployError, match="VIM-204"):
        require_place(path, force=False)
    require_place(path, force=True)
    require_place(None, force=False)
    with pytest.raises(VimDeployError, match="VIM-202") as caught:
        require_place(tmp_path / "c.toml", force=False)
    assert "--save-calibration NAME.json" in caught.value.fix
    with pytest.raises(VimDeployError, match="VIM-304"):
        require_place(tmp_path / "nowhere" / "c.json", force=False)


def test_a_plan_is_for_products() -> None:
    path = Path("c.json")
    require_products(path, PLAN, {"blocks.0/in_proj": 3})
    for channels, said in (
        ({"head": 8, "blocks.1/in_proj": 3}, "1 products: blocks.1/in_proj"),
        ({"blocks.0/in_proj": 4}, "has 4 channels, and 3 are smoothed"),
    ):
        with pytest.raises(VimDeployError, match="VIM-441") as caught:
            require_products(path, PLAN, channels)
        assert said in caught.value.why
