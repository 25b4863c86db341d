"""What is asked for: by a user (``ModelRequest``), and by a recipe.

A recipe says which checkpoint becomes which file, and how well it has to agree. It is one flat TOML
file in ``export/``; the records here are its parsed form. Nothing is inherited from another recipe
and no value has a hidden default: what the file does not say, it refuses to be without (``load``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vim_deploy.codec import Number, encode, stored
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.families.base import ModelConfig
from vim_deploy.paths import StrPath, as_text
from vim_deploy.ranges import CROP_RATIO, IMAGE_SIDE, MEAN, SEED, STD, require_all
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.specs import ImagePreparation, Interpolation

#: Infer the architecture from the checkpoint.
AUTO = "auto"
#: Tasks a recipe can name.
TASKS = ("classification", "segmentation", "detection")
#: Published figures of each task, attributes of ``Published``.
FIGURES = {
    "classification": ("top1", "top5"),
    "segmentation": ("miou",),
    "detection": ("box_ap", "mask_ap"),
}
#: Which weights of a training checkpoint are exported; ``auto`` takes ``model`` when it is there.
CHECKPOINT_PARTS = ("auto", "model", "model_ema")
#: ``labels`` and the published figures say this when there is nothing.
NONE = "none"
#: ``model`` of a recipe whose architecture is not one of the named variants.
CUSTOM = "custom"


@dataclass(frozen=True)
class ModelRequest:
    """What to load.

    Attributes:
        source: checkpoint file or folder, ``hf://owner/name[/file]``, recipe name or ``.toml``; a
            path is taken as its text.
        model: ``auto`` or a named variant.
        config: the official constructor's keywords; excludes a named variant.
        image_size: another input size than the checkpoint's, square or (height, width).
        use_ema: take ``model_ema`` of a training file.
        pos_embed: how the position embedding is fitted to ``image_size``: ``grid``, ``official``.
        random_weights: seed for weights that mean nothing, instead of a checkpoint.
        mean, std, crop_ratio, interpolation: picture preparation, instead of what the checkpoint
            stores, the recipe says or ImageNet's evaluation has.
        labels: class names, instead of the recipe's.
        key: name of the entry with the weights, for a file that holds several.
    """

    source: str
    model: str = AUTO
    config: Mapping[str, Any] | None = None
    image_size: int | tuple[int, int] | None = None
    use_ema: bool = False
    pos_embed: str = "grid"
    random_weights: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_ratio: float | None = None
    interpolation: str | None = None
    labels: tuple[str, ...] | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        """VIM-202 for a source that is no path, a number nobody can mean, an unknown filter."""
        object.__setattr__(self, "source", as_text(self.source, "source"))
        require_all(
            self,
            image_size=IMAGE_SIDE,
            random_weights=SEED,
            mean=MEAN,
            std=STD,
            crop_ratio=CROP_RATIO,
        )
        known = get_args(Interpolation)
        if self.interpolation not in (None, *known):
            raise VimDeployError(
                "VIM-202",
                f"unknown interpolation {self.interpolation!r}",
                fix=nearest(str(self.interpolation), known),
            )

    @classmethod
    def of(cls, request: ModelRequest | StrPath) -> ModelRequest:
        """``request``, or one for its ``source`` alone."""
        return request if isinstance(request, cls) else cls(as_text(request, "source"))


@dataclass(frozen=True)
class CheckpointSource:
    """Where the weights are.

    Attributes:
        address: ``hf://owner/name[@revision]/FILE`` on the hub; ``hf://owner/name[@revision]``
            when the repository holds one checkpoint; or a path relative to the recipe.
        part: one of ``CHECKPOINT_PARTS``.
    """

    address: str
    part: str


@dataclass(frozen=True)
class Published:
    """What the authors report, for comparison, in percent; None where it is not reported.

    Attributes:
        top1, top5: a classifier's accuracy on the dataset.
        miou: mean intersection over union of a segmentation model, one scale.
        box_ap, mask_ap: average precision of the detector that a backbone was trained in.
        dataset: what it was measured on.
        source: the document and row the figures are from.
        paper: the paper that describes the model.
    """

    top1: Number | None
    top5: Number | None
    dataset: str
    source: str
    paper: str
    miou: Number | None = None
    box_ap: Number | None = None
    mask_ap: Number | None = None

    @property
    def figures(self) -> str:
        """The reported figures in one line, as ``top-1 76.1 %, top-5 93 %``; ``-`` for none."""
        named = {"top-1": self.top1, "top-5": self.top5, "mIoU": self.miou}
        percent = [f"{name} {value:g} %" for name, value in named.items() if value is not None]
        points = {"box AP": self.box_ap, "mask AP": self.mask_ap}
        precision = [f"{name} {value:g}" for name, value in points.items() if value is not None]
        return ", ".join([*percent, *precision]) or "-"


@dataclass(frozen=True)
class Tolerances:
    """How far an exported fp32 file may be from PyTorch.

    Attributes:
        atol, rtol: an output element may differ by ``atol + rtol * |expected|``.
        cosine: smallest cosine similarity of an image's whole output vector.
        top1_agreement: smallest share of images (segmentation: of pixels) with the same first
            class; None where the output has no classes.
        origin: where these values come from.
    """

    atol: Number
    rtol: Number
    cosine: Number
    top1_agreement: Number | None
    origin: str


@stored(
    keys=(
        "name", "title", "task", "model", "labels", "checkpoint", "image", "published=reported",
        "tolerances", "model_config", "dense",
    )
)  # fmt: skip
@dataclass(frozen=True)
class Recipe:
    """One checkpoint for one task.

    Attributes:
        name: the recipe's file name without ``.toml``.
        title: one line for people.
        task: one of ``TASKS``.
        model: short name of a variant, or ``custom``.
        model_config: the official constructor's keywords.
        checkpoint: where the weights are.
        image: preparation of pictures; its size and channels are those of ``model_config``.
        labels: a file with the class names, relative to the recipe, or ``none``.
        published: what the authors report.
        tolerances: agreement demanded of the fp32 export.
        path: the file the recipe was read from.
        dense: what stands behind the blocks of a dense model; None for a classifier.
    """

    name: str
    title: str
    task: str
    model: str
    model_config: ModelConfig
    checkpoint: CheckpointSource
    image: ImagePreparation
    labels: str
    published: Published
    tolerances: Tolerances
    path: Path
    dense: DenseConfig | None = None

    @property
    def num_classes(self) -> int:
        """Classes of the model's output; 0 for a backbone."""
        return self.model_config.classes if self.dense is None else self.dense.num_classes

    @property
    def reported(self) -> dict[str, Any]:
        """What the authors report for its task, as stored: figures of other tasks are left out."""
        others = {name for names in FIGURES.values() for name in names} - {*FIGURES[self.task]}
        published = encode(self.published)
        return {key: value for key, value in published.items() if key not in others}
