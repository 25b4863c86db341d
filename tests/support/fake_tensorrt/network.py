"""Networks, layers and tensors of the fake."""

from __future__ import annotations

from typing import Any

from tests.support.fake_tensorrt.api import Base, attribute, only

_TEN, _ELEVEN = (10, 0), (11, 0)


class ITensor(Base):
    """A tensor; its type is that of the parsed graph."""

    name = attribute("")
    dtype = attribute(settable=False)
    shape = attribute(())

    def __init__(self, name: str, dtype: Any, shape: tuple[int, ...]) -> None:
        put(self, name=name, dtype=dtype, shape=shape)


def put(item: Any, **values: Any) -> None:
    """Set attributes without recording them as the user's doing."""
    for name, value in values.items():
        item.__dict__[getattr(type(item), name).fget.key] = value


class ILayer(Base):
    """A layer with a name, a type, inputs and outputs."""

    name = attribute("")
    type = attribute(settable=False)
    precision = attribute(None, until=_ELEVEN)

    def __init__(self, name: str, kind: Any, inputs: list[Any], outputs: list[Any]) -> None:
        put(self, name=name, type=kind)
        self._inputs, self._outputs = inputs, outputs
        self._output_types: dict[int, Any] = {}
        self._op = ""

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_output(self, index: int) -> Any:
        return self._outputs[index]

    @only(until=_ELEVEN)
    def set_output_type(self, index: int, dtype: Any) -> None:
        self._output_types[index] = dtype


class INetworkDefinition(Base):
    """A network; weakly typed before 10, and in 10 without the flag."""

    def __init__(self, strongly_typed: bool) -> None:
        self._strongly_typed = strongly_typed
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._layers: list[Any] = []
        self._weights: dict[str, list[Any]] = {}
        self._debug: list[Any] = []

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]

    def get_layer(self, index: int) -> Any:
        return self._layers[index]

    @only(since=_TEN)
    def mark_debug(self, tensor: Any) -> bool:
        known = any(tensor is output for layer in self._layers for output in layer._outputs)
        if known and not any(tensor is marked for marked in self._debug):
            self._debug.append(tensor)
        return known


CLASSES = (ITensor, ILayer, INetworkDefinition)
