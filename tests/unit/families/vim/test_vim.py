"""VisionMamba beyond the reference vectors: shapes, refusals, seeded weights."""

from __future__ import annotations

import pytest
import torch

from tests.support.models import block_outputs, perturbed, tiny_config
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.seeding import seed_weights
from vim_deploy.recipe.catalog import find_variant


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Counts of the official models (tests/data/reference/README.md, quirk 13).
        ("vim-tiny", 7_148_008),
        ("vim-tiny-plus", 7_250_344),
        ("vim-small", 25_796_584),
        ("vim-small-plus", 26_001_256),
        ("vim-base", 97_598_440),
    ],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = VisionMamba(find_variant(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == 415


def test_wrong_image_size_is_refused() -> None:
    with pytest.raises(ValueError, match="the model takes"):
        VisionMamba(tiny_config())(torch.zeros(1, 3, 24, 16))


@pytest.mark.parametrize("depth", [0, 1])
def test_depth_zero_and_one_run(depth: int) -> None:
    assert VisionMamba(tiny_config(depth=depth))(torch.zeros(2, 3, 16, 16)).shape == (2, 7)


def test_two_layer_mode_of_depth_one_runs_no_layer() -> None:
    model = VisionMamba(tiny_config(depth=1, if_bidirectional=True))
    assert block_outputs(model, torch.zeros(1, 3, 16, 16)) == []


def test_batches_are_independent() -> None:
    model = perturbed(VisionMamba(tiny_config()))
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_seeded_weights_repeat_and_differ_by_seed() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        model = VisionMamba(tiny_config())
        seed_weights(model, seed)
        return model.state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_backward_direction_mirrors_the_forward_one() -> None:
    # With equal weights in both branches, flipping the tokens flips the mixer's output.
    model = VisionMamba(tiny_config(depth=1))
    mixer = model.layers[0].mixer
    state = mixer.state_dict()
    for key in list(state):
        if "_b" in key:
            state[key] = state[key.replace("A_b_log", "A_log").replace("_b", "", 1)]
    mixer.load_state_dict(state)
    tokens = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(mixer(tokens.flip(1)), mixer(tokens).flip(1))
