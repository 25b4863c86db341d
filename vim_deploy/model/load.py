"""From what the user names to a module with weights: checkpoint, hub address or recipe."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.errors import VimDeployError
from vim_deploy.model.checkpoint import Checkpoint, read_checkpoint
from vim_deploy.model.fit import config_for_image_size, load_into
from vim_deploy.model.heads import DeployedModel, parse_head
from vim_deploy.model.infer import infer_config
from vim_deploy.model.vim import VisionMamba, seed_weights
from vim_deploy.recipe.catalog import find_recipe, find_variant, names_recipe, short_name
from vim_deploy.recipe.load import checkpoint_address, read_labels
from vim_deploy.recipe.model_config import ModelConfig
from vim_deploy.recipe.request import AUTO, ModelRequest
from vim_deploy.recipe.schema import Recipe, Tolerances
from vim_deploy.specs import CheckpointInfo, ExportInfo, ImagePreparation

#: Mean and standard deviation for grey pictures without a recipe: values to [-1, 1].
_GREY = (0.5,)


@dataclass(frozen=True)
class LoadedModel:
    """A module with weights and all that is known about it.

    ``pos_embed`` is ``as stored``, or how it was interpolated. ``stem`` names outputs;
    ``tolerances`` are the recipe's, when there is one.
    """

    module: VisionMamba
    checkpoint: CheckpointInfo
    image: ImagePreparation
    labels: tuple[str, ...]
    pos_embed: str
    stem: str
    notes: tuple[str, ...]
    tolerances: Tolerances | None = None

    @property
    def name(self) -> str:
        """Short name of the variant, or ``custom``."""
        return short_name(self.module.config)


def load_model(request: ModelRequest) -> LoadedModel:
    """Resolve, read, check and load.

    Raises:
        VimDeployError: VIM-201 to VIM-203 (request), VIM-301, VIM-303 (hub), VIM-401 to VIM-408
            (checkpoint and architecture), VIM-412 (recipe), VIM-416 (labels).
    """
    recipe = find_recipe(request.source) if names_recipe(request.source) else None
    described = [
        text
        for text, given in (
            ("--model", request.model != AUTO),
            ("--config", request.config is not None),
            ("the recipe", recipe is not None),
        )
        if given
    ]
    if len(described) > 1:
        raise VimDeployError(
            "VIM-203", f"{' and '.join(described)} both describe the architecture", fix="give one"
        )
    if request.random_weights is not None:
        return _seeded(request, recipe)
    address = checkpoint_address(recipe) if recipe else request.source
    wanted = "model_ema" if request.use_ema or (recipe and _part(recipe) == "model_ema") else "auto"
    checkpoint = read_checkpoint(address, part=wanted)
    notes = list(checkpoint.notes)
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
    stem = recipe.name if recipe else Path(checkpoint.info.name).stem
    return _loaded(request, recipe, module, checkpoint.info, report.pos_embed, stem, notes)


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
    config = ModelConfig.from_dict(info.model_config)
    module = VisionMamba(config)
    stored = info.checkpoint
    if stored.part == "seeded":
        if address != stored.name:
            raise _other_checkpoint(address, stored.name)
        seed_weights(module, int(stored.name.removeprefix("seed:")))
    else:
        part = "model_ema" if stored.part == "model_ema" else "auto"
        checkpoint = read_checkpoint(address, part=part)
        if checkpoint.info.sha256 != stored.sha256:
            raise _other_checkpoint(address, f"{stored.name}, sha256 {stored.sha256}")
        mode, stored_config = _fitted_from(info, config)
        load_into(
            module,
            checkpoint.state_dict,
            config=config,
            pos_embed=mode,
            stored_config=stored_config,
        )
    head = parse_head(info.head, config)
    return DeployedModel(module, info.image, info.preprocess, head)


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
    if recipe is not None:
        config, stem = recipe.model_config, recipe.name
    elif request.config is not None:
        config, stem = ModelConfig.from_dict(request.config), Path(request.source).stem
    else:
        name = request.source if request.model == AUTO else request.model
        config, stem = find_variant(name), name
    seed = request.random_weights
    assert seed is not None
    module = VisionMamba(_sized(config, request.image_size))
    seed_weights(module, seed)
    info = CheckpointInfo(name=f"seed:{seed}", sha256="", part="seeded")
    notes = [f"weights are random (seed {seed}): outputs mean nothing"]
    return _loaded(request, recipe, module, info, "as stored", stem, notes)


def _architecture(
    request: ModelRequest, recipe: Recipe | None, checkpoint: Checkpoint, notes: list[str]
) -> ModelConfig:
    """The config the checkpoint was made with: given, named, from the recipe, or inferred."""
    if request.config is not None:
        return ModelConfig.from_dict(request.config)
    if recipe is not None:
        return recipe.model_config
    model = None if request.model == AUTO else request.model
    inferred = infer_config(
        checkpoint.state_dict, checkpoint.args, model=model, image_size=request.image_size
    )
    notes += inferred.statements
    return inferred.config


def _loaded(
    request: ModelRequest,
    recipe: Recipe | None,
    module: VisionMamba,
    checkpoint: CheckpointInfo,
    pos_embed: str,
    stem: str,
    notes: list[str],
) -> LoadedModel:
    labels = request.labels
    if labels is None:
        labels = read_labels(recipe) if recipe else ()
    if labels and len(labels) != module.config.num_classes:
        raise VimDeployError(
            "VIM-415",
            f"{len(labels)} labels for {module.config.num_classes} classes",
            fix="give one class name a line, in the order of the model's outputs",
        )
    return LoadedModel(
        module=module,
        checkpoint=checkpoint,
        image=_preparation(request, recipe, module.config, notes),
        labels=labels,
        pos_embed=pos_embed,
        stem=stem,
        notes=tuple(notes),
        tolerances=recipe.tolerances if recipe else None,
    )


def _preparation(
    request: ModelRequest, recipe: Recipe | None, config: ModelConfig, notes: list[str]
) -> ImagePreparation:
    height, width = config.image_hw
    if recipe is not None:
        image = dataclasses.replace(recipe.image, height=height, width=width)
    elif config.channels == 3:
        image = ImagePreparation(height, width)
    else:
        grey = _GREY * config.channels
        image = ImagePreparation(height, width, config.channels, grey, grey)
        if request.mean is None or request.std is None:
            notes.append("picture mean and std are assumed to be 0.5: set them with --mean, --std")
    changes = {
        key: value
        for key in ("mean", "std", "crop_ratio")
        if (value := getattr(request, key)) is not None
    }
    for key in ("mean", "std"):
        if key in changes and len(changes[key]) != config.channels:
            raise VimDeployError(
                "VIM-202",
                f"--{key} has {len(changes[key])} values for {config.channels} channels",
                fix=f"--{key} with {config.channels} numbers joined by commas",
            )
    return dataclasses.replace(image, **changes)
