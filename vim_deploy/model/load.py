"""From what the user names to a module with weights: checkpoint, hub address or recipe."""

from __future__ import annotations

import re
from pathlib import Path

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import of_file
from vim_deploy.model.checkpoint import Checkpoint, read_checkpoint
from vim_deploy.model.dense.load import fill, load_dense, seeded_dense, wants_dense
from vim_deploy.model.dense.weights import dense_weights, kind_of
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.fit import config_for_image_size, load_into
from vim_deploy.model.infer import infer_config
from vim_deploy.model.loaded import LoadedModel, loaded_model
from vim_deploy.model.network import Network, build_network
from vim_deploy.model.seeding import seed_weights
from vim_deploy.model.vim import VisionMamba
from vim_deploy.recipe.catalog import find_dense_recipe, find_recipe, find_variant, names_recipe
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.load import checkpoint_address
from vim_deploy.recipe.model_config import ModelConfig, read_config
from vim_deploy.recipe.request import AUTO, ModelRequest
from vim_deploy.recipe.schema import Recipe
from vim_deploy.specs import CheckpointInfo


def load_model(request: ModelRequest) -> LoadedModel:
    """Resolve, read, check and load.

    Raises:
        VimDeployError: VIM-201 to VIM-203 (request), VIM-301, VIM-303 (hub), VIM-401 to VIM-408
            (checkpoint and architecture), VIM-412 (recipe), VIM-416 (labels).
    """
    recipe = find_recipe(request.source) if names_recipe(request.source) else None
    from_source = recipe is not None
    described = [
        text
        for text, given in (
            ("--model", request.model != AUTO),
            ("--config", request.config is not None),
            ("the recipe", from_source),
        )
        if given
    ]
    if len(described) > 1:
        raise VimDeployError(
            "VIM-203", f"{' and '.join(described)} both describe the architecture", fix="give one"
        )
    # A dense recipe tells what a checkpoint of the user's own is: --model RECIPE.
    recipe = recipe or find_dense_recipe(request.model)
    if request.random_weights is not None:
        return _seeded(request, recipe)
    address = checkpoint_address(recipe) if recipe and from_source else request.source
    wanted = "model_ema" if request.use_ema or (recipe and _part(recipe) == "model_ema") else "auto"
    checkpoint = read_checkpoint(address, part=wanted)
    notes = list(checkpoint.notes)
    stem = recipe.name if recipe and from_source else Path(checkpoint.info.name).stem
    if wants_dense(request, recipe, checkpoint):
        found = load_dense(request, recipe, checkpoint)
        notes += found.notes
        network, info, how = found.network, checkpoint.info, found.pos_embed
        return loaded_model(request, recipe, network, info, how, stem, notes, found.labels)
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
    notes += report.notes
    return loaded_model(request, recipe, module, checkpoint.info, report.pos_embed, stem, notes)


def checkpoint_of(request: ModelRequest) -> str:
    """The address that ``request`` takes its weights from."""
    if names_recipe(request.source):
        return checkpoint_address(find_recipe(request.source))
    return request.source


def reference_model(address: str, info: ExportInfo) -> DeployedModel:
    """The PyTorch module that an exported file has to agree with.

    Args:
        address: the checkpoint the file was made from, or ``seed:N`` for seeded weights.
        info: what the file says about itself; architecture, preparation and head come from it.

    Raises:
        VimDeployError: VIM-404 when ``address`` is another checkpoint.
    """
    config, dense = info.model_config, info.dense
    stored = info.checkpoint
    module: Network
    if stored.part == "seeded":
        if address != stored.name:
            raise _other_checkpoint(address, stored.name)
        module = build_network(config, dense)
        seed_weights(module, int(stored.name.removeprefix("seed:")))
    else:
        part = "model_ema" if stored.part == "model_ema" else "auto"
        checkpoint = read_checkpoint(address, part=part)
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


#: ``ExportInfo.pos_embed`` of an interpolated embedding, as ``load_into`` reports it.
_FITTED = re.compile(r"(grid|official) (\d+)x(\d+) to \d+x\d+")


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


def _part(recipe: Recipe) -> str:
    return recipe.checkpoint.part


def _sized(config: ModelConfig, size: int | tuple[int, int] | None) -> ModelConfig:
    return config if size is None else config_for_image_size(config, size)


def _seeded(request: ModelRequest, recipe: Recipe | None) -> LoadedModel:
    """A named architecture with weights that mean nothing."""
    seed = request.random_weights
    assert seed is not None
    module: Network
    stem = recipe.name if recipe is not None else Path(request.source).stem
    if wants_dense(request, recipe, None):
        module = seeded_dense(request, recipe)
    else:
        if recipe is not None:
            config = recipe.model_config
        elif request.config is not None:
            config = read_config(request.config)
        else:
            stem = request.source if request.model == AUTO else request.model
            config = find_variant(stem)
        module = VisionMamba(_sized(config, request.image_size))
    seed_weights(module, seed)
    info = CheckpointInfo(name=f"seed:{seed}", sha256="", part="seeded")
    notes = [f"weights are random (seed {seed}): outputs mean nothing"]
    return loaded_model(request, recipe, module, info, "as stored", stem, notes)


def _architecture(
    request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint, notes: list[str]
) -> ModelConfig:
    """The config the checkpoint was made with: given, named, from the recipe, or inferred."""
    if request.config is not None:
        return read_config(request.config)
    if recipe is not None:
        return recipe.model_config
    model = None if request.model == AUTO else request.model
    inferred = infer_config(
        checkpoint.state_dict, checkpoint.args, model=model, image_size=request.image_size
    )
    notes += inferred.statements
    return inferred.config
