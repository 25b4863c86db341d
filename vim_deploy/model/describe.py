"""What a checkpoint holds, without building the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.model.checkpoint import Checkpoint, read_checkpoint
from vim_deploy.model.dense.load import own_architecture
from vim_deploy.model.dense.weights import Kind, kind_of
from vim_deploy.model.infer import infer_config
from vim_deploy.recipe.catalog import model_name

#: ``holds`` of a description.
_KINDS: dict[Kind | None, str] = {
    None: "classifier",
    "segmentor": "segmentation network",
    "backbone": "segmentation backbone",
    "detector": "detection backbone",
    "rcnn": "detector",
}


def describe_checkpoint(path: Path, key: str | None = None) -> dict[str, Any]:
    """Keys, sizes, stored training arguments and the architecture inferred from them.

    ``holds`` says what kind of model it is, by its keys: a bare segmentation backbone without
    feature scales counts as a classifier. ``architecture`` (the backbone's constructor keywords)
    and ``dense`` (what stands behind the blocks of a dense model) are None when they cannot be
    inferred, the latter for classifiers, too; ``statements`` then say why, and else where they come
    from: of segmentation models also which meaning ``in_chans`` has. ``key`` names the entry with
    the weights.
    """
    checkpoint = read_checkpoint(path, key=key)
    tensors = checkpoint.state_dict
    kind = kind_of(tensors)
    try:
        found = _classifier(checkpoint) if kind is None else _dense(checkpoint)
    except VimDeployError as error:
        found = {
            "model": "unknown",
            "architecture": None,
            "dense": None,
            "statements": [f"{error.message}: {error.why}"],
        }
    return {
        "holds": _KINDS[kind],
        "part": checkpoint.info.part,
        "tensors": len(tensors),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        **found,
        "notes": list(checkpoint.notes),
        "training_arguments": {key: str(value) for key, value in sorted(checkpoint.args.items())},
    }


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
