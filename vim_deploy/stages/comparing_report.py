"""What came of a comparison of two files, as it is stored: ``compare.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import vim_deploy
from vim_deploy.bench.side_by_side import TimeFound
from vim_deploy.codec import encode, stored
from vim_deploy.errors import VimDeployError
from vim_deploy.files import write_json
from vim_deploy.parity.advice import BOUND, Advice, Cost, Ratio, advise
from vim_deploy.parity.agreement import Unread
from vim_deploy.parity.class_agreement import ClassAgreement
from vim_deploy.parity.detection_agreement import DetectionAgreement
from vim_deploy.parity.pixel_agreement import PixelAgreement
from vim_deploy.paths import StrPath, as_path
from vim_deploy.ranges import SHARE, require_all
from vim_deploy.stages.comparing_sides import ComparedSide


@dataclass(frozen=True)
class CompareLimits:
    """What is demanded; None leaves it unchecked.

    Attributes:
        max_disagreement: largest share of pictures (of a segmentation: of pixels, of a detector: of
            detections) that may be answered otherwise.
        max_loss: largest upper bound of the loss of top-1 accuracy; needs class folders.
    """

    max_disagreement: float | None = None
    max_loss: float | None = None

    def __post_init__(self) -> None:
        """VIM-202 for a limit that limits nothing or is no number."""
        require_all(self, max_disagreement=SHARE, max_loss=SHARE)

    @property
    def bound(self) -> float:
        """Share of pictures that may turn out otherwise before B is as good as A."""
        given = [limit for limit in (self.max_loss, self.max_disagreement) if limit]
        return given[0] if given else BOUND


@dataclass(frozen=True)
class ComparedPictures:
    """The pictures, as stored.

    Attributes:
        folder: its name.
        images: how many both sides have seen.
        classes_by: how their true classes were told, or why they are not known.
        labelled: whether they are known.
        unread: those that could not be read.
        left_out: what lies beside them, in words.
    """

    folder: str
    images: int
    labelled: bool
    classes_by: str
    unread: tuple[Unread, ...]
    left_out: tuple[str, ...]


@stored(
    head={"tool": f"vim-deploy {vim_deploy.__version__}"},
    keys=(
        "advice", "passed", "failures", "statement=sentences", "a", "b", "size_ratio", "pictures",
        "found", "time", "untimed", "limits", "notes", "command",
    ),
)  # fmt: skip
@dataclass(frozen=True)
class CompareReport:
    """What came of a comparison.

    Attributes:
        a, b: the sides.
        pictures: what they were compared on.
        found: how far their answers agree, by what they answer with.
        time: None where it was not measured, for the reason in ``untimed``.
        limits: what was demanded.
        notes: what a reader has to know.
        command: to repeat it.
        thumbnails: small pictures by the names of the pictures, as data URIs; not stored.
    """

    a: ComparedSide
    b: ComparedSide
    pictures: ComparedPictures
    found: ClassAgreement | PixelAgreement | DetectionAgreement
    time: TimeFound | None
    untimed: str
    limits: CompareLimits = CompareLimits()
    notes: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    thumbnails: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_ratio(self) -> float | None:
        """Bytes of B over those of A; None where a side has no file."""
        return self.b.bytes / self.a.bytes if self.a.bytes and self.b.bytes else None

    @property
    def cost(self) -> Cost:
        """Size and time of B over those of A."""
        batches = () if self.time is None else self.time.batches
        return Cost(
            self.size_ratio,
            tuple(
                Ratio(one.batch, one.ratio.value, one.ratio.low, one.ratio.high)
                for one in batches
                if one.ratio is not None
            ),
        )

    @property
    def advice(self) -> Advice:
        """One sentence, by the rules of ``parity.advice``."""
        quality = self.found.quality(self.limits.bound)
        return advise(quality, self.cost, self.a.name, self.b.name)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The findings about answers in words."""
        return self.found.sentences

    @property
    def failures(self) -> tuple[str, ...]:
        """Demands that are not met."""
        failures = []
        limit, share = self.limits.max_disagreement, self.found.disagreement
        if limit is not None and share > limit:
            failures.append(
                f"{100 * share:.2f} % are answered otherwise, which is above {100 * limit:g} %"
            )
        limit, high = self.limits.max_loss, self.found.loss_bound
        if limit is not None and high is not None and high > limit:
            failures.append(
                f"upper bound of the loss {100 * high:.2f} % is above {100 * limit:g} %"
            )
        return tuple(failures)

    @property
    def passed(self) -> bool | None:
        """Whether all demands are met; None without any."""
        demanded = (self.limits.max_disagreement, self.limits.max_loss)
        return not self.failures if any(limit is not None for limit in demanded) else None

    def write(self, path: StrPath) -> None:
        """Write it to ``path``, atomically."""
        write_json(as_path(path, "path"), encode(self))

    def require_passed(self) -> None:
        """VIM-701 when a demand is not met."""
        if self.failures:
            raise VimDeployError(
                "VIM-701",
                f"{self.b.name} does not do on {self.pictures.folder} what {self.a.name} does",
                why="\n".join(self.failures),
                fix="docs/precision.md says what to keep in float32; more pictures make a bound "
                "narrower",
            )
