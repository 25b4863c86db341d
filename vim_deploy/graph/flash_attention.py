"""Spelt-out attention as ONNX Runtime's own operator, which computes it without a matrix of scores.

Before, for each layer (q, k and v are [B, T, heads * width], from their projections)::

    softmax(scale * heads(q) @ heads(k)^T + mask) @ heads(v), heads side by side again

with ``heads`` a Reshape to [B, T, heads, width] and a Transpose. After: one node
``com.microsoft.MultiHeadAttention`` (q, k, v), whose CPU kernel works through tiles of the scores
(Dao et al., FlashAttention, arXiv 2205.14135). A mask is left out where it hides nothing, which is
looked at and not assumed.

This is a form for comparisons: the file needs ONNX Runtime.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import NodeProto, helper

from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import DEFAULT_DOMAINS, Rewriter, attribute_int, attribute_ints, node_of

#: Domain of ONNX Runtime's own operators, and the version that every release of it registers.
DOMAIN, VERSION = "com.microsoft", 1
OP = "MultiHeadAttention"
_HEADS_FIRST = [0, 2, 1, 3]
_KEYS_LAST = [0, 2, 3, 1]


def use_flash_attention(model: onnx.ModelProto, blocks: int) -> None:
    """Replace the attention of every block, in place.

    Args:
        model: float32, with ``blocks`` softmaxes along the last axis, each an attention's.
        blocks: how many there have to be.

    Raises:
        VimDeployError: VIM-502 when one of them is not written as above, or there are not as many.
    """
    rewriter = Rewriter(model.graph)
    softmaxes = [node for node in model.graph.node if node.op_type == "Softmax"]
    for node in softmaxes:
        _Attention(rewriter, node).replace()
    if len(softmaxes) != blocks:
        raise _refused(f"it has {len(softmaxes)} attentions and {blocks} blocks")
    rewriter.finish()
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def drop_idle_masks(model: onnx.ModelProto) -> int:
    """Leave out, in place, masks that are added to scores and hide nothing; how many there were.

    The exporter writes down a mask of [B, 1, T, T] that the same model does not have when PyTorch
    runs it. A runtime that does not see through it holds and adds such a matrix in every layer.

    Args:
        model: with attentions as above; one that hides something stays.
    """
    rewriter = Rewriter(model.graph)
    dropped = 0
    for softmax in [node for node in model.graph.node if node.op_type == "Softmax"]:
        added = rewriter.producer(softmax.input[0], "Add")
        if added is None or not _hides_nothing(rewriter, added.input[1]):
            continue
        without = NodeProto()
        without.CopyFrom(softmax)
        without.input[0] = added.input[0]
        rewriter.replace(softmax.output, [without])
        dropped += 1
    rewriter.finish()
    return dropped


class _Attention:
    """What stands around one softmax."""

    def __init__(self, graph: Rewriter, softmax: NodeProto) -> None:
        self._graph, self._softmax = graph, softmax
        self._scale = 1.0

    def replace(self) -> None:
        """One node in place of the attention; the rewriter removes what nothing reads then."""
        if attribute_int(self._softmax, "axis", -1) not in (-1, 3):
            raise self._differs("its softmax is not over the keys")
        scores = self._scores(self._softmax.input[0])
        weighted = self._only_reader(self._softmax.output[0], "MatMul")
        if weighted.input[0] != self._softmax.output[0]:
            raise self._differs("its softmax is not what the values are weighted with")
        joined = self._only_reader(weighted.output[0], "Transpose")
        if attribute_ints(joined, "perm") != _HEADS_FIRST:
            raise self._differs("its heads are not brought together")
        output = self._only_reader(joined.output[0], "Reshape")
        query, heads, width = self._heads(scores.input[0], _HEADS_FIRST)
        key, *of_keys = self._heads(scores.input[1], _KEYS_LAST)
        value, *of_values = self._heads(weighted.input[1], _HEADS_FIRST)
        if not [heads, width] == of_keys == of_values:
            raise self._differs("queries, keys and values have different heads")
        merged = self._graph.integers(output.input[1])
        if merged is None or merged[-1] != heads * width:
            raise self._differs("its heads do not stand side by side at the end")
        node = node_of(
            *(OP, self._graph.node_name(f"{self._softmax.name}_flash"), [query, key, value]),
            *(output.output[0], DOMAIN),
            num_heads=heads,
            scale=self._scale,
        )
        self._graph.replace([output.output[0]], [node])

    def _scores(self, tensor: str) -> NodeProto:
        """The product of queries and keys behind mask and scale, which are looked at on the way."""
        graph = self._graph
        added = graph.producer(tensor, "Add")
        if added is not None:
            product, mask = added.input
            if not _hides_nothing(graph, mask):
                raise self._differs("its mask hides something, or cannot be told to hide nothing")
            tensor = product
        for op_type in ("Mul", "Div"):
            scaled = graph.producer(tensor, op_type)
            factor = None if scaled is None else graph.constant(scaled.input[1])
            if scaled is None:
                continue
            if factor is None or factor.size != 1:
                raise self._differs("its scale is no number")
            number = float(np.asarray(factor, np.float64).reshape(()))
            self._scale = number if op_type == "Mul" else 1 / number
            tensor = scaled.input[0]
        scores = graph.producer(tensor, "MatMul")
        if scores is None or not math.isfinite(self._scale):
            raise self._differs("its scores are not a product of queries and keys, scaled")
        return scores

    def _heads(self, tensor: str, order: list[int]) -> tuple[str, int, int]:
        """The projection behind ``tensor``, number of heads and their width."""
        turned = self._graph.producer(tensor, "Transpose")
        split = None if turned is None else self._graph.producer(turned.input[0], "Reshape")
        if turned is None or split is None or attribute_ints(turned, "perm") != order:
            raise self._differs("queries, keys or values are not split into heads as expected")
        shape = self._graph.integers(split.input[1])
        if shape is None or len(shape) != 4:
            raise self._differs("how many heads there are does not stand in the graph")
        return split.input[0], shape[2], shape[3]

    def _only_reader(self, tensor: str, op_type: str) -> NodeProto:
        """The one node that reads ``tensor``."""
        readers = self._graph.readers(tensor)
        found = [node for node in readers if node.domain in DEFAULT_DOMAINS]
        if [node.op_type for node in found] != [op_type] or len(readers) != 1:
            raise self._differs(f"{tensor} does not go to one {op_type}")
        return found[0]

    def _differs(self, why: str) -> VimDeployError:
        return _refused(f"{self._softmax.name}: {why}")


def _hides_nothing(graph: Rewriter, mask: str) -> bool:
    """Whether ``mask`` is zeros, or ``Where`` everywhere takes them."""
    constant = graph.constant(mask)
    if constant is not None:
        return not np.asarray(constant).any()
    chosen = graph.producer(mask, "Where")
    if chosen is None:
        return False
    condition, kept = chosen.input[0], graph.constant(chosen.input[1])
    spread = graph.producer(condition, "Expand")
    seen = graph.constant(condition if spread is None else spread.input[0])
    if seen is None or kept is None:
        return False
    return bool(np.asarray(seen).all()) and not np.asarray(kept).any()


def _refused(why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-502",
        f"the attention is not one that {OP} can take the place of",
        why=why,
        fix="report a bug with the versions of torch and transformers",
    )
