"""Checkpoints to networks, strictly: every key has to be there and fit.

The weights depend on no image size: nothing is fitted to another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.codec import encode
from vim_deploy.families.base import ModelConfig, read_config
from vim_deploy.families.vmamba.config import VMambaConfig
from vim_deploy.families.vmamba.network.keys import classes_of, infer, own_keys
from vim_deploy.families.vmamba.network.vssm import VMamba
from vim_deploy.model.checkpoint import Checkpoint
from vim_deploy.model.keys import require_keys
from vim_deploy.model.network import LoadedNetwork
from vim_deploy.recipe.catalog import find_variant, short_name
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.schema import AUTO, ModelRequest, Recipe

#: ``LoadedNetwork.pos_embed``: there is none.
_NO_EMBEDDING = "none"
_ADVICE = "leave out --model and --config: the architecture is then read off the checkpoint"


def build(config: ModelConfig, dense: DenseConfig | None = None) -> VMamba:
    """The module with its initial weights, in eval mode.

    Raises:
        VimDeployError: VIM-408 for a dense model.
    """
    if dense is not None:
        config.require_dense(dense)
    return VMamba(cast(VMambaConfig, config))


def load(request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint) -> LoadedNetwork:
    """The network that ``checkpoint`` holds, or that is asked for, with its weights.

    Raises:
        VimDeployError: VIM-201, VIM-404, VIM-406 to VIM-408.
    """
    tensors = own_keys(checkpoint.state_dict)
    notes: tuple[str, ...] = ()
    asked = _asked(request, recipe)
    if asked is None:
        config, notes, _ = infer(tensors, request.image_size)
    else:
        config = asked
        if request.model != AUTO and recipe is None:
            config = config.replace(num_classes=classes_of(tensors))
            notes = (f"num_classes={config.num_classes} from classifier.head",)
    network = build(_sized(config, request.image_size))
    _fill(network, tensors)
    return LoadedNetwork(network, _NO_EMBEDDING, notes)


def seeded(request: ModelRequest, recipe: Recipe | None) -> VMamba:
    """The network of a recipe, configuration or name with its initial weights."""
    config = _asked(request, recipe) or cast(VMambaConfig, find_variant(request.model))
    return build(_sized(config, request.image_size))


def refill(info: ExportInfo, checkpoint: Checkpoint) -> VMamba:
    """The network that an exported file was made of."""
    network = build(info.model_config, info.dense)
    _fill(network, own_keys(checkpoint.state_dict))
    return network


def holds(checkpoint: Checkpoint) -> str:
    """What kind of model it is."""
    return "classifier"


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """``model``, ``architecture``, ``dense`` and ``statements``.

    Raises:
        VimDeployError: VIM-407, VIM-408 when the architecture cannot be inferred.
    """
    config, statements, _ = infer(own_keys(checkpoint.state_dict), None)
    return {
        "model": short_name(config),
        "architecture": encode(config),
        "dense": None,
        "statements": list(statements),
    }


def _asked(request: ModelRequest, recipe: Recipe | None) -> VMambaConfig | None:
    """The architecture of the recipe, the configuration or the name; None for what is inferred."""
    if recipe is not None:
        return cast(VMambaConfig, recipe.model_config)
    if request.config is not None:
        return cast(VMambaConfig, read_config(request.config))
    return None if request.model == AUTO else cast(VMambaConfig, find_variant(request.model))


def _sized(config: VMambaConfig, size: int | tuple[int, int] | None) -> VMambaConfig:
    return config if size is None else config.at_size(size)


def _fill(network: VMamba, tensors: Mapping[str, Tensor]) -> None:
    """Load ``tensors`` (``own_keys``); VIM-404 with every key that does not fit."""
    require_keys(tensors, network.state_dict(), lambda: _ADVICE)
    network.load_state_dict(dict(tensors), strict=True)
