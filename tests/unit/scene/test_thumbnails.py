"""Small pictures of pages: bounded, readable, marked where they should be."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import PIL.Image

from vim_deploy.report.document import Shot
from vim_deploy.scene.thumbnails import SIDE, Foremost, Thumbnails, boxed, data_uri, marked


def decoded(uri: str) -> Any:
    head, _, data = uri.partition(",")
    image = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{image.format.lower()};base64"  # type: ignore[union-attr]
    return image


def test_small_pictures_keep_every_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 1), dtype=np.uint8)
    image = decoded(data_uri(pixels))
    np.testing.assert_array_equal(np.asarray(image), pixels[:, :, 0])


def test_large_pictures_become_small() -> None:
    pixels = np.zeros((300, 900, 3), np.uint8)
    pixels[:, 450:] = 255
    image = decoded(data_uri(pixels))
    assert image.size == (SIDE, round(SIDE / 3))
    assert np.asarray(image)[:, 5].max() < 40 < 215 < np.asarray(image)[:, -5].min()


def test_a_page_takes_so_many_bytes_and_no_more() -> None:
    small = Thumbnails(most_bytes=3000)
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 1), dtype=np.uint8)
        small.add(str(number), pixels)
    assert 0 < len(small.uris) < 40
    assert small.left_out == 40 - len(small.uris)
    assert sum(map(len, small.uris.values())) <= 3000
    assert all(Shot("x", uri, ()).shown == uri for uri in small.uris.values())


def test_sources_that_are_no_picture_in_the_page_are_not_shown() -> None:
    for source in (
        "http://evil.example/x.png",
        "data:text/html;base64,AAAA",
        'data:image/png;base64,AA" onload="x',
        "data:image/svg+xml;base64,AAAA",
    ):
        assert Shot("x", source, ()).shown == ""


def test_lone_pixels_are_marked_in_large_pictures() -> None:
    places = np.zeros((1000, 1000), bool)
    places[700, 300] = True
    found = marked(np.full((1000, 1000, 1), 128, np.uint8), places)
    assert found.shape == (SIDE, SIDE, 3)
    red = np.argwhere(found[:, :, 0].astype(int) - found[:, :, 1] > 30)
    assert red.tolist() == [[y, x] for y in (155, 156, 157) for x in (66, 67, 68)]


def test_boxes_of_both_sides_are_drawn() -> None:
    plain = np.zeros((448, 448, 3), np.uint8)
    found = boxed(
        plain, np.array([[20.0, 40.0, 200.0, 220.0]]), np.array([[300.0, 300.0, 400, 400]])
    )
    blue, orange = found[20:110, 10:12], found[150:200, 150]
    assert (blue[..., 2] > blue[..., 0]).all()
    assert (orange[..., 0] > orange[..., 2]).all()
    assert not plain.any()


def test_the_foremost_are_kept() -> None:
    kept, small = Foremost(3), Thumbnails()
    for number, figure in enumerate([0.1, 0.5, 0.2, 0.0, 0.5, 0.05]):
        if kept.takes(figure):
            kept.add(figure, str(number), np.zeros((2, 2, 1), np.uint8))
    kept.give(small)
    assert list(small.uris) == ["1", "4", "2"]
