"""The selective scan as one operator: what the tracer sees as a single node.

``torch.ops.vim_deploy.selective_scan`` has the inputs and attributes of the contract's
``VimSelectiveScan``. Eager runs compute it with ``scan.selective_scan``; a trace records it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vim_deploy.model import scan
from vim_deploy.ops.contract import DOMAIN

#: An absent gate is passed as an empty tensor and ``has_z`` = False, as the contract's node does.


@torch.library.custom_op(f"{DOMAIN}::selective_scan", mutates_args=())
def selective_scan(
    u: Tensor,
    dt: Tensor,
    a: Tensor,
    bc: Tensor,
    d_skip: Tensor,
    dt_bias: Tensor,
    z: Tensor,
    reverse: bool,
    delta_softplus: bool,
    b_off: int,
    c_off: int,
    z_off: int,
    has_z: bool,
) -> Tensor:
    """One scan direction; shapes, dtypes and meaning as in ``scan.selective_scan``."""
    return scan.selective_scan(
        u,
        dt,
        a,
        bc,
        d_skip,
        dt_bias,
        z if has_z else None,
        reverse=reverse,
        delta_softplus=delta_softplus,
        b_off=b_off,
        c_off=c_off,
        z_off=z_off,
    )


@selective_scan.register_fake
def _shape_of_selective_scan(u: Tensor, *_rest: object) -> Tensor:
    return torch.empty_like(u)
