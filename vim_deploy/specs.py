"""Records that stages exchange: plain, frozen, JSON-able."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from vim_deploy.precisions import Precision

PreprocessMode = Literal["none", "normalize", "uint8"]
#: ``base``: one node for each scan direction. ``fused``: both directions of a mixer in one
#: convolution and one scan. ``fused-low-rank``: the scan computes dt from its low-rank weight, too.
GraphForm = Literal["base", "fused", "fused-low-rank"]
#: What the scan ops' local functions are made of: ``scan``: an ONNX Scan over the tokens;
#: ``unrolled``: ceil(log2 tokens) steps on all tokens at once, for runtimes without loops.
ScanBody = Literal["scan", "unrolled"]

#: Mean and standard deviation of ImageNet's RGB channels, as the official evaluation uses them
#: (timm.data.constants IMAGENET_DEFAULT_MEAN and IMAGENET_DEFAULT_STD).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImagePreparation:
    """How a picture becomes the model's input.

    Attributes:
        height, width: input size in pixels.
        channels: 1 (grey) or 3 (RGB).
        mean, std: per channel, for pixel values scaled to [0, 1].
        crop_ratio: the short side is resized to ``round_down(size / crop_ratio)``, then the
            centre is cropped (official evaluation: 0.875, vim/datasets.py).
        interpolation: PIL filter name of the resize.
    """

    height: int
    width: int
    channels: int = 3
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_ratio: float = 0.875
    interpolation: str = "bicubic"


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype (NumPy name) and shape of a graph input or output; a str is a symbolic size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class CheckpointInfo:
    """Where the weights came from.

    Attributes:
        name: file name, without the folder; for seeded weights ``seed:<n>``.
        sha256: of the file; empty for seeded weights.
        part: ``model``, ``model_ema``, ``state_dict`` or ``seeded``.
        source: hub address, when there is one.
    """

    name: str
    sha256: str
    part: str
    source: str = ""


@dataclass(frozen=True)
class ExportInfo:
    """What an exported file says about itself (stored in the ONNX metadata).

    Attributes:
        model: variant short name, or ``custom``.
        model_config: the official constructor's keywords, complete.
        checkpoint: origin of the weights.
        image: preparation of pictures for this model.
        preprocess: what the graph does itself: ``none`` (takes normalised NCHW float),
            ``normalize`` (takes NCHW float in [0, 1]), ``uint8`` (takes NHWC uint8).
        head: ``logits``, ``softmax``, ``topk:K``, ``features`` or ``tokens``; of segmentation also
            ``upsampled`` and ``labels``, with ``+aux`` behind the logits of both heads.
        graph: ``base``, ``fused`` or ``fused-low-rank``: the form that was asked for. What has no
            fused form (a scan without a partner, v1's shared convolution) stays as in ``base``.
        precision: of weights and activations, where ``precision_policy`` does not keep float32.
        opset: of the graph.
        pos_embed: how the position embedding was fitted to the image size.
        labels: class names, in order; may be empty.
        io_precision: of float inputs and outputs.
        precision_policy: as ``recipe.precision_policy`` stores it; empty for fp32.
        tool_version: of vim-deploy.
        settings_hash: of everything else; equal hash, equal file.
        scan_body: ``scan`` or ``unrolled``: form of the scan ops' local functions.
        dense: of a dense model what ``recipe.dense_config.DenseConfig.as_dict`` gives, else empty.
    """

    model: str
    model_config: dict[str, Any]
    checkpoint: CheckpointInfo
    image: ImagePreparation
    preprocess: PreprocessMode
    head: str
    graph: GraphForm
    precision: Precision
    opset: int
    pos_embed: str
    tool_version: str
    settings_hash: str
    labels: tuple[str, ...] = field(default_factory=tuple)
    io_precision: Precision = "fp32"
    precision_policy: dict[str, Any] = field(default_factory=dict)
    # Files from before the choice hold Scans and do not say so.
    scan_body: ScanBody = "scan"
    dense: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form; ``artifact.metadata.read_export`` reads it."""
        return dataclasses.asdict(self)
