"""Layers of the dense heads against PyTorch's own, in float64 where both have it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support import reference
from vim_deploy.families.vim.network.dense.layers import (
    AdaptiveAverage,
    BatchNorm,
    ChannelNorm,
    ConvModule,
    ConvNorm,
    UpsampleByFour,
    UpsampleByTwo,
    resized,
)
from vim_deploy.families.vim.network.dense.segmentor import Segmentor, UperHead
from vim_deploy.model.load import load_model
from vim_deploy.recipe.dense_config import UperHeadConfig
from vim_deploy.recipe.schema import ModelRequest

#: Sums of a few hundred float64 products.
CLOSE = 1e-12


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def shuffled(module: nn.Module) -> nn.Module:
    """``module`` in float64 and eval mode, every parameter and statistic drawn."""
    module.double().eval()
    for index, (name, value) in enumerate(module.state_dict().items()):
        if value.is_floating_point():
            new = drawn(*value.shape, seed=index)
            value.copy_(new.abs() + 0.5 if name.endswith("running_var") else new)
    return module


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= CLOSE * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("scale", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("size", [(2, 2), (16, 16), (7, 5), (1, 9)])
def test_adaptive_average(scale: int, size: tuple[int, int]) -> None:
    x = drawn(2, 3, *size)
    ours = AdaptiveAverage(scale, size).double()
    # The matrices are float32: a window of 3 rows weighs 1/3 as float32.
    expected = F.adaptive_avg_pool2d(x, scale)
    assert (ours(x) - expected).abs().max() <= 1e-6
    assert not ours.state_dict()


def test_batch_norm_is_torchs() -> None:
    theirs = shuffled(nn.BatchNorm2d(5))
    ours = BatchNorm(5).double()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if "batches" not in k})
    x = drawn(2, 5, 3, 4)
    assert_close(ours(x), theirs(x))


def copied(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> nn.Module:
    """``ours`` with the weights of ``theirs``, whose key prefixes are ``names``'s keys."""
    stored = {
        names[key.rpartition(".")[0]] + key.rpartition(".")[2]: value
        for key, value in theirs.state_dict().items()
        if "batches" not in key
    }
    ours.double().load_state_dict(stored, strict=True)
    return ours.eval()


@pytest.mark.parametrize("size", [1, 3])
def test_convolution_with_folded_norm(size: int) -> None:
    theirs = shuffled(
        nn.Sequential(
            nn.Conv2d(4, 6, size, padding=size // 2, bias=False), nn.BatchNorm2d(6), nn.ReLU()
        )
    )
    x = drawn(2, 4, 5, 7)
    assert_close(copied(ConvModule(4, 6, size), theirs, {"0": "conv.", "1": "bn."})(x), theirs(x))
    plain = nn.Sequential(*list(theirs)[:2])
    assert_close(copied(ConvNorm(4, 6, size, "BN"), theirs, {"0": "", "1": "norm."})(x), plain(x))


def test_upsampling_with_folded_norm() -> None:
    theirs = shuffled(
        nn.Sequential(
            nn.ConvTranspose2d(6, 4, 2, stride=2),
            nn.BatchNorm2d(4),
            nn.GELU(),
            nn.ConvTranspose2d(4, 3, 2, stride=2),
        )
    )
    ours = UpsampleByFour(UpsampleByTwo(6, 4), BatchNorm(4), nn.GELU(), UpsampleByTwo(4, 3))
    copied(ours, theirs, {str(index): f"{index}." for index in (0, 1, 3)})
    x = drawn(2, 6, 3, 2)
    assert_close(ours(x), theirs(x))
    assert ours(x).shape == (2, 3, 12, 8)


def test_channel_norm_is_a_layer_norm_over_channels() -> None:
    ours = shuffled(ChannelNorm(6))
    x = drawn(2, 6, 3, 4)
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    weight, bias = (ours.state_dict()[name].view(-1, 1, 1) for name in ("weight", "bias"))
    assert_close(ours(x), weight * (x - mean) / torch.sqrt(variance + 1e-6) + bias)


def test_resizing_takes_half_pixel_centres() -> None:
    row = torch.tensor([[[[0.0, 4.0]]]])
    assert resized(row, (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


@pytest.mark.parametrize("sizes", [[(16, 16), (8, 8), (4, 4), (2, 2)],
                                   [(12, 20), (6, 10), (3, 5), (1, 2)]])  # fmt: skip
def test_uper_head_gives_logits_of_the_finest_map(sizes: list[tuple[int, int]]) -> None:
    head = UperHead(UperHeadConfig(8, 5), 6, sizes).double().eval()
    maps = [drawn(2, 6, *size) for size in sizes]
    assert head(maps).shape == (2, 5, *sizes[0])


def test_every_map_and_every_weight_of_the_heads_matters() -> None:
    case = reference.dense_case("E01")
    network = load_model(ModelRequest(str(case.checkpoint))).module
    assert isinstance(network, Segmentor)
    image = torch.tensor(case.image)
    with torch.no_grad():
        maps = network.backbone(image)
        before = network.decode_head(maps)
        for index in range(4):
            moved = [x * 1.2 if level == index else x for level, x in enumerate(maps)]
            assert (network.decode_head(moved) - before).abs().max() > 1e-3
        for name, parameter in network.decode_head.named_parameters():
            kept = parameter.clone()
            parameter.mul_(1.2)
            moved_by = (network.decode_head(maps) - before).abs().max()
            parameter.copy_(kept)
            assert moved_by > 1e-5, name
