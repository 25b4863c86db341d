"""Outputs of dense models: feature maps, logits of two sizes, labels."""

from __future__ import annotations

from torch import Tensor, nn

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.model.dense.layers import resized
from vim_deploy.model.dense.segmentor import Segmentor
from vim_deploy.model.head_spec import Head
from vim_deploy.recipe.dense_config import DenseConfig

#: Behind it the auxiliary head's logits are wanted as well.
AUXILIARY = "+aux"
SEGMENTATION_HEADS = ("logits", "upsampled", "labels", "features")


def default_dense_head(dense: DenseConfig) -> str:
    """The head of an export that names none."""
    return "logits" if dense.decode_head is not None else "features"


def parse_dense_head(text: str, dense: DenseConfig) -> Head:
    """Read ``--head`` for a dense model.

    ``logits``: float [B, classes, H/4, W/4]; ``upsampled``: float [B, classes, H, W]; ``labels``:
    int64 [B, H, W], the class with the largest upsampled logit; ``features``: every feature map,
    [B, channels, rows, columns]. ``+aux`` behind the first two adds ``aux_logits``.

    Raises:
        VimDeployError: VIM-202 for an unknown head, VIM-203 for one that the model does not have.
    """
    kind = text.removesuffix(AUXILIARY)
    wants_auxiliary = kind != text
    if kind not in SEGMENTATION_HEADS:
        fix = nearest(kind, SEGMENTATION_HEADS)
        raise VimDeployError("VIM-202", f"--head {text!r} is not valid for a dense model", fix=fix)
    if kind != "features" and dense.decode_head is None:
        raise VimDeployError(
            "VIM-203",
            f"--head {text} needs a segmentation head, and this model is a backbone",
            fix="--head features",
        )
    if wants_auxiliary and (kind not in ("logits", "upsampled") or dense.auxiliary_head is None):
        why = "it goes with logits and upsampled" if dense.auxiliary_head else "the model has none"
        raise VimDeployError(
            "VIM-203", f"--head {text}: no auxiliary head here", why=why, fix=f"--head {kind}"
        )
    maps = dense.feature_names if kind == "features" else ()
    return Head(kind, auxiliary=wants_auxiliary, maps=maps)


def dense_outputs(model: nn.Module, image: Tensor, head: Head) -> Tensor | tuple[Tensor, ...]:
    """What ``head`` gives of a normalised ``image`` T[B, C, H, W]; one tensor or several."""
    if head.kind == "features":
        maps = model.backbone(image) if isinstance(model, Segmentor) else model(image)
        return tuple(maps)
    assert isinstance(model, Segmentor)
    maps = model.backbone(image)
    logits: Tensor = model.decode_head(maps)
    if head.kind != "logits":
        logits = resized(logits, model.config.image_hw)
    if head.kind == "labels":
        return logits.argmax(dim=1)
    return (logits, model.auxiliary_head(maps)) if head.auxiliary else logits
