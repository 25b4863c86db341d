"""What onnx itself works out about a graph, with one answer for graphs that contradict themselves.

The file may be anybody's, and onnx says in many ways that it cannot go on, depending on which
operator meets it first.
"""

from __future__ import annotations

import onnx
import onnx.inliner
from onnx import GraphProto, ModelProto, shape_inference

from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import without_weights

_REFUSALS = (
    shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError,
    TypeError, IndexError, OverflowError,
)  # fmt: skip


def inferred(model: ModelProto, *, data_prop: bool = False, strict: bool = True) -> GraphProto:
    """The graph of ``model``, weights as inputs, with every type and shape that can be told.

    Args:
        model: it is not changed.
        data_prop: follow the values of shapes, too.
        strict: refuse contradictions; else what lies behind one is left untold, as it is behind
            operators without a local function.

    Raises:
        VimDeployError: VIM-409 when types or shapes contradict each other.
    """
    try:
        return shape_inference.infer_shapes(
            without_weights(model), strict_mode=strict, data_prop=data_prop
        ).graph
    except _REFUSALS as error:
        raise _contradicts(error) from error


def inlined(model: ModelProto) -> ModelProto:
    """A copy of ``model``, weights as inputs, with local functions in place of their calls.

    Raises:
        VimDeployError: VIM-409 when a call does not fit its function.
    """
    try:
        return onnx.inliner.inline_local_functions(without_weights(model))
    except _REFUSALS as error:
        raise _contradicts(error) from error


def _contradicts(error: Exception) -> VimDeployError:
    return VimDeployError(
        "VIM-409",
        "the types and shapes of the graph cannot be worked out",
        why=str(error).strip().partition("\n")[0] or type(error).__name__,
        fix="export the file again with this version of vim-deploy",
    )
