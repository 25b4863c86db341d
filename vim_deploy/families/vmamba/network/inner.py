"""Every part of a VMamba, by place."""

from __future__ import annotations

from typing import cast

from torch import nn

from vim_deploy.families.vmamba.config import DIRECTIONS
from vim_deploy.families.vmamba.network.vssm import Block, VMamba
from vim_deploy.model.network import Network
from vim_deploy.model.watching import Watch
from vim_deploy.places import BEFORE_BLOCKS, BEHIND_BLOCKS, place, stream_of


def watch_inner(network: Network, watch: Watch) -> None:
    """Let ``watch`` keep what every part of ``network`` computes.

    Maps are [B, H, W, C], that of a block's convolution [B, D, H, W]; what a direction computes,
    are tokens [B, L, channels] in natural order, along columns those of the transposed map.
    """
    model = cast(VMamba, network)
    watch.keep(place(BEFORE_BLOCKS, "patch_embed"), model.patch_embed)
    for index, block in enumerate(model.blocks):
        _keep_block(watch, block, index)
    for number, level in enumerate(model.levels):
        if level.downsample is not None:
            watch.keep(place(BEHIND_BLOCKS, f"downsample_{number}"), level.downsample)
    watch.keep(place(BEHIND_BLOCKS, "norm_f"), model.classifier.norm)
    if isinstance(model.classifier.head, nn.Linear):
        watch.keep_input(place(BEHIND_BLOCKS, "features"), model.classifier.head)
        watch.keep(place(BEHIND_BLOCKS, "head"), model.classifier.head)


def _keep_block(watch: Watch, block: Block, index: int) -> None:
    mixer = block.op
    watch.keep_input(stream_of(index), block.norm)
    watch.keep(place(index, "norm"), block.norm)
    watch.keep(place(index, "in_proj"), mixer.in_proj)
    watch.keep(place(index, "conv2d"), mixer.act)
    for name in DIRECTIONS:
        along, _, way = name.partition("_")
        direction = getattr(mixer, name)
        for part in ("x_proj", "dt_proj", "scan"):
            watch.keep(place(index, f"{part}_{along}", way), getattr(direction, part))
    watch.keep(place(index, "out_norm"), mixer.out_norm)
    watch.keep_input(place(index, "mixed"), mixer.out_proj)
    watch.keep(place(index, "out_proj"), mixer.out_proj)
    if block.has_mlp:
        watch.keep(place(index, "norm2"), block.norm2)
        for part in ("fc1", "act", "fc2"):
            watch.keep(place(index, part), getattr(block.mlp, part))
