"""What a checkpoint holds, without building the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.model.checkpoint import read_checkpoint
from vim_deploy.model.dense.load import own_architecture
from vim_deploy.model.dense.weights import kind_of
from vim_deploy.model.infer import infer_config
from vim_deploy.recipe.catalog import model_name


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Keys, sizes, stored training arguments and the architecture inferred from them.

    ``architecture`` is None when it cannot be inferred; ``statements`` then say why. ``dense`` is
    what stands behind the blocks of a dense model, None for a classifier.
    """
    checkpoint = read_checkpoint(path)
    tensors = checkpoint.state_dict
    dense: dict[str, Any] | None = None
    try:
        if kind_of(tensors) is None:
            inferred = infer_config(tensors, checkpoint.args)
            name, architecture = inferred.name, inferred.config.as_dict()
            statements = list(inferred.statements)
        else:
            found = own_architecture(checkpoint)
            name = model_name(found.config, found.dense)
            architecture, dense = found.config.as_dict(), found.dense.as_dict()
            statements = list(found.statements)
    except VimDeployError as error:
        name, architecture, statements = "unknown", None, [f"{error.message}: {error.why}"]
    return {
        "part": checkpoint.info.part,
        "tensors": len(tensors),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "model": name,
        "architecture": architecture,
        "dense": dense,
        "statements": statements,
        "notes": list(checkpoint.notes),
        "training_arguments": {key: str(value) for key, value in sorted(checkpoint.args.items())},
    }
