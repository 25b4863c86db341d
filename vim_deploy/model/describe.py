"""What a checkpoint holds, without building the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.families import FIRST
from vim_deploy.model.checkpoint import read_checkpoint
from vim_deploy.model.network import networks_of


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
    family = checkpoint.family or FIRST
    networks = networks_of(family)
    try:
        found = networks.describe(checkpoint)
    except VimDeployError as error:
        found = {
            "model": "unknown",
            "architecture": None,
            "dense": None,
            "statements": [f"{error.message}: {error.why}"],
        }
    return {
        "holds": networks.holds(checkpoint),
        "part": checkpoint.info.part,
        "tensors": len(tensors),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        **found,
        "notes": list(checkpoint.notes),
        "training_arguments": {key: str(value) for key, value in sorted(checkpoint.args.items())},
    }
