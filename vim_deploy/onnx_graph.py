"""Small questions and edits on ONNX messages that several graph modules share."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    shape_inference,
)

from vim_deploy.errors import VimDeployError

#: The names of ONNX's own operators' domain.
DEFAULT_DOMAINS = ("", "ai.onnx")
#: Bytes from which a tensor is a weight. Smaller ones (axes, shapes, slice bounds) stay in the
#: model: runtimes read them while they load the graph.
WEIGHT_BYTES = 1024
#: How onnx says that it cannot go on with a graph that contradicts itself, depending on which
#: operator meets it first; the file may be anybody's.
_REFUSALS = (
    shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError,
    TypeError, IndexError, OverflowError,
)  # fmt: skip
#: Shape of each initialiser by name.
Shapes = dict[str, tuple[int, ...]]


def attribute_int(node: NodeProto, name: str, default: int | None = None) -> int:
    """An INT attribute of ``node``; ``default``, or else KeyError, when it is absent."""
    for attribute in node.attribute:
        if attribute.name == name:
            return int(attribute.i)
    if default is not None:
        return default
    raise KeyError(f"{node.op_type} {node.name} has no attribute {name}")


def attribute_float(node: NodeProto, name: str) -> float:
    """A FLOAT attribute of ``node``; KeyError when it is absent."""
    for attribute in node.attribute:
        if attribute.name == name:
            return float(attribute.f)
    raise KeyError(f"{node.op_type} {node.name} has no attribute {name}")


def attribute_ints(node: NodeProto, name: str) -> list[int] | None:
    """An INTS attribute of ``node``; None when it is absent."""
    for attribute in node.attribute:
        if attribute.name == name:
            return [int(value) for value in attribute.ints]
    return None


def constants_of(graph: GraphProto) -> dict[str, NDArray[np.int64]]:
    """Integer initialisers by name, flattened: axes, shapes and slice bounds."""
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor).reshape(-1)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT64
    }


def subgraphs_of(node: NodeProto) -> list[GraphProto]:
    """The graphs that ``node`` carries in its attributes: branches, bodies."""
    found: list[GraphProto] = []
    for attribute in node.attribute:
        one = attribute.type == AttributeProto.GRAPH
        found += [attribute.g] if one else attribute.graphs
    return found


def read_by_subgraphs(node: NodeProto) -> list[str]:
    """Tensors that the graphs inside ``node`` name, those of the outer graph among them."""
    names: list[str] = []
    for body in subgraphs_of(node):
        names += [value.name for value in body.output]
        for inner in body.node:
            names += [*inner.input, *read_by_subgraphs(inner)]
    return names


def drop_unused_initializers(graph: GraphProto) -> None:
    """Remove initialisers that no node reads and that are no graph output."""
    used = {name for node in graph.node for name in [*node.input, *read_by_subgraphs(node)]}
    used |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def opset_version(model: ModelProto) -> int:
    """Version of the default domain."""
    return next(
        int(entry.version) for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS
    )


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes of a tensor by type and shape, in memory."""
    size = int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    for dim in tensor.dims:
        size *= int(dim)
    return size


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which weights are graph inputs of the same name, type and shape.

    For the checker and for shape inference, which serialise the model they are given and so take
    none above the limit.
    """
    copy = onnx.ModelProto()
    copy.ir_version = model.ir_version
    copy.opset_import.MergeFrom(model.opset_import)
    copy.functions.MergeFrom(model.functions)
    graph = copy.graph
    graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(graph, field).MergeFrom(getattr(model.graph, field))
    given = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor_bytes(tensor) < WEIGHT_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in given:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            graph.input.append(value)
    return copy


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
