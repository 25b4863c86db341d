"""Hooks that make a module round: what the half-precision twins are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def store(module: nn.Module, dtype: torch.dtype) -> None:
    """Weights of one layer in ``dtype``."""
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.to(dtype)


def _cast(value: Any, dtypes: tuple[torch.dtype, ...]) -> Any:  # noqa: ANN401 - any argument
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
            _cast(value, dtypes) if positions is None or position in positions else value
            for position, value in enumerate(arguments)
        )

    module.register_forward_pre_hook(hook)


def round_outputs(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast what every call gives to ``dtype``."""

    def hook(_module: nn.Module, _arguments: object, output: Any) -> Any:  # noqa: ANN401
        if isinstance(output, tuple):
            return tuple(_cast(value, (dtype,)) for value in output)
        return _cast(output, (dtype,))

    module.register_forward_hook(hook)
