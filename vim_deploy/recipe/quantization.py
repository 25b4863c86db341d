"""How a model was quantized: what an export is asked for, and what its file says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from vim_deploy.codec import stored
from vim_deploy.paths import OptionalPath
from vim_deploy.precisions import FLOATS, Precision
from vim_deploy.ranges import CALIBRATION_IMAGES, SEED, require_all, require_names
from vim_deploy.specs import ActivationScales, CalibrationMethod

#: Share of values that the method ``percentile`` keeps, in percent: the usual one of ONNX
#: Runtime's own tools (onnxruntime.quantization.calibrate, PercentileCalibrater).
PERCENTILE = 99.999


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantize.

    Attributes:
        calibration: folder of pictures that activations are watched on, or a file that
            ``save_calibration`` wrote. Static scales need one; scales per token do not, and are
            smoothed with one.
        save_calibration: file to write with what was found.
        method: how ranges are chosen.
        images: pictures that are taken of the folder at most.
        seed: of the choice among them.
        activations: where scales of activations come from.
        high_precision: of everything that is not quantized: ``fp32``, ``fp16`` or ``bf16``.
    """

    calibration: OptionalPath = OptionalPath()
    save_calibration: OptionalPath = OptionalPath()
    method: CalibrationMethod = "minmax"
    images: int = 128
    seed: int = 0
    activations: ActivationScales = "static"
    high_precision: Precision = "fp32"

    def __post_init__(self) -> None:
        """VIM-202 for a number or a name that nobody can mean."""
        require_all(self, images=CALIBRATION_IMAGES, seed=SEED)
        require_names(self, method=get_args(CalibrationMethod))
        require_names(self, activations=get_args(ActivationScales), high_precision=FLOATS)


@dataclass(frozen=True)
class CalibrationInfo:
    """The pictures that activations were watched on.

    Attributes:
        method: how ranges were chosen.
        images: how many pictures.
        seed: of the choice among those of the folder.
        sha256: over the contents of the pictures' files, in the order they were taken.
    """

    method: CalibrationMethod
    images: int
    seed: int
    sha256: str


@stored(sparse=("calibration",))
@dataclass(frozen=True)
class QuantizationInfo:
    """What an exported file says of its quantization.

    Attributes:
        activations: where scales of activations come from.
        high_precision: of everything that is not quantized.
        calibration: None where no pictures were watched.
    """

    activations: ActivationScales
    high_precision: Precision
    calibration: CalibrationInfo | None = None
