"""``--model auto``: the architecture from the checkpoint itself, and how sure each part of it is.

Sizes come from tensor shapes. Where shapes do not tell (where a class token sits, how it is pooled,
the stride), the official factory name in the stored training arguments decides; else the published
models do, and that is stated as an assumption.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.checks import SSM_CFG_DEFAULTS
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.names import NO_EFFECT
from vim_deploy.families.vim.names import variant as named_variant
from vim_deploy.families.vim.network.shapes import Shapes, measure
from vim_deploy.families.vim.network.variants import (
    ImageSize,
    choose_variant,
    grid_of,
    image_side,
    said,
    square,
    stored_size,
)
from vim_deploy.model.keys import cannot_infer
from vim_deploy.recipe.catalog import short_name

#: The published models' values of what shapes do not tell (their factories in models_mamba.py).
_PUBLISHED: dict[str, Any] = {
    "if_bidirectional": False,
    "flip_img_sequences_ratio": -1.0,
    "final_pool_type": "mean",
    "norm_epsilon": 1e-5,
    "use_middle_cls_token": True,
    "if_divide_out": True,
    "if_rope_residual": False,
}
#: Training arguments of the official main.py and the constructor keywords they become.
_TRAINING_ARGS = {"drop": "drop_rate", "drop_path": "drop_path_rate"}


@dataclass(frozen=True)
class Inferred:
    """An inferred architecture.

    Attributes:
        config: complete constructor keywords, at the checkpoint's own image size.
        name: short name of the variant, or ``custom``.
        statements: sentences on what was inferred from what; assumptions start with "assumed".
        assumed: names of the config fields that are assumptions.
    """

    config: VimConfig
    name: str
    statements: tuple[str, ...]
    assumed: frozenset[str]


@dataclass
class _Draft:
    """Fields collected so far, with what is to be said about them."""

    values: dict[str, Any] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)
    assumed: set[str] = field(default_factory=set)

    def known(self, statement: str, **values: Any) -> None:  # noqa: ANN401 - values of any field
        self.values.update(values)
        self.statements.append(statement)

    def assume(self, reason: str, **values: Any) -> None:  # noqa: ANN401 - values of any field
        self.values.update(values)
        self.assumed.update(values)
        listed = ", ".join(f"{name}={value!r}" for name, value in values.items())
        self.statements.append(f"assumed {listed}: {reason}")


def infer_config(
    state_dict: Mapping[str, Tensor],
    stored_args: Mapping[str, Any] | None = None,
    *,
    model: str | None = None,
    image_size: ImageSize | None = None,
    hidden: Mapping[str, Any] | None = None,
) -> Inferred:
    """The architecture of a checkpoint.

    Args:
        state_dict: weights by official keys.
        stored_args: training arguments from the file (``model``, ``input_size``, ...).
        model: named variant that the user says it is; image size and classes are then inferred.
        image_size: used only where the checkpoint does not tell its own.
        hidden: values of what shapes do not tell, other than the published classifiers', of the
            backbone of a dense model; nothing is then said of classes.

    Raises:
        VimDeployError: VIM-404 when the weights are not those of ``model``, VIM-407 when something
            is missing that nothing in the file tells.
    """
    shapes = measure(state_dict)
    args = dict(stored_args or {})
    draft = _Draft()
    variant, assumed, draft.statements = choose_variant(shapes, args, model, image_size)
    stored = said(args)
    if variant is None:
        _sizes_from_shapes(shapes, draft)
        _image_from_patches(shapes, args, image_size, draft)
        _hidden_fields(shapes, draft, {**_PUBLISHED, **(hidden or {})}, stored)
    else:
        _variant_fields(variant, shapes, assumed, stored, draft)
        _image_from_stride(shapes, args, named_variant(variant), image_size, draft)
    if hidden is None:
        _classes(shapes, draft)
    for argument, name in _TRAINING_ARGS.items():
        if isinstance(args.get(argument), float):
            draft.values[name] = args[argument]
    config = _checked(draft.values)
    return Inferred(config, short_name(config), tuple(draft.statements), frozenset(draft.assumed))


def _checked(values: dict[str, Any]) -> VimConfig:
    try:
        return VimConfig(**values)
    except VimDeployError as error:
        raise cannot_infer(
            f"the architecture cannot be inferred: {error.message}", error.why
        ) from error


def _variant_fields(
    variant: str, shapes: Shapes, assumed: bool, stored: Mapping[str, Any], draft: _Draft
) -> None:
    config = named_variant(variant)
    names = [name for name in encode(config) if name not in ("img_size", "num_classes")]
    values = {name: getattr(config, name) for name in names}
    if not assumed:
        draft.values.update(values)
        return
    draft.known(
        f"shapes are those of {variant}: embed_dim {shapes.embed_dim}, depth {shapes.depth}, "
        f"patch {shapes.patch_hw[0]}, d_state {shapes.d_state}, bimamba {shapes.direction}",
        **values,
    )
    untold = ("stride", *_told_by_nothing(shapes))
    hidden = {name: values[name] for name in untold if name not in stored}
    draft.assume(f"shapes do not tell, and {variant} has these", **hidden)
    draft.assumed.update((*NO_EFFECT, "ssm_cfg"))


def _image_from_stride(
    shapes: Shapes,
    args: Mapping[str, Any],
    config: VimConfig,
    hint: ImageSize | None,
    draft: _Draft,
) -> None:
    """Image size of a variant with known stride, from the number of position-embedding rows."""
    grid = square(shapes.patches)
    if grid is None:
        _image_from_hint(shapes, hint, config.stride, draft)
        return
    stored = stored_size(args)
    if stored is not None and grid_of(stored, config) == grid:
        source, size = f"input_size in the stored training arguments, {grid}x{grid} patches", stored
    else:
        source = f"{shapes.tokens} rows of pos_embed, {grid}x{grid} patches, stride {config.stride}"
        size = image_side(grid, config)
    draft.known(f"img_size={size} from {source}", img_size=size)


def _sizes_from_shapes(shapes: Shapes, draft: _Draft) -> None:
    patch_h, patch_w = shapes.patch_hw
    values: dict[str, Any] = {
        "embed_dim": shapes.embed_dim,
        "depth": shapes.depth,
        "patch_size": patch_h if patch_h == patch_w else shapes.patch_hw,
        "channels": shapes.channels,
        "d_state": shapes.d_state,
        "bimamba_type": shapes.direction,
        "rms_norm": shapes.rms_norm,
        "if_abs_pos_embed": shapes.tokens is not None,
        "if_rope": shapes.rope_grid is not None,
        "if_cls_token": shapes.cls_tokens > 0,
        "use_double_cls_token": shapes.cls_tokens == 2,
    }
    if shapes.pt_hw_seq_len is not None:
        values["pt_hw_seq_len"] = shapes.pt_hw_seq_len
    ssm = _ssm_cfg(shapes)
    if ssm:
        values["ssm_cfg"] = ssm
    listed = ", ".join(f"{name}={value!r}" for name, value in values.items())
    draft.known(f"from the shapes of the weights: {listed}", **values)
    if shapes.layer_scale:
        draft.known("layer scale (mixer.gamma) is in the checkpoint")
        draft.assume("only the start value of gamma, replaced by the weights", init_layer_scale=1.0)


def _ssm_cfg(shapes: Shapes) -> dict[str, Any]:
    """The ``ssm_cfg`` keywords that differ from their defaults."""
    ratio = shapes.d_inner / shapes.embed_dim
    auto_rank = math.ceil(shapes.embed_dim / 16)
    values = {
        "d_conv": shapes.d_conv,
        "expand": int(ratio) if ratio.is_integer() else ratio,
        "dt_rank": "auto" if shapes.dt_rank == auto_rank else shapes.dt_rank,
        "conv_bias": shapes.conv_bias,
        "bias": shapes.bias,
    }
    return {key: value for key, value in values.items() if value != SSM_CFG_DEFAULTS[key]}


def _told_by_nothing(shapes: Shapes) -> list[str]:
    """Fields that matter for this model and that its shapes do not tell."""
    pointless = set()
    if shapes.cls_tokens != 1:
        pointless.add("use_middle_cls_token")
    if shapes.direction != "v2":
        pointless.add("if_divide_out")
    if shapes.rope_grid is None:
        pointless.add("if_rope_residual")
    return [name for name in _PUBLISHED if name not in pointless]


def _hidden_fields(
    shapes: Shapes, draft: _Draft, published: Mapping[str, Any], stored: Mapping[str, Any]
) -> None:
    """What the stored arguments say that shapes do not, and the published models' values else."""
    untold = _told_by_nothing(shapes)
    told = {name: stored[name] for name in untold if name in stored}
    if told:
        listed = ", ".join(f"{name}={value!r}" for name, value in told.items())
        draft.known(f"from the stored training arguments: {listed}", **told)
    values = {name: published[name] for name in untold if name not in told}
    draft.assume("shapes do not tell, and the published models have these", **values)
    # Stated once here, not listed each time: the first changes kernels only, the second is a
    # debugging switch of the official mixer (ssm_cfg use_fast_path=False drops the backward scan).
    draft.assumed.update((*NO_EFFECT, "ssm_cfg"))
    if shapes.direction != "none":
        draft.statements.append(
            "assumed ssm_cfg use_fast_path=True: without it the official code runs forward only"
        )


def _image_from_patches(
    shapes: Shapes, args: Mapping[str, Any], hint: ImageSize | None, draft: _Draft
) -> None:
    """Image size and stride of a custom model."""
    patch, width = shapes.patch_hw
    if patch != width:
        raise cannot_infer(
            "the architecture cannot be inferred: stride and image size of non-square patches",
            f"patches are {patch}x{width} pixels",
        )
    stored = stored_size(args)
    stored = stored if stored is not None and stored >= patch else None
    stride = said(args).get("stride")
    if shapes.patches is None:
        _image_of_nothing(patch, stored, hint, draft)
        return
    grid = square(shapes.patches)
    if grid is None:
        _image_from_hint(shapes, hint, patch, draft)
    elif shapes.rope_grid is not None:
        text = f"{shapes.rope_grid}x{shapes.rope_grid} rope positions, which need stride=patch_size"
        size = shapes.rope_grid * patch
        draft.known(f"img_size={size}, stride={patch} from {text}", img_size=size, stride=patch)
    elif stride is not None and 0 < stride <= patch:
        size = (grid - 1) * stride + patch
        text = f"the stored stride and {grid}x{grid} rows of pos_embed"
        draft.known(f"img_size={size}, stride={stride} from {text}", img_size=size, stride=stride)
    elif stored is not None and (stride := _stride(stored, patch, grid)) is not None:
        text = f"stored input_size and {grid}x{grid} rows of pos_embed"
        draft.known(
            f"img_size={stored}, stride={stride} from the {text}", img_size=stored, stride=stride
        )
    else:
        draft.assume(
            f"a square grid of {grid}x{grid} patches that do not overlap",
            img_size=grid * patch,
            stride=patch,
        )


def _stride(image: int, patch: int, grid: int) -> int | None:
    """The stride that cuts ``image`` into ``grid`` patches a side: patch, or what covers it."""
    if (image - patch) // patch + 1 == grid:
        return patch
    if grid > 1 and image > patch and (image - patch) % (grid - 1) == 0:
        return (image - patch) // (grid - 1)
    return None


def _image_of_nothing(
    patch: int, stored: int | None, hint: ImageSize | None, draft: _Draft
) -> None:
    """Without position embedding and rope, weights fit any image size."""
    reason = "there is no position embedding to tell"
    if stored is not None:
        draft.known(f"img_size={stored}: input_size in the stored arguments", img_size=stored)
        draft.assume(reason, stride=patch)
    elif hint is not None:
        draft.known(f"img_size={hint}, as asked", img_size=hint)
        draft.assume(reason, stride=patch)
    else:
        default = VimConfig.img_size
        draft.assume(f"{reason}; the official default", img_size=default, stride=patch)


def _image_from_hint(shapes: Shapes, hint: ImageSize | None, stride: int, draft: _Draft) -> None:
    """A grid that is not square: the asked image size, when it gives this number of patches."""
    patch = shapes.patch_hw[0]
    height, width = hint if isinstance(hint, tuple) else (0, 0)
    patches = ((height - patch) // stride + 1) * ((width - patch) // stride + 1)
    if min(height, width) < patch or patches != shapes.patches:
        raise _no_image_size(shapes)
    draft.known(f"img_size=({height}, {width}), as asked", img_size=(height, width))
    if "stride" not in draft.values:
        draft.assume(f"{patches} patches, as this size has then", stride=stride)


def _no_image_size(shapes: Shapes) -> VimDeployError:
    tokens = f"{shapes.cls_tokens} class tokens"
    return cannot_infer(
        "the architecture cannot be inferred: image height and width",
        f"{shapes.tokens} rows of pos_embed and {tokens} leave {shapes.patches} patches, "
        "which is no square grid",
        "give img_size=[height, width] and all other keywords with --config FILE.json",
    )


def _classes(shapes: Shapes, draft: _Draft) -> None:
    if shapes.num_classes:
        text = f"num_classes={shapes.num_classes} from head.weight"
    else:
        text = "num_classes=0: there is no head, features come out"
        if not shapes.cls_tokens:
            text += " (a bare segmentation backbone looks the same)"
    draft.known(text, num_classes=shapes.num_classes)
