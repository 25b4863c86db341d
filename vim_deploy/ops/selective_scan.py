"""``VimSelectiveScan``: the recurrence in one direction, its skip and its gate.

For one channel d, with fp32 state h[N] that starts at 0::

    delta  = softplus(dt + dt_bias)
    h_n    = exp(delta * A[n, d]) * h_n + delta * B_n * u
    y      = sum_n C_n * h_n + Dskip * u          (times silu(z) when has_z = 1)

with l running from 0 to L-1, or from L-1 to 0 when ``reverse`` = 1, on tensors kept in natural
token order. Source of the recurrence: Mamba, arXiv 2312.00752, algorithm 2.

Inputs, with T fp32, fp16 or bf16 and f fp32: u T[B,L,D], dt T[B,L,D], A f[N,D], bc T[B,L,K] with B
and C at columns b_off and c_off, Dskip f[D], dt_bias f[D], z T[B,L,Zc] with the gate at column
z_off. Output: y T[B,L,D].
"""

from __future__ import annotations

from functools import partial

import numpy as np

from vim_deploy.ops.log_step_scan import log_steps, scan_order
from vim_deploy.ops.op import (
    ANY_LENGTH,
    LOOP,
    VARYING,
    Array,
    Kind,
    Op,
    Part,
    columns,
    each,
    own_columns,
)

SCAN_INPUT_DIRECTIONS = "scan_input_directions"
SCAN_OUTPUT_DIRECTIONS = "scan_output_directions"


def one_token(*suffixes: str, one_state: bool = False) -> str:
    """Body of an ONNX Scan over tokens: h = exp(delta A) h + delta u B; y = sum_n C h.

    One recurrence for each suffix, side by side. Shapes of a token: state [B,N,D]; delta, delta_u
    [B,1,D]; b, c [B,N,1]; A [N,D], read from outside; y [B,D].

    Args:
        suffixes: of the tensors of each recurrence.
        one_state: N may be 1. OpenVINO 2026.4 then computes something else for a fixed batch where
            the first factor of delta u B has the shape of the product; the order gives the same
            bits.
    """
    exponent, inflow = "delta_t%, A%", "delta_u_t%, b_t%"
    if one_state:
        exponent, inflow = "A%, delta_t%", "b_t%, delta_u_t%"
    sliced = "float[] delta_t%, float[] delta_u_t%, float[] b_t%, float[] c_t%, "
    recurrence = f"""
        delta_a_t% = Mul ({exponent})
        decay_t% = Exp (delta_a_t%)
        decayed_t% = Mul (decay_t%, state_in%)
        input_t% = Mul ({inflow})
        state_out% = Add (decayed_t%, input_t%)
        read_t% = Mul (state_out%, c_t%)
        y_t% = ReduceSum <keepdims = 0> (read_t%, state_axis)"""
    given = (each("float[] state_in%, ", suffixes) + each(sliced, suffixes)).rstrip(", ")
    made = (each("float[] state_out%, ", suffixes) + each("float[] y_t%, ", suffixes)).rstrip(", ")
    return f"""one_token ({given}) => ({made}) {{
        state_axis = Constant <value = int64[1] {{1}}> (){each(recurrence, suffixes)}
    }}"""


def state_0(
    batch_of: str, sizes: str = "Constant <value = int64[2] {$states, $channels}> ()"
) -> str:
    """The state before the first token, [B,N,D], for the batch of ``batch_of``."""
    return f"""
    batch = Shape <end = 1, start = 0> ({batch_of})
    state_sizes = {sizes}
    state_shape = Concat <axis = 0> (batch, state_sizes)
    state_0 = ConstantOfShape <value = float[1] {{0}}> (state_shape)"""


_COLUMNS_4D = """
    delta_4d = Unsqueeze (delta, axis_2)
    delta_u_4d = Unsqueeze (delta_u, axis_2)
    b_4d = Unsqueeze (b_rows, axis_3)
    c_4d = Unsqueeze (c_rows, axis_3)"""


def _recurrence(one_state: bool = False) -> str:
    return f"""
    state_L, y_scan = Scan <
        body = {one_token("", one_state=one_state)}, num_scan_inputs = 4,
        scan_input_axes = [1, 1, 1, 1], scan_output_axes = [1],
        {SCAN_INPUT_DIRECTIONS}: ints = @{SCAN_INPUT_DIRECTIONS},
        {SCAN_OUTPUT_DIRECTIONS}: ints = @{SCAN_OUTPUT_DIRECTIONS}
    > (state_0, delta_4d, delta_u_4d, b_4d, c_4d)"""


#: The log-step form runs forward on tokens in the scan's order, or on tokens as they are.
_IN_ORDER = """
    delta_ordered_3d = Gather <axis = 1> (delta, token_order)
    delta_ordered = Unsqueeze (delta_ordered_3d, axis_2)
    delta_u_ordered_3d = Gather <axis = 1> (delta_u, token_order)
    delta_u_ordered = Unsqueeze (delta_u_ordered_3d, axis_2)
    b_ordered_3d = Gather <axis = 1> (b_rows, token_order)
    b_ordered = Unsqueeze (b_ordered_3d, axis_3)
    c_ordered_3d = Gather <axis = 1> (c_rows, token_order)
    c_ordered = Unsqueeze (c_ordered_3d, axis_3)"""

_IN_PLACE = """
    delta_ordered = Unsqueeze (delta, axis_2)
    delta_u_ordered = Unsqueeze (delta_u, axis_2)
    b_ordered = Unsqueeze (b_rows, axis_3)
    c_ordered = Unsqueeze (c_rows, axis_3)"""

#: Sizes where nodes differ: weights are stored, so that these are constants once inlined.
_OWN_SIZES = """
    states = Shape <end = 1, start = 0> (A)
    channels = Shape <end = 2, start = 1> (A)"""

SOFTPLUS = Part(
    """
    delta = Softplus (delta_before_softplus)""",
    when={"delta_softplus": 1},
)

_GATE = """
    gate_silu_sigmoid = Sigmoid (gate)
    gate_silu = Mul (gate, gate_silu_sigmoid)
    y = Mul (y_ungated, gate_silu)"""

ONE_STATE: dict[str, object] = {"states": 1}
#: Whether nodes run either way; where they do not, no token changes its place.
_EITHER_WAY, _FORWARD, _BACKWARD = (ANY_LENGTH | {"reverse": way} for way in (None, 0, 1))
_BACK = "y_scan = Gather <axis = 1> (y_scan_ordered, token_order)"
_STEPS = partial(log_steps, "_ordered", "A")
_OWN_STEPS = partial(_STEPS, any_length=True)
_STEPS_IN_PLACE = partial(_OWN_STEPS, made="y_scan")

_BODY = (
    Part(
        columns("bc", "b", "b_rows", axis=2) + columns("bc", "c", "c_rows", axis=2), unless=VARYING
    ),
    Part(
        _OWN_SIZES
        + own_columns("bc", "b", "b_rows", "states", axis=2)
        + own_columns("bc", "c", "c_rows", "states", axis=2),
        when=VARYING,
    ),
    Part("delta_before_softplus = Add (dt, dt_bias)", when={"delta_softplus": 1}),
    SOFTPLUS,
    Part("delta = Add (dt, dt_bias)", when={"delta_softplus": 0}),
    Part(
        """
    delta_u = Mul (delta, u)
    axis_2 = Constant <value = int64[1] {2}> ()
    axis_3 = Constant <value = int64[1] {3}> ()"""
    ),
    Part(_COLUMNS_4D, when=LOOP),
    Part(state_0("u"), when=LOOP, unless=VARYING),
    Part(state_0("u", "Shape (A)"), when=LOOP | VARYING),
    Part(_recurrence(), when=LOOP, unless=VARYING | ONE_STATE),
    Part(_recurrence(one_state=True), when=LOOP | VARYING),
    Part(_recurrence(one_state=True), when=LOOP | ONE_STATE, unless=VARYING),
    Part(scan_order, unless=LOOP | ANY_LENGTH),
    Part(partial(scan_order, tokens_of="u"), when=_EITHER_WAY),
    Part(_IN_ORDER, unless=LOOP | ANY_LENGTH),
    Part(_IN_ORDER, when=_EITHER_WAY),
    Part(_IN_PLACE, when=_FORWARD),
    Part(_IN_PLACE, when=_BACKWARD),
    Part(_STEPS, unless=LOOP | ANY_LENGTH),
    Part(_OWN_STEPS, when=_EITHER_WAY),
    Part(_STEPS_IN_PLACE, when=_FORWARD),
    Part(partial(_STEPS_IN_PLACE, reverse=True), when=_BACKWARD),
    Part(_BACK, unless=LOOP | ANY_LENGTH),
    Part(_BACK, when=_EITHER_WAY),
    Part("skip = Mul (u, Dskip)"),
    Part("y = Add (y_scan, skip)", when={"has_z": 0}),
    Part("y_ungated = Add (y_scan, skip)", when={"has_z": 1}),
    Part(columns("z", "z", "gate", axis=2) + _GATE, when={"has_z": 1}, unless=VARYING),
    Part(own_columns("z", "z", "gate", "channels", axis=2) + _GATE, when={"has_z": 1} | VARYING),
)


def silu(x: Array) -> Array:
    """x / (1 + exp(-x)), without overflow."""
    return x * np.exp(-np.logaddexp(0.0, -x))


def selective_scan(
    u: Array,
    dt: Array,
    a: Array,
    bc: Array,
    d_skip: Array,
    dt_bias: Array,
    z: Array | None = None,
    *,
    reverse: bool | int,
    delta_softplus: bool | int,
    b_off: int,
    c_off: int,
    z_off: int = 0,
    has_z: bool | int = False,
) -> Array:
    """The op in float64, y [B,L,D]; shapes as above."""
    states = a.shape[0]
    delta = np.logaddexp(0.0, dt + dt_bias) if delta_softplus else dt + dt_bias
    b = bc[..., b_off : b_off + states]
    c = bc[..., c_off : c_off + states]
    state = np.zeros((u.shape[0], states, u.shape[2]))
    y = np.empty_like(u)
    order = range(u.shape[1])
    for t in reversed(order) if reverse else order:
        step = delta[:, t, None, :]
        state = np.exp(step * a) * state + step * b[:, t, :, None] * u[:, t, None, :]
        y[:, t] = (c[:, t, :, None] * state).sum(axis=1) + d_skip * u[:, t]
    if z is None or not has_z:
        return y
    return y * silu(z[..., z_off : z_off + u.shape[2]])


SELECTIVE_SCAN = Op(
    name="VimSelectiveScan",
    inputs=("u", "dt", "A", "bc", "Dskip", "dt_bias", "z"),
    outputs=("y",),
    attributes={
        "reverse": Kind.FLAG,
        "delta_softplus": Kind.FLAG,
        "b_off": Kind.COLUMN,
        "c_off": Kind.COLUMN,
        "z_off": Kind.COLUMN,
        "has_z": Kind.FLAG,
        SCAN_INPUT_DIRECTIONS: Kind.DIRECTIONS,
        SCAN_OUTPUT_DIRECTIONS: Kind.DIRECTIONS,
    },
    body=_BODY,
    reference=selective_scan,
    fp32=("A", "Dskip", "dt_bias"),
    optional=("z",),
    per_node=("reverse", SCAN_INPUT_DIRECTIONS, SCAN_OUTPUT_DIRECTIONS),
    sizes={"A": ("states", "channels")},
    blocks={"b_off": "states", "c_off": "states", "z_off": "channels"},
    tokens_of=("u", 1),
    kernel_sizes=("batch", "length", "channels", "states", "bc_columns", "z_columns"),
)
