"""Rounding from outside: hooks that let a module compute in a 16-bit type."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vim_deploy.precisions import TABLE

_WITH_CONVOLUTIONS = tuple(getattr(torch, row.dtype) for row in TABLE.values() if row.convolutions)


def convolution_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which a convolution computes: float32 where ONNX has none in ``dtype``."""
    return dtype if dtype in _WITH_CONVOLUTIONS else torch.float32


def store_in(module: nn.Module, dtype: torch.dtype) -> None:
    """Weights of one layer in ``dtype``."""
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.to(dtype)


def cast(value: Any, dtypes: tuple[torch.dtype, ...]) -> Any:  # noqa: ANN401 - any argument
    """A float tensor through ``dtypes``, one after the other; anything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        for dtype in dtypes:
            value = value.to(dtype)
    return value


def round_inputs(
    module: nn.Module, *dtypes: torch.dtype, positions: tuple[int, ...] | None = None
) -> None:
    """Cast the arguments at ``positions`` (None: all) through ``dtypes`` before every call."""

    def hook(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            cast(value, dtypes) if positions is None or position in positions else value
            for position, value in enumerate(arguments)
        )

    module.register_forward_pre_hook(hook)


def round_outputs(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast what every call gives to ``dtype``."""

    def hook(_module: nn.Module, _arguments: object, output: Any) -> Any:  # noqa: ANN401
        if isinstance(output, tuple):
            return tuple(cast(value, (dtype,)) for value in output)
        return cast(output, (dtype,))

    module.register_forward_hook(hook)


def gelu_in_steps(module: nn.Module, arguments: tuple[Tensor, ...], _output: Tensor) -> Tensor:
    """GELU operator by operator, as the graph has it, each one rounded; a hook of ``nn.GELU``.

    x (1 + erf(x / sqrt 2)) / 2, or x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    """
    (x,) = arguments

    def constant(value: float) -> Tensor:
        # The graph's constants have its type, too.
        return torch.tensor(value, dtype=x.dtype)

    assert isinstance(module, nn.GELU)
    if module.approximate == "tanh":
        inner = constant(math.sqrt(2 / math.pi)) * (x + constant(0.044715) * x.pow(3))
        return x * ((torch.tanh(inner) + 1) * 0.5)
    return x * (torch.erf(x / constant(math.sqrt(2))) + 1) * 0.5
