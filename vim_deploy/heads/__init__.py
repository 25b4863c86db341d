"""What an exported graph gives out: the table of heads, and how one is found in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.heads.base import Head, Output
from vim_deploy.heads.detections import Detections
from vim_deploy.heads.features import Features
from vim_deploy.heads.labels import Labels
from vim_deploy.heads.logits import Logits
from vim_deploy.heads.maps import Maps
from vim_deploy.heads.pixel_logits import PixelLogits
from vim_deploy.heads.softmax import Softmax
from vim_deploy.heads.tokens import Tokens
from vim_deploy.heads.topk import TopK
from vim_deploy.heads.upsampled import Upsampled
from vim_deploy.ranges import shown

if TYPE_CHECKING:
    from vim_deploy.families.base import ModelConfig
    from vim_deploy.recipe.dense_config import DenseConfig

#: Every head; the one an export takes by itself comes first of its kind of model.
TABLE: tuple[type[Head], ...] = (
    Logits, Softmax, TopK, Features, Tokens,
    PixelLogits, Upsampled, Labels, Detections, Maps,
)  # fmt: skip
_NAME = re.compile(r"[^:+]*")


def usages(*, dense: bool) -> tuple[str, ...]:
    """What ``--head`` takes for a classifier or a dense model."""
    return tuple(head.usage for head in TABLE if head.dense == dense)


def find(text: str, *, dense: bool) -> Head:
    """The head called ``text``, before anything is known of the model.

    Args:
        text: ``logits``, ``topk:5``, ``upsampled+aux``: a name of the table, and what belongs
            to it.
        dense: whether the model is a network around a Vim.

    Raises:
        VimDeployError: VIM-202 for none.
    """
    found = _NAME.match(text)
    assert found is not None
    for head in TABLE:
        if head.dense == dense and head.name == found[0]:
            return head.parse(text)
    if dense:
        message = f"--head {text!r} is not valid for a dense model"
        raise VimDeployError("VIM-202", message, fix=nearest(found[0], usages(dense=True)))
    message = f"--head {shown(text)} is not valid"
    raise VimDeployError("VIM-202", message, fix=nearest(found[0], usages(dense=False)))


def parse_head(text: str | None, config: ModelConfig, dense: DenseConfig | None = None) -> Head:
    """The head that ``--head`` asks for, fitted to a model.

    Args:
        text: as the user wrote it; None for logits, for detections, or for the maps of a model
            without classes.
        config, dense: of the model.

    Raises:
        VimDeployError: VIM-202 for an unknown head or K, VIM-203 for one that the model does not
            have.
    """
    if text is None:
        text = _usual(dense).name
    return find(text, dense=dense is not None).fitted(config, dense)


def _usual(dense: DenseConfig | None) -> type[Head]:
    """The head of an export that names none."""
    if dense is not None and dense.detector is not None:
        return Detections
    return Maps if dense is not None and dense.decode_head is None else Logits


class Described(Protocol):
    """What an exported file says of its head: ``artifact.metadata.ExportInfo``."""

    @property
    def head(self) -> str: ...

    @property
    def dense(self) -> object: ...


def of_file(info: Described) -> Head:
    """The head of an exported file; its text was checked when the file was read."""
    return find(info.head, dense=bool(info.dense))


def outputs_called(name: str, first: Head | None = None) -> Iterator[tuple[Output, re.Match[str]]]:
    """Outputs of that name: of ``first``, when it is known, then of every head."""
    for head in (*(() if first is None else (first,)), *TABLE):
        for output in head.gives:
            if match := re.fullmatch(output.name, name):
                yield output, match
