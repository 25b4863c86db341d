"""What a checkpoint of a Vim, or of a network around one, holds."""

from __future__ import annotations

from typing import Any

from vim_deploy.codec import encode
from vim_deploy.families.vim.network.dense.load import own_architecture
from vim_deploy.families.vim.network.dense.weights import Kind, kind_of
from vim_deploy.families.vim.network.infer import infer_config
from vim_deploy.model.checkpoint import Checkpoint
from vim_deploy.recipe.catalog import model_name

#: ``holds`` of a description.
_KINDS: dict[Kind | None, str] = {
    None: "classifier",
    "segmentor": "segmentation network",
    "backbone": "segmentation backbone",
    "detector": "detection backbone",
    "rcnn": "detector",
}


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """``holds``, ``model``, ``architecture``, ``dense`` and ``statements``.

    Raises:
        VimDeployError: VIM-404, VIM-407, VIM-408 when the architecture cannot be inferred.
    """
    kind = kind_of(checkpoint.state_dict)
    return (_classifier if kind is None else _dense)(checkpoint)


def holds(checkpoint: Checkpoint) -> str:
    """What kind of model it is, by its keys."""
    return _KINDS[kind_of(checkpoint.state_dict)]


def _classifier(checkpoint: Checkpoint) -> dict[str, Any]:
    inferred = infer_config(checkpoint.state_dict, checkpoint.args)
    return {
        "model": inferred.name,
        "architecture": encode(inferred.config),
        "dense": None,
        "statements": list(inferred.statements),
    }


def _dense(checkpoint: Checkpoint) -> dict[str, Any]:
    found = own_architecture(checkpoint)
    return {
        "model": model_name(found.config, found.dense),
        "architecture": encode(found.config),
        "dense": encode(found.dense),
        "statements": list(found.statements),
    }
