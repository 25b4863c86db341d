"""The PyTorch module that an exported file has to agree with."""

from __future__ import annotations

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.families import family_of
from vim_deploy.heads import of_file
from vim_deploy.model.checkpoint import read_checkpoint
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.network import Network, networks_of
from vim_deploy.model.seeding import seed_weights
from vim_deploy.recipe.catalog import checkpoint_of


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
    networks = networks_of(family_of(config))
    module: Network
    if stored.part == "seeded":
        if address != stored.name:
            raise _other_checkpoint(address, stored.name)
        module = networks.build(config, dense)
        seed_weights(module, int(stored.name.removeprefix("seed:")))
    else:
        # The average goes by many names; every other part is recorded by its own.
        averaged = stored.part == "model_ema"
        key = None if averaged else stored.part
        part = stored.part if averaged else "auto"
        checkpoint = read_checkpoint(checkpoint_of(address), part=part, key=key)
        if checkpoint.info.sha256 != stored.sha256:
            raise _other_checkpoint(address, f"{stored.name}, sha256 {stored.sha256}")
        module = networks.refill(info, checkpoint)
    head = of_file(info).fitted(config, dense)
    return DeployedModel(module, info.image, info.preprocess, head)


def _other_checkpoint(address: str, expected: str) -> VimDeployError:
    return VimDeployError(
        "VIM-404",
        f"{address} is not the checkpoint this file was exported from",
        why=f"the file names {expected}",
        fix="compare with that checkpoint, or export this one",
    )
