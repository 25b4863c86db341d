"""Keys and shapes of checkpoints: what they tell of an architecture, and whether all are there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from vim_deploy.errors import VimDeployError

#: Keys an error lists before it only counts.
_LISTED = 20


def cannot_infer(message: str, why: str, fix: str = "") -> VimDeployError:
    """VIM-407 with the two ways to say the architecture."""
    fix = fix or "name the architecture: --model VARIANT, or --config FILE.json with all keywords"
    return VimDeployError("VIM-407", message, why=why, fix=fix)


def shape_of(tensors: Mapping[str, Tensor], key: str, axes: int) -> tuple[int, ...]:
    """A weight's shape; VIM-407 unless it is there and has ``axes`` axes, none of them empty."""
    shape: tuple[int, ...] = tuple(tensors[key].shape) if key in tensors else ()
    if len(shape) != axes or 0 in shape:
        found = f"has shape {list(shape)}" if key in tensors else "is missing"
        raise cannot_infer(
            f"the architecture cannot be inferred: {key} {found}",
            f"the size of that part is read from it; expected {axes} axes, none of them empty",
            "get the whole checkpoint, as the training framework saved it",
        )
    return shape


def count_of(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many different texts the group of ``pattern`` matches at the start of keys."""
    return len({match[1] for key in tensors if (match := re.match(pattern, key))})


def same_shape(_key: str, found: Tensor, expected: Tensor) -> bool:
    """Whether ``found`` is a float tensor of the shape of ``expected``."""
    return found.shape == expected.shape and found.is_floating_point()


def require_keys(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    advice: Callable[[], str],
    fits: Callable[[str, Tensor, Tensor], bool] = same_shape,
) -> None:
    """VIM-404 with every key that is missing, unexpected or does not fit.

    Args:
        found: of the checkpoint.
        expected: of the model; only shapes and types count.
        advice: says what to do about it.
        fits: whether the tensor of a key, found and expected, has the right shape and type.
    """
    lines = [
        f"missing {key}, expected {_shape(tensor)}"
        for key, tensor in expected.items()
        if key not in found
    ]
    lines += [
        f"unexpected {key}, found {_shape(tensor)}"
        for key, tensor in found.items()
        if key not in expected
    ]
    for key, tensor in expected.items():
        if key in found and not fits(key, found[key], tensor):
            lines.append(f"{key}: found {_shape(found[key])}, expected {_shape(tensor)}")
    if lines:
        hidden = len(lines) - _LISTED
        shown = lines[:_LISTED] + [f"and {hidden} more"] * (hidden > 0)
        raise VimDeployError(
            "VIM-404",
            f"{len(lines)} keys of the checkpoint do not fit the model",
            why="\n".join(shown),
            fix=advice(),
        )


def _shape(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {tensor.dtype}"
    return f"{list(tensor.shape)}{kind}"
