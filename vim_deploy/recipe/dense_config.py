"""What stands behind the blocks of a dense model: feature maps, pyramid, heads, test settings.

The backbone itself is a ``ModelConfig``. Names follow the official code (hustvl/Vim, seg/backbone
and det/detectron2/modeling/backbone) and the frameworks it is trained in (mmsegmentation,
detectron2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from vim_deploy.codec import Byte, Number, Size, decode, encode, stored
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.families.base import refuse_dense
from vim_deploy.recipe.detector_config import DetectorConfig
from vim_deploy.specs import SceneMode

LAST_LAYER_PROCESSES = ("none", "add", "add & norm")
PYRAMID_NORMS = ("LN", "BN")
#: Scales of detectron2's SimpleFeaturePyramid, in its order; others it does not build.
PYRAMID_SCALES = (4.0, 2.0, 1.0, 0.5)
#: Feature maps that the segmentation heads take.
LEVELS = 4
#: Pooling branches and convolutions in a row; the official heads have four and one.
_MOST_PARTS = 16

Colour: TypeAlias = tuple[Byte, Byte, Byte]


@dataclass(frozen=True)
class UperHeadConfig:
    """``decode_head``: UPerHead (arXiv 1807.10221) as mmsegmentation builds it.

    ``align_corners`` is not an option: the official configurations have False.
    """

    channels: Size
    num_classes: Size
    pool_scales: tuple[Size, ...] = (1, 2, 3, 6)


@dataclass(frozen=True)
class FcnHeadConfig:
    """``auxiliary_head``: FCNHead on feature map ``in_index``, without ``concat_input``."""

    channels: Size
    num_classes: Size
    in_index: int = 2
    num_convs: Size = 1
    kernel_size: Size = 3


@dataclass(frozen=True)
class PyramidConfig:
    """detectron2's SimpleFeaturePyramid (arXiv 2203.16527) over one feature map.

    ``norm`` is ``LN`` (over channels) or ``BN``; ``top_block`` adds a level by dropping
    every other row and column of the last one.
    """

    out_channels: Size = 256
    scale_factors: tuple[Number, ...] = PYRAMID_SCALES
    norm: str = "LN"
    top_block: bool = True


@dataclass(frozen=True)
class SceneTest:
    """How the official evaluation runs a segmentation model on a picture of any size.

    Attributes:
        mode: ``slide`` (windows that overlap) or ``whole``.
        crop: window height and width in pixels; the model's input size.
        stride: rows and columns between two windows.
        scale: longest and shortest side that the picture is resized to fit into, keeping its
            shape (mmsegmentation's ``img_scale``); None runs it at its own size.
    """

    mode: str
    crop: tuple[Size, Size]
    stride: tuple[Size, Size]
    scale: tuple[Size, Size] | None = None


@stored(sparse=("detector",))
@dataclass(frozen=True)
class DenseConfig:
    """Everything of a dense model but its backbone's blocks.

    Attributes:
        task: ``segmentation`` or ``detection``.
        out_indices: blocks whose output is a feature map; detection takes the last one only.
        use_residual_as_feature: take the residual stream instead of the mixer's output.
        last_layer_process: what is done to the last block's output where the stream is taken.
        if_fpn: whether a segmentation backbone scales its maps (fpn1 to fpn4).
        decode_head, auxiliary_head: of a whole segmentation network; None for a backbone alone.
        pyramid: of a detection backbone.
        detector: behind the pyramid; None for a backbone alone.
        test: of a whole segmentation network.
        palette: one colour for each class, red, green and blue; empty when not stored.

    Raises:
        VimDeployError: VIM-408 for values that the official code cannot build either.
    """

    task: Literal["segmentation", "detection"]
    out_indices: tuple[int, ...]
    use_residual_as_feature: bool = False
    last_layer_process: str = "none"
    if_fpn: bool = True
    decode_head: UperHeadConfig | None = None
    auxiliary_head: FcnHeadConfig | None = None
    pyramid: PyramidConfig | None = None
    test: SceneTest | None = None
    palette: tuple[Colour, ...] = ()
    detector: DetectorConfig | None = None

    def __post_init__(self) -> None:
        if self.last_layer_process not in LAST_LAYER_PROCESSES:
            fix = nearest(self.last_layer_process, LAST_LAYER_PROCESSES)
            raise refuse_dense(f"last_layer_process = {self.last_layer_process!r}", fix)
        if self.task == "segmentation":
            _check_segmentation(self)
        else:
            _check_detection(self)

    @property
    def num_classes(self) -> int:
        """Classes of the segmentation head or the detector; 0 without one."""
        head = self.decode_head or self.detector
        return head.num_classes if head else 0

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the feature maps: ``feature_0`` to ``feature_3``, or ``p2`` to ``p6``."""
        if self.pyramid is None:
            count = len(self.out_indices)
            levels = LEVELS if self.if_fpn and count == 1 else count
            return tuple(f"feature_{level}" for level in range(levels))
        levels = len(self.pyramid.scale_factors) + self.pyramid.top_block
        return tuple(f"p{level + 2}" for level in range(levels))

    def structure(self) -> dict[str, Any]:
        """What makes it this model: everything but classes, colours and the evaluation."""
        value = encode(self)
        for name in ("test", "palette"):
            del value[name]
        for head in ("decode_head", "auxiliary_head", "detector"):
            if value.get(head) is not None:
                del value[head]["num_classes"]
        return value


def read_dense(values: Mapping[str, Any]) -> DenseConfig:
    """The dense parts that a table of JSON or TOML types names.

    Raises:
        VimDeployError: VIM-201 for an unknown keyword, VIM-408 for values that do not fit.
    """
    return decode(
        values,
        DenseConfig,
        lambda why: refuse_dense(f"dense.{why}"),
        on_unknown=lambda key, fix: VimDeployError(
            "VIM-201", f"unknown model option dense.{key}", fix=fix
        ),
        on_own=lambda error: error,
    )


def _check_segmentation(config: DenseConfig) -> None:
    if config.pyramid is not None or config.detector is not None:
        raise refuse_dense("a segmentation model has no feature pyramid of detectron2")
    indices = config.out_indices
    if not indices or list(indices) != sorted(set(indices)):
        raise refuse_dense(
            f"out_indices = {list(indices)}", "name blocks in rising order, each once"
        )
    if config.if_fpn and len(indices) > LEVELS:
        raise refuse_dense(f"{len(indices)} feature maps for {LEVELS} scales", "name at most four")
    head, auxiliary = config.decode_head, config.auxiliary_head
    if head is None:
        if auxiliary is not None:
            raise refuse_dense("an auxiliary head without a decode head")
        return
    if len(config.feature_names) != LEVELS:
        raise refuse_dense(
            f"UPerHead takes {LEVELS} feature maps", "name four blocks in out_indices"
        )
    scales = head.pool_scales
    if not 0 < len(scales) <= _MOST_PARTS:
        raise refuse_dense(f"pool_scales = {list(scales[:_MOST_PARTS])}", "1 to 16 sizes from 1")
    if auxiliary is not None and auxiliary.num_convs > _MOST_PARTS:
        raise refuse_dense(f"auxiliary_head.num_convs = {auxiliary.num_convs}", "1 to 16")
    if auxiliary is not None and not 0 <= auxiliary.in_index < LEVELS:
        raise refuse_dense(f"auxiliary_head.in_index = {auxiliary.in_index}", "0 to 3")
    if auxiliary is not None and auxiliary.kernel_size % 2 == 0:
        raise refuse_dense(f"auxiliary_head.kernel_size = {auxiliary.kernel_size}", "odd")
    test = config.test
    if test is not None and test.mode not in get_args(SceneMode):
        raise refuse_dense(f"test.mode = {test.mode!r}", nearest(test.mode, get_args(SceneMode)))
    if test is not None and any(s > c for s, c in zip(test.stride, test.crop, strict=True)):
        raise refuse_dense(
            f"test.stride {list(test.stride)} leaves gaps between windows of {list(test.crop)}",
            "a stride of at most the window",
        )
    if config.palette and len(config.palette) != head.num_classes:
        raise refuse_dense(f"{len(config.palette)} colours for {head.num_classes} classes")


def _check_detection(config: DenseConfig) -> None:
    if config.decode_head is not None or config.auxiliary_head is not None:
        raise refuse_dense("a detection backbone has no segmentation head")
    if config.pyramid is None:
        raise refuse_dense("a detection backbone needs its feature pyramid", "add dense.pyramid")
    if len(config.out_indices) != 1 or config.use_residual_as_feature:
        raise refuse_dense("a detection backbone gives the last block's output only")
    if config.last_layer_process == "add & norm":
        raise refuse_dense(
            "last_layer_process 'add & norm' in a detection backbone",
            "none or add",
            "the official VisionMambaDet deletes the norm that it would need",
        )
    if config.detector is not None and not config.pyramid.top_block:
        raise refuse_dense("a detector without the level p6", "pyramid.top_block = true")
    if config.pyramid.norm not in PYRAMID_NORMS:
        raise refuse_dense(f"pyramid.norm = {config.pyramid.norm!r}", "LN or BN")
    if config.pyramid.scale_factors != PYRAMID_SCALES:
        raise refuse_dense(
            f"pyramid.scale_factors = {list(config.pyramid.scale_factors)}",
            f"{list(PYRAMID_SCALES)}",
            "levels p2 to p5, as the official configurations have them",
        )
