"""One sentence of advice: should B take A's place? The rules stand in docs/compare.md, too.

The answers come first: what B costs or gains counts only where its answers are as good as A's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: Largest share of pictures that may turn out otherwise before B is as good as A, where the user
#: names no other: 189 pictures without a difference show it (``paired.images_needed``).
BOUND = 0.02
#: Sizes and times within this share of each other are the same.
ALIKE = 0.05
#: What the answers say. ``same``: none differs. ``as good``: some do, and nothing is lost by it.
#: ``better``, ``worse``: by more than chance. ``different``: some do, and nothing says which side
#: is right. ``too few``: too few pictures to say it. ``no numbers``: NaN or Inf.
Verdict = Literal["same", "as good", "better", "worse", "different", "too few", "no numbers"]
#: What to do. ``trade``: B is better in one thing and worse in another.
Rule = Literal["take B", "keep A", "either", "trade", "look", "more pictures"]
_Size = Literal["smaller", "as large", "larger", "unknown"]
_Time = Literal["faster", "as fast", "slower", "mixed", "unknown"]

_PRECISION = "docs/precision.md says what to keep in float32"


@dataclass(frozen=True)
class Quality:
    """What the answers of both sides say, and the same in words."""

    verdict: Verdict
    said: str


@dataclass(frozen=True)
class Ratio:
    """B over A, with its 95 % interval, and at which batch size."""

    batch: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """What B takes over A: size of the file (None: not known), and time (none: not measured)."""

    size: float | None
    times: Sequence[Ratio] = ()

    @property
    def size_verdict(self) -> _Size:
        """How large B is beside A."""
        if self.size is None:
            return "unknown"
        return _of(self.size, 1 - ALIKE, 1 + ALIKE, "smaller", "as large", "larger")

    @property
    def time_verdict(self) -> _Time:
        """How fast B is beside A; a difference counts where its interval does not hold 1."""
        if not self.times:
            return "unknown"
        faster = any(time.high < 1 and time.value < 1 - ALIKE for time in self.times)
        slower = any(time.low > 1 and time.value > 1 + ALIKE for time in self.times)
        if faster and slower:
            return "mixed"
        return "faster" if faster else "slower" if slower else "as fast"

    @property
    def in_words(self) -> str:
        """Both."""
        words = {"unknown": "of unknown size", "as large": "as large"}
        size = words.get(self.size_verdict, f"{self.size or 0:.2f} times as large")
        verdict = self.time_verdict
        if verdict == "unknown":
            return f"{size}, and its time was not measured"
        if verdict == "as fast":
            return f"{size} and as fast here"
        times = ", ".join(f"{time.value:.2f} at batch {time.batch}" for time in self.times)
        if verdict == "mixed":
            return f"{size}, faster at one batch size and slower at another here (time {times})"
        return f"{size} and {verdict} here (time {times})"


@dataclass(frozen=True)
class Advice:
    """What to do, and a sentence that says it and why."""

    rule: Rule
    sentence: str


def advise(quality: Quality, cost: Cost, name_a: str, name_b: str) -> Advice:
    """The first rule that applies.

    Args:
        quality: of the answers.
        cost: of B over A.
        name_a, name_b: of the files, for the sentence.
    """
    a, b = f"A ({name_a})", f"B ({name_b})"
    said = quality.said
    if quality.verdict in ("no numbers", "worse"):
        return Advice("keep A", f"keep {a}: {said}; {_PRECISION}")
    if quality.verdict == "different":
        return Advice("look", f"look at the pictures that differ before {b} takes over: {said}")
    if quality.verdict == "too few":
        return Advice("more pictures", f"too few pictures to tell: {said}")
    rule = _by_cost(cost, better=quality.verdict == "better")
    costs = cost.in_words
    if rule == "take B":
        return Advice(rule, f"take {b}: {said}; {costs}")
    if rule == "keep A":
        return Advice(rule, f"keep {a}: {said}, but B is {costs}")
    if rule == "either":
        return Advice(rule, f"either will do: {said}; B is {costs}")
    return Advice(
        rule,
        f"take {b} where {_worth(cost, quality)}, and {a} elsewhere: {said}; B is {costs}; measure "
        "on the machine that is to serve",
    )


def _by_cost(cost: Cost, *, better: bool) -> Rule:
    size, time = cost.size_verdict, cost.time_verdict
    gains = (size == "smaller") + (time == "faster") + better
    losses = (size == "larger") + (time == "slower")
    if time == "mixed" or (gains and losses):
        return "trade"
    if gains:
        return "take B"
    return "keep A" if losses else "either"


def _worth(cost: Cost, quality: Quality) -> str:
    """What speaks for B."""
    reasons = {
        "its better answers count": quality.verdict == "better",
        "size counts": cost.size_verdict == "smaller",
        "time counts": cost.time_verdict == "faster",
        "its batch size is the one that is faster": cost.time_verdict == "mixed",
    }
    return " and ".join(reason for reason, holds in reasons.items() if holds)


def _of(value: float, low: float, high: float, below: _Size, between: _Size, above: _Size) -> _Size:
    return below if value < low else above if value > high else between
