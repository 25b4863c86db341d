"""The PyTorch module that an exported file has to agree with."""

from __future__ import annotations

import re

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import of_file
from vim_deploy.model.checkpoint import Checkpoint, read_checkpoint
from vim_deploy.model.dense.load import fill
from vim_deploy.model.dense.weights import dense_weights, kind_of
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.fit import load_into
from vim_deploy.model.network import Network, build_network
from vim_deploy.model.seeding import seed_weights
from vim_deploy.model.vim import VisionMamba
from vim_deploy.recipe.catalog import checkpoint_of
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.model_config import ModelConfig

#: ``ExportInfo.pos_embed`` of an interpolated embedding, as ``load_into`` reports it.
_FITTED = re.compile(r"(grid|official) (\d+)x(\d+) to \d+x\d+")


def reference_model(address: str, info: ExportInfo) -> DeployedModel:
    """The PyTorch module that an exported file has to agree with.

    Args:
        address: the checkpoint the file was made from, its recipe, or ``seed:N`` for
            seeded weights.
        info: what the file says about itself; architecture, preparation and head come from it.

    Raises:
        VimDeployError: VIM-404 when ``address`` is another checkpoint, VIM-201 for an architecture
            with options that this version does not know.
    """
    unknown = [path for path in info.unread if path.startswith(("model_config.", "dense."))]
    if unknown:
        raise VimDeployError(
            "VIM-201",
            f"the file's architecture has options unknown here: {', '.join(unknown)}",
            why=f"vim-deploy {info.tool_version} made it; without them it would be another model",
            fix="use that version, or a later one",
        )
    config, dense = info.model_config, info.dense
    stored = info.checkpoint
    module: Network
    if stored.part == "seeded":
        if address != stored.name:
            raise _other_checkpoint(address, stored.name)
        module = build_network(config, dense)
        seed_weights(module, int(stored.name.removeprefix("seed:")))
    else:
        # The average goes by many names; every other part is recorded by its own.
        averaged = stored.part == "model_ema"
        key = None if averaged else stored.part
        part = stored.part if averaged else "auto"
        checkpoint = read_checkpoint(checkpoint_of(address), part=part, key=key)
        if checkpoint.info.sha256 != stored.sha256:
            raise _other_checkpoint(address, f"{stored.name}, sha256 {stored.sha256}")
        module = _filled(config, dense, checkpoint, *_fitted_from(info, config))
    head = of_file(info).fitted(config, dense)
    return DeployedModel(module, info.image, info.preprocess, head)


def _filled(
    config: ModelConfig,
    dense: DenseConfig | None,
    checkpoint: Checkpoint,
    mode: str,
    stored: ModelConfig | None,
) -> Network:
    """The network with the weights of ``checkpoint``, fitted as an exported file says."""
    if dense is not None:
        kind = kind_of(checkpoint.state_dict) or "backbone"
        return fill(config, dense, dense_weights(checkpoint.state_dict, kind), mode, stored)[0]
    module = VisionMamba(config)
    load_into(module, checkpoint.state_dict, config=config, pos_embed=mode, stored_config=stored)
    return module


def _fitted_from(info: ExportInfo, config: ModelConfig) -> tuple[str, ModelConfig | None]:
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


def _other_checkpoint(address: str, expected: str) -> VimDeployError:
    return VimDeployError(
        "VIM-404",
        f"{address} is not the checkpoint this file was exported from",
        why=f"the file names {expected}",
        fix="compare with that checkpoint, or export this one",
    )
