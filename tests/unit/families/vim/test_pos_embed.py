"""Position embeddings on another grid: the official way bit for bit, and the right way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.reference import pos_embed_vectors
from vim_deploy.families.vim.network.pos_embed import interpolate_grid, interpolate_official


@pytest.fixture(scope="module")
def vectors() -> dict[str, Tensor]:
    return {key: torch.from_numpy(array.copy()) for key, array in pos_embed_vectors().items()}


@pytest.mark.parametrize(
    ("source", "target", "patches", "extra"),
    [
        ("midcls_input", "midcls_output_16x16", 256, 1),
        ("midcls_input", "midcls_output_10x10", 100, 1),
        ("nocls_input", "nocls_output_16x16", 256, 0),
        ("doublecls_input", "doublecls_output_16x16", 256, 2),
    ],
)
def test_official_bit_for_bit(
    vectors: dict[str, Tensor], source: str, target: str, patches: int, extra: int
) -> None:
    stored = vectors[target]
    # Of the outputs the first channels are stored.
    found = interpolate_official(vectors[source], patches, extra)[..., : stored.shape[-1]]
    assert torch.equal(found, stored)


def test_official_same_grid_is_untouched(vectors: dict[str, Tensor]) -> None:
    source = vectors["midcls_input"]
    assert interpolate_official(source, 196, 1) is source


def test_grid_equals_official_where_the_class_rows_are_in_front(vectors: dict[str, Tensor]) -> None:
    nocls, one = vectors["nocls_input"], vectors["midcls_input"]
    grids = (14, 14), (16, 16)
    assert torch.equal(interpolate_grid(nocls, *grids, (), ()), vectors["nocls_output_16x16"])
    assert torch.equal(
        interpolate_grid(one, *grids, (0,), (0,)), interpolate_official(one, 256, 1)
    )  # fmt: skip


@pytest.mark.parametrize("new", [(16, 16), (10, 10), (7, 20)])
def test_middle_class_row_is_carried_and_patches_are_those_without_it(
    vectors: dict[str, Tensor], new: tuple[int, int]
) -> None:
    source = vectors["midcls_input"]
    middle = new[0] * new[1] // 2
    result = interpolate_grid(source, (14, 14), new, (98,), (middle,))
    assert torch.equal(result[:, middle], source[:, 98])
    patches = torch.cat((source[:, :98], source[:, 99:]), dim=1)
    expected = interpolate_grid(patches, (14, 14), new, (), ())
    assert torch.equal(torch.cat((result[:, :middle], result[:, middle + 1 :]), dim=1), expected)


def test_double_class_rows_stay_at_the_ends(vectors: dict[str, Tensor]) -> None:
    source = vectors["doublecls_input"]
    result = interpolate_grid(source, (14, 14), (16, 16), (0, 197), (0, 257))
    assert torch.equal(result[:, [0, 257]], source[:, [0, 197]])


def test_rows_and_columns_are_not_mixed_up_and_the_kernel_is_the_official_one() -> None:
    """4x8 patches to 8x8; the two channels hold a patch's row and its column."""
    rows = torch.arange(4.0)[:, None].expand(4, 8)
    columns = torch.arange(8.0)[None, :].expand(4, 8)
    embedding = torch.stack((rows, columns), dim=-1).reshape(1, 32, 2)
    result = interpolate_grid(embedding, (4, 8), (8, 8), (), ()).reshape(8, 8, 2)
    assert torch.allclose(result[..., 1], torch.arange(8.0).expand(8, 8), atol=1e-5)
    # New row 3 sits at 3.5 / 2 - 0.5 = 1.25. The cubic kernel with a = -0.75 (Keys 1981) weighs old
    # rows 0 to 3 there with w(1.25), w(0.25), w(0.75), w(1.75).
    kernel = torch.tensor([-0.10546875, 0.87890625, 0.26171875, -0.03515625])
    value = float(kernel @ torch.arange(4.0))
    expected = torch.tensor([value, 3 - value])[:, None].expand(2, 8)
    assert torch.allclose(result[3:5, :, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "rows", "distance", "class_distance"),
    [(16, 161, 0.159, 0.085), (10, 61, 0.457, 0.329)],
)
def test_distance_of_the_two_ways_as_the_documentation_has_it(
    vectors: dict[str, Tensor],
    side: int,
    rows: int,
    distance: float,
    class_distance: float,
) -> None:
    source, middle = vectors["midcls_input"], side * side // 2
    official = interpolate_official(source, side * side, 1)[0]
    grid = interpolate_grid(source, (14, 14), (side, side), (98,), (middle,))[0]
    apart = official - grid
    assert int((apart.abs().amax(dim=1) > 0).sum()) == rows
    assert float(apart.norm() / grid.norm()) == pytest.approx(distance, abs=5e-4)
    relative = float(apart[middle].norm() / grid[middle].norm())
    assert relative == pytest.approx(class_distance, abs=5e-4)


def test_contradicting_arguments(vectors: dict[str, Tensor]) -> None:
    source = vectors["midcls_input"]
    with pytest.raises(ValueError, match="197 rows"):
        interpolate_grid(source, (14, 14), (16, 16), (), ())
    with pytest.raises(ValueError, match="cannot become"):
        interpolate_grid(source, (14, 14), (16, 16), (98,), ())
