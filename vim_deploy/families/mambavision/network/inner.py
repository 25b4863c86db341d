"""Every part of a MambaVision, by place."""

from __future__ import annotations

from typing import cast

from torch import nn

from vim_deploy.families.mambavision.network.layers import ConvBlock
from vim_deploy.families.mambavision.network.mixers import Attention, Mixer
from vim_deploy.families.mambavision.network.model import Block, MambaVision
from vim_deploy.model.network import Network
from vim_deploy.model.watching import Watch
from vim_deploy.places import BEFORE_BLOCKS, BEHIND_BLOCKS, DIRECTIONS, place, stream_of


def watch_inner(network: Network, watch: Watch) -> None:
    """Let ``watch`` keep what every part of ``network`` computes.

    Maps are [B, C, H, W]; tokens [B x windows, L, channels].
    """
    model = cast(MambaVision, network)
    watch.keep(place(BEFORE_BLOCKS, "patch_embed"), model.patch_embed)
    for index, block in model.numbered_blocks():
        if isinstance(block, ConvBlock):
            _keep(watch, index, {"conv1": block.conv1, "conv_act": block.act1,
                                 "conv2": block.conv2})  # fmt: skip
        else:
            _keep_tokens(watch, index, cast(Block, block))
    for number, downsample in model.downsamples():
        watch.keep(place(BEHIND_BLOCKS, f"downsample_{number}"), downsample)
    watch.keep(place(BEHIND_BLOCKS, "norm_f"), model.norm)
    if isinstance(model.head, nn.Linear):
        watch.keep_input(place(BEHIND_BLOCKS, "features"), model.head)
        watch.keep(place(BEHIND_BLOCKS, "head"), model.head)


def _keep_tokens(watch: Watch, index: int, block: Block) -> None:
    watch.keep_input(stream_of(index), block)
    mixer, mlp = block.mixer, block.mlp
    if isinstance(mixer, Mixer):
        for part, module in (("conv", mixer.conv1d_x), ("x_proj", mixer.x_proj),
                             ("dt_proj", mixer.dt_proj), ("scan", mixer.scan)):  # fmt: skip
            watch.keep(place(index, part, DIRECTIONS[0]), module)
        parts = {"in_proj": mixer.in_proj, "conv_z": mixer.conv1d_z, "out_proj": mixer.out_proj}
        watch.keep_input(place(index, "mixed"), mixer.out_proj)
    else:
        assert isinstance(mixer, Attention)
        parts = {"qkv": mixer.qkv, "attend": mixer.attend, "proj": mixer.proj}
        norms = {"q_norm": mixer.q_norm, "k_norm": mixer.k_norm}
        parts |= {name: norm for name, norm in norms.items() if isinstance(norm, nn.LayerNorm)}
    _keep(watch, index, {"norm": block.norm1, **parts, "norm2": block.norm2, "fc1": mlp.fc1,
                         "act": mlp.act, "fc2": mlp.fc2})  # fmt: skip


def _keep(watch: Watch, index: int, parts: dict[str, nn.Module]) -> None:
    for name, module in parts.items():
        watch.keep(place(index, name), module)
