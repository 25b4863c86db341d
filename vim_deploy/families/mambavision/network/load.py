"""Checkpoints to networks, strictly: every key has to be there and fit.

The weights depend on no image size, so nothing is fitted to another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.codec import encode
from vim_deploy.families.base import ModelConfig
from vim_deploy.families.mambavision.config import MambaVisionConfig, read_config
from vim_deploy.families.mambavision.network.infer import Inferred, infer_config
from vim_deploy.families.mambavision.network.model import MambaVision
from vim_deploy.families.mambavision.network.shapes import COUNTER
from vim_deploy.model.checkpoint import Checkpoint
from vim_deploy.model.keys import require_keys
from vim_deploy.model.network import LoadedNetwork
from vim_deploy.recipe.catalog import find_variant, short_name
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.schema import AUTO, ModelRequest, Recipe

#: ``LoadedNetwork.pos_embed``: there is none.
_NO_EMBEDDING = "none"
_ADVICE = "leave out --model and --config, or give --config FILE.json with the model's own keywords"


def build(config: ModelConfig, dense: DenseConfig | None = None) -> MambaVision:
    """The module with its initial weights, in eval mode.

    Raises:
        VimDeployError: VIM-408 for a dense model.
    """
    if dense is not None:
        config.require_dense(dense)
    return MambaVision(cast(MambaVisionConfig, config))


def load(request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint) -> LoadedNetwork:
    """The network that ``checkpoint`` holds, or that is asked for, with its weights.

    Raises:
        VimDeployError: VIM-201, VIM-404, VIM-407, VIM-408.
    """
    statements: tuple[str, ...] = ()
    if recipe is not None:
        config = cast(MambaVisionConfig, recipe.model_config)
    elif request.config is not None:
        config = read_config(request.config)
    else:
        model = None if request.model == AUTO else request.model
        found = _inferred(checkpoint, model=model, image_size=request.image_size)
        config, statements = found.config, found.statements
    network = MambaVision(_sized(config, request.image_size))
    fill(network, checkpoint.state_dict)
    return LoadedNetwork(network, _NO_EMBEDDING, statements)


def seeded(request: ModelRequest, recipe: Recipe | None) -> MambaVision:
    """The network of a recipe, configuration or name with its initial weights."""
    if recipe is not None:
        config = recipe.model_config
    elif request.config is not None:
        config = read_config(request.config)
    else:
        config = find_variant(request.model)
    return MambaVision(_sized(cast(MambaVisionConfig, config), request.image_size))


def refill(info: ExportInfo, checkpoint: Checkpoint) -> MambaVision:
    """The network that an exported file was made of."""
    network = build(info.model_config, info.dense)
    fill(network, checkpoint.state_dict)
    return network


def holds(checkpoint: Checkpoint) -> str:
    """What kind of model it is."""
    return "classifier"


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """``model``, ``architecture``, ``dense`` and ``statements``.

    Raises:
        VimDeployError: VIM-407, VIM-408 when the architecture cannot be inferred.
    """
    found = _inferred(checkpoint)
    return {
        "model": short_name(found.config),
        "architecture": encode(found.config),
        "dense": None,
        "statements": list(found.statements),
    }


def fill(network: MambaVision, tensors: Mapping[str, Tensor]) -> None:
    """Load ``tensors``; VIM-404 with every key that does not fit.

    Counts of training steps may be missing: the official loader does without them, too.
    """
    expected = network.state_dict()
    counts = {key: value for key, value in expected.items() if key.endswith(f".{COUNTER}")}
    given = {key: value for key, value in tensors.items() if key not in counts}
    wanted = {key: value for key, value in expected.items() if key not in counts}
    require_keys(given, wanted, lambda: _ADVICE)
    network.load_state_dict({**counts, **given}, strict=True)


def _inferred(
    checkpoint: Checkpoint,
    *,
    model: str | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Inferred:
    return infer_config(
        checkpoint.state_dict,
        checkpoint.args,
        checkpoint.config,
        model=model,
        image_size=image_size,
    )


def _sized(config: MambaVisionConfig, size: int | tuple[int, int] | None) -> MambaVisionConfig:
    return config if size is None else config.at_size(size)
