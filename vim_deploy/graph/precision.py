"""Type a float32 graph explicitly: 16-bit weights and activations, float32 where a policy says so.

Before: every float tensor is float32. After: each node computes in the element type of its role,
its weights are stored in that type, and a Cast stands wherever two types meet. Runtimes with
strongly typed networks (TensorRT 10 and later) build exactly this.

Always float32: norms (their reductions overflow in float16), class tokens and position embedding,
pooling, image preparation, softmax of heads, and the parameters of our own ops, whose state is
float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, defs, helper, numpy_helper

from vim_deploy import places
from vim_deploy.errors import VimDeployError
from vim_deploy.heads import outputs_called
from vim_deploy.onnx_graph import (
    ELEMENT_TYPES,
    PRECISIONS,
    drop_unused_initializers,
    element_types,
    opset_version,
)
from vim_deploy.ops import OPS, contract
from vim_deploy.ops.functions import type_functions
from vim_deploy.precisions import TABLE, Precision, require_io_precision
from vim_deploy.recipe.precision_policy import PrecisionPolicy

FLOAT = TensorProto.FLOAT
#: They move values and compute none: the type of what goes in comes out.
TRANSPARENT = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "GatherElements", "Identity", "Pad", "Reshape",
     "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)  # fmt: skip
#: Role and block of a node; no role for what is always float32.
RoleOf = Callable[[NodeProto], tuple[str | None, int | None]]


@dataclass(frozen=True)
class WeightRange:
    """One initialiser in 16 bits.

    Attributes:
        name: of the float32 initialiser.
        elements: how many values it holds.
        overflowed: finite values that became infinite.
        subnormal: values that lost bits because they are below the smallest normal number.
        vanished: of those, values that became zero.
        largest: largest magnitude in float32.
    """

    name: str
    elements: int
    overflowed: int
    subnormal: int
    vanished: int
    largest: float

    @property
    def noteworthy(self) -> bool:
        """Whether a value left the type's normal range."""
        return bool(self.overflowed or self.subnormal)


@dataclass(frozen=True)
class PrecisionReport:
    """What typing a graph did.

    Attributes:
        precision, io_precision: of the graph, and of its inputs and outputs.
        nodes: computing nodes (no casts, nothing that only moves values) by precision.
        casts: Cast nodes added.
        kept: what stays in float32 although the policy lets it go, and why.
        weights: 16-bit weights with values outside of the type's normal range.
    """

    precision: Precision
    io_precision: Precision
    nodes: dict[str, int]
    casts: int
    kept: tuple[str, ...]
    weights: tuple[WeightRange, ...]


def _role_by_name(node: NodeProto) -> tuple[str | None, int | None]:
    return places.role_of(node.name)


def apply_precision(
    model: onnx.ModelProto,
    precision: Precision,
    policy: PrecisionPolicy,
    io_precision: Precision = "fp32",
    role_of: RoleOf | None = None,
) -> PrecisionReport:
    """Type ``model`` in place, its local functions included.

    Args:
        model: an exported float32 graph with the local functions of its ops.
        precision: type of weights and activations.
        policy: what stays in float32.
        io_precision: type of float inputs and outputs: ``fp32`` or ``precision``.
        role_of: role and block of a node; None reads them off our own names.

    Raises:
        VimDeployError: VIM-203 (a policy that leaves nothing to type, other I/O), VIM-502 (types
            of the graph cannot be worked out), VIM-505 (weights that do not fit).
    """
    require_io_precision(precision, io_precision)
    if not TABLE[precision].typed:
        return PrecisionReport(precision, io_precision, {}, 0, (), ())
    typing = _Typing(model, ELEMENT_TYPES[precision], policy, role_of or _role_by_name)
    typing.run(ELEMENT_TYPES[io_precision])
    if not typing.counts[ELEMENT_TYPES[precision]]:
        raise VimDeployError(
            "VIM-203",
            f"the precision policy leaves nothing to compute in {precision}",
            fix="remove rules from it, or export with --precision fp32",
        )
    require_no_overflow(typing.weights, precision)
    type_functions(model)
    return PrecisionReport(
        precision=precision,
        io_precision=io_precision,
        nodes={PRECISIONS[element]: count for element, count in sorted(typing.counts.items())},
        casts=typing.casts,
        kept=tuple(typing.kept),
        weights=tuple(weight for weight in typing.weights if weight.noteworthy),
    )


class _Typing:
    """One walk over the nodes in order, with the type that each tensor has by then."""

    def __init__(
        self, model: onnx.ModelProto, element: int, policy: PrecisionPolicy, role_of: RoleOf
    ) -> None:
        self.model = model
        self.role_of = role_of
        self.element = element
        self.policy = policy
        self.opset = opset_version(model)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types = _float_tensors(model)
        self.nodes: list[NodeProto] = []
        self.cast_of: dict[tuple[str, int], str] = {}
        self.new_initializers: dict[str, TensorProto] = {}
        self.counts: Counter[int] = Counter()
        self.casts = 0
        self.cast_names: Counter[str] = Counter()
        self.kept: dict[str, None] = {}
        self.weights: list[WeightRange] = []
        self.suffix = PRECISIONS[element]

    def run(self, io_element: int) -> None:
        """Rewrite the graph."""
        graph = self.model.graph
        for value in graph.input:
            if value.name in self.types and value.name not in self.initializers:
                self.types[value.name] = io_element
                value.type.tensor_type.elem_type = io_element
        outputs = {value.name: value for value in graph.output if value.name in self.types}
        for node in graph.node:
            self._type_node(node)
        for name, value in outputs.items():
            wide = any(output.wide for output, _ in outputs_called(name))
            element = FLOAT if wide else io_element
            value.type.tensor_type.elem_type = element
            if self.types[name] != element:
                self._cast_output(name, element)
        self._replace_unread()
        del graph.node[:]
        graph.node.extend(self.nodes)
        drop_unused_initializers(graph)
        del graph.value_info[:]

    def _type_node(self, node: NodeProto) -> None:
        own = node.domain == contract.DOMAIN
        fixed = OPS[node.op_type].fixed if own else ()
        names = OPS[node.op_type].inputs if own else ()
        floats = [
            position
            for position, name in enumerate(node.input)
            if name in self.types and not (own and names[position] in fixed)
        ]
        element = self._element_of(node, floats)
        for position, name in enumerate(node.input):
            if name in self.types:
                # What an op fixes is float32, whatever wrote it.
                kind = element if position in floats else FLOAT
                node.input[position] = self._as(name, kind, node)
        for name in node.output:
            if name in self.types:
                self.types[name] = element
        if (floats or own) and node.op_type not in TRANSPARENT and node.op_type != "Cast":
            self.counts[element] += 1
        self.nodes.append(node)

    def _element_of(self, node: NodeProto, floats: list[int]) -> int:
        """The type that ``node`` computes in."""
        if not floats or (node.domain == "" and node.op_type == "Cast"):
            return FLOAT
        if node.domain == "" and node.op_type in TRANSPARENT:
            found = {self.types[node.input[position]] for position in floats}
            return found.pop() if len(found) == 1 else FLOAT
        role, block = self.role_of(node)
        if role is None or self.policy.keeps_fp32(role, block):
            return FLOAT
        if node.domain == "" and not _takes(node, floats, self.element, self.opset):
            reason = f"opset {self.opset} has no {self.suffix} {node.op_type}"
            self.kept[f"{role}: {reason}"] = None
            return FLOAT
        return self.element

    def _as(self, name: str, element: int, reader: NodeProto) -> str:
        """The tensor ``name`` in the type ``element``."""
        if self.types[name] == element:
            return name
        if (name, element) not in self.cast_of:
            made = self._typed_weight(name, element)
            self.cast_of[name, element] = made or self._cast(name, element, reader)
        return self.cast_of[name, element]

    def _typed_weight(self, name: str, element: int) -> str | None:
        """An initialiser is stored in the type; a second type of it gets a second name."""
        if name not in self.initializers:
            return None
        typed = f"{name}.{self.suffix}"
        self.new_initializers[typed], found = to_half(self.initializers[name], element, typed)
        self.weights.append(found)
        return typed

    def _replace_unread(self) -> None:
        """A weight that is read in 16 bits only keeps its name."""
        read = {name for node in self.nodes for name in node.input}
        renamed = {typed: typed.removesuffix(f".{self.suffix}") for typed in self.new_initializers}
        renamed = {typed: name for typed, name in renamed.items() if name not in read}
        for node in self.nodes:
            for position, name in enumerate(node.input):
                node.input[position] = renamed.get(name, name)
        kept = [t for t in self.model.graph.initializer if t.name not in renamed.values()]
        for typed, tensor in self.new_initializers.items():
            tensor.name = renamed.get(typed, typed)
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend([*kept, *self.new_initializers.values()])

    def _cast(self, name: str, element: int, reader: NodeProto) -> str:
        # Narrowing belongs to what writes the tensor, widening to what reads it: there an engine
        # fuses the cast, and there the block inventory counts it.
        place, to = (name, self.suffix) if element == self.element else (reader.name, "fp32")
        cast = f"{place}/Cast_{to}"
        self.cast_names[cast] += 1
        if self.cast_names[cast] > 1:
            cast = f"{cast}_{self.cast_names[cast] - 1}"
        output = f"{cast}_output_0"
        self.nodes.append(helper.make_node("Cast", [name], [output], name=cast, to=element))
        self.casts += 1
        self.types[output] = element
        return output

    def _cast_output(self, name: str, element: int) -> None:
        """A graph output keeps its name; what wrote it gets another one."""
        inner = f"{name}_{'fp32' if self.types[name] == FLOAT else self.suffix}"
        for node in self.nodes:
            for fields in (node.input, node.output):
                for position, found in enumerate(fields):
                    if found == name:
                        fields[position] = inner
        cast = helper.make_node("Cast", [inner], [name], name=f"{inner}/Cast", to=element)
        self.nodes.append(cast)
        self.casts += 1


def _float_tensors(model: onnx.ModelProto) -> dict[str, int]:
    """Every float32 tensor of the main graph."""
    found = element_types(model)
    unknown = [name for node in model.graph.node for name in node.output if name not in found]
    if unknown:
        raise VimDeployError(
            "VIM-502",
            "the types of the graph cannot be worked out",
            why=f"unknown: {unknown[0]} and {len(unknown) - 1} more",
            fix="report this model config",
        )
    return {name: element for name, element in found.items() if element == FLOAT}


def _takes(node: NodeProto, positions: Iterable[int], element: int, opset: int) -> bool:
    """Whether the operator is defined for ``element`` at these inputs."""
    schema = defs.get_schema(node.op_type, opset, "")
    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    wanted = f"tensor({TensorProto.DataType.Name(element).lower()})"
    formal = [schema.inputs[min(position, len(schema.inputs) - 1)] for position in positions]
    return all(wanted in allowed.get(item.type_str, ()) for item in formal)


def to_half(tensor: TensorProto, element: int, name: str) -> tuple[TensorProto, WeightRange]:
    """``tensor`` (float32) under ``name`` in the 16-bit type ``element``, rounded to nearest."""
    values: NDArray[Any] = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        half = values.astype(helper.tensor_dtype_to_np_dtype(element))
    widened = half.astype(np.float32)
    magnitude = np.abs(values)
    subnormal = (magnitude < TABLE[PRECISIONS[element]].smallest_normal) & (widened != values)
    found = WeightRange(
        name=tensor.name,
        elements=int(values.size),
        overflowed=int((np.isfinite(values) & ~np.isfinite(widened)).sum()),
        subnormal=int(subnormal.sum()),
        vanished=int(((widened == 0) & (values != 0)).sum()),
        largest=float(magnitude.max(initial=0.0)),
    )
    return numpy_helper.from_array(half, name), found


def require_no_overflow(weights: Sequence[WeightRange], precision: str) -> None:
    """VIM-505 naming the weights that 16 bits cannot hold."""
    lost = [weight for weight in weights if weight.overflowed]
    if not lost:
        return
    shown = ", ".join(f"{w.name} ({w.overflowed} values, up to {w.largest:.3g})" for w in lost[:5])
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    raise VimDeployError(
        "VIM-505",
        f"{len(lost)} weights do not fit into {precision}",
        why=f"larger than its largest number: {shown}{more}",
        fix="--precision bf16, or keep their roles in float32 with --precision-policy FILE",
    )
