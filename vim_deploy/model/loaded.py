"""What loading gives: a network with weights, and all that is known about it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from vim_deploy.errors import VimDeployError
from vim_deploy.model.network import Network
from vim_deploy.recipe.catalog import model_name
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.load import read_labels
from vim_deploy.recipe.model_config import ModelConfig, unread_note
from vim_deploy.recipe.request import ModelRequest
from vim_deploy.recipe.schema import Recipe, Tolerances
from vim_deploy.specs import CheckpointInfo, ImagePreparation

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
    notes: tuple[str, ...]
    tolerances: Tolerances | None = None

    @property
    def name(self) -> str:
        """Short name of the variant, or ``custom``."""
        return model_name(self.module.config, self.module.dense)


def loaded_model(
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
    classes = module.config.num_classes if module.dense is None else module.dense.num_classes
    if labels and len(labels) != classes:
        raise VimDeployError(
            "VIM-415",
            f"{len(labels)} labels for {classes} classes",
            fix="give one class name a line, in the order of the model's outputs",
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
        notes=tuple(notes),
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
                f"--{key} has {len(changes[key])} values for {config.channels} channels",
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
