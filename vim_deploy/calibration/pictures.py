"""The pictures that a model is watched on: chosen from a folder, and prepared for its graph.

Any pictures of the kind the model will see do; they need no labels. What says nothing about others
is passed over: pictures of one colour, and those that are another one again.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file, sha256_of
from vim_deploy.images import Pixels, crop_from_file, fit_from, require_picture_channels
from vim_deploy.progress import stage_log
from vim_deploy.ranges import CALIBRATION_IMAGES
from vim_deploy.runtimes.inputs import PictureBatch, check_input, picture_batch
from vim_deploy.scene.pictures import find_images, in_words
from vim_deploy.specs import ImagePreparation, TensorSpec

#: Pictures for the check of the file that is made.
CHECKED = 8
#: Steps of 256 that rounding makes of one colour in a decoder (two conversions of colours), while
#: no content is that faint.
_ONE_COLOUR = 2


class CalibrationPictures(NamedTuple):
    """What was chosen.

    Attributes:
        files: to be watched, in the folder's order.
        sha256: over their contents, in this order.
        check: for the check of what is made: up to ``CHECKED`` others of the folder where it has
            any more, else as many of ``files``.
    """

    files: tuple[Path, ...]
    sha256: str
    check: tuple[Path, ...]


def choose_pictures(
    folder: Path, image: ImagePreparation, count: int, seed: int, *, sized: bool = False
) -> CalibrationPictures:
    """Pictures below ``folder``, class folders and all; which, seed and names decide.

    Each that is looked at is decoded; a folder with enough usable ones is not gone through.

    Args:
        folder: searched as ``scene.pictures.search_images`` does.
        image: how the model's pictures are prepared: those that differ only in what it does not
            see are one.
        count: at most so many.
        seed: of ``numpy.random.default_rng``.
        sized: for a model that takes the sizes of pictures (a detector).

    Raises:
        VimDeployError: VIM-401 (no such folder, no picture in it), VIM-411 (one of those looked at
            is unreadable), VIM-415 (the model takes no picture files), VIM-441 (fewer usable
            pictures than ``CALIBRATION_IMAGES`` begins with, or no folder).
    """
    if not os.path.isdir(folder):
        raise _no_folder(require_file(folder, "folder of calibration pictures"))
    stage_log.info("choosing calibration pictures")
    require_picture_channels(image.channels)
    left_out: Counter[str] = Counter()
    files = find_images(folder, left_out)
    usable: list[int] = []
    seen: set[bytes] = set()
    blank = repeated = 0
    for index in np.random.default_rng(seed).permutation(len(files)).tolist():
        if len(usable) == count + CHECKED:
            break
        pixels = _seen_by_model(files[index], image, sized=sized)
        digest = hashlib.sha256(pixels.tobytes() + repr(pixels.shape).encode()).digest()
        if _is_of_one_colour(pixels):
            blank += 1
        elif digest in seen:
            repeated += 1
        else:
            seen.add(digest)
            usable.append(index)
    if len(usable) < CALIBRATION_IMAGES.low:
        found = f"{len(files)} found, {blank} of one colour, {repeated} the same as another"
        raise VimDeployError(
            "VIM-441",
            f"{len(usable)} different pictures in {folder}, and a calibration needs "
            f"{CALIBRATION_IMAGES.low}",
            why="; ".join((found, *in_words(left_out))),
            fix="give a folder of 100 or more pictures like those that the model will see; they "
            "need no labels",
        )
    chosen = tuple(files[index] for index in sorted(usable[:count]))
    others = usable[count:] or usable[:CHECKED]
    # Of their SHA-256, so that it counts where one ends.
    joined = "".join(map(sha256_of, chosen)).encode()
    check = tuple(files[index] for index in sorted(others))
    return CalibrationPictures(chosen, hashlib.sha256(joined).hexdigest(), check)


def prepared_batches(
    files: Sequence[Path], info: ExportInfo, spec: TensorSpec, batch: int
) -> Iterator[PictureBatch]:
    """``files`` in the graph's own input format, one batch after the other.

    Args:
        files: one or more.
        info: of the model.
        spec: the graph's input for pictures. Where its batch is fixed, that is taken, and the last
            one is filled up with the first pictures.
        batch: pictures at once, of which the last batch may have fewer.

    Raises:
        VimDeployError: VIM-401, VIM-411, VIM-415 (the graph takes something else).
    """
    given = list(files)
    size = spec.shape[0]
    if isinstance(size, int):
        given += [files[index % len(files)] for index in range(-len(files) % size)]
    else:
        size = batch
    for start in range(0, len(given), size):
        made = picture_batch(given[start : start + size], info)
        check_input(spec, made.images)
        yield made


def _seen_by_model(file: Path, image: ImagePreparation, *, sized: bool) -> Pixels:
    """uint8 [height, width, channels] of a picture alone, without what fills the input up."""
    if not sized:
        return crop_from_file(file, image)
    pixels, (height, width) = fit_from(file, image)
    return pixels[:height, :width]


def _is_of_one_colour(pixels: Pixels) -> bool:
    spread = pixels.max(axis=(0, 1)) - pixels.min(axis=(0, 1))
    return bool((spread <= _ONE_COLOUR).all())


def _no_folder(file: Path) -> VimDeployError:
    return VimDeployError(
        "VIM-441",
        f"{file} is one file, and a calibration needs a folder of pictures",
        why=f"ranges are taken of {CALIBRATION_IMAGES.low} pictures or more",
        fix="give a folder of image files (of a video, save some of its frames), or a .json file "
        "that --save-calibration wrote",
    )
