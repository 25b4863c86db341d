"""``VimBiSelectiveScan``: both directions' recurrences, their sum and the gate.

Inputs: u2 T[2,B,L,D], dt T[2,B,L,D] (or, when ``low_rank`` = 1, the weight T[2,D,r] with
dt[l, d] = sum_r dt[d, r] * xdbl[l, dt_off + r]), xdbl T[2,B,L,K], A f[2,N,D], Dskip f[2,D],
dt_bias f[2,D], xz T[B,L,Zc]; output: y T[B,L,D]. Index 0 of the leading axis runs forward, index 1
in reverse, and with the recurrence of ``VimSelectiveScan``::

    y = scale * (y_forward + y_reverse) * silu(xz[..., z_off : z_off + D])

where the sum is taken in fp32. ``scale`` is 0.5 when the model halves the sum of the directions,
else 1; ``dt_off`` is read when ``low_rank`` = 1.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from vim_deploy.ops.log_step_scan import log_steps
from vim_deploy.ops.op import ANY_LENGTH, LOOP, Array, Kind, Op, Part, columns, each
from vim_deploy.ops.selective_scan import (
    ONE_STATE,
    SOFTPLUS,
    one_token,
    selective_scan,
    silu,
    state_0,
)

_DIRECTIONS = ("_fwd", "_bwd")

_AXES = """
    axis_1 = Constant <value = int64[1] {1}> ()
    axis_3 = Constant <value = int64[1] {3}> ()
    axis_4 = Constant <value = int64[1] {4}> ()
    parameter_axes = Constant <value = int64[2] {1, 2}> ()"""

_LOW_RANK = (
    columns("xdbl", "dt", "dt_rows", axis=3)
    + """
    dt_weight = Transpose <perm = [0, 2, 1]> (dt)
    dt_weight_4d = Unsqueeze (dt_weight, axis_1)
    dt_full = MatMul (dt_rows, dt_weight_4d)"""
)

#: delta [2,B,L,D] is there; each direction's own tensors are taken out of the stacked ones.
_OPERANDS = (
    """
    delta_u = Mul (delta, u2)
    Dskip_4d = Unsqueeze (Dskip, parameter_axes)
    skip = Mul (u2, Dskip_4d)"""
    + columns("xdbl", "b", "b_rows", axis=3)
    + columns("xdbl", "c", "c_rows", axis=3)
    + """
    delta_5d = Unsqueeze (delta, axis_3)
    delta_u_5d = Unsqueeze (delta_u, axis_3)
    b_5d = Unsqueeze (b_rows, axis_4)
    c_5d = Unsqueeze (c_rows, axis_4)"""
)
_PICKED = """
    A% = Gather <axis = 0> (A, index%)
    skip% = Gather <axis = 0> (skip, index%)
    delta% = Gather <axis = 0> (delta_5d, index%)
    delta_u% = Gather <axis = 0> (delta_u_5d, index%)
    b% = Gather <axis = 0> (b_5d, index%)
    c% = Gather <axis = 0> (c_5d, index%)"""


#: One Scan runs both directions side by side, each with a state of its own.
def _recurrence(one_state: bool = False) -> str:
    body = one_token(*_DIRECTIONS, one_state=one_state)
    return f"""{state_0("xz")}
    state_L_fwd, state_L_bwd, y_scan_fwd, y_scan_bwd = Scan <
        body = {body}, num_scan_inputs = 8,
        scan_input_axes = [1, 1, 1, 1, 1, 1, 1, 1],
        scan_input_directions = [0, 0, 0, 0, 1, 1, 1, 1],
        scan_output_axes = [1, 1], scan_output_directions = [0, 1]
    > (state_0, state_0, delta_fwd, delta_u_fwd, b_fwd, c_fwd, delta_bwd, delta_u_bwd, b_bwd, c_bwd)
"""


_GATE = """
    gate_silu_sigmoid = Sigmoid (gate)
    gate_silu = Mul (gate, gate_silu_sigmoid)"""

_SUM = each("y% = Add (y_scan%, skip%)\n", _DIRECTIONS) + "y_sum = Add (y_fwd, y_bwd)"
_SCALED = "factor = Constant <value = float {$scale}> ()\nys = Mul (y_sum, factor)"

_FWD = partial(log_steps, "_fwd", "A_fwd")
_BWD = partial(log_steps, "_bwd", "A_bwd", reverse=True)

_BODY = (
    Part(_AXES),
    Part(_LOW_RANK, when={"low_rank": 1}),
    Part("dt_bias_4d = Unsqueeze (dt_bias, parameter_axes)"),
    Part("delta = Add (dt, dt_bias_4d)", when={"low_rank": 0, "delta_softplus": 0}),
    Part("delta = Add (dt_full, dt_bias_4d)", when={"low_rank": 1, "delta_softplus": 0}),
    Part("delta_before_softplus = Add (dt, dt_bias_4d)", when={"low_rank": 0, "delta_softplus": 1}),
    Part(
        "delta_before_softplus = Add (dt_full, dt_bias_4d)",
        when={"low_rank": 1, "delta_softplus": 1},
    ),
    SOFTPLUS,
    Part(_OPERANDS),
    Part("index_fwd = Constant <value = int64 {0}> ()" + each(_PICKED, _DIRECTIONS[:1])),
    Part("index_bwd = Constant <value = int64 {1}> ()" + each(_PICKED, _DIRECTIONS[1:])),
    Part(_recurrence(), when=LOOP, unless=ONE_STATE),
    Part(_recurrence(one_state=True), when=LOOP | ONE_STATE),
    Part(_FWD, unless=LOOP | ANY_LENGTH),
    Part(_BWD, unless=LOOP | ANY_LENGTH),
    Part(partial(_FWD, any_length=True), when=ANY_LENGTH),
    Part(partial(_BWD, any_length=True), when=ANY_LENGTH),
    Part(_SUM),
    Part(_SCALED, unless={"scale": 1.0}),
    Part(columns("xz", "z", "gate", axis=2) + _GATE),
    Part("y = Mul (ys, gate_silu)", unless={"scale": 1.0}),
    Part("y = Mul (y_sum, gate_silu)", when={"scale": 1.0}),
)


def bi_selective_scan(
    u2: Array,
    dt: Array,
    xdbl: Array,
    a: Array,
    d_skip: Array,
    dt_bias: Array,
    xz: Array,
    *,
    delta_softplus: bool | int,
    b_off: int,
    c_off: int,
    dt_off: int,
    z_off: int,
    low_rank: bool | int,
    scale: float,
) -> Array:
    """The op in float64, y [B,L,D]; shapes as above."""
    gate = xz[..., z_off : z_off + a.shape[2]]
    total = np.zeros_like(gate)
    for direction in range(2):
        steps = dt[direction]
        if low_rank:
            steps = xdbl[direction][..., dt_off : dt_off + steps.shape[1]] @ steps.T
        total += selective_scan(
            u2[direction],
            steps,
            a[direction],
            xdbl[direction],
            d_skip[direction],
            dt_bias[direction],
            reverse=direction == 1,
            delta_softplus=delta_softplus,
            b_off=b_off,
            c_off=c_off,
        )
    return scale * total * silu(gate)


BI_SELECTIVE_SCAN = Op(
    name="VimBiSelectiveScan",
    inputs=("u2", "dt", "xdbl", "A", "Dskip", "dt_bias", "xz"),
    outputs=("y",),
    attributes={
        "delta_softplus": Kind.FLAG,
        "b_off": Kind.COLUMN,
        "c_off": Kind.COLUMN,
        "dt_off": Kind.COLUMN,
        "z_off": Kind.COLUMN,
        "low_rank": Kind.FLAG,
        "scale": Kind.NUMBER,
    },
    body=_BODY,
    reference=bi_selective_scan,
    fp32=("A", "Dskip", "dt_bias"),
    sizes={"A": ("", "states", "channels"), "dt": ("", "", "rank")},
    blocks={"b_off": "states", "c_off": "states", "dt_off": "rank", "z_off": "channels"},
    tokens_of=("u2", 2),
    kernel_sizes=("batch", "length", "channels", "states", "xdbl_columns", "xz_columns", "rank"),
)
