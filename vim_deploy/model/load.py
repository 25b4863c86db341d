"""From what the user names to a module with weights: checkpoint, hub address or recipe."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy.errors import InputNotFoundError, VimDeployError
from vim_deploy.model.checkpoint import Checkpoint, read_checkpoint
from vim_deploy.model.dense.load import load_dense, seeded_dense
from vim_deploy.model.dense.weights import kind_of, name_of
from vim_deploy.model.fit import config_for_image_size, load_into
from vim_deploy.model.infer import infer_config
from vim_deploy.model.network import Network
from vim_deploy.model.seeding import seed_weights
from vim_deploy.model.vim import VisionMamba
from vim_deploy.ranges import CROP_RATIO, MEAN, STD, Real
from vim_deploy.recipe.catalog import (
    find_dense_recipe,
    find_recipe,
    find_variant,
    model_name,
    names_recipe,
    recipe_names,
)
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.load import checkpoint_address, read_labels
from vim_deploy.recipe.model_config import ModelConfig, read_config, unread_note
from vim_deploy.recipe.official_dense import is_dense
from vim_deploy.recipe.schema import AUTO, ModelRequest, Recipe, Tolerances
from vim_deploy.recipe.stored_preparation import UNRESIZED, StoredPreparation, read_tables
from vim_deploy.specs import CheckpointInfo, ImagePreparation, Note

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


@dataclass(frozen=True)
class LoadedModel:
    """A module with weights and all that is known about it.

    ``pos_embed`` is ``as stored``, or how it was interpolated. ``stem`` names outputs;
    ``tolerances`` are the recipe's, when there is one.
    """

    module: Network
    checkpoint: CheckpointInfo
    image: ImagePreparation
    labels: tuple[str, ...]
    pos_embed: str
    stem: str
    notes: tuple[Note, ...]
    tolerances: Tolerances | None = None

    @property
    def name(self) -> str:
        """Short name of the variant, or ``custom``."""
        return model_name(self.module.config, self.module.dense)


def load_model(request: ModelRequest) -> LoadedModel:
    """Resolve, read, check and load.

    Raises:
        VimDeployError: VIM-201 to VIM-203 (request), VIM-301, VIM-303 (hub), VIM-401 to VIM-408
            (checkpoint and architecture), VIM-412 (recipe), VIM-416 (labels).
    """
    recipe = find_recipe(request.source) if names_recipe(request.source) else None
    from_source = recipe is not None
    described = [
        text
        for text, given in (
            ("--model", request.model != AUTO),
            ("--config", request.config is not None),
            ("the recipe", from_source),
        )
        if given
    ]
    if len(described) > 1:
        raise VimDeployError(
            "VIM-203", f"{' and '.join(described)} both describe the architecture", fix="give one"
        )
    if request.key is not None and (request.use_ema or request.random_weights is not None):
        raise VimDeployError(
            "VIM-203",
            "--key contradicts --use-ema and --random-weights: each says which weights to take",
            fix="give one",
        )
    # A dense recipe tells what a checkpoint of the user's own is: --model RECIPE.
    recipe = recipe or find_dense_recipe(request.model)
    if request.random_weights is not None:
        return _seeded(request, recipe)
    address = checkpoint_address(recipe) if recipe and from_source else request.source
    wanted = "model_ema" if request.use_ema or (recipe and _part(recipe) == "model_ema") else "auto"
    checkpoint = _read(address, wanted, request.key)
    notes = list(checkpoint.notes)
    stem = recipe.name if recipe and from_source else Path(checkpoint.info.name).stem
    if _wants_dense(request, recipe, checkpoint):
        found = load_dense(request, recipe, checkpoint)
        notes += found.notes
        network, info, how = found.network, checkpoint.info, found.pos_embed
        said = checkpoint.preparation
        return _loaded(request, recipe, network, info, how, stem, notes, found.labels, said)
    stored = _architecture(request, recipe, checkpoint, notes)
    config = _sized(stored, request.image_size)
    module = VisionMamba(config)
    report = load_into(
        module,
        checkpoint.state_dict,
        config=config,
        pos_embed=request.pos_embed,
        stored_config=stored,
    )
    notes += report.notes
    info, how, said = checkpoint.info, report.pos_embed, checkpoint.preparation
    return _loaded(request, recipe, module, info, how, stem, notes, stored=said)


def _read(address: str, part: str, key: str | None) -> Checkpoint:
    """The checkpoint; VIM-401 says which recipe a name may be meant for."""
    try:
        return read_checkpoint(address, part=part, key=key)
    except InputNotFoundError as error:
        close = difflib.get_close_matches(address, recipe_names(), n=1)
        if not close:
            raise
        raise VimDeployError(
            "VIM-401", error.message, why=error.why, fix=f"did you mean the recipe {close[0]!r}?"
        ) from error


def _part(recipe: Recipe) -> str:
    return recipe.checkpoint.part


def _sized(config: ModelConfig, size: int | tuple[int, int] | None) -> ModelConfig:
    return config if size is None else config_for_image_size(config, size)


def _seeded(request: ModelRequest, recipe: Recipe | None) -> LoadedModel:
    """A named architecture with weights that mean nothing."""
    seed = request.random_weights
    assert seed is not None
    module: Network
    stem = recipe.name if recipe is not None else Path(request.source).stem
    if _wants_dense(request, recipe, None):
        module = seeded_dense(request, recipe)
    else:
        if recipe is not None:
            config = recipe.model_config
        elif request.config is not None:
            config = read_config(request.config)
        else:
            stem = request.source if request.model == AUTO else request.model
            config = find_variant(stem)
        module = VisionMamba(_sized(config, request.image_size))
    seed_weights(module, seed)
    info = CheckpointInfo(name=f"seed:{seed}", sha256="", part="seeded")
    found = _loaded(request, recipe, module, info, "as stored", stem, [])
    random = Note("random weights", f"weights are random (seed {seed}): outputs mean nothing")
    return dataclasses.replace(found, notes=(random, *found.notes))


def _architecture(
    request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint, notes: list[str]
) -> ModelConfig:
    """The config the checkpoint was made with: given, named, from the recipe, or inferred."""
    if request.config is not None:
        return read_config(request.config)
    if recipe is not None:
        return recipe.model_config
    model = None if request.model == AUTO else request.model
    inferred = infer_config(
        checkpoint.state_dict, checkpoint.args, model=model, image_size=request.image_size
    )
    notes += inferred.statements
    return inferred.config


def _wants_dense(
    request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint | None
) -> bool:
    """Whether what is asked for, or what the checkpoint holds, is a dense model.

    Raises:
        VimDeployError: VIM-404 when a classifier is asked for and the checkpoint is none, VIM-201
            for an unknown ``--model``.
    """
    if recipe is not None:
        wanted, source = recipe.dense is not None, f"the recipe {recipe.name}"
    elif request.config is not None:
        wanted, source = is_dense(request.config), "--config"
    elif request.model != AUTO:
        find_variant(request.model)
        wanted, source = False, f"--model {request.model}"
    else:
        return checkpoint is not None and kind_of(checkpoint.state_dict) is not None
    if checkpoint is not None and not wanted and kind_of(checkpoint.state_dict) is not None:
        raise VimDeployError(
            "VIM-404",
            f"{source} is a classifier, and this checkpoint is {name_of(checkpoint.state_dict)}",
            fix="leave it out: the architecture is then read off the checkpoint; or name a dense "
            "recipe (vim-deploy recipes list)",
        )
    return wanted


def _loaded(
    request: ModelRequest,
    recipe: Recipe | None,
    module: Network,
    checkpoint: CheckpointInfo,
    pos_embed: str,
    stem: str,
    notes: list[str],
    stored_labels: tuple[str, ...] = (),
    stored: StoredPreparation | None = None,
) -> LoadedModel:
    """The record of a loaded ``module``, with labels and preparation of pictures settled.

    Args:
        request: what was asked for; its labels and preparation come first.
        recipe: when there is one, it comes second.
        module: with weights.
        checkpoint, pos_embed, stem: as in ``LoadedModel``.
        notes: what was said so far; more may be added.
        stored_labels: class names found in the checkpoint.
        stored: what the checkpoint says of pictures; None for seeded weights.

    Raises:
        VimDeployError: VIM-415 (labels that do not fit), VIM-202 (mean or std that do not),
            VIM-408 (a configuration with another order of channels than the weights).
    """
    labels = request.labels
    if labels is None:
        labels = (read_labels(recipe) if recipe else ()) or stored_labels
    classes = module.config.classes if module.dense is None else module.dense.num_classes
    if len(labels) == module.config.num_classes == 1:
        labels = (f"not {labels[0]}", labels[0])
    if labels and len(labels) != classes:
        raise VimDeployError(
            "VIM-415",
            f"{len(labels)} labels for {classes} classes",
            fix="give a name for each class, in the order of the model's outputs"
            + (
                "; of one logit the second is the positive class" * (module.config.num_classes == 1)
            ),
        )
    unread = unread_note(module.config.unread_hw)
    if unread:
        notes.append(f"{unread}, as in the official code")
    return LoadedModel(
        module=module,
        checkpoint=checkpoint,
        image=_preparation(request, recipe, module, stored or StoredPreparation(), notes),
        labels=labels,
        pos_embed=pos_embed,
        stem=stem,
        notes=tuple(Note("loading", text) for text in notes),
        tolerances=recipe.tolerances if recipe else None,
    )


def _preparation(
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
