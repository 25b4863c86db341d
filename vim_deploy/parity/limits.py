"""The numbers that comparisons are held to by default, each with where it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vim_deploy.codec import stored
from vim_deploy.precisions import TABLE
from vim_deploy.ranges import SHARE, TOLERANCE, require_all

if TYPE_CHECKING:
    from vim_deploy.artifact.metadata import ExportInfo

#: Default tolerances for float32 against float32. The official code differs from itself by up to
#: 1.1e-5 (its own kernels' bodies against its reference functions, feature maps up to 20, logits
#: 5e-6; measured on the reference vectors in tests/data/reference). 1e-4 leaves a factor of nine
#: for other summation orders; the relative part covers outputs far above 1.
FP32_ATOL = 1e-4
FP32_RTOL = 1e-5
TOLERANCE_ORIGIN = (
    "float32 rounding: the official code differs from itself by up to 1.1e-5 absolute; "
    "1e-4 + 1e-5 |reference| allows for other summation orders"
)

#: Share of pixels that change their class, over the relative error of the logits. Where two classes
#: are closer than the error, either may come first. For logits of 150 classes that are independent
#: and normal, the gap between the best two has the density sqrt(2 ln 150) = 3.2 at zero, in units
#: of their standard deviation (spacings of normal extremes: David and Nagaraja, Order Statistics,
#: 2003), and errors e of both change the order in 3.2 e / sqrt(pi) = 1.8 e of the pixels. Rounded
#: up; trained models have fewer pixels without a clear class.
_CHANGED_PIXELS = 2.0
#: Smallest share of equal pixels of label maps without a recipe: 0.9998, 0.98 and 0.84.
LABEL_AGREEMENT = {
    name: round(1 - _CHANGED_PIXELS * row.relative_l2, 6) for name, row in TABLE.items()
}
HALF_ORIGIN = (
    "rounding of {precision}: about seven roundings a block and 24 blocks, independent, give "
    "13 unit roundoffs; class indices of pictures are reported, not limited; twice as large a "
    "share of a label map may change: the pixels whose best two classes are closer than that"
)
QUANTIZED_ORIGIN = (
    "what {precision} is to keep: each product is to be off by {share:g} at most in relative L2, "
    "the products' errors are independent, and a sensitive model makes some times more of them by "
    "its last layer; class indices of pictures are reported, not limited, and twice as large a "
    "share of a label map may change"
)


def origin_of(precision: str) -> str:
    """Why the limits of a lossy precision are what they are."""
    row = TABLE[precision]
    if row.quantized:
        return QUANTIZED_ORIGIN.format(precision=precision, share=row.product_l2)
    return HALF_ORIGIN.format(precision=precision)


#: Input side in pixels that the float32 limits of detections were found at. A pixel is a smaller
#: share of a larger input and its sums have more terms, so they grow with the side from there on:
#: at 1024 px an independent float32 implementation was 3.0e-3 px, 9.8e-5 and 2.2e-3 away from the
#: official code, where they are 5.3e-3, 5.3e-4 and 5.3e-3.
_DETECTION_SIDE = 192
_FP32_DETECTIONS = (
    "float32 rounding: up to 192 px the official detector differs from itself, in float64 or on "
    "two threads, by 1.8e-4 px, 1.4e-5 in scores and 1.4e-4 in masks; five to seven times that "
    "allows for other summation orders, and larger inputs for as much more as they are larger"
)
_HALF_DETECTIONS = (
    "what {precision} is to keep: half a pixel and a hundredth of a score for float16, and as many "
    "times more for a type as its unit roundoff is larger; masks are reported, not limited"
)
#: Of float16: pixels, score, and how far from a cut a detection has to be found.
_HALF_PIXELS, _HALF_SCORE, _HALF_MARGIN = 0.5, 0.01, 0.02


@stored(sparse=("masks", "suppression_pixels", "nms_threshold"))
@dataclass(frozen=True)
class DetectionLimits:
    """Limits of a comparison of detections (``parity.detections``), and what the model cuts by.

    Attributes:
        boxes: largest difference of a matched box's coordinate, in pixels of the input.
        scores: of its score.
        masks: of a value of its mask; None leaves them unchecked.
        margin: a detection of only one side is excused when its score is within this of the cut.
        suppression_pixels: a detection is excused, too, when boxes that are off by so much could
            have decided its suppression the other way; None excuses none.
        score_threshold: below it the model gives no detection.
        nms_threshold: IoU that suppresses; None where it is not known.
        origin: why these numbers.
    """

    boxes: float
    scores: float
    masks: float | None
    margin: float
    suppression_pixels: float | None
    score_threshold: float = 0.0
    nms_threshold: float | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        """VIM-202 for a limit that limits nothing or is no number."""
        require_all(self, boxes=TOLERANCE, scores=SHARE, masks=SHARE, margin=SHARE)

    def in_words(self) -> str:
        """The limits on differences, for a sentence."""
        masks = "" if self.masks is None else f", masks {self.masks:g}"
        return f"boxes {self.boxes:g} px, scores {self.scores:g}{masks}"


#: Names of the limits that a user may set.
DETECTION_NAMES = ("boxes", "scores", "masks", "margin")


def detection_limits(precision: str, info: ExportInfo | None = None) -> DetectionLimits:
    """Of a detector of this precision against float32.

    In half precision nothing is excused by the suppression: with boxes half a pixel off that would
    be a tenth of the IoU of small ones, and hide faults.

    Args:
        precision: by the names of ``precisions``.
        info: of the file; None leaves its cuts unknown, and its input small.
    """
    row = TABLE[precision]
    if row.lossy:
        times = row.relative_l2 / TABLE["fp16"].relative_l2
        origin = _HALF_DETECTIONS.format(precision=precision)
        boxes, scores, margin = (times * x for x in (_HALF_PIXELS, _HALF_SCORE, _HALF_MARGIN))
        limits = DetectionLimits(boxes, scores, None, margin, None, origin=origin)
    else:
        side = 0 if info is None else max(info.image.height, info.image.width)
        times = max(side / _DETECTION_SIDE, 1.0)
        boxes, scores, masks = (times * limit for limit in (1e-3, 1e-4, 1e-3))
        limits = DetectionLimits(boxes, scores, masks, scores, boxes, origin=_FP32_DETECTIONS)
    detector = None if info is None or info.dense is None else info.dense.detector
    if detector is None:
        return limits
    return dataclasses.replace(
        limits,
        score_threshold=float(detector.score_threshold),
        nms_threshold=float(detector.nms_threshold),
    )


def adjusted_detections(limits: DetectionLimits, changes: Mapping[str, float]) -> DetectionLimits:
    """``limits`` with those that the user set; the origin says so."""
    if not changes:
        return limits
    origin = f"{', '.join(changes)} set by the user; else {limits.origin}"
    return dataclasses.replace(limits, **changes, origin=origin)
