"""Where things are in a model: the grammar of names that PyTorch and exported graphs share."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Place:
    """Where an inner tensor of a model is, the same in PyTorch and in an exported graph.

    Attributes:
        block: number from 0; -1 before the blocks, 10000 behind them.
        step: place in the order of computation within the block.
        part: ``patch_embed``, ``tokens`` (with class tokens and position embedding); in a block
            ``residual`` (the sum that the norm reads), ``norm``, ``in_proj``, ``conv``,
            ``x_proj``, ``dt_proj``, ``scan`` (one direction's output, gated), ``mixed`` (their
            sum), ``out_proj``; then ``norm_f``, ``features`` (what the head reads), ``head``; of
            dense models the neck's maps by their output's name, ``feature_0`` or ``p2``, and the
            convolutions of the heads by their path, such as ``decode_head.lateral_convs.0``.
        direction: ``fwd``, ``bwd``, or empty for what the directions share.
    """

    block: int
    step: int
    part: str
    direction: str = ""

    def __str__(self) -> str:
        if not self.in_block:
            return self.part
        return f"block {self.block} {self.part}" + (f" {self.direction}" if self.direction else "")

    @property
    def in_block(self) -> bool:
        """Whether it is part of a block."""
        return self.block not in (BEFORE_BLOCKS, BEHIND_BLOCKS)

    @property
    def role(self) -> str:
        """The role that computes it, by the names of precision policies where they have one."""
        family = _family(self.part)
        if family in _NECK_PARTS:
            return "neck"
        if family.endswith(".conv_seg"):
            # It makes the logits, as the head of a classifier does.
            return "head"
        if family.startswith(_DENSE_HEADS):
            return "decode_head"
        return {"mixed": "scan", "norm_f": "norm", "features": "pooling"}.get(self.part, self.part)


BEFORE_BLOCKS = -1
BEHIND_BLOCKS = 10_000
_STEPS = (
    ("patch_embed", ""),
    ("tokens", ""),
    ("residual", ""),
    ("norm", ""),
    ("in_proj", ""),
    *((part, direction) for part in ("conv", "x_proj", "dt_proj", "scan")
      for direction in ("fwd", "bwd")),
    ("mixed", ""),
    ("out_proj", ""),
    ("norm_f", ""),
    ("features", ""),
    ("head", ""),
    *((part, "") for part in ("feature", "p", *(
        f"decode_head.{layer}"
        for layer in ("lateral_convs", "psp_modules", "bottleneck", "fpn_convs", "fpn_bottleneck",
                      "conv_seg")
    ), "auxiliary_head.convs", "auxiliary_head.conv_seg")),
)  # fmt: skip
_NECK_PARTS = ("feature", "p")
_DENSE_HEADS = ("decode_head", "auxiliary_head")


def _family(part: str) -> str:
    """The name of ``part`` without its number, as ``feature_0``, ``p2``, ``convs.1`` have."""
    return re.sub(r"[._]?\d+$", "", part)


def place(block: int, part: str, direction: str = "") -> Place:
    """The place of that name, with its step filled in; ValueError when there is none."""
    return Place(block, _STEPS.index((_family(part), direction)), part, direction)
