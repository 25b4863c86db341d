"""Checkpoints whose weights are quantized already are refused, and say by what it is known."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.models import perturbed, tiny_config
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.model.checkpoint import read_checkpoint

Change = Callable[[dict[str, Any], str], object]


def eight_bits(weight: Tensor) -> Tensor:
    return (127 * weight / weight.abs().amax()).round().to(torch.int8)


def packed(found: dict[str, Any], name: str) -> None:
    """As torch.ao's dynamically quantized layers store it."""
    weight = torch.quantize_per_tensor(found.pop(f"{name}.weight"), 0.1, 0, torch.qint8)
    found[f"{name}._packed_params.dtype"] = torch.qint8
    found[f"{name}._packed_params._packed_params"] = (weight, None)


def gptq(found: dict[str, Any], name: str) -> None:
    found[f"{name}.qweight"] = torch.zeros(2, 64, dtype=torch.int32)
    found[f"{name}.scales"] = found.pop(f"{name}.weight")[:1].half()


def qtensor(found: dict[str, Any], name: str) -> None:
    found[f"{name}.weight"] = torch.quantize_per_tensor(
        found[f"{name}.weight"], 0.1, 0, torch.qint8
    )


CHANGES: dict[str, tuple[Change, str]] = {
    "plain": (lambda w, n: w.update({f"{n}.weight": eight_bits(w[f"{n}.weight"])}), "is int8"),
    "bitsandbytes": (lambda w, n: w.update({f"{n}.weight.SCB": torch.ones(64)}), "weight.SCB"),
    "nf4": (
        lambda w, n: w.update({f"{n}.weight.quant_state.bitsandbytes__nf4": torch.ones(9)}),
        "quant_state",
    ),
    "float8": (
        lambda w, n: w.update(
            {
                f"{n}.weight": w[f"{n}.weight"].to(torch.float8_e4m3fn),
                f"{n}.weight_scale": torch.ones(1),
            }
        ),
        "weight_scale",
    ),
    "gptq": (gptq, "qweight"),
    "torch.ao": (packed, "_packed_params"),
    "qtensor": (qtensor, "_rebuild_qtensor"),
    "observed": (lambda w, n: w.update({f"{n}.act_quantizer.scale": torch.ones(1)}), "quantizer"),
}


@pytest.mark.filterwarnings("ignore")  # of PyTorch, of its own quantization
@pytest.mark.parametrize("name", CHANGES)
def test_each_kind_is_named(tmp_path: Path, name: str) -> None:
    weights = dict(perturbed(VisionMamba(tiny_config())).state_dict())
    change, sign = CHANGES[name]
    change(weights, "layers.1.mixer.in_proj")
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(VimDeployError) as caught:
        read_checkpoint(tmp_path / "w.pth")
    assert caught.value.code == "VIM-402"
    assert "quantized already" in caught.value.why
    assert sign in caught.value.why


def test_a_whole_network_of_quantized_layers(tmp_path: Path) -> None:
    network = perturbed(VisionMamba(tiny_config()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.ao.quantization.quantize_dynamic(network, {torch.nn.Linear}, torch.qint8)
        torch.save(made, tmp_path / "w.pth")
    with pytest.raises(VimDeployError, match=r"VIM-402.*\n.*quantized already: it makes a torch"):
        read_checkpoint(tmp_path / "w.pth")


def test_what_trains_in_eight_bits_is_no_network(tmp_path: Path) -> None:
    weights = dict(perturbed(VisionMamba(tiny_config())).state_dict())
    # Names of an optimizer of 8 bits, and its states.
    moments = {"state1": torch.zeros(4, dtype=torch.uint8), "absmax1": torch.zeros(1)}
    torch.save({"model": weights, "optimizer": {"state": {0: moments}}}, tmp_path / "w.pth")
    assert set(read_checkpoint(tmp_path / "w.pth").state_dict) == set(weights)
