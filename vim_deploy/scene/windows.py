"""Which windows of a picture a segmentation model runs on, and whether they fit.

As mmsegmentation's ``EncoderDecoder.slide_inference``: a grid of windows every ``stride`` pixels,
the last of a row or column moved back to the border. ``whole`` is one window that the picture is
resized to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.image_bounds import MAX_PIXELS
from vim_deploy.recipe.dense_config import DenseConfig, SceneTest
from vim_deploy.scene.resize import Size, size_within
from vim_deploy.specs import ImagePreparation, SceneMode

#: Bytes that the sums of one row of windows may take: its height, the picture's width, float32 for
#: every class.
MAX_BAND_BYTES = 1 << 32


@dataclass(frozen=True)
class SceneSettings:
    """How a picture of any size goes through a model of one input size.

    Attributes:
        mode: ``slide`` or ``whole``.
        window: height and width of the model's input in pixels.
        stride: rows and columns between two windows.
        scale: longest and shortest side that a picture is resized to fit into before it is cut
            into windows; None leaves it as it is.
        pad: whether a picture smaller than a window is filled up at the right and bottom.
    """

    mode: SceneMode
    window: Size
    stride: Size
    scale: Size | None = None
    pad: bool = False


@dataclass(frozen=True)
class Layout:
    """The windows of one picture.

    Attributes:
        own: the picture's height and width.
        run: the same after resizing, which is what the windows are cut from.
        window: height and width of a window.
        tops, lefts: first rows and columns of the windows.
    """

    own: Size
    run: Size
    window: Size
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """Top and left of every window, row by row."""
        return tuple((top, left) for top in self.tops for left in self.lefts)

    @property
    def filled(self) -> Size:
        """Height and width after padding."""
        return max(self.run[0], self.window[0]), max(self.run[1], self.window[1])

    def visits(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """How many rows of windows cover each row, and how many columns each column."""
        rows, columns = (np.zeros(length, np.float32) for length in self.filled)
        for top in self.tops:
            rows[top : top + self.window[0]] += 1
        for left in self.lefts:
            columns[left : left + self.window[1]] += 1
        return rows, columns


def scene_settings(
    dense: DenseConfig,
    image: ImagePreparation,
    *,
    mode: str | None = None,
    stride: Size | None = None,
    scale: Size | Literal["none"] | None = None,
    pad: bool = False,
) -> SceneSettings:
    """The model's own test settings, with what the caller wants otherwise.

    A model without any slides by two thirds of its input size, as the published ones do.

    Raises:
        VimDeployError: VIM-202 (an unknown mode, a stride that leaves gaps, sizes below 1),
            VIM-203 (what belongs to ``slide``, with ``whole``), VIM-415 (windows that are not the
            model's input).
    """
    if mode is not None and mode not in get_args(SceneMode):
        raise VimDeployError(
            "VIM-202", f"unknown mode {mode!r}", fix=nearest(mode, get_args(SceneMode))
        )
    for name, sizes in (("stride", stride), ("scale", scale)):
        if isinstance(sizes, tuple) and min(sizes) < 1:
            raise VimDeployError("VIM-202", f"{name} {sizes} is not valid", fix="1 and more")
    window = image.height, image.width
    thirds = max(1, window[0] * 2 // 3), max(1, window[1] * 2 // 3)
    test = dense.test or SceneTest("slide", window, thirds)
    if test.crop != window:
        raise VimDeployError(
            "VIM-415",
            f"the model is tested with windows of {shown(test.crop)}, but takes {shown(window)}",
            why="every window is one input of the model",
            fix="export it again with a crop_size of its input size",
        )
    if (mode or test.mode) == "whole":
        given = {"--stride": stride, "--scale": scale, "--pad": pad or None}
        for option in (name for name, value in given.items() if value is not None):
            raise VimDeployError(
                "VIM-203",
                f"{option} belongs to sliding windows, and the mode is whole",
                why="a whole picture is resized to the model's input"
                + ("" if mode else "; whole is the model's own test mode"),
                fix=f"leave {option} away, or add --mode slide",
            )
        return SceneSettings("whole", window, window)
    stride = stride or test.stride
    if any(step > side for step, side in zip(stride, window, strict=True)):
        raise VimDeployError(
            "VIM-202",
            f"a stride of {shown(stride)} leaves gaps between windows of {shown(window)}",
            fix=f"--stride {min(window)} or less",
        )
    limits = test.scale if scale is None else None if scale == "none" else scale
    return SceneSettings("slide", window, stride, limits, pad)


def lay_out(own: Size, settings: SceneSettings, patch: Size) -> Layout:
    """The windows of a picture of height and width ``own``.

    Raises:
        VimDeployError: VIM-429 when the picture is smaller than a patch or a window, or too large.
    """
    window = settings.window
    require_patch(own, patch)
    if settings.mode == "whole":
        return Layout(own, window, window, (0,), (0,))
    run = own if settings.scale is None else size_within(own, settings.scale)
    if run != own:
        if run[0] * run[1] > MAX_PIXELS:
            raise _too_large(own, f"resized it would have {shown(run)} pixels", settings)
        require_patch(run, patch)
    if not settings.pad and (run[0] < window[0] or run[1] < window[1]):
        raise _window_larger(own, run, settings)
    filled = max(run[0], window[0]), max(run[1], window[1])
    tops, lefts = (
        _starts(length, side, step)
        for length, side, step in zip(filled, window, settings.stride, strict=True)
    )
    return Layout(own, run, window, tops, lefts)


def require_band(layout: Layout, classes: int, settings: SceneSettings) -> None:
    """VIM-429 when the sums of one row of windows would take more than ``MAX_BAND_BYTES``."""
    size = 4 * classes * layout.window[0] * layout.filled[1]
    if size > MAX_BAND_BYTES:
        raise _too_large(
            layout.own,
            f"the logits of one row of windows over {layout.filled[1]} columns take "
            f"{size / 1e9:.1f} GB, at most {MAX_BAND_BYTES / 1e9:.1f} GB are used",
            settings,
        )


def require_patch(size: Size, patch: Size) -> None:
    """VIM-429 for a picture that is smaller than one patch of the model."""
    if size[0] < patch[0] or size[1] < patch[1]:
        raise VimDeployError(
            "VIM-429",
            f"a picture of {shown(size)} pixels is smaller than a patch of {shown(patch)}",
            why="the model sees patches: less than one of them holds nothing to segment",
            fix="give a larger picture",
        )


def shown(size: Size) -> str:
    """``height x width`` for a sentence."""
    return f"{size[0]} x {size[1]}"


def _starts(length: int, window: int, stride: int) -> tuple[int, ...]:
    """First positions of the windows along one side; ``length`` is at least ``window``."""
    last = length - window
    return (*range(0, last, stride), last)


def _window_larger(own: Size, run: Size, settings: SceneSettings) -> VimDeployError:
    resized = (
        ""
        if run == own
        else f"; the picture has {shown(own)} and is resized to fit into "
        + (f"{max(settings.scale or own)} and {min(settings.scale or own)}")
    )
    return VimDeployError(
        "VIM-429",
        f"the window of {shown(settings.window)} pixels is larger than the picture of {shown(run)}",
        why="the model takes windows of that size and no other" + resized,
        fix="--pad fills the picture up, --mode whole resizes it to one window, --scale LONG,SHORT "
        f"resizes it until its sides are {shown(settings.window)} at least",
    )


def _too_large(own: Size, why: str, settings: SceneSettings) -> VimDeployError:
    long, short = 4 * max(settings.window), max(settings.window)
    return VimDeployError(
        "VIM-429",
        f"a picture of {shown(own)} pixels is too large for these windows",
        why=why,
        fix=f"--scale {long},{short} or another that is smaller, or --mode whole",
    )
