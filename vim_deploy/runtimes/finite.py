"""Whether a model's outputs are fit to be judged: numbers throughout, and some of them.

NaN and Inf are answers to nothing: they have no class, no distance and no agreement, not even with
themselves. Whoever shows, stores or compares outputs asks here first. Integers (classes, labels)
are always numbers; every other type is looked at, bfloat16 too, which NumPy counts as no float.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import Array

_FIX = (
    "verify the artifact against its checkpoint; a half-precision graph may need more in float32 "
    "(vim-deploy export --precision-policy)"
)


def strays(values: Array) -> int:
    """How many elements are NaN or Inf."""
    return 0 if _whole(values) else int(np.count_nonzero(~np.isfinite(values)))


def is_finite(values: Array) -> bool:
    """Whether no element is NaN or Inf."""
    return _whole(values) or bool(np.isfinite(values).all())


def finite_rows(values: Array) -> Array:
    """For each row whether all of it is finite: bool [rows]."""
    if _whole(values):
        return np.ones(len(values), bool)
    rows: Array = np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    return rows


def unfit(outputs: Mapping[str, Array]) -> str:
    """What keeps outputs from being judged, in words; empty when nothing does."""
    if not outputs:
        return "there are no outputs"
    found = []
    for name, values in outputs.items():
        if not values.size:
            found.append(f"output {name!r} of shape {list(values.shape)} holds no values")
        elif count := strays(values):
            found.append(f"{count} of {values.size} values of output {name!r} are NaN or Inf")
    return "; ".join(found)


def not_finite(what: str, why: str) -> VimDeployError:
    """VIM-430: ``what`` the outputs are for, and ``why`` they are no answer."""
    return VimDeployError("VIM-430", f"the model gives NaN or Inf for {what}", why=why, fix=_FIX)


def require_fit(outputs: Mapping[str, Array], what: str) -> None:
    """VIM-430 for outputs that cannot be judged.

    Args:
        outputs: by name, the first axis is the batch.
        what: the pictures they are for, for the message.
    """
    why = unfit(outputs)
    if why:
        raise not_finite(what, why)


def _whole(values: Array) -> bool:
    return values.dtype.kind in "biu"
