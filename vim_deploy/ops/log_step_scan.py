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
2; and the number of steps is fixed in the nodes, which is why a program writes their text. So is
the number of tokens, unless the nodes of a file differ in it.
"""

from __future__ import annotations

#: As the end of a Slice: far beyond any number of tokens, and within 32 bits.
_TO_THE_END = (1 << 31) - 1

#: Ends the names of tensors that steps for any number of tokens make, and no others.
PADDED = "_padded"


def step_offsets(tokens: int) -> tuple[int, ...]:
    """1, 2, 4, ... below ``tokens``: ceil(log2(tokens)) of them."""
    return tuple(1 << step for step in range((tokens - 1).bit_length()))


def log_steps(
    suffix: str,
    decay_rate: str,
    tokens: int,
    *,
    reverse: bool = False,
    any_length: bool = False,
    made: str | None = None,
) -> str:
    """Text of y = sum_n C_n h_n over all tokens, without a loop; float32.

    Reads ``delta``, ``delta_u`` [B,L,1,D] and ``b``, ``c`` [B,L,N,1], makes ``y_scan`` [B,L,D];
    each of these names carries ``suffix``.

    Args:
        suffix: of the direction, such as ``_fwd``.
        decay_rate: name of A [N,D].
        tokens: L, at least 1.
        reverse: the recurrence runs from the last token to the first.
        any_length: for fewer tokens, too: the steps that they do not need add zeros.
        made: another name for what it makes.
    """
    shifted = _shifted_any if any_length else _shifted
    s = suffix
    state, window = f"h_0{s}", f"delta{s}"
    text = f"{state} = Mul (delta_u{s}, b{s})"
    offsets = step_offsets(tokens)
    for number, offset in enumerate(offsets, start=1):
        end = f"_{number}{s}"
        text += shifted(state, offset, f"h_earlier{end}", tokens, reverse)
        text += f"""
    exponent{end} = Mul ({window}, {decay_rate})
    decay{end} = Exp (exponent{end})
    h_decayed{end} = Mul (decay{end}, h_earlier{end})
    h{end} = Add ({state}, h_decayed{end})"""
        state = f"h{end}"
        if offset != offsets[-1]:
            text += shifted(window, offset, f"delta_earlier{end}", tokens, reverse)
            text += f"\n    delta_sum{end} = Add ({window}, delta_earlier{end})"
            window = f"delta_sum{end}"
    # Not a MatMul: those run in TF32 where a builder allows it.
    return f"""{text}
    h_read{s} = Mul ({state}, c{s})
    state_axis{s} = Constant <value = int64[1] {{2}}> ()
    {made or f"y_scan{s}"} = ReduceSum <keepdims = 0> (h_read{s}, state_axis{s})"""


def _shifted(source: str, offset: int, name: str, tokens: int, reverse: bool) -> str:
    """``name`` holds at each token what ``source`` holds ``offset`` tokens earlier in the scan.

    Zero where there is no such token: the tokens that some token looks back to, and a Pad. Axes
    are images, tokens, states, channels.
    """
    start, end = (offset, tokens) if reverse else (0, tokens - offset)
    before, after = (0, offset) if reverse else (offset, 0)
    return f"""
    {name}_start = Constant <value = int64[1] {{{start}}}> ()
    {name}_end = Constant <value = int64[1] {{{end}}}> ()
    {name}_axis = Constant <value = int64[1] {{1}}> ()
    {name}_kept = Slice ({source}, {name}_start, {name}_end, {name}_axis)
    {name}_pads = Constant <value = int64[8] {{0, {before}, 0, 0, 0, {after}, 0, 0}}> ()
    {name} = Pad ({name}_kept, {name}_pads)"""


def _shifted_any(source: str, offset: int, name: str, tokens: int, reverse: bool) -> str:
    """The same for any number of tokens, by a Pad first, and a Slice of as many tokens as before.

    ``tokens``, the largest number, is not read.
    """
    start, end = (offset, _TO_THE_END) if reverse else (0, -offset)
    before, after = (0, offset) if reverse else (offset, 0)
    return f"""
    {name}_pads = Constant <value = int64[8] {{0, {before}, 0, 0, 0, {after}, 0, 0}}> ()
    {name}{PADDED} = Pad ({source}, {name}_pads)
    {name}_start = Constant <value = int64[1] {{{start}}}> ()
    {name}_end = Constant <value = int64[1] {{{end}}}> ()
    {name}_axis = Constant <value = int64[1] {{1}}> ()
    {name} = Slice ({name}{PADDED}, {name}_start, {name}_end, {name}_axis)"""


def scan_order(tokens: int, tokens_of: str | None = None) -> str:
    """Text of ``token_order`` [L] int64: the tokens as the scan meets them, by ``reverse``.

    A function body cannot branch on its attribute (0 or 1), but it can compute with it; the result
    is a constant wherever the function is inlined. Reversal undoes itself, so one Gather with it
    puts tensors into the scan's order and another puts the result back.

    Args:
        tokens: L, or the largest.
        tokens_of: name of a tensor [B,L,...], where L may be less.
    """
    if tokens_of is not None:
        ascending = ", ".join(map(str, range(tokens)))
        return f"""
    is_reverse = Constant <value_int: int = @reverse> ()
    length = Shape <end = 2, start = 1> ({tokens_of})
    first_token = Constant <value = int64[1] {{0}}> ()
    one_token_less = Constant <value = int64[1] {{-1}}> ()
    all_ascending = Constant <value = int64[{tokens}] {{{ascending}}}> ()
    ascending = Slice (all_ascending, first_token, length, first_token)
    last_token = Add (length, one_token_less)
    twice_ascending = Add (ascending, ascending)
    to_descending = Sub (last_token, twice_ascending)
    order_change = Mul (to_descending, is_reverse)
    token_order = Add (ascending, order_change)"""
    ascending = ", ".join(map(str, range(tokens)))
    to_descending = ", ".join(str(tokens - 1 - 2 * token) for token in range(tokens))
    return f"""
    is_reverse = Constant <value_int: int = @reverse> ()
    ascending = Constant <value = int64[{tokens}] {{{ascending}}}> ()
    to_descending = Constant <value = int64[{tokens}] {{{to_descending}}}> ()
    order_change = Mul (to_descending, is_reverse)
    token_order = Add (ascending, order_change)"""
