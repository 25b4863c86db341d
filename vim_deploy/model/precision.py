"""The PyTorch twin of a half-precision graph: the same module, rounding where the graph rounds.

Weights and activations of each role have the type that the policy gives it, the convolution and
the scan compute in float32 on rounded inputs, and norms, embeddings and pooling stay float32: what
``graph.precision`` does to a graph. Hooks do it from outside; the module's code is the same.
Where ONNX has no convolution in a precision, graph and twin compute it in float32.
"""

from __future__ import annotations

import copy

import torch

from vim_deploy.families import family_of
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.network import networks_of
from vim_deploy.precisions import TABLE, Precision
from vim_deploy.recipe.precision_policy import PrecisionPolicy


def typed_twin(
    module: DeployedModel, precision: Precision, policy: PrecisionPolicy
) -> DeployedModel:
    """A copy of ``module`` that computes in ``precision`` where ``policy`` lets it.

    Inputs and outputs are those of ``module``, float32 where they are float.
    """
    twin = copy.deepcopy(module)
    half: torch.dtype = getattr(torch, TABLE[precision].dtype)

    def type_of(role: str, block: int | None = None) -> torch.dtype:
        return torch.float32 if policy.keeps_fp32(role, block) else half

    networks_of(family_of(twin.model.config)).type_network(twin.model, type_of)
    return twin
