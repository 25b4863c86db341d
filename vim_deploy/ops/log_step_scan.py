"""The selective scan's recurrence without a loop: log-step form, for runtimes that have no Scan.

h_l = a_l h_{l-1} + x_l is associative, so that all tokens can be worked out side by side in
ceil(log2 L) steps of doubling width (Hillis and Steele, Data Parallel Algorithms, 1986, section
"Sum of an array", all partial sums; Kogge and Stone, 1973, for recurrences). Before a step of
offset k every token holds the sum over the k tokens up to it; the step adds what the token k
earlier holds, decayed over those k tokens::

    h_l <- h_l + exp(A * s_l) * h_{l-k}        s_l <- s_l + s_{l-k}

``s_l`` is the sum of the step sizes of the k tokens up to l. The decay of a window is the
exponential of A (negative) times a sum of step sizes, so it lies in (0, 1] when those are not
negative, as after softplus, and underflows to 0 where the product of the single decays would.
There is no division by a cumulative product, which breaks down as soon as one underflows.

The price: each step works on whole tensors [B,L,N,D], N times the size of an activation, where a
Scan holds one state [B,N,D]; about 2 ceil(log2 L) operations for each of their elements instead of
2; and the number of tokens is fixed in the nodes.
"""

from __future__ import annotations

from onnx import AttributeProto, NodeProto, helper

from vim_deploy.ops.body_nodes import constant

_TOKEN_AXIS = 1
_STATE_AXIS = 2
#: Axes of the tensors that are shifted: images, tokens, states, channels.
_RANK = 4


def step_offsets(tokens: int) -> tuple[int, ...]:
    """1, 2, 4, ... below ``tokens``: ceil(log2(tokens)) of them."""
    return tuple(1 << step for step in range((tokens - 1).bit_length()))


def log_steps(
    suffix: str, decay_rate: str, tokens: int, *, reverse: bool = False
) -> list[NodeProto]:
    """Nodes of y = sum_n C_n h_n over all tokens, without a loop; float32.

    Reads ``delta``, ``delta_u`` [B,L,1,D] and ``b``, ``c`` [B,L,N,1], makes ``y_scan`` [B,L,D];
    each of these names carries ``suffix``.

    Args:
        suffix: of the direction, such as ``_fwd``.
        decay_rate: name of A [N,D].
        tokens: L, at least 1.
        reverse: the recurrence runs from the last token to the first.
    """
    s = suffix
    state, window = f"h_0{s}", f"delta{s}"
    nodes = [helper.make_node("Mul", [f"delta_u{s}", f"b{s}"], [state])]
    offsets = step_offsets(tokens)
    for number, offset in enumerate(offsets, start=1):
        end = f"_{number}{s}"
        nodes += [
            *_shifted(state, offset, f"h_earlier{end}", reverse),
            helper.make_node("Mul", [window, decay_rate], [f"exponent{end}"]),
            helper.make_node("Exp", [f"exponent{end}"], [f"decay{end}"]),
            helper.make_node("Mul", [f"decay{end}", f"h_earlier{end}"], [f"h_decayed{end}"]),
            helper.make_node("Add", [state, f"h_decayed{end}"], [f"h{end}"]),
        ]
        state = f"h{end}"
        if offset != offsets[-1]:
            nodes += [
                *_shifted(window, offset, f"delta_earlier{end}", reverse),
                helper.make_node("Add", [window, f"delta_earlier{end}"], [f"delta_sum{end}"]),
            ]
            window = f"delta_sum{end}"
    return [
        *nodes,
        helper.make_node("Mul", [state, f"c{s}"], [f"h_read{s}"]),
        # Not a MatMul: those run in TF32 where a builder allows it.
        constant(f"state_axis{s}", [_STATE_AXIS]),
        helper.make_node("ReduceSum", [f"h_read{s}", f"state_axis{s}"], [f"y_scan{s}"], keepdims=0),
    ]


def _shifted(source: str, offset: int, name: str, reverse: bool) -> list[NodeProto]:
    """``name`` holds at each token what ``source`` holds ``offset`` tokens earlier in the scan.

    Zero where there is no such token. One Pad does it, with a negative count at the other end.
    """
    pads = [0] * (2 * _RANK)
    front, back = _TOKEN_AXIS, _RANK + _TOKEN_AXIS
    pads[front], pads[back] = (-offset, offset) if reverse else (offset, -offset)
    return [
        constant(f"{name}_pads", pads),
        helper.make_node("Pad", [source, f"{name}_pads"], [name]),
    ]


def scan_order(tokens: int, attribute: str) -> list[NodeProto]:
    """``token_order`` [L] int64: the tokens as the scan meets them, by an INT attribute.

    A function body cannot branch on its attribute ``attribute`` (0 or 1), but it can compute with
    it; the result is a constant wherever the function is inlined. Reversal undoes itself, so one
    Gather with it puts tensors into the scan's order and another puts the result back.
    """
    flag = helper.make_node("Constant", [], ["is_reverse"])
    flag.attribute.append(
        AttributeProto(name="value_int", ref_attr_name=attribute, type=AttributeProto.INT)
    )
    ascending = range(tokens)
    return [
        flag,
        constant("ascending", ascending),
        constant("to_descending", [tokens - 1 - 2 * token for token in ascending]),
        helper.make_node("Mul", ["to_descending", "is_reverse"], ["order_change"]),
        helper.make_node("Add", ["ascending", "order_change"], ["token_order"]),
    ]


def in_scan_order(source: str, name: str) -> NodeProto:
    """``name`` = ``source`` with its tokens in ``token_order``."""
    return helper.make_node("Gather", [source, "token_order"], [name], axis=_TOKEN_AXIS)
