"""Ends with a sentence where an image's TensorRT is another release than was said.

    python3 tensorrt_release.py 10.14

The library itself is asked, not the image's tag.
"""

from __future__ import annotations

import ctypes
import glob
import sys

_PLACES = ("/usr/lib/*-linux-gnu/libnvinfer.so.*", "/usr/local/lib/libnvinfer.so.*")


def named(number: int) -> str:
    """``10.14.1`` of what ``getInferLibVersion`` answers.

    10 and later count major * 10000 + minor * 100 + patch, 8.6 counts major * 1000.
    """
    step = 10000 if number >= 100000 else 1000
    return f"{number // step}.{number % step // 100}.{number % 100}"


def is_of(found: str, wanted: str) -> bool:
    """Whether a version begins with the numbers of another."""
    numbers = wanted.split(".")
    return found.split(".")[: len(numbers)] == numbers


def main(wanted: str) -> str | None:
    """What is wrong; None when the library is of the release ``wanted``."""
    libraries = sorted(path for place in _PLACES for path in glob.glob(place))
    if not libraries:
        return f"no libnvinfer.so in {' or '.join(_PLACES)}: is this an image with TensorRT?"
    found = named(ctypes.CDLL(min(libraries, key=len)).getInferLibVersion())
    if is_of(found, wanted):
        return None
    return f"the image holds TensorRT {found}: give --build-arg TENSORRT={found}, or another image"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
