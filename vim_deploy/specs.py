"""Records that stages exchange: plain, frozen, JSON-able."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PreprocessMode = Literal["none", "normalize", "uint8"]
#: ``base``: one node for each scan direction. ``fused``: both directions of a mixer in one
#: convolution and one scan. ``fused-low-rank``: the scan computes dt from its low-rank weight, too.
GraphForm = Literal["fused", "fused-low-rank", "base"]
#: What may be asked for: a form, or ``auto``, the one that pays for the model
#: (``vim_deploy.graph.verify.form_for``).
GraphChoice = Literal["auto", "fused", "fused-low-rank", "base"]
#: What the scan ops' local functions, or what stands in their calls' places, are made of:
#: ``scan``: an ONNX Scan over the tokens; ``unrolled``: ceil(log2 tokens) steps on all tokens at
#: once, for runtimes without loops.
ScanBody = Literal["scan", "unrolled"]
#: How a stored position embedding is fitted to another size (docs/resolutions.md).
PosEmbedMode = Literal["grid", "official"]
#: Filters that pictures are resized with, as ``PIL.Image.Resampling`` calls them.
Interpolation = Literal["bicubic", "bilinear", "box", "hamming", "lanczos", "nearest"]
#: How a dense model goes through a picture: windows that overlap, or resized to one input.
SceneMode = Literal["slide", "whole"]
#: What ``bench`` measures beside a model.
Baseline = Literal["pytorch", "deit", "deit-tiny", "deit-small", "deit-base"]
#: Releases of TensorRT whose plugin libraries and plans go together.
Generation = Literal["8.6", "10", "11"]
#: GPUs that an engine of full TensorRT runs on besides the one it was built on.
HardwareCompat = Literal["none", "ampere+", "same-cc"]
#: Triton's backends that models are packaged for.
Backend = Literal["tensorrt", "onnxruntime", "python"]
#: What a package is made for: Triton Inference Server, a C++ program, or a page in a browser.
Target = Literal["triton", "cpp", "web"]

#: Whose kernels compute our ops in ONNX Runtime. ``auto``: the native ones where a library of them
#: is there, else the functions in the file; ``native`` and ``function``: these and no others.
OpsChoice = Literal["auto", "native", "function"]
#: What became of it: a runner has the one or the other, or none of our ops (None).
OpsWay = Literal["native", "function"]
#: Execution providers of ONNX Runtime that there are native ops for.
OpsProvider = Literal["cpu", "cuda"]
#: What plugin libraries are built for: full TensorRT, or ONNX Runtime (native ops).
PluginTarget = Literal["tensorrt", "onnxruntime"]

#: Where the scales of quantized activations come from. ``static``: from calibration pictures, one
#: for each tensor. ``per-token``: from the values themselves while they are computed, one for each
#: row.
ActivationScales = Literal["static", "per-token"]
#: How a calibrated range is chosen, as ``onnxruntime.quantization`` names its methods.
CalibrationMethod = Literal["minmax", "entropy", "percentile"]

#: How weights of 8 bits were rounded: for the ``activations`` that were seen, or to ``nearest``.
WeightRounding = Literal["activations", "nearest"]

#: What a note is about. ``loading``: what was chosen, converted or assumed on the way to a model;
#: the others: what a reader of the result has to be told, too.
NoteKind = Literal[
    "loading", "random weights", "not fused", "kept in float32", "lost bits", "quantized",
    "not checked",
]  # fmt: skip

#: Mean and standard deviation of ImageNet's RGB channels, as the official evaluation uses them
#: (timm.data.constants IMAGENET_DEFAULT_MEAN and IMAGENET_DEFAULT_STD).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Note:
    """A sentence for the user; callers choose by its kind and never look into the text."""

    kind: NoteKind
    text: str

    def __str__(self) -> str:
        return self.text


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
        part: ``model``, ``model_ema``, ``state_dict``, ``seeded``, or the entry's name.
        source: hub address, when there is one.
    """

    name: str
    sha256: str
    part: str
    source: str = ""
