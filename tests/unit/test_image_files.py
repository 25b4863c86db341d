"""Kinds of image files: read as torchvision reads them, or refused for their depth."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import DEEP, PIXELS, shallow
from vim_deploy import images
from vim_deploy.errors import VimDeployError
from vim_deploy.specs import ImagePreparation

SMALL = ImagePreparation(32, 32)


@pytest.mark.parametrize("name", DEEP)
def test_the_depth_is_that_of_the_files_header(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(DEEP[name])
    with Image.open(path):
        pass  # a picture that Pillow opens
    with pytest.raises(VimDeployError, match="more than 8 bits a channel") as caught:
        images.crop_from_file(path, SMALL)
    assert caught.value.code == "VIM-411"


def test_a_depth_that_pillow_does_not_open_is_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "JPEG")
    jpeg = bytearray(stream.getvalue())
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12
    (tmp_path / "x.jpg").write_bytes(jpeg)
    with pytest.raises(VimDeployError, match="more than 8 bits a channel"):
        images.crop_from_file(tmp_path / "x.jpg", SMALL)


@pytest.mark.parametrize("name", shallow())
def test_files_are_decoded_as_torchvisions_loader_does(tmp_path: Path, name: str) -> None:
    """``datasets.folder.pil_loader``: open, convert to RGB, nothing else."""
    path = tmp_path / name
    path.write_bytes(shallow()[name])
    with warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("ignore", UserWarning)  # of a palette with transparency
        loaded = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(
        images.crop_from_file(path, SMALL), images.crop_from_array(loaded, SMALL)
    )
