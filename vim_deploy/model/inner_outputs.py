"""What every part of a module computes, by place: the reference side of a comparison per block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vim_deploy.model.dense.detector import DetectionBackbone
from vim_deploy.model.dense.detector_heads import Detector
from vim_deploy.model.dense.segmentor import Segmentor
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.vim import Block
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


def inner_outputs(
    module: DeployedModel, image: Tensor, size: Tensor | None = None
) -> dict[Place, Tensor]:
    """Run ``module`` once and keep its inner tensors, float32, in order of computation.

    Tokens are in natural order everywhere, as in exported graphs: [B, L, channels].

    Args:
        module: preparation, model and head; typed twins are fine.
        image, size: as the module takes them.
    """
    found: dict[Place, Tensor] = {}
    handles: list[Any] = []

    def keep(where: Place, child: nn.Module, pick: Callable[[Any], Tensor]) -> None:
        def hook(_module: nn.Module, _arguments: object, output: Any) -> None:  # noqa: ANN401
            found.setdefault(where, pick(output).detach().float())

        handles.append(child.register_forward_hook(hook))

    def keep_input(where: Place, child: nn.Module) -> None:
        def hook(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            found.setdefault(where, arguments[0].detach().float())

        handles.append(child.register_forward_pre_hook(hook))

    model = module.model.vim
    keep(place(BEFORE_BLOCKS, "patch_embed"), model.patch_embed, lambda output: output)
    for index, block in enumerate(model.layers[: model.config.layers_run]):
        assert isinstance(block, Block)
        _keep_block(keep, keep_input, block, index, model.config.mirrored(index))
    if hasattr(model, "norm_f"):
        keep(place(BEHIND_BLOCKS, "norm_f"), model.norm_f, lambda output: output)
    if isinstance(model.head, nn.Linear):
        keep_input(place(BEHIND_BLOCKS, "features"), model.head)
        keep(place(BEHIND_BLOCKS, "head"), model.head, lambda output: output)
    for part, child in _dense_parts(module.model):
        keep(place(BEHIND_BLOCKS, part), child, lambda output: output)
    if isinstance(module.model, Detector):
        handles += _keep_regions(found, module.model)
    try:
        with torch.inference_mode():
            outputs = module(image, size)
    finally:
        for handle in handles:
            handle.remove()
    for name, value in zip(module.head.output_names, outputs, strict=False):
        if module.head.kind == "detections" and name in ("boxes", "classes", "masks"):
            found[place(BEHIND_BLOCKS, name)] = value.float()
    return dict(sorted(found.items()))


def _keep_block(
    keep: Callable[[Place, nn.Module, Callable[[Any], Tensor]], None],
    keep_input: Callable[[Place, nn.Module], None],
    block: Block,
    index: int,
    mirrored: bool,
) -> None:
    mixer = block.mixer
    keep(stream_of(index), block, lambda output: output[1])
    keep(place(index, "norm"), block.norm, lambda output: output)
    keep(place(index, "in_proj"), mixer.in_proj, lambda output: output)
    for suffix in ("", "_b"):
        direction = direction_of(bool(suffix), mirrored)
        if suffix and not mixer.bidirectional:
            continue
        for part, name in DIRECTED.items():
            # v1 shares all but the scan between the directions: they run once, in the first.
            if hasattr(mixer, f"{name}{suffix}"):
                child = getattr(mixer, f"{name}{suffix}")
                keep(place(index, part, direction), child, lambda output: output)
    keep_input(place(index, "mixed"), mixer.out_proj)
    keep(place(index, "out_proj"), mixer, lambda output: output)


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
