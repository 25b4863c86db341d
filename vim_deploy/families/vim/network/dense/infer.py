"""The architecture of a dense checkpoint: from its configuration, or from its shapes.

The official segmentation code passes ``in_chans`` and ``num_classes`` by position into slots that
have come to mean ``d_state`` and ``channels``. So a configuration with ``in_chans=3`` either means
what it says, and was trained with the code from before, or gave a model with d_state 3 and
``num_classes`` input channels. The weights tell which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig, read_config
from vim_deploy.families.vim.network.dense.detector_shapes import heads_of
from vim_deploy.families.vim.network.dense.weights import DenseWeights
from vim_deploy.families.vim.network.infer import infer_config
from vim_deploy.families.vim.network.shapes import Shapes, measure
from vim_deploy.families.vim.network.variants import ImageSize
from vim_deploy.families.vim.official_dense import OfficialDense
from vim_deploy.model.keys import cannot_infer, count_of, shape_of
from vim_deploy.recipe.dense_config import PYRAMID_SCALES, DenseConfig, read_dense

#: Pool scales of the official UPerHead; shapes tell only how many there are.
_POOL_SCALES = (1, 2, 3, 6)
#: What the published dense models have where shapes do not tell (seg/configs/vim, det/configs).
_PUBLISHED = {"if_rope_residual": True, "final_pool_type": "all"}


@dataclass(frozen=True)
class DenseArchitecture:
    """Backbone and what is behind it, with sentences on where they come from.

    ``source`` is what described them, as messages call it.
    """

    config: VimConfig
    dense: DenseConfig
    statements: tuple[str, ...]
    source: str = "the shapes of the weights"


def described(
    official: OfficialDense, weights: DenseWeights | None, source: str
) -> DenseArchitecture:
    """The architecture of an official configuration; the weights decide what its slots mean.

    Args:
        official: the configuration.
        weights: of the checkpoint; None for seeded ones, where the names mean what they say.
        source: where the configuration is from, for the statements.

    Raises:
        VimDeployError: VIM-404 when the weights fit neither meaning, VIM-201, VIM-408.
    """
    written, classes = official.slots
    if weights is None:
        sizes, statement = {"channels": written}, f"in_chans={written} is the number of channels"
    else:
        sizes, statement = _slots(written, classes, measure(weights.vim()))
    # A d_state that the configuration names itself stays, and has to be the weights'.
    config = read_config({**sizes, **official.backbone})
    config.require_dense(official.dense)
    statements = (f"architecture from {source}", statement)
    return DenseArchitecture(config, official.dense, statements, source)


def _slots(written: int, classes: int | None, shapes: Shapes) -> tuple[dict[str, int], str]:
    """Channels and d_state, and which of its two meanings the configuration has."""
    found = {"channels": shapes.channels, "d_state": shapes.d_state}
    shown = f"d_state={shapes.d_state} and {shapes.channels} input channels"
    if written == shapes.channels:
        return found, f"the weights have {shown}: in_chans={written} means the channels"
    if classes is not None and (written, classes) == (shapes.d_state, shapes.channels):
        return found, (
            f"the weights have {shown}: in_chans={written} and num_classes={classes} stand in the "
            "slots of d_state and channels, as the official segmentation code passes them"
        )
    raise VimDeployError(
        "VIM-404",
        f"in_chans={written} fits the weights in neither of its meanings",
        why=f"the weights have {shown}; the configuration has in_chans={written}"
        + ("" if classes is None else f", num_classes={classes}"),
        fix="give the configuration that this checkpoint was trained with",
    )


def inferred(
    weights: DenseWeights, image_size: ImageSize | None, args: Mapping[str, Any]
) -> DenseArchitecture:
    """The architecture from shapes and key names, with the published models' values elsewhere.

    Raises:
        VimDeployError: VIM-407 when something is missing that nothing in the file tells.
    """
    vim = infer_config(weights.vim(), args, image_size=image_size, hidden=_PUBLISHED)
    # That there is no classifier is no news of a dense model.
    statements = [text for text in vim.statements if not text.startswith("num_classes=0")]
    config = vim.config.replace(final_pool_type="all", num_classes=0)
    detector = weights.kind in ("detector", "rcnn")
    if config.channels not in (1, 3) and not detector:
        statements.append(
            f"d_state={config.d_state} and {config.channels} input channels: what the official "
            f"segmentation code builds from in_chans={config.d_state}, "
            f"num_classes={config.channels}, which it passes into the wrong slots"
        )
    if detector:
        values = _detector_parts(weights, config, statements)
    else:
        values = _segmentation_parts(weights, config, statements)
    dense = read_dense(values)
    config.require_dense(dense)
    return DenseArchitecture(config, dense, tuple(statements))


def _detector_parts(
    weights: DenseWeights, config: VimConfig, statements: list[str]
) -> dict[str, Any]:
    tensors = weights.tensors
    first = weights.vim_path.removesuffix("net") + "simfp_4.0"
    out_channels = shape_of(tensors, f"{first}.weight", 4)[0]
    norm = "BN" if f"{first}.norm.running_mean" in tensors else "LN"
    statements += [
        f"from the shapes of the pyramid: out_channels={out_channels}, norm={norm!r}",
        "assumed last_layer_process='add', top_block=True: the published detectors have these",
    ]
    return {
        "task": "detection",
        "out_indices": [config.depth - 1],
        "last_layer_process": "add",
        "if_fpn": False,
        "pyramid": {
            "out_channels": out_channels,
            "norm": norm,
            "scale_factors": list(PYRAMID_SCALES),
        },
        "detector": heads_of(tensors, statements) if weights.kind == "rcnn" else None,
    }


def _segmentation_parts(
    weights: DenseWeights, config: VimConfig, statements: list[str]
) -> dict[str, Any]:
    tensors = weights.tensors
    prefix = f"{weights.vim_path}." if weights.vim_path else ""
    if config.depth % 4:
        raise cannot_infer(
            "the architecture cannot be inferred: which blocks give feature maps",
            f"{config.depth} blocks do not divide into four parts",
            "give the official configuration with --config FILE.json",
        )
    indices = [config.depth * part // 4 - 1 for part in (1, 2, 3, 4)]
    statements.append(
        f"assumed out_indices={indices}, use_residual_as_feature=False, last_layer_process='none': "
        "the last block of each quarter, as the published segmentation models have it"
    )
    values: dict[str, Any] = {
        "task": "segmentation",
        "out_indices": indices,
        "if_fpn": any(key.startswith(f"{prefix}fpn1.") for key in tensors),
    }
    if weights.kind == "segmentor":
        values |= _heads(tensors, statements)
        size = list(config.image_hw)
        # Two thirds of the window: 341 for the published 512.
        stride = [max(1, side * 2 // 3) for side in size]
        values["test"] = {"mode": "slide", "crop": size, "stride": stride}
        statements.append(f"assumed sliding windows of {size} every {stride} pixels")
    return values


def _heads(tensors: Mapping[str, Tensor], statements: list[str]) -> dict[str, Any]:
    classes, channels, _, _ = shape_of(tensors, "decode_head.conv_seg.weight", 4)
    scales = count_of(tensors, r"decode_head\.psp_modules\.(\d+)\.")
    if scales != len(_POOL_SCALES):
        raise cannot_infer(
            "the architecture cannot be inferred: pool_scales of the decode head",
            f"{scales} pooling branches, the official head has {len(_POOL_SCALES)}",
            "give the official configuration with --config FILE.json",
        )
    values: dict[str, Any] = {
        "decode_head": {
            "channels": channels,
            "num_classes": classes,
            "pool_scales": list(_POOL_SCALES),
        }
    }
    statements.append(
        f"decode head: UPerHead with {channels} channels, {classes} classes; "
        f"assumed pool_scales={list(_POOL_SCALES)}"
    )
    if any(key.startswith("auxiliary_head.") for key in tensors):
        width, _, size, _ = shape_of(tensors, "auxiliary_head.convs.0.conv.weight", 4)
        values["auxiliary_head"] = {
            "channels": width,
            "num_classes": shape_of(tensors, "auxiliary_head.conv_seg.weight", 4)[0],
            "num_convs": count_of(tensors, r"auxiliary_head\.convs\.(\d+)\."),
            "kernel_size": size,
            "in_index": 2,
        }
        statements.append("auxiliary head: FCNHead; assumed in_index=2")
    return values
