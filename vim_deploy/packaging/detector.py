"""What a package says of a detector, so that its programs fit pictures and read answers."""

from __future__ import annotations

from typing import Any

from vim_deploy.artifact.metadata import ExportInfo


def detector_facts(info: ExportInfo) -> dict[str, Any]:
    """For a manifest: how pictures are fitted, and which detections the graph gives.

    A picture, turned upright, is resized until its longer side is the input's; zeros fill the rest
    (``images.fit_from``).
    """
    detector = info.dense.detector if info.dense else None
    facts: dict[str, Any] = {
        "fit": {
            "longer_side": max(info.image.height, info.image.width),
            "interpolation": info.image.interpolation,
            "padding": 0,
            "padding_at": ["right", "bottom"],
            "upright": True,
        }
    }
    if detector is not None:
        facts["detector"] = {
            "score_threshold": detector.score_threshold,
            "nms_threshold": detector.nms_threshold,
            "detections": detector.detections,
            "masks": detector.mask_head is not None,
        }
    return facts
