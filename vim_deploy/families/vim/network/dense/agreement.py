"""Whether a description and the weights of a dense model belong together, before it is built.

Loading is strict in any case (``model.fit``); here the usual mistakes get a sentence of their own,
and no module is built whose sizes the weights do not have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.network.dense.detector_shapes import require_heads
from vim_deploy.families.vim.network.dense.infer import DenseArchitecture
from vim_deploy.families.vim.network.dense.weights import (
    KIND_NAMES,
    DenseWeights,
    Kind,
    kind_of,
    name_of,
)
from vim_deploy.families.vim.network.shapes import measure
from vim_deploy.recipe.dense_config import DenseConfig

#: Keys that begin with these are the heads, and tell the number of classes.
_HEADS = ("decode_head", "auxiliary_head")


def wanted_kind(dense: DenseConfig) -> Kind:
    """The kind of checkpoint that a configuration describes."""
    if dense.task == "detection":
        return "detector" if dense.detector is None else "rcnn"
    return "backbone" if dense.decode_head is None else "segmentor"


def require_kind(found: DenseArchitecture, state_dict: Mapping[str, Tensor]) -> None:
    """VIM-404 when the checkpoint is another kind of model than the one described."""
    wanted, kind = wanted_kind(found.dense), kind_of(state_dict)
    name = name_of(state_dict)
    # Without feature scales (if_fpn false) a backbone's keys are those of a bare Vim.
    bare = kind is None and name == KIND_NAMES[None]
    # Of a whole detector the backbone may be exported alone.
    if kind == wanted or (wanted, kind) == ("detector", "rcnn"):
        return
    if wanted == "backbone" and bare and not found.dense.if_fpn:
        return
    fixes = {
        "segmentor": "export it without a description: --head features gives its feature maps",
        "detector": "export it without a description: its feature maps come out",
        "rcnn": "export it without a description, as the detector it is",
        "backbone": "get the checkpoint that the training framework saved, with decode_head.*; or "
        "export the backbone alone, without a description",
        None: "export it without a description, as the classifier or backbone it is",
    }
    raise VimDeployError(
        "VIM-404",
        f"{found.source} is {KIND_NAMES[wanted]}, and this checkpoint is {name}",
        why="its keys begin with " + _beginnings(state_dict),
        fix=fixes[kind],
    )


def require_sizes(found: DenseArchitecture, weights: DenseWeights) -> None:
    """VIM-404 when widths, depth or classes of the description are not the weights' own."""
    differing = measure(weights.vim()).differences(found.config)
    if differing:
        raise VimDeployError(
            "VIM-404",
            f"{found.source} does not describe these weights",
            why="the weights have " + "; ".join(differing),
            fix="give the configuration that the checkpoint was trained with, or none: it is then "
            "read off the checkpoint",
        )
    for head in _HEADS:
        described = getattr(found.dense, head)
        logits = weights.tensors.get(f"{head}.conv_seg.weight")
        if described is None or logits is None or logits.ndim == 0:
            continue
        if logits.shape[0] != described.num_classes:
            raise _other_classes(found, head, described.num_classes, logits.shape[0])
    if found.dense.detector is not None:
        require_heads(found.dense.detector, weights.tensors, found.source)
    _require_counts(found, weights)


def _other_classes(found: DenseArchitecture, head: str, said: int, real: int) -> VimDeployError:
    return VimDeployError(
        "VIM-404",
        f"{head}: {found.source} has {said} classes, and the checkpoint {real}",
        why=f"{head}.conv_seg.weight has {real} rows",
        fix=f"set num_classes = {real} there (of a recipe in a copy, with a labels file of {real} "
        "lines), or give no description: classes are then read off the checkpoint",
    )


def _require_counts(found: DenseArchitecture, weights: DenseWeights) -> None:
    """VIM-404 when the heads have other numbers of branches and convolutions."""
    counts = []
    if found.dense.decode_head is not None:
        pattern = r"decode_head\.psp_modules\.(\d+)\."
        counts.append(
            ("decode_head.pool_scales", pattern, len(found.dense.decode_head.pool_scales))
        )
    if found.dense.auxiliary_head is not None:
        pattern = r"auxiliary_head\.convs\.(\d+)\."
        counts.append(("auxiliary_head.num_convs", pattern, found.dense.auxiliary_head.num_convs))
    for name, pattern, said in counts:
        real = len({match[1] for key in weights.tensors if (match := re.match(pattern, key))})
        # None at all means that the head is missing: the strict loading lists its keys.
        if real not in (0, said):
            raise VimDeployError(
                "VIM-404",
                f"{name}: {found.source} has {said}, and the checkpoint {real}",
                fix="give the configuration that the checkpoint was trained with",
            )


def _beginnings(state_dict: Mapping[str, Tensor]) -> str:
    names = sorted({key.partition(".")[0] for key in state_dict})
    return ", ".join(names[:8]) + ", ..." * (len(names) > 8)
