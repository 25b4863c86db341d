"""From what the user names to a module with weights: checkpoint, hub address or recipe."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy.errors import InputNotFoundError, VimDeployError
from vim_deploy.families import FIRST, Family, family_of
from vim_deploy.families.base import family_written, unread_note
from vim_deploy.model.checkpoint import Checkpoint, read_checkpoint
from vim_deploy.model.network import LoadedNetwork, Network, networks_of
from vim_deploy.model.preparation import settle_preparation
from vim_deploy.model.seeding import seed_weights
from vim_deploy.recipe.catalog import (
    find_dense_recipe,
    find_recipe,
    find_variant,
    model_name,
    names_recipe,
    recipe_names,
)
from vim_deploy.recipe.load import checkpoint_address, read_labels
from vim_deploy.recipe.schema import AUTO, ModelRequest, Recipe, Tolerances
from vim_deploy.recipe.stored_preparation import StoredPreparation
from vim_deploy.specs import CheckpointInfo, ImagePreparation, Note


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
    family = _family(request, recipe, checkpoint)
    request = _with_family(request, family)
    found = networks_of(family).load(request, recipe, checkpoint)
    stem = recipe.name if recipe and from_source else _stem(checkpoint.info.name)
    notes = [*checkpoint.notes, *found.notes]
    return _loaded(request, recipe, found, checkpoint.info, stem, notes, checkpoint.preparation)


def _family(request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint | None) -> Family:
    """Whose model is asked for, or what the checkpoint holds.

    Raises:
        VimDeployError: VIM-201 for an unknown ``--model`` or family, VIM-404 when the checkpoint is
            plainly of another family than what is asked for.
    """
    held = None if checkpoint is None else checkpoint.family
    if recipe is not None:
        wanted, source = family_of(recipe.model_config), f"the recipe {recipe.name}"
    elif request.config is not None:
        # One that does not say whose keywords it has is of the weights' family.
        unsaid = held if _is_unsaid(request.config) else None
        wanted, source = unsaid or family_written(request.config), "--config"
    elif request.model != AUTO:
        wanted, source = family_of(find_variant(request.model)), f"--model {request.model}"
    else:
        return held or FIRST
    if held is not None and held is not wanted:
        raise VimDeployError(
            "VIM-404",
            f"{source} is a {wanted.title}, and this checkpoint holds a {held.title}",
            why=f"it has {held.keys[0]} and {held.keys[1]}",
            fix="leave it out: the architecture is then read off the checkpoint",
        )
    return wanted


def _stem(name: str) -> str:
    """``model`` of ``model.pth``, and of ``model.pth.tar``, as many training scripts write it."""
    return Path(name.removesuffix(".tar")).stem


def _is_unsaid(config: Mapping[str, Any]) -> bool:
    return not {"family", "model_type"} & config.keys()


def _with_family(request: ModelRequest, family: Family) -> ModelRequest:
    """``request`` whose configuration, where there is one, says its family; the first is unsaid."""
    if request.config is None or family is FIRST or not _is_unsaid(request.config):
        return request
    return dataclasses.replace(request, config={"family": family.name, **request.config})


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


def _seeded(request: ModelRequest, recipe: Recipe | None) -> LoadedModel:
    """A named architecture with weights that mean nothing."""
    seed = request.random_weights
    assert seed is not None
    named = recipe is not None or request.config is not None
    if not named and request.model == AUTO:
        # The source is a variant's name then.
        request = dataclasses.replace(request, model=request.source)
    stem = recipe.name if recipe is not None else Path(request.source).stem
    if not named:
        stem = request.model
    network = networks_of(_family(request, recipe, None)).seeded(request, recipe)
    seed_weights(network, seed)
    info = CheckpointInfo(name=f"seed:{seed}", sha256="", part="seeded")
    found = _loaded(request, recipe, LoadedNetwork(network), info, stem, [], None)
    random = Note("random weights", f"weights are random (seed {seed}): outputs mean nothing")
    return dataclasses.replace(found, notes=(random, *found.notes))


def _loaded(
    request: ModelRequest,
    recipe: Recipe | None,
    loaded: LoadedNetwork,
    checkpoint: CheckpointInfo,
    stem: str,
    notes: list[str],
    stored: StoredPreparation | None,
) -> LoadedModel:
    """The record of a loaded network, with labels and preparation of pictures settled.

    Args:
        request: what was asked for; its labels and preparation come first.
        recipe: when there is one, it comes second.
        loaded: the network with its weights, and class names found in the checkpoint.
        checkpoint, stem: as in ``LoadedModel``.
        notes: what was said so far; more may be added.
        stored: what the checkpoint says of pictures; None for seeded weights.

    Raises:
        VimDeployError: VIM-415 (labels that do not fit), VIM-202 (mean or std that do not),
            VIM-408 (a configuration with another order of channels than the weights).
    """
    module = loaded.network
    labels = request.labels
    if labels is None:
        labels = (read_labels(recipe) if recipe else ()) or loaded.labels
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
        image=settle_preparation(request, recipe, module, stored or StoredPreparation(), notes),
        labels=labels,
        pos_embed=loaded.pos_embed,
        stem=stem,
        notes=tuple(Note("loading", text) for text in notes),
        tolerances=recipe.tolerances if recipe else None,
    )
