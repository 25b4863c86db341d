"""Our MambaVision against what the official one computed, and windows by hand.

2e-5 is the bound the project promises. The official code differs from itself by at most 1e-6
(tests/data/README.md), summing in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support import reference
from vim_deploy.families.mambavision.config import MambaVisionConfig, read_config
from vim_deploy.families.mambavision.network import mixers
from vim_deploy.families.mambavision.network.load import fill
from vim_deploy.families.mambavision.network.model import MambaVision, Windows
from vim_deploy.model.checkpoint import read_checkpoint
from vim_deploy.model.scan import selective_scan

BOUND = 2e-5
NAMES = reference.mambavision_cases()


def network_of(case: reference.ReferenceCase) -> MambaVision:
    config = read_config({**case.kwargs, "img_size": list(case.image.shape[2:])})
    network = MambaVision(config)
    fill(network, read_checkpoint(case.checkpoint).state_dict)
    return network


@pytest.mark.parametrize("name", NAMES)
def test_output_features_and_levels(name: str) -> None:
    case = reference.load_case(name)
    network, found = network_of(case), {}
    for number, level in enumerate(network.levels):
        level.register_forward_hook(lambda _m, _a, out, n=number: found.update({n: out}))
    image = torch.tensor(case.image)
    with torch.inference_mode():
        output = network(image).numpy()
        features = network(image, return_features=True).numpy()
    assert output.shape == case.output.shape
    assert np.abs(output - case.output).max() <= BOUND
    assert np.abs(features - case.extras["features"]).max() <= BOUND
    for number in range(4):
        expected = case.extras[f"level_{number}"]
        assert found[number].shape == expected.shape
        assert np.abs(found[number].numpy() - expected).max() <= BOUND, f"level {number}"


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_matters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = reference.load_case(name)
    network, image = network_of(case), torch.tensor(case.image)

    def differentiable(*, has_z: bool, z: torch.Tensor, **rest: Any) -> torch.Tensor:
        assert not has_z
        return selective_scan(z=None, **rest)

    monkeypatch.setattr(mixers, "selective_scan_op", differentiable)
    parameters = dict(network.named_parameters())
    network(image).square().sum().backward()
    idle = [key for key, parameter in parameters.items()
            if parameter.grad is None or not parameter.grad.any()]  # fmt: skip
    assert not idle


def test_float64_agrees_with_float32() -> None:
    # The module has no float32 constant inside that would spoil a float64 reference run.
    case = reference.load_case(NAMES[1])
    with torch.inference_mode():
        double = network_of(case).double()(torch.tensor(case.image).double())
    assert np.abs(double.numpy() - case.output).max() <= BOUND


def tiny(**changes: object) -> MambaVisionConfig:
    """A few hundred weights, with a mixer and attention on the third level."""
    known = {
        "dim": 4, "in_dim": 3, "depths": (1, 0, 2, 1), "window_size": (8, 8, 3, 2),
        "mlp_ratio": 1.5, "num_heads": (1, 1, 2, 4), "num_classes": 3, "img_size": (41, 70),
    }  # fmt: skip
    return MambaVisionConfig(**{**known, **changes})  # type: ignore[arg-type]


def test_windows_are_cut_row_by_row_and_joined_again() -> None:
    config = tiny()
    height, width = config.map_hw(2)
    assert (height, width) == (3, 5)
    windows = Windows(config, 2)
    image = torch.arange(2 * 16 * height * width, dtype=torch.float32)
    image = image.reshape(2, 16, height, width)
    cut = windows.cut(image)
    assert cut.shape == (4, 9, 16)
    assert torch.equal(cut[1, :, 0].reshape(3, 3)[:, :2], image[0, 0, :, 3:])
    assert not cut[1].reshape(3, 3, 16)[:, 2].any()
    assert torch.equal(windows.join(cut), image)


@pytest.mark.parametrize("size", [1, 31, 33, (7, 130), 64])
def test_any_size_of_pictures_runs(size: int | tuple[int, int]) -> None:
    # Sides are halved and rounded up, and windows go over the edges, as officially.
    config = tiny(img_size=size)
    network = MambaVision(config)
    levels: list[tuple[int, ...]] = []
    for level in network.levels:
        level.register_forward_pre_hook(lambda _m, given: levels.append(given[0].shape[2:]))
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, *config.image_hw)).shape == (2, 3)
    assert levels == [config.map_hw(level) for level in range(4)]


def test_options_without_a_reference_case() -> None:
    config = tiny(qk_scale=True, qkv_bias=False, num_classes=0, layer_scale=0.5)
    network = MambaVision(config)
    keys = network.state_dict().keys()
    mixer = "levels.2.blocks.1.mixer."
    assert {f"{mixer}q_norm.weight", f"{mixer}k_norm.bias"} <= keys
    assert f"{mixer}qkv.bias" not in keys
    assert isinstance(network.head, nn.Identity)
    image = torch.zeros(1, 3, 41, 70)
    with torch.inference_mode():
        assert torch.equal(network(image), network(image, return_features=True))
    with pytest.raises(ValueError, match="the model takes"):
        network(torch.zeros(1, 3, 41, 71))
