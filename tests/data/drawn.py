"""Pictures of reference cases that are noise of a seed, and so need not be kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: By array, what is added to the record's seed. The official code was given ``torch.randn`` of that
#: seed; the first image of a batch is that of a batch of one.
NOISE = {"image": 2000, "image_slide": 2001}


def drawn(record: Mapping[str, Any], array: str) -> np.ndarray[Any, np.dtype[Any]]:
    """The first image of an array of ``NOISE``, float32 [1, C, H, W], read-only.

    Bit for bit what was drawn on the CPU that the record is from; PyTorch promises that of no two
    kinds of CPU. Differences in the last bit are far below any bound on what comes of the image.

    Args:
        record: the case's JSON file.
        array: a name of ``NOISE``.
    """
    import torch

    shapes = {"image": record["input_shape"], **record["output_shapes"]}
    generator = torch.Generator().manual_seed(record["seed"] + NOISE[array])
    image: np.ndarray[Any, np.dtype[Any]]
    image = torch.randn(1, *shapes[array][1:], generator=generator).numpy()
    image.setflags(write=False)
    return image
