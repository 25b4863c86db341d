"""From what the user names to a module with weights: checkpoint, hub address or recipe."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.errors import InputNotFoundError, VimDeployError
from vim_deploy.model.checkpoint import Checkpoint, read_checkpoint
from vim_deploy.model.dense.load import load_dense, seeded_dense
from vim_deploy.model.dense.weights import kind_of, name_of
from vim_deploy.model.fit import config_for_image_size, load_into
from vim_deploy.model.infer import infer_config
from vim_deploy.model.network import Network
from vim_deploy.model.seeding import seed_weights
from vim_deploy.model.vim import VisionMamba
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
from vim_deploy.specs import CheckpointInfo, ImagePreparation, Note

#: Mean and standard deviation for grey pictures without a recipe: values to [-1, 1].
_GREY = (0.5,)


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
    # A dense recipe tells what a checkpoint of the user's own is: --model RECIPE.
    recipe = recipe or find_dense_recipe(request.model)
    if request.random_weights is not None:
        return _seeded(request, recipe)
    address = checkpoint_address(recipe) if recipe and from_source else request.source
    wanted = "model_ema" if request.use_ema or (recipe and _part(recipe) == "model_ema") else "auto"
    checkpoint = _read(address, wanted)
    notes = list(checkpoint.notes)
    stem = recipe.name if recipe and from_source else Path(checkpoint.info.name).stem
    if _wants_dense(request, recipe, checkpoint):
        found = load_dense(request, recipe, checkpoint)
        notes += found.notes
        network, info, how = found.network, checkpoint.info, found.pos_embed
        return _loaded(request, recipe, network, info, how, stem, notes, found.labels)
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
    return _loaded(request, recipe, module, checkpoint.info, report.pos_embed, stem, notes)


def _read(address: str, part: str) -> Checkpoint:
    """The checkpoint; VIM-401 says which recipe a name may be meant for."""
    try:
        return read_checkpoint(address, part=part)
    except InputNotFoundError as error:
        close = difflib.get_close_matches(address, recipe_names(), n=1)
        if not close:
            raise
        raise VimDeployError(
            "VIM-401", error.message, why=error.why, fix=f"did you mean the recipe {close[0]!r}?"
        ) from error


def checkpoint_of(source: str) -> str:
    """The address that ``source``, a recipe or an address itself, takes its weights from."""
    return checkpoint_address(find_recipe(source)) if names_recipe(source) else source


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
) -> LoadedModel:
    """The record of a loaded ``module``, with labels and preparation of pictures settled.

    Args:
        request: what was asked for; its labels and preparation come first.
        recipe: when there is one, it comes second.
        module: with weights.
        checkpoint, pos_embed, stem: as in ``LoadedModel``.
        notes: what was said so far; more may be added.
        stored_labels: class names found in the checkpoint.

    Raises:
        VimDeployError: VIM-415 (labels that do not fit), VIM-202 (mean or std that do not).
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
        image=_preparation(request, recipe, module, notes),
        labels=labels,
        pos_embed=pos_embed,
        stem=stem,
        notes=tuple(Note("loading", text) for text in notes),
        tolerances=recipe.tolerances if recipe else None,
    )


def _preparation(
    request: ModelRequest, recipe: Recipe | None, module: Network, notes: list[str]
) -> ImagePreparation:
    config = module.config
    image = _usual_preparation(request, recipe, config, module.dense, notes)
    changes = {
        key: value
        for key in ("mean", "std", "crop_ratio")
        if (value := getattr(request, key)) is not None
    }
    for key in ("mean", "std"):
        if key in changes and len(changes[key]) != config.channels:
            raise VimDeployError(
                "VIM-202",
                f"--{key} has {len(changes[key])} numbers for {config.channels} channels",
                fix=f"--{key} with {config.channels} numbers joined by commas",
            )
    return dataclasses.replace(image, **changes)


def _usual_preparation(
    request: ModelRequest,
    recipe: Recipe | None,
    config: ModelConfig,
    dense: DenseConfig | None,
    notes: list[str],
) -> ImagePreparation:
    """What the recipe says, else the official evaluation's for such a model."""
    height, width = config.image_hw
    if recipe is not None:
        return dataclasses.replace(recipe.image, height=height, width=width)
    usual = ImagePreparation(height, width)
    if dense is not None:
        # Dense models see whole pictures, resized as mmsegmentation and detectron2 do.
        usual = dataclasses.replace(usual, crop_ratio=1.0, interpolation="bilinear")
    if config.channels == 3:
        return usual
    if request.mean is None or request.std is None:
        notes.append("picture mean and std are assumed to be 0.5: set them with --mean, --std")
    grey = _GREY * config.channels
    return dataclasses.replace(usual, channels=config.channels, mean=grey, std=grey)
