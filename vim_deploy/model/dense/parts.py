"""What stands behind the blocks of dense models, by the parts that comparisons name."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from vim_deploy.model.dense.detector import DetectionBackbone
from vim_deploy.model.dense.segmentor import Segmentor


def dense_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
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
