"""The PyTorch twin of a typed graph: types by role, and numbers that differ by rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.models import tiny_config
from tests.unit.graph.test_export_graph import deployed
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.precision import typed_twin
from vim_deploy.recipe.precision_policy import PrecisionPolicy, Rule, default_policy


def outputs(module: DeployedModel) -> np.ndarray:
    image = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = module(image)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float32
    return found.numpy()


CONFIGS = {
    "published": {"rms_norm": True, "if_cls_token": True, "use_middle_cls_token": True},
    "layer norm, biases, layer scale": {
        "rms_norm": False,
        "ssm_cfg": {"bias": True},
        "init_layer_scale": 0.1,
    },
    "rope": {"if_rope": True, "if_rope_residual": True},
    "v1": {"bimamba_type": "v1"},
    "one direction": {"bimamba_type": "none"},
    "two layers": {"if_bidirectional": True},
    "no head": {"num_classes": 0},
}


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("policy", [default_policy(), PrecisionPolicy(())], ids=["shipped", "none"])
def test_differs_by_rounding(
    changes: dict[str, object], precision: str, policy: PrecisionPolicy
) -> None:
    module, _ = deployed(tiny_config(**changes))
    exact = outputs(module)
    found = outputs(typed_twin(module, precision, policy))
    distance = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    # Two blocks of seven roundings each; a factor of four for weights as small as these.
    unit_roundoff = {"fp16": 2**-11, "bf16": 2**-8}[precision]
    assert 0 < distance <= 4 * np.sqrt(14) * unit_roundoff
    # The module itself was not changed.
    assert np.array_equal(outputs(module), exact)


def test_weights_have_the_types_of_their_roles() -> None:
    module, _ = deployed(tiny_config())
    policy = PrecisionPolicy((Rule(("in_proj",), "1"), Rule(("head",), None, "")))
    model = typed_twin(module, "fp16", policy).model
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    half, full = torch.float16, torch.float32
    assert dtypes["layers.0.mixer.in_proj.weight"] == half
    assert dtypes["layers.1.mixer.in_proj.weight"] == full
    assert dtypes["layers.0.mixer.x_proj_b.weight"] == half
    assert dtypes["layers.0.mixer.dt_proj.weight"] == half
    for name in ("mixer.dt_proj.bias", "mixer.A_log", "mixer.D_b", "mixer.conv1d.weight"):
        assert dtypes[f"layers.0.{name}"] == full, name
    assert dtypes["layers.0.norm.weight"] == full
    assert dtypes["head.weight"] == full
    assert dtypes["patch_embed.proj.weight"] == half


def test_fp32_is_the_module_itself() -> None:
    module, _ = deployed(tiny_config())
    assert np.array_equal(outputs(typed_twin(module, "fp32", default_policy())), outputs(module))
