"""A part of a model, as the grammar of names knows it (``vim_deploy.places``)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part: ``#`` stands for a number.

    Attributes:
        name: as in ``Place.part``.
        scope: modules around its nodes, below the block; None for what only its readers tell.
        role: by the names of precision policies where they have one.
        directed: whether PyTorch has one for each direction.
        first: number of the module that makes number 0.
        beside: its nodes stand beside the modules of that scope, not in one of their own.
        product: what it computes is a product that int8 and fp8 quantize.
        narrow: its Softmax or Pow may be in 16 bits; elsewhere these are those of norms and heads.
    """

    name: str
    scope: tuple[str, ...] | None
    role: str
    directed: bool = False
    first: int = 0
    beside: bool = False
    product: bool = False
    narrow: bool = False


@dataclass(frozen=True)
class Parts:
    """All parts of a family's models.

    Attributes:
        before: in front of the blocks, in order of computation.
        block: within a block, in order of computation.
        behind: behind the blocks, in order of computation.
        scope_roles: roles of the nodes below these scopes that belong to no part.
    """

    before: tuple[Part, ...]
    block: tuple[Part, ...]
    behind: tuple[Part, ...]
    scope_roles: dict[str, str]
