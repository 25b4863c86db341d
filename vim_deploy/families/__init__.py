"""Model families: one folder each and one row of ``FAMILIES``, over which every choice is a loop.

A row names its things and imports them when they are asked for: importing this imports no family.
Nothing outside of a family's folder knows it by name; what is asked of every architecture stands in
``families.base``, and docs/families.md says how another one is added.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from vim_deploy.errors import nearest

if TYPE_CHECKING:
    from vim_deploy.families.part import Parts


@dataclass(frozen=True)
class Family:
    """What vim-deploy knows about a family before any of its models is at hand.

    Attributes:
        name: in files, recipes and options; of its folder, too.
        title: in sentences.
        keys: two names of weights that stand together in its checkpoints, and in no other's.
        wide_key: a weight whose first axis is as wide as what the classifier reads.
        fusion: whether there are passes that fuse its mixers (``fusion`` in its folder).
        model_type: what ``config.json`` of Hugging Face calls it, where that says what it is.
    """

    name: str
    title: str
    keys: tuple[str, str]
    wide_key: str
    fusion: bool = False
    model_type: str = ""

    def part(self, module: str) -> Any:  # noqa: ANN401 - modules share no type
        """A module of its folder: ``parts``, ``config``, ``names``, ``network`` or ``fusion``."""
        return importlib.import_module(f"{__name__}.{self.name}.{module}")

    @property
    def config(self) -> type[Any]:
        """The record of its architectures, a ``families.base.ModelConfig``."""
        found: type[Any] = self.part("config").CONFIG
        return found

    @property
    def parts(self) -> Parts:
        """What its models consist of."""
        found: Parts = self.part("parts").PARTS
        return found


FAMILIES = (
    Family(
        name="vim",
        title="Vision Mamba",
        keys=("patch_embed.proj.weight", "layers.0.mixer.A_log"),
        wide_key="patch_embed.proj.weight",
        fusion=True,
    ),
    Family(
        name="mambavision",
        title="MambaVision",
        keys=("patch_embed.conv_down.0.weight", "levels.2.blocks.0.mixer.A_log"),
        wide_key="norm.weight",
        model_type="mambavision",
    ),
    Family(
        name="vmamba",
        title="VMamba",
        keys=("patch_embed.0.weight", "layers.0.blocks.0.op.A_logs"),
        wide_key="classifier.norm.weight",
    ),
)
#: Of what does not say its family: files and recipes from before there were several.
FIRST = FAMILIES[0]
_BY_NAME = {family.name: family for family in FAMILIES}


class _OfFamily(Protocol):
    """An architecture: ``families.base.ModelConfig``."""

    family: ClassVar[str]


def family_of(config: _OfFamily) -> Family:
    """The family of an architecture."""
    return _BY_NAME[config.family]


def named(name: str) -> Family:
    """The family called ``name``; ValueError for none, with the nearest name."""
    if name not in _BY_NAME:
        raise ValueError(f"unknown family {name!r}: {nearest(name, _BY_NAME)}")
    return _BY_NAME[name]


def family_said(values: Mapping[str, Any]) -> Family:
    """The family that a stored or written architecture says it is of.

    Raises:
        ValueError: it names one that is not known.
    """
    said = values.get("family")
    if isinstance(said, str):
        return named(said)
    kind = values.get("model_type")
    return next((item for item in FAMILIES if item.model_type and item.model_type == kind), FIRST)
