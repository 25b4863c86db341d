"""What was built, read from TensorRT's engine inspector, against what was asked for.

The inspector's JSON differs by release: up to 10 a tensor has ``Format/Datatype`` (a word such as
``Half``, or a sentence such as ``Row major linear FP16 format``), 11 has ``Format`` and
``Datatype``. Layers that TensorRT fused have names of its own; tensors that survive keep the names
of the ONNX graph, and these are compared.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import inferred
from vim_deploy.onnx_quantized import around_quantization
from vim_deploy.precisions import TABLE
from vim_deploy.untrusted import parse_json

#: Words of the inspector for the types of precisions, as they begin in its sentences in any case:
#: ``float16`` ends in ``bfloat16``, and ``int8`` in ``uint8``.
_WORDS = {
    row.dtype: re.compile(
        "|".join(rf"(?<![a-z]){name.lower()}" for name in (row.name, row.onnx, row.tensorrt))
    )
    for row in reversed(TABLE.values())
}
_ONNX_TYPES = {onnx.TensorProto.DataType.Value(row.onnx): row.dtype for row in TABLE.values()}
_SHOWN = 12


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine.

    Attributes:
        name: TensorRT's name for it; of several ONNX nodes when it fused them.
        kind: ``LayerType``.
        plugin_type: op type of a plugin, where the inspector tells it.
        origin: ONNX nodes it came from, in TensorRT's own words; may be empty.
        outputs: names of its output tensors, and their types where a precision has them; else "".
    """

    name: str
    kind: str
    plugin_type: str
    origin: str
    outputs: tuple[tuple[str, str], ...]

    @property
    def is_plugin(self) -> bool:
        """Whether it runs a plugin."""
        return self.kind.startswith("Plugin")


@dataclass(frozen=True)
class Findings:
    """What the inspector says.

    Attributes:
        layers: number of engine layers.
        types: layers by the type of their first output.
        plugins: plugin layers by op type.
        compared: tensors whose type was compared with the graph's.
        offenders: those of another type, in words.
    """

    layers: int
    types: dict[str, int]
    plugins: dict[str, int]
    compared: int
    offenders: tuple[str, ...]


def read_layers(text: str) -> tuple[EngineLayer, ...]:
    """The layers in the inspector's JSON.

    Raises:
        ValueError: it is not that JSON, or has names only (no detailed profiling verbosity).
    """
    value = parse_json(text)
    layers = value.get("Layers") if isinstance(value, dict) else None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError("it holds no detailed layers")
    return tuple(_layer(layer) for layer in layers)


def _layer(value: Mapping[str, Any]) -> EngineLayer:
    return EngineLayer(
        name=str(value.get("Name", "")),
        kind=str(value.get("LayerType", "")),
        plugin_type=str(value.get("PluginType", "")),
        origin=str(value.get("Metadata", "")),
        outputs=tuple((str(item.get("Name", "")), _dtype(item)) for item in _outputs(value)),
    )


def _outputs(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = value.get("Outputs") or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"the outputs of layer {value.get('Name')!r} are no list of tensors")
    return found


def _dtype(tensor: Mapping[str, Any]) -> str:
    said = str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "").lower()
    found = (dtype for dtype, words in _WORDS.items() if words.search(said))
    return next(found, "")


def float_types(model: onnx.ModelProto) -> dict[str, str]:
    """Float type of every tensor that a node of the graph writes, by name, as far as known.

    Outputs of our ops have the type of their first input, by the contract; of other operators the
    types are inferred. Left out is what a runtime may take in 8 bits where the graph has floats.
    """
    types = _declared(model.graph)
    # Types that contradict, which the runtime has built all the same: the declared ones count.
    with contextlib.suppress(VimDeployError):
        types.update(_declared(inferred(model, strict=False)))
    written = {name for node in model.graph.node for name in node.output if name}
    written -= around_quantization(model)
    return {name: types[name] for name in sorted(written) if name in types}


def _declared(graph: onnx.GraphProto) -> dict[str, str]:
    return {
        value.name: _ONNX_TYPES[value.type.tensor_type.elem_type]
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type in _ONNX_TYPES
    }


def findings(
    layers: Sequence[EngineLayer], types: Mapping[str, str], plugin_nodes: Mapping[str, str]
) -> Findings:
    """Compare an engine with its graph.

    Args:
        layers: of the engine.
        types: tensor name -> float type of the graph.
        plugin_nodes: node name -> op type of the nodes that were to become plugins.
    """
    counted: Counter[str] = Counter()
    plugins: Counter[str] = Counter()
    offenders = []
    compared = 0
    for layer in layers:
        if layer.is_plugin:
            plugins[_op_of(layer, plugin_nodes)] += 1
        counted.update(dtype for _, dtype in layer.outputs[:1] if dtype)
        for name, dtype in layer.outputs:
            asked = types.get(name)
            if asked is None or not dtype:
                continue
            compared += 1
            if dtype != asked:
                offenders.append(f"layer {layer.name!r}: {name} is {dtype}, asked {asked}")
    return Findings(
        layers=len(layers),
        types=dict(sorted(counted.items())),
        plugins=dict(sorted(plugins.items())),
        compared=compared,
        offenders=tuple(offenders),
    )


def _op_of(layer: EngineLayer, plugin_nodes: Mapping[str, str]) -> str:
    if layer.plugin_type in plugin_nodes.values():
        return layer.plugin_type
    if layer.name in plugin_nodes:
        return plugin_nodes[layer.name]
    return next(
        (op for name, op in plugin_nodes.items() if f"{name}]" in layer.origin),
        layer.plugin_type or "other",
    )


def require_plugins(found: Findings, expected: Mapping[str, int]) -> None:
    """VIM-606 when the engine lacks plugin layers that the graph has."""
    missing = {op: (count, found.plugins.get(op, 0)) for op, count in expected.items()}
    wrong = {op: pair for op, pair in missing.items() if pair[0] != pair[1]}
    if wrong:
        raise VimDeployError(
            "VIM-606",
            "the engine does not hold the plugin layers of the graph",
            why="; ".join(f"{op}: {a} in the graph, {b} in the engine" for op, (a, b)
                          in wrong.items()),
            fix="report this with the ONNX file and the version of TensorRT; --plugin none builds "
            "without the plugin",
        )  # fmt: skip


def require_precision(found: Findings, precision: str, floats: str = "") -> None:
    """VIM-801 when the engine's types are not those that were asked for.

    Quantized products need not be seen: inside a layer that TensorRT fused of many nodes, no tensor
    has a name or type of its own.

    Args:
        precision: of the graph (``precisions.NAMES``).
        floats: of what is not quantized; ``precision`` where nothing is.
    """
    if found.offenders:
        lines = list(found.offenders[:_SHOWN])
        if len(found.offenders) > _SHOWN:
            lines.append(f"and {len(found.offenders) - _SHOWN} more")
        raise _other_precision(precision, "\n".join(lines))
    wanted = TABLE[floats or precision].dtype
    narrow = {TABLE[precision].dtype} if TABLE[precision].quantized else set()
    half = {dtype for dtype in found.types if dtype != "float32"} - narrow
    if wanted != "float32" and wanted not in half:
        raise _other_precision(
            precision, f"no layer computes in {wanted}; layers by type: {found.types}"
        )
    if wanted == "float32" and half:
        raise _other_precision(precision, f"layers by type: {found.types}")
    if not found.compared:
        raise _other_precision(precision, "no tensor of the engine has a name of the graph")


def _other_precision(precision: str, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-801",
        f"the engine is not what was asked for: {precision}",
        why=why,
        fix="nothing was written; export the model with that --precision, and report this with "
        "the version of TensorRT if it stays",
    )
