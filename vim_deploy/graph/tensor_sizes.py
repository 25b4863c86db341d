"""Bytes and shapes of every tensor of an exported graph, for a given number of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from onnx import NodeProto, TensorProto, helper

from vim_deploy.artifact.metadata import inputs_of
from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import inferred, without_weights


@dataclass(frozen=True)
class TensorSizes:
    """Bytes, element type and shape of every tensor; elements of parameters; who reads what."""

    bytes: dict[str, int]
    types: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    parameters: dict[str, int]
    readers: dict[str, list[NodeProto]]
    outputs: frozenset[str]


def tensor_sizes(model: onnx.ModelProto, batch: int) -> TensorSizes:
    """The sizes, with the batch filled in and shapes inferred.

    Args:
        model: an exported graph; it is not changed.
        batch: pictures at once; a graph with a fixed batch keeps its own.

    Raises:
        VimDeployError: VIM-409 when the shapes of the graph cannot be worked out.
    """
    copy = without_weights(model)
    image = inputs_of(model)[0]
    for value in copy.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name == image.name and dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = batch
    for value in copy.graph.output:
        # A symbolic size would contradict the one filled in above.
        value.type.tensor_type.ClearField("shape")
    graph = inferred(copy, data_prop=True)
    outputs = frozenset(value.name for value in model.graph.output)
    sizes = TensorSizes({}, {}, {}, {}, {}, outputs)
    for node in model.graph.node:
        for name in node.input:
            sizes.readers.setdefault(name, []).append(node)
    for tensor in model.graph.initializer:
        _note(sizes, tensor.name, tensor.data_type, tuple(tensor.dims))
        sizes.parameters[tensor.name] = _product(tensor.dims)
    for value in [*graph.input, *graph.value_info, *graph.output]:
        kind = value.type.tensor_type
        dims = tuple(int(dim.dim_value) for dim in kind.shape.dim)
        known = kind.elem_type and kind.HasField("shape")
        if known and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            _note(sizes, value.name, kind.elem_type, dims)
    names = [value.name for value in model.graph.input]
    names += [name for node in model.graph.node for name in node.output if name]
    missing = [name for name in names if name not in sizes.bytes]
    if missing:
        raise VimDeployError(
            "VIM-409",
            "the shapes of the graph cannot be worked out",
            why=f"unknown: {missing[0]} and {len(missing) - 1} more",
            fix="export the file again with this version of vim-deploy",
        )
    return sizes


def _note(sizes: TensorSizes, name: str, element: int, shape: tuple[int, ...]) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(element)
    sizes.bytes[name] = dtype.itemsize * _product(shape)
    sizes.types[name] = TensorProto.DataType.Name(element).lower()
    sizes.shapes[name] = shape


def _product(shape: Iterable[int]) -> int:
    product = 1
    for size in shape:
        product *= int(size)
    return product
