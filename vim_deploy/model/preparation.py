"""How pictures become a model's input: what options, configurations, files and recipes say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.families import family_of
from vim_deploy.families.base import ModelConfig
from vim_deploy.model.network import Network
from vim_deploy.ranges import CROP_RATIO, MEAN, STD, Real
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.schema import ModelRequest, Recipe
from vim_deploy.recipe.stored_preparation import UNRESIZED, StoredPreparation, read_tables
from vim_deploy.specs import ImagePreparation

#: Mean and standard deviation for grey pictures without a recipe: values to [-1, 1].
_GREY = (0.5,)
#: Who says what nobody says.
_ASSUMED = "assumed"
#: What may be stored of a preparation and given by options, with the numbers it may have.
_PREPARED: dict[str, Real | None] = {
    "interpolation": None,
    "crop_ratio": CROP_RATIO,
    "mean": MEAN,
    "std": STD,
}


def settle_preparation(
    request: ModelRequest,
    recipe: Recipe | None,
    module: Network,
    stored: StoredPreparation,
    notes: list[str],
) -> ImagePreparation:
    """What the command line says, else --config, the checkpoint, the recipe, the evaluation."""
    config, dense = module.config, module.dense
    image, sources = _usual_preparation(recipe, config, dense)
    described = read_tables([("--config", request.config)])
    if described.values.get("bgr", stored.bgr) != stored.bgr:
        raise VimDeployError(
            "VIM-408",
            "--config has another order of channels than the checkpoint",
            why="only a checkpoint that says itself that it takes BGR is turned round",
            fix="in --config write bgr_to_rgb true (input_format RGB) where the weights take RGB; "
            "else store the weights with the input channels of patch_embed.proj turned round",
        )
    changes: dict[str, Any] = {}
    for found in (stored, described):
        own, whose = _fitting(found, config, dense)
        changes |= own
        sources |= whose
        notes += found.notes
    given = {name: value for name in _PREPARED if (value := getattr(request, name)) is not None}
    changes |= given
    sources |= {name: "--" + name.replace("_", "-") for name in given}
    for name, value in changes.items():
        _require_preparation(name, value, sources[name], config.channels)
    image = dataclasses.replace(image, **changes)
    if config.channels != 3 and recipe is None and not {"mean", "std"} <= changes.keys():
        notes.append("picture mean and std are assumed to be 0.5: set them with --mean, --std")
    notes.append(_pictures(image, sources))
    return image


def _fitting(
    found: StoredPreparation, config: ModelConfig, dense: DenseConfig | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """What is stored, as far as such a model has it, and who says it: dense ones see all."""
    names = _PREPARED if dense is None else ("mean", "std")
    own = {name: found.values[name] for name in names if name in found.values}
    sources = {name: found.sources[name] for name in own}
    for name in ("mean", "std"):
        if len(own.get(name, ())) == 1:
            own[name] *= config.channels
    if dense is None and "unresized" in found.values and max(config.image_hw) <= UNRESIZED:
        own["crop_ratio"] = 1.0
        whose = found.sources["unresized"]
        sources["crop_ratio"] = f"{whose}: up to {UNRESIZED} pixels nothing is resized"
    return own, sources


def _require_preparation(name: str, value: Any, source: str, channels: int) -> None:  # noqa: ANN401
    """VIM-202 for numbers that no preparation has, with what to write instead."""
    allowed, option = _PREPARED[name], "--" + name.replace("_", "-")
    whose = option if source == option else f"{name} from {source}"
    numbers = value if name in ("mean", "std") else (value,)
    if name in ("mean", "std") and len(numbers) != channels:
        raise VimDeployError(
            "VIM-202",
            f"{whose} has {len(numbers)} numbers for {channels} channels",
            fix=f"{option} with {channels} numbers joined by commas",
        )
    for number in numbers if allowed else ():
        try:
            allowed.require(whose, number)  # type: ignore[union-attr]
        except VimDeployError as error:
            bytes_like = name != "crop_ratio" and all(0 < item <= 255 for item in numbers)
            scaled = ",".join(f"{item / 255:.6g}" for item in numbers)
            fix = f"{option} {scaled}" if bytes_like else f"give {option}: {allowed}"
            raise VimDeployError(error.code, error.message, why=error.why, fix=fix) from error


def _usual_preparation(
    recipe: Recipe | None, config: ModelConfig, dense: DenseConfig | None
) -> tuple[ImagePreparation, dict[str, str]]:
    """What the recipe says, else the official evaluation's for such a model; and who says it."""
    height, width = config.image_hw
    if recipe is not None:
        image = dataclasses.replace(recipe.image, height=height, width=width)
        return image, dict.fromkeys(_PREPARED, f"the recipe {recipe.name}")
    usual = ImagePreparation(height, width)
    sources = dict.fromkeys(_PREPARED, "the defaults of ImageNet")
    # Of variants that the authors evaluate in another way.
    own, whose = family_of(config).part("names").usual_preparation(config)
    usual = dataclasses.replace(usual, **own)
    sources |= dict.fromkeys(own, whose)
    if dense is not None:
        # Dense models see whole pictures, resized as mmsegmentation and detectron2 do.
        usual = dataclasses.replace(usual, crop_ratio=1.0, interpolation="bilinear")
        sources |= dict.fromkeys(("interpolation", "crop_ratio"), "the official dense evaluation")
    if config.channels == 3:
        return usual, sources
    grey = _GREY * config.channels
    sources |= dict.fromkeys(("mean", "std"), _ASSUMED)
    return dataclasses.replace(usual, channels=config.channels, mean=grey, std=grey), sources


def _pictures(image: ImagePreparation, sources: Mapping[str, str]) -> str:
    """One line on how pictures are prepared, and who says so."""
    mean, std = (", ".join(f"{number:.4g}" for number in each) for each in (image.mean, image.std))
    by: dict[str, list[str]] = {}
    for name in _PREPARED:
        by.setdefault(sources[name], []).append(name.removesuffix("_ratio"))
    whose = [
        ", ".join(names) + (f" {source}" if source == _ASSUMED else f" from {source}")
        for source, names in by.items()
    ]
    return (
        f"pictures: {image.height} x {image.width}, {image.interpolation}, crop "
        f"{image.crop_ratio:.4g}, mean {mean}, std {std} "
        + (f"({'; '.join(whose)})" if len(whose) > 1 else f"(from {next(iter(by))})")
    )
