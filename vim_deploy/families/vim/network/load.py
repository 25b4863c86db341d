"""Checkpoints to networks: a classifier, or a dense model around a Vim."""

from __future__ import annotations

import re
from typing import cast

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.families.base import read_config
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.build import VimNetwork
from vim_deploy.families.vim.network.dense.load import fill, load_dense, seeded_dense
from vim_deploy.families.vim.network.dense.weights import dense_weights, kind_of, name_of
from vim_deploy.families.vim.network.fit import load_into
from vim_deploy.families.vim.network.infer import infer_config
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.families.vim.official_dense import is_dense
from vim_deploy.model.checkpoint import Checkpoint
from vim_deploy.model.network import LoadedNetwork
from vim_deploy.recipe.catalog import find_variant
from vim_deploy.recipe.schema import AUTO, ModelRequest, Recipe

#: ``ExportInfo.pos_embed`` of an interpolated embedding, as ``load_into`` reports it.
_FITTED = re.compile(r"(grid|official) (\d+)x(\d+) to \d+x\d+")


def load(request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint) -> LoadedNetwork:
    """The network that ``checkpoint`` holds, or that is asked for, with its weights.

    Raises:
        VimDeployError: VIM-201, VIM-202, VIM-404 to VIM-408.
    """
    if _wants_dense(request, recipe, checkpoint):
        return load_dense(request, recipe, checkpoint)
    notes: list[str] = []
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
    return LoadedNetwork(module, report.pos_embed, (*notes, *report.notes))


def seeded(request: ModelRequest, recipe: Recipe | None) -> VimNetwork:
    """The network of a recipe, configuration or name with its initial weights."""
    if _wants_dense(request, recipe, None):
        return seeded_dense(request, recipe)
    if recipe is not None:
        config = recipe.model_config
    elif request.config is not None:
        config = read_config(request.config)
    else:
        config = find_variant(request.model)
    return VisionMamba(_sized(cast(VimConfig, config), request.image_size))


def refill(info: ExportInfo, checkpoint: Checkpoint) -> VimNetwork:
    """The network that an exported file was made of, fitted as it says."""
    config = cast(VimConfig, info.model_config)
    mode, stored = _fitted_from(info, config)
    if info.dense is not None:
        kind = kind_of(checkpoint.state_dict) or "backbone"
        weights = dense_weights(checkpoint.state_dict, kind)
        return fill(config, info.dense, weights, mode, stored)[0]
    module = VisionMamba(config)
    load_into(module, checkpoint.state_dict, config=config, pos_embed=mode, stored_config=stored)
    return module


def _sized(config: VimConfig, size: int | tuple[int, int] | None) -> VimConfig:
    return config if size is None else config.at_size(size)


def _fitted_from(info: ExportInfo, config: VimConfig) -> tuple[str, VimConfig | None]:
    """How the position embedding was fitted, and the config at the checkpoint's own size."""
    fitted = _FITTED.fullmatch(info.pos_embed)
    if fitted is None:
        return "grid", None
    grid = int(fitted.group(2)), int(fitted.group(3))
    height, width = (
        (count - 1) * config.stride + patch
        for count, patch in zip(grid, config.patch_hw, strict=True)
    )
    return fitted.group(1), config.replace(img_size=height if height == width else (height, width))


def _architecture(
    request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint, notes: list[str]
) -> VimConfig:
    """The config the checkpoint was made with: given, named, from the recipe, or inferred."""
    if request.config is not None:
        return cast(VimConfig, read_config(request.config))
    if recipe is not None:
        return cast(VimConfig, recipe.model_config)
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
