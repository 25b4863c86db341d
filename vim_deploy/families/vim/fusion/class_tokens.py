"""Put class tokens in their places without copies that depend on the batch size.

Before: the class token is expanded to the batch (Shape, Concat, Expand) and joined with slices of
the patch tokens, then the position embedding is added. After: the patch tokens are padded with
zero rows, put in order where the class token stands in the middle, and one constant is added: the
position embedding with the class tokens added to their rows. The sums are the same ones, so the
result is bit for bit the same.

That needs the token count as a constant, which the position embedding gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from vim_deploy.families.vim.fusion.branch_pattern import NoMatch
from vim_deploy.graph.pass_report import Refusal
from vim_deploy.onnx_graph import (
    DEFAULT_DOMAINS,
    Array,
    GraphIndex,
    Rewriter,
    attribute_int,
    node_of,
)


@dataclass(frozen=True)
class _Join:
    """A concatenation of class tokens and patch tokens, and the sum with the position embedding.

    Attributes:
        tokens: tensor of all patch tokens [B,n,E].
        order: for each place in the sequence the patch token there, or None for a class token.
        rows: what is added to the tokens, [1,n+k,E].
        output: tensor of the sum.
    """

    tokens: str
    order: tuple[int | None, ...]
    rows: Array
    output: str


def place_class_tokens(graph: Rewriter) -> tuple[int, tuple[Refusal, ...]]:
    """Rewrite the join of class and patch tokens, where there is one.

    Returns:
        How many were rewritten, and those left as they are.
    """
    matched, refused = 0, []
    for node in graph.graph.node:
        if not _joins_expanded(graph, node):
            continue
        try:
            _rewrite(graph, _join(graph, node))
            matched += 1
        except NoMatch as refusal:
            refused.append(Refusal(node.name, str(refusal)))
    return matched, tuple(refused)


def _joins_expanded(index: GraphIndex, node: NodeProto) -> bool:
    """Whether ``node`` concatenates tokens of which some are expanded constants."""
    if node.op_type != "Concat" or node.domain not in DEFAULT_DOMAINS:
        return False
    if attribute_int(node, "axis") != 1:
        return False
    return any(index.producer(name, "Expand") is not None for name in node.input)


def _join(index: GraphIndex, concat: NodeProto) -> _Join:
    readers = index.readers(concat.output[0])
    total = readers[0] if len(readers) == 1 else None
    if total is None or total.op_type != "Add" or concat.output[0] in index.outputs:
        raise NoMatch("no position embedding is added, so the token count is not known")
    embedding = index.constant(next(n for n in total.input if n != concat.output[0]))
    if embedding is None or embedding.ndim != 3 or embedding.shape[0] != 1:
        raise NoMatch("what is added to the tokens is no position embedding [1, tokens, width]")
    length = embedding.shape[1]
    class_tokens = [_class_token(index, name) for name in concat.input]
    patches = length - sum(token is not None for token in class_tokens)
    order: list[int | None] = []
    rows, sources = embedding.copy(), set()
    for name, token in zip(concat.input, class_tokens, strict=True):
        if token is not None:
            place = len(order)
            rows[:, place] = np.add(rows[:, place], token)
            order.append(None)
            continue
        source, start, end = _patch_range(index, name, patches)
        sources.add(source)
        order += range(start, end)
    if len(sources) != 1 or [place for place in order if place is not None] != [*range(patches)]:
        raise NoMatch("the parts between the class tokens are not the patch tokens in order")
    return _Join(sources.pop(), tuple(order), rows, total.output[0])


def _class_token(index: GraphIndex, tensor: str) -> Array | None:
    """Value [1,E] of an expanded class token; None for other tensors."""
    expand = index.producer(tensor, "Expand")
    value = None if expand is None else index.constant(expand.input[0])
    if value is None or expand is None:
        return None
    if value.ndim != 3 or value.shape[:2] != (1, 1) or not _only_batch(index, expand.input[1]):
        raise NoMatch(f"{expand.name} does more than repeat a class token over the batch")
    row: Array = value[:, 0]
    return row


def _only_batch(index: GraphIndex, tensor: str) -> bool:
    """Whether a shape is (batch, 1 or -1, 1 or -1): Expand keeps what is 1 there."""
    fixed = index.integers(tensor)
    if fixed is not None:
        return len(fixed) == 3 and fixed[1] in (1, -1)
    concat = index.producer(tensor, "Concat")
    if concat is None or len(concat.input) != 3:
        return False
    shape = index.producer(concat.input[0], "Shape")
    return shape is not None and index.integers(concat.input[1]) in ([1], [-1])


def _patch_range(index: GraphIndex, tensor: str, patches: int) -> tuple[str, int, int]:
    """Source tensor and the range of its tokens that ``tensor`` holds."""
    node = index.producer(tensor, "Slice")
    if node is None:
        return tensor, 0, patches
    found = index.sliced(node)
    if found is None or found[2] != 1:
        raise NoMatch(f"{node.name} is not a range of tokens")
    start, end, _ = slice(*found[:2]).indices(patches)
    return node.input[0], start, end


def _rewrite(graph: Rewriter, join: _Join) -> None:
    class_places = [place for place, patch in enumerate(join.order) if patch is None]
    patches = len(join.order) - len(class_places)
    before = next(place for place, patch in enumerate(join.order) if patch is not None)
    in_order = list(join.order[before : before + patches]) == [*range(patches)]
    # In the middle: one zero row behind each class token's number, fetched by the Gather below.
    front, back = (before, len(class_places) - before) if in_order else (0, len(class_places))
    name = graph.node_name("class_tokens/Pad")
    pads = graph.add_constant("class_tokens.pads", np.array([0, front, 0, 0, back, 0], np.int64))
    nodes = [node_of("Pad", name, [join.tokens, pads])]
    if not in_order:
        zero_rows = iter(range(patches, len(join.order)))
        order = [next(zero_rows) if patch is None else patch for patch in join.order]
        which = graph.add_constant("class_tokens.order", np.array(order, np.int64))
        gather = graph.node_name("class_tokens/Gather")
        nodes.append(node_of("Gather", gather, [nodes[0].output[0], which], axis=1))
    rows = graph.add_constant("pos_embed_with_class_tokens", join.rows)
    add = graph.node_name("class_tokens/Add")
    nodes.append(node_of("Add", add, [nodes[-1].output[0], rows], join.output))
    graph.replace([join.output], nodes)
