"""Dense checkpoints to networks: which architecture, with which weights, at which image size."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.build import VimNetwork, build_network
from vim_deploy.families.vim.network.dense.agreement import require_kind, require_sizes
from vim_deploy.families.vim.network.dense.infer import DenseArchitecture, described, inferred
from vim_deploy.families.vim.network.dense.weights import DenseWeights, dense_weights, kind_of
from vim_deploy.families.vim.network.fit import check_keys, load_into
from vim_deploy.families.vim.official_dense import read_official
from vim_deploy.model.checkpoint import Checkpoint
from vim_deploy.model.network import LoadedNetwork
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.schema import ModelRequest, Recipe
from vim_deploy.recipe.stored_config import read_assignments
from vim_deploy.recipe.stored_preparation import read_tables

#: Class names longer than this, or more of them, are no class names.
_MOST_CLASSES, _LONGEST_NAME = 10_000, 200


def load_dense(
    request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint
) -> LoadedNetwork:
    """Find the architecture, build it and load the weights, every key of them.

    Raises:
        VimDeployError: VIM-201, VIM-404, VIM-406 to VIM-408.
    """
    weights = dense_weights(checkpoint.state_dict, kind_of(checkpoint.state_dict) or "backbone")
    found = _architecture(request, recipe, checkpoint, weights)
    require_kind(found, checkpoint.state_dict)
    weights = _described_part(weights, found.dense)
    require_sizes(found, weights)
    dense, statements = found.dense, [*found.statements, *weights.notes]
    if dense.auxiliary_head is not None and not weights.has("auxiliary_head"):
        dense = dataclasses.replace(dense, auxiliary_head=None)
        statements.append("the checkpoint has no auxiliary head; no output depends on it")
    labels, palette = _stored_classes(checkpoint.meta)
    if labels and len(labels) != dense.num_classes:
        statements.append(
            f"the checkpoint names {len(labels)} classes and the model has {dense.num_classes}: "
            "its names and colours are left out"
        )
        labels, palette = (), ()
    if palette and not dense.palette:
        dense = dataclasses.replace(dense, palette=palette)
    scale = read_tables([("--config", request.config)]).values.get(
        "scale", checkpoint.preparation.values.get("scale")
    )
    if dense.test is not None and scale is not None:
        dense = dataclasses.replace(dense, test=dataclasses.replace(dense.test, scale=scale))
        statements.append(
            f"pictures are fitted into {scale[0]} x {scale[1]} pixels, as the test pipeline does"
        )
    config, dense = sized(found.config, dense, request.image_size)
    network, how, notes = fill(config, dense, weights, request.pos_embed, found.config)
    return LoadedNetwork(network, how, (*statements, *notes), labels)


def own_architecture(checkpoint: Checkpoint) -> DenseArchitecture:
    """What a dense checkpoint says of itself: its configuration, or its shapes.

    Raises:
        VimDeployError: VIM-404, VIM-407, VIM-408.
    """
    weights = dense_weights(checkpoint.state_dict, kind_of(checkpoint.state_dict) or "backbone")
    found = _architecture(ModelRequest(checkpoint.info.name), None, checkpoint, weights)
    return dataclasses.replace(found, statements=(*found.statements, *weights.notes))


def fill(
    config: VimConfig,
    dense: DenseConfig,
    weights: DenseWeights,
    pos_embed: str,
    stored: VimConfig | None,
) -> tuple[VimNetwork, str, tuple[str, ...]]:
    """The network with its weights, how the position embedding was fitted, and notes.

    Raises:
        VimDeployError: VIM-404 for keys that are missing, unexpected or misshapen; VIM-406.
    """
    weights = _described_part(weights, dense)
    tensors = weights.tensors
    notes: tuple[str, ...] = ()
    if dense.decode_head is not None and dense.auxiliary_head is None:
        # Trained with an auxiliary head, described without: it takes no part in the output.
        kept = {k: v for k, v in tensors.items() if not k.startswith("auxiliary_head.")}
        if len(kept) < len(tensors):
            notes = ("the auxiliary head of the checkpoint is not described, and left out",)
        tensors = kept
    # Shapes first, without memory: a configuration from a file may ask for any width.
    with torch.device("meta"):
        outline = build_network(config, dense)
    prefix = f"{outline.core_path}." if outline.core_path else ""
    check_keys(tensors, outline.state_dict(), prefix, config)
    network = build_network(config, dense)
    report = load_into(
        network,
        tensors,
        config=network.config,
        pos_embed=pos_embed,
        stored_config=stored,
        vim_path=network.core_path,
    )
    return network, report.pos_embed, (*notes, *report.notes)


def _described_part(weights: DenseWeights, dense: DenseConfig) -> DenseWeights:
    """Of a whole detector the backbone alone, where nothing else is described."""
    alone = weights.kind == "rcnn" and dense.detector is None
    return weights.backbone_alone() if alone else weights


def seeded_dense(request: ModelRequest, recipe: Recipe | None) -> VimNetwork:
    """The network of a recipe or configuration with its initial weights."""
    if recipe is not None:
        assert recipe.dense is not None
        assert isinstance(recipe.model_config, VimConfig)
        config, dense = recipe.model_config, recipe.dense
    else:
        assert request.config is not None
        found = described(read_official(request.config), None, "--config")
        config, dense = found.config, found.dense
    return build_network(*sized(config, dense, request.image_size))


def sized(
    config: VimConfig, dense: DenseConfig, size: int | tuple[int, int] | None
) -> tuple[VimConfig, DenseConfig]:
    """Both at another input size; the windows of the evaluation grow with it.

    Patches have to cover the image: the maps of a picture that is read in part would not fit it.

    Raises:
        VimDeployError: VIM-406, VIM-408 as ``ModelConfig.at_size``; VIM-408 when the windows are
            not of the model's size.
    """
    sized_config = config if size is None else config.at_size(size, covered=True)
    test = dense.test
    if test is None:
        return sized_config, dense
    if test.crop != config.image_hw:
        raise VimDeployError(
            "VIM-408",
            f"windows of {list(test.crop)} pixels for a model of {list(config.image_hw)}",
            why="every window is one input of the model",
            fix=f"set crop_size of the test configuration to {list(config.image_hw)}",
        )
    new = sized_config.image_hw
    stride = tuple(
        max(1, step * side // old)
        for step, side, old in zip(test.stride, new, test.crop, strict=True)
    )
    test = dataclasses.replace(test, crop=new, stride=(stride[0], stride[1]))
    return sized_config, dataclasses.replace(dense, test=test)


def _architecture(
    request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint, weights: DenseWeights
) -> DenseArchitecture:
    """From --config, the recipe, the configuration in the checkpoint, or the shapes."""
    if request.config is not None:
        return described(read_official(request.config), weights, "--config")
    if recipe is not None:
        assert recipe.dense is not None
        assert isinstance(recipe.model_config, VimConfig)
        name = f"the recipe {recipe.name}"
        statements = (f"architecture from {name}",)
        return DenseArchitecture(recipe.model_config, recipe.dense, statements, name)
    stored = _stored_config(checkpoint.meta)
    if stored is not None and weights.kind == "segmentor":
        return _described_by_itself(stored, weights)
    return inferred(weights, request.image_size, checkpoint.args)


def _described_by_itself(stored: Mapping[str, Any], weights: DenseWeights) -> DenseArchitecture:
    source = "the configuration in the checkpoint"
    try:
        return described(read_official(stored), weights, source)
    except VimDeployError as error:
        raise VimDeployError(
            error.code,
            f"{source}: {error.message}",
            why=error.why,
            fix=f"give another one with --config FILE.json ({error.fix})",
        ) from error


def _stored_config(meta: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The model of the configuration that mmsegmentation stored, when it can be read."""
    text = meta.get("config", meta.get("cfg"))
    model = read_assignments(text).get("model") if isinstance(text, str) else None
    return model if isinstance(model, Mapping) and "backbone" in model else None


def _stored_classes(
    meta: Mapping[str, Any],
) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Class names and colours beside the weights; empty where they are absent or no such thing."""
    data = meta.get("dataset_meta")
    found = data if isinstance(data, Mapping) else {}
    names = found.get("classes", meta.get("CLASSES"))
    colours = found.get("palette", meta.get("PALETTE"))
    good_names = isinstance(names, list | tuple) and len(names) <= _MOST_CLASSES
    if not good_names or not all(
        isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable()
        for name in names
    ):
        return (), ()
    labels = tuple(names)
    if not isinstance(colours, list | tuple) or len(colours) != len(labels):
        return labels, ()
    palette = []
    for colour in colours:
        good = isinstance(colour, list | tuple) and len(colour) == 3
        if not good or not all(isinstance(part, int) and 0 <= part <= 255 for part in colour):
            return labels, ()
        palette.append((colour[0], colour[1], colour[2]))
    return labels, tuple(palette)
