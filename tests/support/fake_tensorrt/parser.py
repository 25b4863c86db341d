"""The ONNX parser of the fake: what it accepts, refuses and turns into plugins, by release."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from tests.support.fake_tensorrt.api import Base, attribute, only

_TEN, _PLUGIN_FIRST = (10, 0), (10, 7)

_NETWORK_TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT64: "INT64",
    TensorProto.INT32: "INT32",
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.DOUBLE: "FLOAT",
    TensorProto.INT8: "INT8",
    TensorProto.FLOAT8E4M3FN: "FP8",
}
_LAYER_TYPES = {
    "Cast": "CAST",
    "Constant": "CONSTANT",
    "Conv": "CONVOLUTION",
    "MatMul": "MATRIX_MULTIPLY",
    "Gemm": "MATRIX_MULTIPLY",
    "Shape": "SHAPE",
    "Reshape": "SHUFFLE",
    "Transpose": "SHUFFLE",
    "Slice": "SLICE",
    "Gather": "GATHER",
    "Relu": "ACTIVATION",
    "ReduceMean": "REDUCE",
    "Concat": "CONCATENATION",
    "Identity": "IDENTITY",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
}
_NARROW = (TensorProto.INT8, TensorProto.FLOAT8E4M3FN)
_COMPARISONS = ("Equal", "Less", "Greater", "Not", "And")


class ParserError(Base):
    """One error; 8.6 does not name the node's operator."""

    def __init__(self, code: str, text: str, name: str = "", operator: str = "") -> None:
        self._code, self._text, self._name, self._operator = code, text, name, operator

    def code(self) -> str:
        return f"ErrorCode.{self._code}"

    def desc(self) -> str:
        return self._text

    def func(self) -> str:
        return "importModel"

    def node(self) -> int:
        return 0

    @only(since=_TEN)
    def node_name(self) -> str:
        return self._name

    @only(since=_TEN)
    def node_operator(self) -> str:
        return self._operator

    @only(since=_TEN)
    def local_function_stack(self) -> list[str]:
        return []


class OnnxParser(Base):
    """Fills a network, or lists its errors."""

    flags = attribute(0)

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger = network, logger
        self._errors: list[Any] = []
        self._types: dict[str, str] = {}
        self._inferred: dict[str, str] = {}

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        return self._parse(lambda: onnx.load(model))

    def parse(self, model: bytes) -> bool:
        return self._parse(lambda: onnx.load_from_string(model))

    def _parse(self, load: Callable[[], onnx.ModelProto]) -> bool:
        try:
            model = load()
        except (OSError, DecodeError, ValueError):
            self._refuse("MODEL_DESERIALIZE_FAILED", "Failed to parse the ONNX model.")
            return False
        if not self._acceptable(model):
            return False
        self._read_tensors(model)
        functions = {item.name: item for item in model.functions}
        for node in model.graph.node:
            self._import(node, functions)
        self._finish(model)
        return not self._errors

    def _refuse(self, code: str, text: str, node: Any = None) -> None:
        name, operator = (node.name, node.op_type) if node is not None else ("", "")
        self._errors.append(self.fake.module.ParserError(code, text, name, operator))

    def _acceptable(self, model: onnx.ModelProto) -> bool:
        if self.fake.release >= _TEN:
            return True
        opset = next(item.version for item in model.opset_import if item.domain == "")
        if opset > 17:
            self._refuse("UNSUPPORTED_NODE", f"opset {opset} is newer than the supported 17")
        if model.functions:
            self._refuse("INVALID_GRAPH", "the model holds local functions")
        if any(tensor.data_type == TensorProto.BFLOAT16 for tensor in model.graph.initializer):
            self._refuse("UNSUPPORTED_NODE", "Unsupported ONNX data type: BFLOAT16 (16)")
        # A zero point is not read: the node's own type says which it is.
        narrow = {item.name for item in model.graph.initializer if item.data_type in _NARROW}
        for node in model.graph.node:
            if narrow & set(node.input[:1]):
                self._refuse("UNSUPPORTED_NODE", "invalid weights type of Int8", node)
        return not self._errors

    def _read_tensors(self, model: onnx.ModelProto) -> None:
        # What stands behind an op without a function has no type here: see _output_type.
        graph = onnx.shape_inference.infer_shapes(model).graph
        for value in (*graph.value_info, *graph.output):
            kind = value.type.tensor_type.elem_type
            if kind in _NETWORK_TYPES:
                self._inferred[value.name] = _NETWORK_TYPES[kind]
        for tensor in model.graph.initializer:
            self._types[tensor.name] = _NETWORK_TYPES[tensor.data_type]
            values = onnx.numpy_helper.to_array(tensor)
            digest = hashlib.sha256(values.tobytes()).hexdigest()
            kind = self._types[tensor.name]
            if kind in ("FLOAT", "HALF", "BF16"):
                self._network._weights[tensor.name] = [kind, int(values.size), digest]
        for value in model.graph.input:
            if value.name not in self._types:
                self._types[value.name] = _NETWORK_TYPES[value.type.tensor_type.elem_type]
                tensor = self._tensor(value.name, _shape_of(value))
                self._network._inputs.append(tensor)

    def _tensor(self, name: str, shape: tuple[int, ...] = ()) -> Any:
        module = self.fake.module
        kind = self._types[name]
        return module.ITensor(name, getattr(module.DataType, kind, module.DataType.INT32), shape)

    def _import(self, node: onnx.NodeProto, functions: dict[str, Any]) -> None:
        if node.domain == "":
            self._add(node, _LAYER_TYPES.get(node.op_type, "ELEMENTWISE"))
            return
        function = functions.get(node.op_type)
        creator = self.fake.creators.get(node.op_type)
        if function is not None and (creator is None or self.fake.release < _PLUGIN_FIRST):
            for index in range(len(function.node)):
                self._add(node, "ELEMENTWISE", suffix=f"_{index}")
            return
        if creator is None:
            self._refuse(
                "INVALID_NODE",
                "Plugin not found, are the plugin name, version, and namespace correct?",
                node,
            )
            return
        self._add(node, "PLUGIN_V2" if self.fake.release < _TEN else "PLUGIN_V3")

    def _add(self, node: onnx.NodeProto, kind: str, suffix: str = "") -> None:
        for name in node.output:
            self._types[name] = self._inferred.get(name) or self._output_type(node)
        module = self.fake.module
        layer = module.ILayer(
            node.name + suffix,
            getattr(module.LayerType, kind),
            [self._tensor(name) for name in node.input if name in self._types],
            [self._tensor(name) for name in node.output],
        )
        layer._op = node.op_type
        self._network._layers.append(layer)

    def _output_type(self, node: onnx.NodeProto) -> str:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Cast":
            return _NETWORK_TYPES[attributes["to"]]
        if node.op_type == "Shape":
            return "INT64"
        if node.op_type in _COMPARISONS:
            return "BOOL"
        if node.op_type == "Constant":
            tensor = attributes.get("value")
            return _NETWORK_TYPES[tensor.data_type] if tensor is not None else "INT64"
        if node.op_type == "QuantizeLinear":
            return self._types[node.input[2]] if len(node.input) > 2 else "INT8"
        if node.op_type == "DequantizeLinear":
            return self._types[node.input[1]]
        # Where chooses between the second and the third.
        sources = node.input[1:] if node.op_type == "Where" else node.input
        known = [self._types[name] for name in sources if name in self._types]
        return known[0] if known else "FLOAT"

    def _finish(self, model: onnx.ModelProto) -> None:
        for value in model.graph.output:
            self._types.setdefault(value.name, "FLOAT")
            self._network._outputs.append(self._tensor(value.name, _shape_of(value)))


def _shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(int(dim.dim_value) if dim.HasField("dim_value") else -1 for dim in dims)


CLASSES = (ParserError, OnnxParser)
