"""From image files to the model's input, exactly as the official evaluation prepares them.

The official evaluation (vim/datasets.py, torchvision transforms on PIL images) does, in order:
resize the short side to ``int(size / crop_ratio)`` with PIL's filter, crop the centre, divide by
255, subtract the mean, divide by the standard deviation. The rounding rules here are torchvision's
(``Resize``: the long side is truncated; ``CenterCrop``: the offset is rounded half to even), so the
8-bit crop is the same, bit for bit.

A file is decoded as torchvision's ``ImageFolder`` does it (``PIL.Image.convert("RGB")``): of
several frames the first is taken, transparency and colour profiles are dropped, CMYK is converted
as Pillow does, and EXIF orientation is not applied: a turned photograph stays turned. Where whole
pictures are wanted (``picture_from`` for segmentation, ``fit_from`` for detection), it is applied:
mmsegmentation reads them with OpenCV, which turns them upright, and detectron2 turns them itself.
Images with more than 8 bits a channel are refused, since Pillow would clip them silently.

The part before the crop's last step (8-bit, height x width x channels) is always done here; which
of the rest is left to the exported graph is the preprocess mode (``specs.ExportInfo.preprocess``).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.files import require_file
from vim_deploy.image_bounds import (
    MAX_FILE_BYTES,
    MAX_PIXELS,
    flaw_of_bytes,
    flaw_of_header,
    flaw_of_pixels,
)
from vim_deploy.ranges import CROP_RATIO
from vim_deploy.specs import ImagePreparation, Interpolation, PreprocessMode
from vim_deploy.threads import no_warnings
from vim_deploy.untrusted import read_bytes

if TYPE_CHECKING:
    import PIL.Image

Pixels = npt.NDArray[np.uint8]
#: A picture as a run takes it: a file, pixels [height, width], [height, width, 1] or
#: [height, width, 3], or an image of Pillow, which is prepared as if it came from a file.
Source: TypeAlias = "Path | Pixels | PIL.Image.Image"

#: What is looked for in a folder: what torchvision's ImageFolder reads, and ``.gif``. Only these
#: decoders are opened: others, such as PostScript, would hand the file to an external program.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
INTERPOLATIONS = get_args(Interpolation)

_PIL_MODES = {1: "L", 3: "RGB"}
#: Longest side and most channels of an input; above them a number is a mistake, not a model.
_MAX_SIDE = 1 << 16
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def crop_from(source: Source, preparation: ImagePreparation) -> Pixels:
    """Decode a picture, resize it and crop its centre: uint8 [height, width, channels].

    Raises:
        VimDeployError: VIM-401 (no such file), VIM-411 (not an image, truncated, too large, more
            than 8 bits a channel), VIM-415 (an array of another dtype or shape).
    """
    return _crop(_opened(source, preparation.channels), preparation)


def crop_from_file(path: Path, preparation: ImagePreparation) -> Pixels:
    """``crop_from`` an image file."""
    return crop_from(path, preparation)


def picture_from(source: Source, channels: int) -> Pixels:
    """Decode a whole picture, upright by its EXIF orientation: uint8 [height, width, channels].

    Raises:
        VimDeployError: as ``crop_from``; VIM-415 for a model that takes no image files.
    """
    image = _opened(source, channels, upright=True)
    return np.array(image, dtype=np.uint8).reshape(image.height, image.width, channels)


def fit_from(source: Source, preparation: ImagePreparation) -> tuple[Pixels, tuple[int, int]]:
    """Decode a picture, upright, and make it as large as fits into a detector's square input.

    Returns:
        uint8 [height, width, channels] of the input's size, the picture at the top left and zeros
        beside and below it, and the height and width that the picture takes of it.

    Raises:
        VimDeployError: as ``crop_from``; VIM-415 for an input that is not square.
    """
    side = preparation.height
    if side != preparation.width:
        raise VimDeployError(
            "VIM-415",
            f"a detector takes a square input, and this one is {side} x {preparation.width}",
            why="pictures are resized until their longer side is the input's",
            fix="export the model with a square --image-size",
        )
    image = _opened(source, preparation.channels, upright=True)
    height, width = fitted_size(image.height, image.width, side)
    image = _resized(image, (width, height), preparation.interpolation)
    padded = np.zeros((side, side, preparation.channels), np.uint8)
    padded[:height, :width] = np.asarray(image).reshape(height, width, -1)
    return padded, (height, width)


def crop_from_array(pixels: Pixels, preparation: ImagePreparation) -> Pixels:
    """``crop_from`` pixels."""
    return crop_from(pixels, preparation)


def require_pixels(pixels: npt.NDArray[Any], name: str = "the picture") -> None:
    """VIM-415 for an array that is no picture, which is called ``name``."""
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in _PIL_MODES)
    if pixels.dtype != np.uint8 or not fits or 0 in pixels.shape:
        raise VimDeployError(
            "VIM-415",
            f"{name} is not an 8-bit grey or RGB array",
            why=f"dtype {pixels.dtype}, shape {list(pixels.shape)}",
            fix="give uint8 pixels, 0 to 255, of shape [height, width] or [height, width, 3]",
        )


def batch_from_crops(
    crops: Sequence[Pixels] | Pixels, preparation: ImagePreparation, mode: PreprocessMode
) -> npt.NDArray[Any]:
    """Stack crops into the input of a graph exported with preprocess ``mode``.

    Args:
        crops: uint8 [height, width, channels] each, or one [batch, height, width, channels].
        preparation: the sizes the crops must have; mean and standard deviation.
        mode: ``none``: float32 NCHW, normalised; ``normalize``: float32 NCHW in [0, 1];
            ``uint8``: uint8 NHWC, unchanged.

    Raises:
        VimDeployError: VIM-415 when a crop has another dtype or shape, or there is none;
            VIM-202 for an unknown mode.
    """
    wanted = (preparation.height, preparation.width, preparation.channels)
    for crop in crops:
        if crop.shape != wanted or crop.dtype != np.uint8:
            raise VimDeployError(
                "VIM-415",
                "an image crop does not fit the model",
                why=f"{crop.dtype} {list(crop.shape)}, expected uint8 {list(wanted)}",
                fix="prepare it with crop_from_file or crop_from_array",
            )
    if len(crops) == 0:
        raise VimDeployError("VIM-415", "no images to make a batch of", fix="give one or more")
    pixels = np.ascontiguousarray(np.stack(list(crops)))
    if mode == "uint8":
        return pixels
    scaled = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    if mode == "normalize":
        return np.ascontiguousarray(scaled)
    if mode == "none":
        return np.ascontiguousarray(normalized(scaled, preparation))
    raise VimDeployError(
        "VIM-202",
        f"unknown preprocess mode {mode!r}",
        fix=nearest(mode, get_args(PreprocessMode)),
    )


def normalized(
    scaled: npt.NDArray[np.float32], preparation: ImagePreparation
) -> npt.NDArray[np.float32]:
    """``(x - mean) / std`` per channel, in float32, for NCHW values in [0, 1]."""
    mean = np.asarray(preparation.mean, np.float32).reshape(1, -1, 1, 1)
    std = np.asarray(preparation.std, np.float32).reshape(1, -1, 1, 1)
    return (scaled - mean) / std


def load_batch(
    paths: Iterable[Path], preparation: ImagePreparation, mode: PreprocessMode
) -> npt.NDArray[Any]:
    """Decode, crop and stack image files; errors as in the functions it joins."""
    return batch_from_crops(
        [crop_from_file(path, preparation) for path in paths], preparation, mode
    )


def check_preparation(preparation: ImagePreparation) -> None:
    """What the types of a preparation cannot say, for one that was read from a file.

    Raises:
        ValueError: a picture cannot be prepared that way: sizes out of range, another number of
            means than channels, a filter that is none, or pixels that float32 could not hold.
    """
    sides, channels = (preparation.height, preparation.width), preparation.channels
    if not all(0 < side <= _MAX_SIDE for side in sides) or sides[0] * sides[1] > MAX_PIXELS:
        raise ValueError(f"image size {sides[0]}x{sides[1]}")
    if not 0 < channels <= _MAX_SIDE:
        raise ValueError(f"image with {channels} channels")
    for name, numbers in (("mean", preparation.mean), ("std", preparation.std)):
        if len(numbers) != channels:
            raise ValueError(f"image {name} has {len(numbers)} numbers for {channels} channels")
    for mean, std in zip(preparation.mean, preparation.std, strict=True):
        # Written so that NaN fails; the quotient is that of a white pixel.
        if not std > 0:
            raise ValueError(f"image std has {std}, expected positive numbers")
        held = std <= _FLOAT32_MAX and abs(mean) <= _FLOAT32_MAX
        if not (held and (1 + abs(mean)) / std <= _FLOAT32_MAX):
            raise ValueError(f"pixels less {mean} over {std} (image mean and std) are no numbers")
    ratio = preparation.crop_ratio
    low, high = CROP_RATIO.low, CROP_RATIO.high
    if not low <= ratio <= high:
        raise ValueError(f"image crop ratio {ratio}, expected {low:g} to {high:g}")
    if preparation.interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"image interpolation {preparation.interpolation!r}: "
            + nearest(preparation.interpolation, INTERPOLATIONS)
        )


def resized_size(width: int, height: int, preparation: ImagePreparation) -> tuple[int, int]:
    """Width and height after the resize, before the crop.

    The picture is made as small as it can be while covering ``int(size / crop_ratio)`` in both
    directions; for a square model that is torchvision's ``Resize(int(size / crop_ratio))``. The
    side that does not bind is truncated, as torchvision does, but never below the crop.
    """
    cover_width = int(preparation.width / preparation.crop_ratio)
    cover_height = int(preparation.height / preparation.crop_ratio)
    # width / cover_width <= height / cover_height, in integers: the width binds.
    if width * cover_height <= height * cover_width:
        return cover_width, max(int(cover_width * height / width), cover_height)
    return max(int(cover_height * width / height), cover_width), cover_height


def fitted_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of a picture whose longer side is made ``side`` pixels, at least 1 each.

    detectron2's ``ResizeShortestEdge(side, side)``: in double precision the shorter side is brought
    to ``side``, then both are made smaller until the longer one fits, then 0.5 is added and the
    rest is cut off. The order of these steps decides where the exact result is a half.
    """
    scale = side / min(height, width)
    sides = [side if edge == min(height, width) else scale * edge for edge in (height, width)]
    if max(sides) > side:
        smaller = side / max(sides)
        sides = [edge * smaller for edge in sides]
    # Of a picture more than 2 * side times as long as wide nothing would be left.
    rows, columns = (max(int(edge + 0.5), 1) for edge in sides)
    return rows, columns


def _crop(image: PIL.Image.Image, preparation: ImagePreparation) -> Pixels:
    """Resize and centre-crop a PIL image of the right mode."""
    size = resized_size(image.width, image.height, preparation)
    if size[0] * size[1] > MAX_PIXELS:
        raise VimDeployError(
            "VIM-411",
            f"the picture is too elongated to resize: {image.width} x {image.height}",
            why=f"it would become {size[0]} x {size[1]}; at most {MAX_PIXELS} pixels are made",
            fix="crop it closer to the model's shape first",
        )
    image = _resized(image, size, preparation.interpolation)
    # Python rounds half to even, and so does torchvision's CenterCrop, which uses the same round.
    left = round((size[0] - preparation.width) / 2)
    top = round((size[1] - preparation.height) / 2)
    box = (left, top, left + preparation.width, top + preparation.height)
    pixels = np.array(image.crop(box), dtype=np.uint8)
    return pixels.reshape(preparation.height, preparation.width, preparation.channels)


def _resized(image: PIL.Image.Image, size: tuple[int, int], filter_name: str) -> PIL.Image.Image:
    """A picture of ``size``, width and height."""
    if size == image.size:
        return image
    # First the columns, then the rows, as Pillow did when the models were evaluated: from
    # Pillow 13 on, one call takes tall pictures in the other order, which rounds otherwise.
    pil_filter = _pil_filter(filter_name)
    return image.resize((size[0], image.height), pil_filter).resize(size, pil_filter)


def _opened(source: Source, channels: int, *, upright: bool = False) -> PIL.Image.Image:
    """A picture in the mode of its channels."""
    if isinstance(source, Path):
        return _decoded(source, channels, upright=upright)
    import PIL.Image
    import PIL.ImageOps

    if isinstance(source, np.ndarray):
        require_pixels(source)
        grey = source[:, :, 0] if source.shape[2:] == (1,) else source
        source = PIL.Image.fromarray(np.ascontiguousarray(grey))
    mode = _pil_mode(channels)
    if (flaw := flaw_of_pixels(source)) is not None:
        raise _unreadable("the picture", flaw)
    try:
        with no_warnings():
            # Whoever gave it keeps it as it is.
            image = PIL.ImageOps.exif_transpose(source) if upright else source
            return image.convert(mode)
    except MemoryError:
        raise
    # It may still have to be read from a file, as in ``_decoded``, which may be closed by now.
    except Exception as error:
        raise _unreadable("the picture", f"{type(error).__name__}: {error}") from error


def _decoded(path: Path, channels: int, *, upright: bool = False) -> PIL.Image.Image:
    import PIL.Image
    import PIL.ImageOps

    require_file(path, "image")
    if path.stat().st_size == 0:
        raise _unreadable(path, "the file is empty")
    data = read_bytes(path, lambda why: _unreadable(path, why), max_bytes=MAX_FILE_BYTES)
    mode = _pil_mode(channels)
    if (flaw := flaw_of_bytes(data)) is not None:
        raise _unreadable(path, flaw)
    try:
        # Of sizes, for which our own check below answers, and of transparency, which the conversion
        # drops as the official evaluation does.
        with no_warnings(), PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if (flaw := flaw_of_header(image, data, mode, upright=upright)) is not None:
                raise _unreadable(path, flaw)
            image.load()
            if upright:
                PIL.ImageOps.exif_transpose(image, in_place=True)
            # A conversion to what it is already would be a copy.
            return image if image.mode == mode else image.convert(mode)
    except (VimDeployError, MemoryError):
        raise
    except PIL.UnidentifiedImageError as error:
        why = f"it is none of {', '.join(_FORMATS)}, or has more than 8 bits a channel"
        raise _unreadable(path, why) from error
    # A malformed file makes Pillow's decoders raise almost anything (OSError, SyntaxError,
    # struct.error, zlib.error, IndexError, ...); all of it means that this is not an image.
    except Exception as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _unreadable(path: Path | str, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-411",
        f"{path} is not a readable image",
        why=why,
        fix="give a complete image file of 8 bits a channel, or take it out of the folder",
    )


def require_picture_channels(channels: int) -> None:
    """VIM-415 for a model that takes neither grey nor RGB pictures."""
    _pil_mode(channels)


def _pil_mode(channels: int) -> str:
    if channels not in _PIL_MODES:
        raise VimDeployError(
            "VIM-415",
            f"no image files for a model with {channels} channels",
            why="an image file gives 1 (grey) or 3 (RGB) channels",
            fix="use stored arrays or random input instead of image files",
        )
    return _PIL_MODES[channels]


def _pil_filter(name: str) -> PIL.Image.Resampling:
    import PIL.Image

    if name not in INTERPOLATIONS:
        raise VimDeployError(
            "VIM-202", f"unknown interpolation {name!r}", fix=nearest(name, INTERPOLATIONS)
        )
    return PIL.Image.Resampling[name.upper()]
