"""What every part of a module computes, by place: the reference side of a comparison per block."""

from __future__ import annotations

import torch
from torch import Tensor

from vim_deploy.families import family_of
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.network import networks_of
from vim_deploy.model.watching import Watch
from vim_deploy.places import BEHIND_BLOCKS, Place, place


def inner_outputs(
    module: DeployedModel, image: Tensor, size: Tensor | None = None
) -> dict[Place, Tensor]:
    """Run ``module`` once and keep its inner tensors, float32, in order of computation.

    They are laid out as in exported graphs.

    Args:
        module: preparation, model and head; typed twins are fine.
        image, size: as the module takes them.
    """
    watch = Watch()
    networks_of(family_of(module.model.config)).watch_inner(module.model, watch)
    try:
        with torch.inference_mode():
            outputs = module(image, size)
    finally:
        watch.remove()
    for name, value in zip(module.head.output_names, outputs, strict=False):
        if module.head.kind == "detections" and name in ("boxes", "classes", "masks"):
            watch.found[place(BEHIND_BLOCKS, name)] = value.float()
    return dict(sorted(watch.found.items()))
