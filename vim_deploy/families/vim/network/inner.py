"""Every part of a Vim and of the networks around one, by place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from vim_deploy.families.vim.network.build import VimNetwork
from vim_deploy.families.vim.network.dense.detector import DetectionBackbone
from vim_deploy.families.vim.network.dense.detector_heads import Detector
from vim_deploy.families.vim.network.dense.segmentor import Segmentor
from vim_deploy.families.vim.network.vim import Block
from vim_deploy.model.watching import Watch
from vim_deploy.places import (
    BEFORE_BLOCKS,
    BEHIND_BLOCKS,
    DIRECTED,
    RPN_LEVELS,
    Place,
    direction_of,
    place,
    stream_of,
)


def watch_inner(network: VimNetwork, watch: Watch) -> None:
    """Let ``watch`` keep what every part of ``network`` computes.

    Tokens are in natural order everywhere, as in exported graphs: [B, L, channels].
    """
    model = network.vim
    watch.keep(place(BEFORE_BLOCKS, "patch_embed"), model.patch_embed)
    for index, block in enumerate(model.layers[: model.config.layers_run]):
        assert isinstance(block, Block)
        _keep_block(watch, block, index, model.config.mirrored(index))
    if hasattr(model, "norm_f"):
        watch.keep(place(BEHIND_BLOCKS, "norm_f"), model.norm_f)
    if isinstance(model.head, nn.Linear):
        watch.keep_input(place(BEHIND_BLOCKS, "features"), model.head)
        watch.keep(place(BEHIND_BLOCKS, "head"), model.head)
    for part, child in _dense_parts(network):
        watch.keep(place(BEHIND_BLOCKS, part), child)
    if isinstance(network, Detector):
        watch.handles += _keep_regions(watch.found, network)


def _keep_block(watch: Watch, block: Block, index: int, mirrored: bool) -> None:
    mixer = block.mixer
    watch.keep(stream_of(index), block, lambda output: output[1])
    watch.keep(place(index, "norm"), block.norm)
    watch.keep(place(index, "in_proj"), mixer.in_proj)
    for suffix in ("", "_b"):
        direction = direction_of(bool(suffix), mirrored)
        if suffix and not mixer.bidirectional:
            continue
        for part, name in DIRECTED.items():
            # v1 shares all but the scan between the directions: they run once, in the first.
            if hasattr(mixer, f"{name}{suffix}"):
                watch.keep(place(index, part, direction), getattr(mixer, f"{name}{suffix}"))
    watch.keep_input(place(index, "mixed"), mixer.out_proj)
    watch.keep(place(index, "out_proj"), mixer)


def _keep_regions(found: dict[Place, Tensor], model: Detector) -> list[Any]:
    """Hooks that keep what a detector's heads compute; their handles.

    The RPN's head runs once for each level, finest first.
    """

    def keep_pair(prefix: str, pair: tuple[Tensor, Tensor]) -> None:
        for what, value in zip(("logits", "deltas"), pair, strict=True):
            found[place(BEHIND_BLOCKS, f"{prefix}.{what}")] = value.detach().float()

    levels = iter(RPN_LEVELS)

    def of_level(_module: nn.Module, _arguments: object, output: tuple[Tensor, Tensor]) -> None:
        keep_pair(f"rpn.{next(levels)}", output)

    def of_proposals(_module: nn.Module, _arguments: object, output: tuple[Tensor, ...]) -> None:
        found[place(BEHIND_BLOCKS, "proposals")] = output[0].detach().float()

    def of_stage(stage: int) -> Callable[[nn.Module, object, tuple[Tensor, Tensor]], None]:
        return lambda _module, _arguments, output: keep_pair(f"stage.{stage}", output)

    generator, stages = model.proposal_generator, model.roi_heads.stage_parts
    return [
        generator.rpn_head.register_forward_hook(of_level),
        generator.register_forward_hook(of_proposals),
        *(
            predictor.register_forward_hook(of_stage(number))
            for number, (_, predictor, _) in enumerate(stages)
        ),
    ]


def _dense_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules with their parts' names (``places.Place``), in order of computation; of any network.

    A map that the neck leaves as it is has no part: it is a block's output.
    """
    for name, neck in necks_of(model):
        if not isinstance(neck, nn.Identity):
            yield name, neck
    if not isinstance(model, Segmentor):
        return
    head = model.decode_head
    for layer in ("lateral_convs", "psp_modules"):
        yield from _numbered(f"decode_head.{layer}", getattr(head, layer))
    yield "decode_head.bottleneck", head.bottleneck
    yield from _numbered("decode_head.fpn_convs", head.fpn_convs)
    yield "decode_head.fpn_bottleneck", head.fpn_bottleneck
    yield "decode_head.conv_seg", head.conv_seg
    if hasattr(model, "auxiliary_head"):
        yield from _numbered("auxiliary_head.convs", model.auxiliary_head.convs)
        yield "auxiliary_head.conv_seg", model.auxiliary_head.conv_seg


def necks_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that scale the backbone's maps, by the maps' names; none without a neck."""
    if isinstance(model, Detector):
        model = model.backbone
    if isinstance(model, DetectionBackbone):
        # The level of the top block drops pixels of the one before it, and computes nothing.
        yield from zip(model.dense.feature_names, model.levels, strict=False)
        return
    backbone = model.backbone if isinstance(model, Segmentor) else model
    for level in range(4):
        neck = getattr(backbone, f"fpn{level + 1}", None)
        if neck is not None:
            yield f"feature_{level}", neck


def _numbered(name: str, layers: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for number, layer in enumerate(layers.children()):
        yield f"{name}.{number}", layer
