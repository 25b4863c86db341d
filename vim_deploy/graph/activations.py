"""Sizes of an exported graph's tensors: what activations take, and that none is tokens x tokens.

Read off the graph: shapes are inferred, and a tensor lives from the node that writes it to the last
one that reads it, in the order of the nodes. Runtimes reuse memory in other ways and fuse nodes, so
this is what the graph needs, not what a runtime takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper

from vim_deploy.artifact.metadata import inputs_of
from vim_deploy.codec import stored
from vim_deploy.errors import VimDeployError
from vim_deploy.families.base import ModelConfig
from vim_deploy.onnx_graph import (
    inferred,
    inlined,
    read_by_subgraphs,
    subgraphs_of,
    without_weights,
)
from vim_deploy.ops import OPS, PLUGIN_OPS, contract
from vim_deploy.ops.functions import call_of, differ
from vim_deploy.ops.single_calls import with_own_functions

#: Their output is their input under another shape.
_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
#: Last names of weights with a row for each token; the last two are made by the passes.
_PER_TOKEN_WEIGHTS = (
    "pos_embed", "freqs_cos", "freqs_sin", "pos_embed_with_class_tokens", "order",
)  # fmt: skip
#: Operators that give several positions a token.
_SPREADING = frozenset({"ConvTranspose", "Resize"})
#: Elements that an activation has for each token, position and channel of the widest weight. Two is
#: for both directions of a mixer side by side.
_SIDE_BY_SIDE = 2
_LISTED = 5
#: Operators that give a weight back which is stored in fewer bits.
_UNPACK = ("Cast", "DequantizeLinear")
#: Whole numbers are axes, sizes and orders, no weights.
_COUNTS = frozenset({TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL})


@dataclass(frozen=True)
class TensorSizes:
    """Bytes, element type and shape of every tensor; elements of parameters; who reads what."""

    bytes: dict[str, int]
    types: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    parameters: dict[str, int]
    readers: dict[str, list[NodeProto]]
    outputs: frozenset[str]


def batch_of(model: onnx.ModelProto, wanted: int) -> int:
    """Pictures at once: the graph's own number when it has one, else ``wanted``.

    Raises:
        VimDeployError: VIM-415 for a graph without an input that is not a stored value as well.
    """
    inputs = inputs_of(model)
    if not inputs:
        raise VimDeployError(
            "VIM-415",
            "the graph has 0 inputs; one image input is expected",
            fix="give a model made by vim-deploy export",
        )
    given = inputs[0].shape[0]
    return given if isinstance(given, int) else wanted


def tensor_sizes(model: onnx.ModelProto, batch: int) -> TensorSizes:
    """The sizes, with the batch filled in and shapes inferred.

    Args:
        model: an exported graph; it is not changed.
        batch: pictures at once; a graph with a fixed batch keeps its own.

    Raises:
        VimDeployError: VIM-409 when the shapes of the graph cannot be worked out.
    """
    copy = without_weights(_inferable(model))
    pictures = {spec.name for spec in inputs_of(model)}
    for value in copy.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in pictures and dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = batch
    for value in copy.graph.output:
        # A symbolic size would contradict the one filled in above.
        value.type.tensor_type.ClearField("shape")
    _hand_in(copy.graph)
    graph = inferred(copy, data_prop=True)
    outputs = frozenset(value.name for value in model.graph.output)
    sizes = TensorSizes({}, {}, {}, {}, {}, outputs)
    for node in model.graph.node:
        for name in node.input:
            sizes.readers.setdefault(name, []).append(node)
    for tensor in model.graph.initializer:
        _note(sizes, tensor.name, tensor.data_type, tuple(tensor.dims))
        sizes.parameters[tensor.name] = math.prod(tensor.dims)
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


def _inferable(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model``, or where calls differ a form of it whose shapes inference can tell."""
    return with_own_functions(model) if differ(model.functions) else model


def _hand_in(graph: GraphProto) -> None:
    """Give bodies the whole numbers around them that they read: inference does not look outside.

    onnxslim 0.1.98 takes the axes of a sum out of the body of a Scan.
    """
    constants = {item.name: item for item in graph.initializer if item.data_type in _COUNTS}
    for body in (body for node in graph.node for body in subgraphs_of(node)):
        read = {name for node in body.node for name in (*node.input, *read_by_subgraphs(node))}
        own = {item.name for item in (*body.input, *body.initializer)}
        own |= {name for node in body.node for name in node.output}
        body.initializer.extend(constants[name] for name in sorted(read & constants.keys() - own))
        _hand_in(body)


def _note(sizes: TensorSizes, name: str, element: int, shape: tuple[int, ...]) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(element)
    sizes.bytes[name] = dtype.itemsize * math.prod(shape)
    sizes.types[name] = TensorProto.DataType.Name(element).lower()
    sizes.shapes[name] = shape


@stored(also=("bytes_per_token",), decimals={"bytes_per_token": 1})
@dataclass(frozen=True)
class Activations:
    """Sizes of the activations of one graph.

    Attributes:
        batch: pictures at once.
        tokens: of each picture.
        largest: the largest activation, by name.
        largest_shape, largest_bytes: of it.
        peak_bytes: of all activations that live at the same time, at most.
        inlined_peak_bytes: the same where the scan ops run as their local functions.
        square_told: whether the number of tokens is told apart from the batch, widths and image
            sides by its size; where it is not, a tokens x tokens tensor would look like any other.
    """

    batch: int
    tokens: int
    largest: str
    largest_shape: tuple[int, ...]
    largest_bytes: int
    peak_bytes: int
    inlined_peak_bytes: int
    square_told: bool

    @property
    def bytes_per_token(self) -> float:
        """Share of the peak of one token."""
        return self.peak_bytes / (self.batch * self.tokens)

    def __str__(self) -> str:
        shape = "x".join(map(str, self.largest_shape))
        square = "; none is tokens x tokens" if self.square_told else ""
        return (
            f"activations for {self.tokens} tokens, batch {self.batch}: largest "
            f"{self.largest_bytes / 1e6:.2f} MB ({self.largest}, {shape}), at most "
            f"{self.peak_bytes / 1e6:.2f} MB at once ({self.bytes_per_token / 1e3:.1f} kB a token; "
            f"{self.inlined_peak_bytes / 1e6:.2f} MB with the scans as functions){square}"
        )


def measure_activations(model: onnx.ModelProto, config: ModelConfig) -> Activations:
    """Sizes for one picture, or for the graph's own batch when that is fixed.

    Args:
        model: an exported graph; it is not changed.
        config: of the Vim in it.

    Raises:
        VimDeployError: VIM-409 when the shapes of the graph cannot be worked out, VIM-415 when it
            has no input, VIM-502 when an activation grows with the square of the tokens.
    """
    batch = batch_of(model, 1)
    weights = _weights(model)
    sizes = tensor_sizes(model, batch)
    # The functions' insides too: their weights are inputs here, and the inliner copies little.
    # Those on boxes stay: how large their tensors are, what is in the pictures decides.
    on_boxes = [(contract.DOMAIN, name) for name in OPS.keys() - PLUGIN_OPS.keys()]
    with_bodies = inlined(_inferable(model), but=on_boxes)
    inner = tensor_sizes(with_bodies, batch)
    told = _square_told(model, config, batch)
    inside = _insides(model)
    written = [name for name in _written(model, weights) if name not in inside]
    problems = _too_many(model, written, sizes, config, batch)
    if told:
        problems += _squares(_written(with_bodies, weights), inner, config)
        problems += _squares(weights, sizes, config)
    if problems:
        raise VimDeployError(
            "VIM-502",
            "the exported graph has tensors that grow with the square of the tokens",
            why="; ".join(problems[:_LISTED]) + "; ..." * (len(problems) > _LISTED),
            fix="report this model config together with the versions of torch and onnxscript",
        )
    largest = max(written, key=lambda name: sizes.bytes[name])
    return Activations(
        batch=batch,
        tokens=config.num_tokens,
        largest=largest,
        largest_shape=sizes.shapes[largest],
        largest_bytes=sizes.bytes[largest],
        peak_bytes=peak_of_live(model, sizes.bytes, weights),
        inlined_peak_bytes=peak_of_live(with_bodies, inner.bytes, weights),
        square_told=told,
    )


def peak_of_live(model: onnx.ModelProto, sizes: Mapping[str, int], weights: Iterable[str]) -> int:
    """Most bytes of activations that live at once, in node order; views take none of their own.

    Args:
        model: the graph.
        sizes: bytes of every tensor.
        weights: names that are no activations.
    """
    nodes, kept = model.graph.node, set(weights)
    # Name of the tensor that holds a name's bytes.
    holder: dict[str, str] = {}
    last_use: dict[str, int] = {}
    for value in model.graph.input:
        holder[value.name] = value.name
    for index, node in enumerate(nodes):
        for name in node.input:
            if name in holder:
                last_use[holder[name]] = index
        is_view = node.op_type in _VIEWS and node.domain == ""
        for name in node.output:
            if is_view and node.input[0] in holder:
                holder[name] = holder[node.input[0]]
            else:
                holder[name] = name
            last_use.setdefault(holder[name], index)
    for value in model.graph.output:
        if value.name in holder:
            last_use[holder[value.name]] = len(nodes)
    ends: dict[int, list[str]] = {}
    for name, index in last_use.items():
        ends.setdefault(index, []).append(name)
    alive = {value.name for value in model.graph.input if value.name in last_use} - kept
    live = peak = sum(sizes[name] for name in alive)
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and holder[name] == name and name not in kept:
                alive.add(name)
                live += sizes[name]
        peak = max(peak, live)
        for name in ends.get(index, ()):
            if name in alive:
                alive.remove(name)
                live -= sizes[name]
    return peak


def _weights(model: onnx.ModelProto) -> set[str]:
    """Stored tensors, and what Casts and DequantizeLinear make of those alone."""
    found = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _UNPACK and not node.domain and found.issuperset(node.input):
            found.update(node.output)
    return found


def _written(model: onnx.ModelProto, weights: set[str]) -> list[str]:
    """Names of all activations that nodes write."""
    return [
        name
        for node in model.graph.node
        for name in node.output
        if name and name not in weights and node.op_type != "Constant"
    ]


def _insides(model: onnx.ModelProto) -> set[str]:
    """Tensors between the nodes that stand in the place of an op's, as within its function."""
    bodies, others = set[str](), {value.name for value in model.graph.output}
    for node in model.graph.node:
        if call_of(node.name) is None:
            others.update(node.input, node.output)
        else:
            bodies.update(node.output)
    return bodies - others


def _widths(model: onnx.ModelProto) -> set[int]:
    """Lengths of the axes of all weights but those with a row for each token."""
    return {
        int(dim)
        for tensor in model.graph.initializer
        if tensor.data_type not in _COUNTS
        and tensor.name.rpartition(".")[2] not in _PER_TOKEN_WEIGHTS
        for dim in tensor.dims
    }


def _square_told(model: onnx.ModelProto, config: ModelConfig, batch: int) -> bool:
    """Whether neither the batch, a width nor a side of the image is a multiple of the tokens.

    Attention is tokens x tokens by its nature: of models that attend nothing is told.
    """
    if config.attends:
        return False
    sizes = (batch, *_widths(model), *config.image_hw)
    return not any(_follows_tokens(size, config) for size in sizes)


def _follows_tokens(size: int, config: ModelConfig) -> bool:
    counts = config.token_counts
    return any(size >= count > 1 and size % count == 0 for count in counts)


def _squares(names: Iterable[str], sizes: TensorSizes, config: ModelConfig) -> list[str]:
    """Tensors with two axes of tokens."""
    return [
        f"{name} is {'x'.join(map(str, sizes.shapes[name]))} for {config.num_tokens} tokens"
        for name in names
        if sum(_follows_tokens(size, config) for size in sizes.shapes[name]) > 1
    ]


def _too_many(
    model: onnx.ModelProto,
    names: Iterable[str],
    sizes: TensorSizes,
    config: ModelConfig,
    batch: int,
) -> list[str]:
    """Tensors with more elements than every token's share of the widest layer.

    That share is two times the longest axis of any weight, for each pixel where a graph makes its
    maps larger and for each token where not; the image itself and scores of attention may be
    larger.
    """
    height, width = config.image_hw
    spreads = any(node.op_type in _SPREADING for node in model.graph.node)
    positions = height * width if spreads else config.num_tokens
    most = batch * max(
        _SIDE_BY_SIDE * max(_widths(model)) * positions,
        config.channels * height * width,
        config.attention_scores,
    )
    return [
        f"{name} has {count} elements, more than {most}"
        for name in names
        if (count := math.prod(sizes.shapes[name])) > most
    ]
