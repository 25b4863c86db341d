"""Fold constants and drop what a static token count makes superfluous.

A chosen subset of onnxscript's optimizer. Two of its steps are left out on purpose: it merges
equal initialisers and drops zero biases, and then the graph would depend on the weights' values,
so that two checkpoints of one architecture could differ in structure.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from onnxscript import rewriter
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter.rules import common as rules

#: Largest tensor that constant folding may read or make, in elements: above the largest weight of
#: Vim-B (768 x 3072), below anything that would bloat the file.
_FOLD_LIMIT = 1 << 24

_RULES = (
    rules.materialize_reshape_shape_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.squeeze_reshape_1d_rule,
    rules.normalize_pad_format_conv_rule,
    rules.fuse_pad_into_conv_rule,
)
#: Folding and rewriting feed each other; Vim's graphs settle after two rounds.
_ROUNDS = 3


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """An equivalent model with constants folded, duplicates merged and dead nodes removed."""
    graph = ir.serde.deserialize_model(model)
    common.InlinePass()(graph)
    for _ in range(_ROUNDS):
        folded = fold_constants_ir(
            graph,
            onnx_shape_inference=True,
            input_size_limit=_FOLD_LIMIT,
            output_size_limit=_FOLD_LIMIT,
        )
        rewriter.rewrite(graph, _RULES)
        common.RemoveUnusedNodesPass()(graph)
        if not folded.modified:
            break
    common.CommonSubexpressionEliminationPass()(graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    common.RemoveUnusedNodesPass()(graph)
    common.RemoveUnusedFunctionsPass()(graph)  # type: ignore[no-untyped-call]
    common.RemoveUnusedOpsetsPass()(graph)
    return ir.serde.serialize_model(graph)
