"""Where things are in a model: the grammar of names that PyTorch and exported graphs share.

A node of an exported graph is named after the module that made it and its operator, so that a name
tells block, part and direction::

    block_07/mixer/bwd/x_proj/MatMul    layers.7.mixer.x_proj_b, where block 7 is not mirrored
    block_07/mixer/x_proj/MatMul        both directions at once, after fusing
    block_07/mixer/scan/VimBiSelectiveScan/delta    of that op's function, put in its place
    block_07/Add                        the residual stream
    decode_head/conv_seg/Conv           behind the blocks
    Add_1                               beside all modules

No other module makes such names out of pieces, or takes them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from vim_deploy.families import FAMILIES
from vim_deploy.families.part import Part

DIRECTIONS: Final = ("fwd", "bwd")
BEFORE_BLOCKS: Final = -1
BEHIND_BLOCKS: Final = 10_000
NECK, DECODE_HEAD, OUTSIDE = "neck", "decode_head", "outside"
RPN_HEAD, BOX_HEAD, MASK_HEAD = "rpn_head", "box_head", "mask_head"
#: Levels that a detector's proposals come from, and the most stages of boxes: places of both are
#: numbered.
RPN_LEVELS: Final = ("p2", "p3", "p4", "p5", "p6")
MOST_STAGES: Final = 8

_MIXER = "mixer"

#: Of what stands behind the blocks of any family. conv_seg makes the logits, as the head of a
#: classifier does.
_BEHIND = (
    Part("features", None, "pooling"),
    Part("head", ("head",), "head", product=True),
    Part("feature_#", ("fpn#",), NECK, first=1),
    Part("p#", ("simfp_#",), NECK),
    *(
        Part(name, tuple(name.split(".")), "head" if name.endswith(".conv_seg") else DECODE_HEAD)
        for name in (
            "decode_head.lateral_convs.#", "decode_head.psp_modules.#", "decode_head.bottleneck",
            "decode_head.fpn_convs.#", "decode_head.fpn_bottleneck", "decode_head.conv_seg",
            "auxiliary_head.convs.#", "auxiliary_head.conv_seg",
        )
    ),
    # Of a detector. The RPN's head runs once a level, and regions are not told apart by modules:
    # what is where, only readers can tell.
    *(
        Part(f"rpn.{level}.{what}", None, RPN_HEAD)
        for level in RPN_LEVELS for what in ("logits", "deltas")
    ),
    Part("proposals", None, "regions"),
    *(
        Part(f"stage.{stage}.{what}", None, BOX_HEAD)
        for stage in range(MOST_STAGES) for what in ("logits", "deltas")
    ),
    Part("boxes", None, "regions"),
    Part("classes", None, "regions"),
    Part("masks", None, MASK_HEAD),
)  # fmt: skip
_SCOPE_ROLES_BEHIND = {
    "head": "head",
    "fpn#": NECK,
    "simfp_#": NECK,
    "decode_head": DECODE_HEAD,
    "auxiliary_head": DECODE_HEAD,
    "proposal_generator/rpn_head": RPN_HEAD,
    "roi_heads/box_head": BOX_HEAD,
    "roi_heads/box_predictor": BOX_HEAD,
    "roi_heads/mask_head": MASK_HEAD,
}


def _merged(lists: Iterable[tuple[Part, ...]]) -> tuple[Part, ...]:
    """All parts of ``lists``, each once, in an order that is that of each list."""
    found: list[Part] = []
    for parts in lists:
        at = 0
        for part in parts:
            if part in found:
                at = found.index(part) + 1
            else:
                found.insert(at, part)
                at += 1
    return tuple(found)


_FAMILIES = tuple(family.parts for family in FAMILIES)
#: In order of computation, whatever the family.
_BLOCK_PARTS = _merged(family.block for family in _FAMILIES)
_BEFORE = _merged(family.before for family in _FAMILIES)
_OUTER_PARTS = (*_merged(family.behind for family in _FAMILIES), *_BEHIND)
_PARTS = (*_BEFORE, *_BLOCK_PARTS, *_OUTER_PARTS)
_DEEPEST = max(len(part.scope or ()) for part in _PARTS)
#: Roles of the nodes below these scopes that belong to no part.
_SCOPE_ROLES = {
    **{scope: role for family in _FAMILIES for scope, role in family.scope_roles.items()},
    **_SCOPE_ROLES_BEHIND,
}
#: Modules that such a scope has at most.
_SCOPE_DEPTH = 2
#: Roles that are groups of nodes of their own beside the blocks, in order of computation.
GROUPS: Final = (NECK, DECODE_HEAD, RPN_HEAD, BOX_HEAD, MASK_HEAD)
#: Roles that precision policies name: those that exist once in a model, those of every block. What
#: has another role, or none, is float32 always.
MODEL_ROLES: Final = tuple(dict.fromkeys(_SCOPE_ROLES.values()))
BLOCK_ROLES: Final = tuple(dict.fromkeys(p.role for p in _BLOCK_PARTS if p.role != "norm"))

#: Module of a mixer by part, of the parts that PyTorch has for each direction.
DIRECTED: Final = {p.name: p.scope[-1] for p in _BLOCK_PARTS if p.directed and p.scope}
#: Roles of the products that int8 and fp8 quantize.
PRODUCT_ROLES: Final = tuple(dict.fromkeys(part.role for part in _PARTS if part.product))
_BRANCHES = {(_MIXER, way, module) for way in DIRECTIONS for module in DIRECTED.values()}
_STEPS = tuple(
    (part.name, direction)
    for part in _PARTS
    for direction in (DIRECTIONS if part.directed else ("",))
)
_BY_NAME = {part.name: part for part in _PARTS}
_IN_BLOCK = {part.scope: part for part in _BLOCK_PARTS}
_OUTSIDE = {part.scope: part for part in _PARTS if part not in _BLOCK_PARTS}
_BLOCK = re.compile(r"block_([0-9]{1,6})")
_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,6}$")


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
            convolutions of the heads by their path, such as ``decode_head.lateral_convs.0``; of
            detectors ``rpn.p2.logits`` and ``.deltas`` of each level, ``proposals``,
            ``stage.0.logits`` and ``.deltas`` of each stage, then ``boxes``, ``classes`` and
            ``masks`` of the detections.
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
        return _BY_NAME[_row_name(self.part)].role


def place(block: int, part: str, direction: str = "") -> Place:
    """The place of that name, with its step filled in; ValueError when there is none."""
    return Place(block, _STEPS.index((_row_name(part), direction)), part, direction)


def stream_of(block: int) -> Place:
    """What the norm of ``block`` reads: the first block's stream is the tokens themselves."""
    return place(BEFORE_BLOCKS, "tokens") if block == 0 else place(block, "residual")


@dataclass(frozen=True)
class NodeName:
    """The name of a node, taken apart.

    Attributes:
        block: number from 0, None outside of the blocks.
        scope: names of the modules around it, below the block and without the direction.
        direction: ``fwd``, ``bwd``, or empty for what the directions share or hold together.
        operator: the last piece, with its number.
    """

    block: int | None
    scope: tuple[str, ...]
    direction: str
    operator: str

    @property
    def part(self) -> str:
        """The part (``Place.part``) that it helps to compute, or empty."""
        row = self._row
        if row is None or not row.name.endswith("#"):
            return "" if row is None else row.name
        number = _NUMBER.search(self.scope[len(row.scope or ()) - 1])
        assert number is not None
        return row.name.removesuffix("#") + str(int(number[0]) - row.first)

    @property
    def place(self) -> Place:
        """The place of its part; ValueError without one, or without a direction that it has."""
        part = self.part
        outside = BEFORE_BLOCKS if part == "patch_embed" else BEHIND_BLOCKS
        return place(outside if self.block is None else self.block, part, self.direction)

    @property
    def role(self) -> str | None:
        """The role of precision policies; None for what is always float32."""
        if self.block is None and self.operator.startswith("LayerNormalization"):
            # Feature pyramids have norms inside of their levels.
            return None
        role = self._scope_role if self._row is None else self._row.role
        return role if role in MODEL_ROLES or role in BLOCK_ROLES else None

    @property
    def narrow(self) -> bool:
        """Whether its Softmax or Pow may be in 16 bits (``Part.narrow``)."""
        return self._row is not None and self._row.narrow

    @property
    def group(self) -> str:
        """``block_03``, one of ``GROUPS``, or ``outside``."""
        if self.block is not None:
            return block_scope(self.block)
        role = self._scope_role
        return role if role in GROUPS else OUTSIDE

    @property
    def mixer(self) -> str:
        """Start of the names of the nodes of the mixer that it is in; empty outside of mixers."""
        inside = self.block is not None and self.scope[:1] == (_MIXER,)
        return f"{block_scope(self.block or 0)}/{_MIXER}" if inside else ""

    @property
    def _row(self) -> Part | None:
        table = _OUTSIDE if self.block is None else _IN_BLOCK
        scope = self.scope[:_DEEPEST]
        for length in range(len(scope), -1, -1):
            # Some names end in a digit of their own: fc1, norm2.
            inner = scope[:length]
            row = table.get(inner) or table.get(tuple(map(_unnumbered, inner)))
            if row is not None and (not row.beside or length == len(self.scope)):
                return row
        return None

    @property
    def _scope_role(self) -> str | None:
        if self.block is not None:
            return None
        scope = [_unnumbered(piece) for piece in self.scope[:_SCOPE_DEPTH]]
        starts = ("/".join(scope[:length]) for length in range(1, len(scope) + 1))
        return next((_SCOPE_ROLES[start] for start in starts if start in _SCOPE_ROLES), None)


def parse(name: str) -> NodeName:
    """Take the name of a node of an exported graph apart; any text has some form."""
    *scope, operator = name.split("/")
    numbered = _BLOCK.fullmatch(scope[0]) if scope else None
    if numbered is None:
        return NodeName(None, tuple(scope), "", operator)
    inner, direction = scope[1:], ""
    if tuple(inner[:3]) in _BRANCHES:
        direction = inner.pop(1)
    return NodeName(int(numbered[1]), tuple(inner), direction, operator)


def role_of(name: str) -> tuple[str | None, int | None]:
    """Role and block of the node called ``name``; no role for what is always float32."""
    at = parse(name)
    return at.role, at.block


def beside(name: str, operator: str, direction: str = "") -> str:
    """The name of another node in the module of the node called ``name``.

    Args:
        name: such as ``block_07/mixer/x_proj/MatMul``.
        operator: of the other node, its last piece.
        direction: ``fwd`` or ``bwd`` for what it does for one of a mixer's directions, where the
            node does both.
    """
    *scope, _ = name.split("/")
    if direction and tuple(scope[1:2]) == (_MIXER,):
        scope.insert(2, direction)
    return "/".join([*scope, operator])


def block_scope(block: int) -> str:
    """How the names of the nodes of a block begin: ``block_03``."""
    return f"block_{block:02d}"


def direction_of(second: bool, mirrored: bool) -> str:
    """The direction of a mixer's first or second branch; mirrored layers exchange them."""
    return DIRECTIONS[second != mirrored]


def inlined_name(call: str, inner: str) -> str:
    """The name of a node or tensor of a function's body where it was put in the place of ``call``.

    Its ``scope`` ends with the call's operator: ``block_07/mixer/scan/VimBiSelectiveScan/delta``.
    """
    return f"{call}/{inner}"


def _row_name(part: str) -> str:
    """The name of a part's row: as it is, or with # for its number."""
    return part if part in _BY_NAME else _unnumbered(part)


def _unnumbered(name: str) -> str:
    return _NUMBER.sub("#", name)
