"""Modules with reference weights, and exported files of them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from tests.support.reference import ReferenceCase
from vim_deploy.codec import encode
from vim_deploy.families.vim.config import VimConfig, read_config
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.checkpoint import read_checkpoint
from vim_deploy.model.seeding import seed_weights
from vim_deploy.recipe.catalog import find_variant


def config_of(case: ReferenceCase) -> VimConfig:
    """The architecture of a reference case."""
    if case.factory:
        return find_variant(case.factory).replace(**case.kwargs)
    return read_config(case.kwargs)


def model_of(case: ReferenceCase, part: str = "auto") -> VisionMamba:
    """Our module with the case's weights, loaded by their official keys, strictly."""
    model = VisionMamba(config_of(case))
    model.load_state_dict(read_checkpoint(str(case.checkpoint), part=part).state_dict, strict=True)
    return model


def block_outputs(model: VisionMamba, image: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(hidden, residual) of every layer that runs, each T[B, L, embed_dim].

    Tokens stand as in the official module: the mirrored layers of two-layer mode, which work in
    natural order here, are flipped to compare.
    """
    found: list[tuple[Tensor, Tensor]] = []
    for layer in model.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    with torch.inference_mode():
        model(image)
    return [
        (hidden.flip(1), residual.flip(1)) if model.config.mirrored(index) else (hidden, residual)
        for index, (hidden, residual) in enumerate(found)
    ]


def tiny_config(**changes: object) -> VimConfig:
    """A two-layer model of 16-pixel images that exports in about a second."""
    values = {
        "img_size": 16,
        "patch_size": 8,
        "stride": 8,
        "embed_dim": 16,
        "depth": 2,
        "d_state": 4,
        "num_classes": 7,
    }
    return read_config({**values, **changes})


def perturbed(model: VisionMamba, seed: int = 0) -> VisionMamba:
    """Repeatable weights in which every parameter matters and none equals another."""
    seed_weights(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def save_training_file(model: VisionMamba, path: Path) -> Path:
    """A checkpoint in the layout of the official main.py, without optimiser state."""
    torch.save({"model": model.state_dict(), "epoch": 1}, path)
    return path


def save_tiny(folder: Path) -> tuple[Path, Path]:
    """``tiny.pth`` and its ``--config``, ``tiny.json``, for commands: a model soon traced."""
    checkpoint = save_training_file(perturbed(VisionMamba(tiny_config())), folder / "tiny.pth")
    config = folder / "tiny.json"
    config.write_text(json.dumps(encode(tiny_config())), encoding="utf-8")
    return checkpoint, config
