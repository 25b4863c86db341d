"""Our VMamba against what the official class computed, and the keys of its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support import reference
from vim_deploy.errors import VimDeployError
from vim_deploy.families import named
from vim_deploy.families.vmamba.config import VMambaConfig, read_config
from vim_deploy.families.vmamba.names import variants
from vim_deploy.families.vmamba.network import describe
from vim_deploy.families.vmamba.network.keys import infer, own_keys
from vim_deploy.families.vmamba.network.vssm import VMamba
from vim_deploy.model.checkpoint import read_checkpoint
from vim_deploy.model.load import load_model
from vim_deploy.model.seeding import seed_weights
from vim_deploy.recipe.schema import ModelRequest

CASE = "V01_vmamba"
#: The promise for modules; the official code is off by up to 3e-6 from itself in float64.
BOUND = 2e-5
State = dict[str, Tensor]


def weights() -> State:
    return dict(read_checkpoint(reference.load_case(CASE).checkpoint).state_dict)


def model(state: State | None = None, size: tuple[int, int] | None = None) -> VMamba:
    state = own_keys(weights() if state is None else state)
    found = VMamba(infer(state, size or reference.load_case(CASE).image.shape[2:])[0])
    found.load_state_dict(state, strict=True)
    return found


def test_outputs_features_and_levels() -> None:
    case, found = reference.load_case(CASE), {}
    network = model()
    for number, level in enumerate(network.layers):
        level.blocks.register_forward_hook(
            lambda _m, _a, out, number=number: found.update({f"level_{number}": out})
        )
    image = torch.tensor(case.image)
    with torch.inference_mode():
        found |= {"output": network(image), "features": network(image, return_features=True)}
    for name, value in {"output": case.output, **case.extras}.items():
        own = found[name].movedim(-1, 1) if found[name].ndim == 4 else found[name]
        assert own.shape == value.shape
        assert np.abs(own.numpy() - value).max() <= BOUND, name


def test_inferred_is_what_it_was_made_with() -> None:
    case = reference.load_case(CASE)
    state = own_keys(weights())
    config, statements, assumed = infer(state, None)
    assert config == read_config({"family": "vmamba", **case.kwargs})
    assert assumed >= {"imgsize", "forward_type", "norm_layer"}
    assert any("assumed imgsize=224" in text for text in statements)
    assert read_checkpoint(case.checkpoint).family is named("vmamba")


def test_every_parameter_matters() -> None:
    case = reference.load_case(CASE)
    image = torch.tensor(case.image[:1])
    network = model()
    stacked = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            before = parameter.clone()
            # Each direction by itself: one that is computed and dropped would show here.
            for number, part in enumerate(parameter.chunk(4 if name.endswith(stacked) else 1)):
                part.mul_(1.3).add_(0.1)
                moved = (network(image) - torch.tensor(case.output[:1])).abs().max()
                assert moved > 2 * BOUND, (name, number)
                parameter.copy_(before)


def single_file(state: State) -> State:
    """Keys and shapes of the official vmamba.py at the top of the repository."""
    found = {}
    for key, value in state.items():
        is_stacked = key.endswith(("x_proj_weight", "dt_projs_weight"))
        name = key.replace("_weight", ".weight") if is_stacked else key
        found[name] = value.flatten(0, 1) if is_stacked else value
    return found


def as_convolutions(state: State) -> State:
    parts = ("in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")
    return {k: v[..., None, None] if k.endswith(parts) else v for k, v in state.items()}


def without_classes(state: State) -> State:
    """As the official class stores a model of no classes."""
    return {k: v[:0] if k.startswith("classifier.head") else v for k, v in state.items()}


@pytest.mark.parametrize("change", [single_file, as_convolutions, without_classes])
def test_layouts_of_the_official_code(change: Callable[[State], State]) -> None:
    case = reference.load_case(CASE)
    network = model(change(weights()))
    wanted = case.extras["features"] if change is without_classes else case.output
    with torch.inference_mode():
        assert np.abs(network(torch.tensor(case.image)).numpy() - wanted).max() <= BOUND


def with_gate(state: State) -> State:
    return {k: v.repeat(2, 1) if k.endswith("in_proj.weight") else v for k, v in state.items()}


def renamed(old: str, new: str) -> Callable[[State], State]:
    return lambda state: {key.replace(old, new): value for key, value in state.items()}


def without(text: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if text not in key}


def more(key: str, *shape: int) -> Callable[[State], State]:
    return lambda state: {**state, key: torch.zeros(shape)}


REFUSED: tuple[tuple[Callable[[State], State], str, str], ...] = (
    (with_gate, "VIM-408", "forward_type='v05'"),
    (without("out_norm"), "VIM-408", "forward_type"),
    (renamed("out_norm.", "out_norm.1."), "VIM-408", "forward_type"),
    (without("conv2d"), "VIM-408", "ssm_conv=1"),
    (without("patch_embed.5"), "VIM-408", "patchembed_version='v1'"),
    (without("patch_embed.2"), "VIM-408", "patch_norm=False"),
    (renamed("downsample.1", "downsample.reduction"), "VIM-408", "downsample_version='v1'"),
    (more("layers.0.downsample.1.weight", 16, 8, 5, 5), "VIM-408", "5 pixels wide"),
    (more("patch_embed.2.running_mean", 4), "VIM-408", "norm_layer='bn'"),
    (more("pos_embed", 1, 8, 6, 9), "VIM-408", "posembed=True"),
    (more("layers.0.blocks.0.mlp.fc1.weight", 32, 8), "VIM-408", "gmlp=True"),
    (renamed("layers.1.", "layers.2."), "VIM-407", "levels are not numbered"),
    (without("layers.1.blocks.0."), "VIM-407", "blocks are not numbered"),
    (without("layers.1.blocks.0.norm.weight"), "VIM-407", "norm.weight is missing"),
    (more("layers.0.blocks.0.op.A_logs", 64), "VIM-407", "A_logs has shape"),
    (more("layers.1.blocks.0.op.dt_projs_weight", 4, 32, 3), "VIM-407", "ssm_dt_rank"),
    (more("layers.1.blocks.0.op.conv2d.weight", 30, 1, 3, 3), "VIM-407", "ssm_ratio"),
    (without("layers.1.blocks.1.mlp"), "VIM-404", "missing layers.1.blocks.1.mlp.fc1.weight"),
    (more("layers.0.blocks.0.op.Ds", 63), "VIM-404", r"op.Ds: found \[63\], expected \[64\]"),
    (more("classifier.more", 3), "VIM-404", "unexpected classifier.more"),
)


@pytest.mark.parametrize(
    ("change", "code", "said"), REFUSED, ids=[f"{code}-{said}" for _, code, said in REFUSED]
)
def test_refused_by_their_keys(
    change: Callable[[State], State], code: str, said: str, tmp_path: Path
) -> None:
    torch.save({"model": change(weights())}, tmp_path / "other.pth")
    with pytest.raises(VimDeployError, match=said) as caught:
        load_model(ModelRequest(str(tmp_path / "other.pth")))
    assert caught.value.code == code


def test_a_name_and_another_size() -> None:
    case = reference.load_case(CASE)
    with pytest.raises(VimDeployError, match="VIM-404"):
        load_model(ModelRequest(str(case.checkpoint), model="vmamba-tiny-s1l8"))
    loaded = load_model(ModelRequest(str(case.checkpoint), image_size=(41, 19)))
    assert loaded.name == "custom"
    assert loaded.module.config.image_hw == (41, 19)
    with torch.inference_mode():
        assert loaded.module(torch.zeros(1, 3, 41, 19)).shape == (1, 5)
    with pytest.raises(ValueError, match="the model takes"):
        loaded.module(torch.zeros(1, 3, 22, 35))


def test_described() -> None:
    found = describe(read_checkpoint(reference.load_case(CASE).checkpoint))
    assert (found["model"], found["dense"]) == ("custom", None)
    assert found["architecture"]["family"] == "vmamba"


def test_seeded_weights_are_repeatable_and_alive() -> None:
    config = variants()["vmamba-tiny-s1l8"].replace(depths=(1, 1), dims=16, num_classes=3)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for seed in (0, 0, 1):
        network = VMamba(config.at_size(32))
        seed_weights(network, seed)
        bias = network.layers[0].blocks[0].op.dt_projs_bias.detach()
        steps = torch.nn.functional.softplus(bias)
        assert 0.0009 < float(steps.min()) < float(steps.max()) < 0.11
        with torch.inference_mode():
            found.append(network(image))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert 0.1 < float(found[0].std()) < 10


def test_published_shapes() -> None:
    # Parameters as the official class counts them.
    counts = {"vmamba-tiny-s1l8": 30_249_064, "vmamba-base-s2l15": 88_557_800}
    for name, wanted in counts.items():
        config = variants()[name]
        assert isinstance(config, VMambaConfig)
        with torch.device("meta"):
            found = VMamba(config)
        assert sum(parameter.numel() for parameter in found.parameters()) == wanted
