"""A parsed ``--head``: what an exported graph gives out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Head:
    """Kind and outputs of a head.

    Attributes:
        kind: ``logits``, ``softmax``, ``topk``, ``features`` or ``tokens``; for segmentation also
            ``upsampled`` and ``labels``.
        count: classes that ``topk`` gives.
        auxiliary: whether the auxiliary head's logits are given, too.
        maps: names of feature maps, for ``features`` of a dense model.
    """

    kind: str
    count: int = 0
    auxiliary: bool = False
    maps: tuple[str, ...] = ()

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph outputs."""
        if self.kind == "topk":
            return "probabilities", "classes"
        if self.maps:
            return self.maps
        names = {"softmax": ("probabilities",), "upsampled": ("logits",)}
        own = names.get(self.kind, (self.kind,))
        return (*own, "aux_logits") if self.auxiliary else own
