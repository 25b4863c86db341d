"""How a model was quantized: what an export is asked for, and what its file says of it."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, get_args

from vim_deploy.codec import stored
from vim_deploy.errors import VimDeployError
from vim_deploy.paths import OptionalPath
from vim_deploy.precisions import FLOATS, QUANTIZED_IN_WORDS, TABLE, Precision
from vim_deploy.ranges import CALIBRATION_IMAGES, SEED, require_all, require_names
from vim_deploy.specs import ActivationScales, CalibrationMethod, WeightRounding

#: Share of values that the method ``percentile`` keeps, in percent: the usual one of ONNX
#: Runtime's own tools (onnxruntime.quantization.calibrate, PercentileCalibrater).
PERCENTILE = 99.999
#: What a file that ``save_calibration`` writes ends in.
SUFFIX: Final = ".json"
#: Fields of ``QuantizeOptions`` by the options of the command line.
OPTIONS: Final = {
    "--calibration": "calibration",
    "--save-calibration": "save_calibration",
    "--calibration-method": "method",
    "--calibration-images": "images",
    "--calibration-seed": "seed",
    "--activation-scales": "activations",
    "--high-precision": "high_precision",
}
#: Those about how pictures are watched.
_WATCHING = (
    "--save-calibration",
    "--calibration-method",
    "--calibration-images",
    "--calibration-seed",
)


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

    @property
    def takes_stored(self) -> bool:
        """Whether ``calibration`` names a file of ``save_calibration``, and no folder."""
        path = self.calibration
        return path is not None and path.suffix.lower() == SUFFIX and not os.path.isdir(path)

    def require_effect(self, precision: Precision, given: Collection[str] | None = None) -> None:
        """Refuse what an export in ``precision`` would have to ignore.

        Args:
            precision: of the export.
            given: options that were named, as in ``OPTIONS``; None for those that are not as usual.

        Raises:
            VimDeployError: VIM-203.
        """
        if given is None:
            usual = QuantizeOptions()
            given = [
                option
                for option, field in OPTIONS.items()
                if getattr(self, field) != getattr(usual, field)
            ]
        if not TABLE[precision].quantized:
            why = f"{precision} quantizes nothing; {QUANTIZED_IN_WORDS} do"
            _refuse(given, OPTIONS, f"with --precision {precision}", why)
            return
        if self.calibration is None:
            _refuse(given, _WATCHING, "without --calibration", "no pictures are watched")
        elif self.takes_stored:
            why = "the file says which pictures were watched, and how ranges were chosen"
            _refuse(given, _WATCHING, f"with --calibration {self.calibration}", why)
        elif self.activations == "per-token":
            why = "each row of activations has its own range"
            _refuse(given, ("--calibration-method",), "with --activation-scales per-token", why)

    def require_pictures(self, precision: Precision) -> None:
        """VIM-203 where ``precision`` quantizes with static scales and nothing tells them."""
        static = TABLE[precision].quantized and self.activations == "static"
        if static and self.calibration is None:
            raise VimDeployError(
                "VIM-203",
                f"--precision {precision} needs pictures",
                why="how large activations become is found on pictures like those that the model "
                "will see",
                fix=f"--precision {precision} --calibration DIR, with a folder of 100 or more "
                "pictures (they need no labels); or --activation-scales per-token, for scales "
                "that are computed while the model runs",
            )


def _refuse(given: Collection[str], idle: Collection[str], by: str, why: str) -> None:
    """VIM-203 for those of the options ``given`` that are ``idle``; ``by`` says with what."""
    if names := [option for option in OPTIONS if option in given and option in idle]:
        raise VimDeployError(
            "VIM-203",
            f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} no effect {by}",
            why=why,
            fix=f"leave {'it' if len(names) == 1 else 'them'} out",
        )


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


@stored(sparse=("calibration", "rounding"))
@dataclass(frozen=True)
class QuantizationInfo:
    """What an exported file says of its quantization.

    Attributes:
        activations: where scales of activations come from.
        high_precision: of everything that is not quantized.
        calibration: None where no pictures were watched.
        rounding: of weights; to nearest without pictures, also where a saved calibration stands
            for them.
    """

    activations: ActivationScales
    high_precision: Precision
    calibration: CalibrationInfo | None = None
    rounding: WeightRounding = "activations"
