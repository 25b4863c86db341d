"""Two classifiers on the same images: is one worse, and how much worse could it be?

Only images on which exactly one of the two is right say anything about the difference. ``losses``
counts those on which only the reference is right, ``gains`` those on which only the candidate is.
By hand: SciPy has no interval of a paired difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from vim_deploy.codec import stored

#: Two-sided normal quantile of 95 %.
Z95 = 1.959963984540054
SIGNIFICANCE = 0.05
_BISECTIONS = 80
#: More pictures than any set has.
_MOST_IMAGES = 1 << 30


@stored(also=("detectable",))
@dataclass(frozen=True)
class PairedDifference:
    """Accuracy lost from reference to candidate, as shares of all images.

    Attributes:
        images: how many were compared.
        losses, gains: see the module.
        loss: (losses - gains) / images; negative when the candidate is better.
        low, high: 95 % interval of the loss, ``score_interval``.
        p_value: ``exact_mcnemar``.
    """

    images: int
    losses: int
    gains: int
    loss: float
    low: float
    high: float
    p_value: float

    @property
    def detectable(self) -> bool:
        """Whether the two are different beyond chance at the 5 % level."""
        return self.p_value < SIGNIFICANCE

    def sentence(self, what: str) -> str:
        """The finding in words; ``what`` names the accuracy."""
        if not self.detectable:
            found = f"no detectable loss of {what}, upper bound {100 * self.high:.2f} %"
        elif self.loss > 0:
            found = (
                f"loss of {what}: {100 * self.loss:.2f} % "
                f"({100 * self.low:.2f} to {100 * self.high:.2f} %)"
            )
        else:
            found = (
                f"gain of {what}: {-100 * self.loss:.2f} % "
                f"({-100 * self.high:.2f} to {-100 * self.low:.2f} %)"
            )
        return (
            f"{found} (95 % interval; {self.losses} losses and {self.gains} gains in "
            f"{self.images} images, exact McNemar p = {self.p_value:.2g})"
        )


def paired_difference(losses: int, gains: int, images: int) -> PairedDifference:
    """Test and interval from the two counts of flips.

    Raises:
        ValueError: counts that cannot be: negative, or more flips than images.
    """
    if min(losses, gains) < 0 or images < 1 or losses + gains > images:
        raise ValueError(f"{losses} losses and {gains} gains in {images} images")
    low, high = score_interval(losses, gains, images)
    return PairedDifference(
        images=images,
        losses=losses,
        gains=gains,
        loss=(losses - gains) / images,
        low=low,
        high=high,
        p_value=exact_mcnemar(losses, gains),
    )


def exact_mcnemar(losses: int, gains: int) -> float:
    """Two-sided p-value of the exact conditional test of equal accuracies.

    Without a difference a flip goes either way with probability 1/2, so the smaller count is
    binomial (McNemar, Psychometrika 12, 1947; exact form: Agresti, Categorical Data Analysis,
    2nd edition, 2002, section 10.1.4). 1 when there are no flips.
    """
    flips = losses + gains
    tail = sum(math.comb(flips, count) for count in range(min(losses, gains) + 1))
    # A fraction: 2 ** flips overflows a float for more than 1023 flips.
    return min(1.0, float(Fraction(2 * tail, 1 << flips)))


def score_interval(losses: float, gains: float, images: int) -> tuple[float, float]:
    """95 % score interval of the difference of two paired proportions.

    Tango, Statistics in Medicine 17 (1998) 891-908: all differences that the score test with the
    restricted maximum-likelihood variance does not reject. Unlike the Wald interval it has a
    width when there are no flips at all: then it is +- z^2 / (n + z^2).
    """
    found = (losses - gains) / images

    def boundary(inside: float, outside: float, sign: float) -> float:
        for _ in range(_BISECTIONS):
            middle = (inside + outside) / 2
            if sign * score_statistic(losses, gains, images, middle) < Z95:
                inside = middle
            else:
                outside = middle
        return inside

    return boundary(found, -1.0, 1.0), boundary(found, 1.0, -1.0)


def score_statistic(losses: float, gains: float, images: int, difference: float) -> float:
    """Tango's z for a supposed ``difference`` (loss): 0 at the found one, falling with it.

    The probability of a gain under the supposition is the positive root of a quadratic (equation
    in section 2 of the paper); for a difference of 0 this is McNemar's (b - c) / sqrt(b + c).
    """
    square = 2 * images
    linear = -losses - gains + (2 * images - losses + gains) * difference
    constant = -gains * difference * (1 - difference)
    root = math.sqrt(max(linear * linear - 4 * square * constant, 0.0))
    gain_probability = (root - linear) / (2 * square)
    variance = images * (2 * gain_probability + difference * (1 - difference))
    distance = losses - gains - images * difference
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def wilson(right: int, images: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927, 209-212)."""
    share, square = right / images, Z95**2 / images
    middle = (share + square / 2) / (1 + square)
    half = Z95 / (1 + square) * math.sqrt(share * (1 - share) / images + square / images / 4)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def images_needed(losses: int, gains: int, images: int, bound: float) -> int | None:
    """About how many images bring the upper bound of the loss down to ``bound``.

    Flips are taken to be as frequent as among ``images``. Without any flip that is exactly
    z^2 (1 / bound - 1), rounded up.

    Returns:
        The smallest number, or None where so much is lost that none does.
    """

    def high(count: int) -> float:
        return score_interval(losses * count / images, gains * count / images, count)[1]

    enough = 1
    while high(enough) > bound:
        enough *= 2
        if enough > _MOST_IMAGES:
            return None
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if high(middle) <= bound else (middle, enough)
    return enough
