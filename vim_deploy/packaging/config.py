"""A model's configuration for Triton: typed fields, and their text.

The fields are those of Triton's ``ModelConfig`` (model_config.proto) that a picture classifier
needs, under the same names, so that the text follows from the records alone: a str becomes a quoted
string, a ``Keyword`` an enum's name, a tuple a repeated field, a mapping a map; what is None, empty
or False is left out, as protobuf's own text form does with defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vim_deploy.errors import VimDeployError


class Keyword(str):
    """The name of an enum's value, which stands unquoted."""

    __slots__ = ()


#: NumPy's dtype -> Triton's. bfloat16 is missing: clients have no array of it.
DATA_TYPES = {
    "bool": Keyword("TYPE_BOOL"),
    "uint8": Keyword("TYPE_UINT8"),
    "int8": Keyword("TYPE_INT8"),
    "int32": Keyword("TYPE_INT32"),
    "int64": Keyword("TYPE_INT64"),
    "float16": Keyword("TYPE_FP16"),
    "float32": Keyword("TYPE_FP32"),
}


@dataclass(frozen=True)
class Tensor:
    """An input or output; ``dims`` without the batch where the model batches, -1 for any size."""

    name: str
    data_type: Keyword
    dims: tuple[int, ...]
    label_filename: str = ""


@dataclass(frozen=True)
class InstanceGroup:
    """How many copies of the model run, where, and with which optimisation profiles."""

    count: int
    kind: Keyword
    profile: tuple[str, ...] = ()


@dataclass(frozen=True)
class DynamicBatching:
    """Which batches the server forms from single requests, and how long it waits for them."""

    preferred_batch_size: tuple[int, ...]
    max_queue_delay_microseconds: int


@dataclass(frozen=True)
class WarmupInput:
    """One input of a warm-up request, filled with zeros."""

    data_type: Keyword
    dims: tuple[int, ...]
    zero_data: bool = True


@dataclass(frozen=True)
class ModelWarmup:
    """A request the server answers to itself before it reports ready."""

    name: str
    batch_size: int
    inputs: Mapping[str, WarmupInput]
    count: int = 1


@dataclass(frozen=True)
class GraphShape:
    """Size of one input, without the batch, in a recorded CUDA graph."""

    dim: tuple[int, ...]


@dataclass(frozen=True)
class GraphSpec:
    """A batch size for which a CUDA graph is recorded."""

    batch_size: int
    input: Mapping[str, GraphShape]


@dataclass(frozen=True)
class Cuda:
    """CUDA graphs of the TensorRT backend."""

    graphs: bool
    graph_spec: tuple[GraphSpec, ...]


@dataclass(frozen=True)
class Optimization:
    """What the backend does for speed."""

    cuda: Cuda


@dataclass(frozen=True)
class Parameter:
    """A value for the backend or the model's own code."""

    string_value: str


@dataclass(frozen=True)
class ModelConfig:
    """One model; ``max_batch_size`` 0 for a model that does not batch."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: tuple[Tensor, ...]
    output: tuple[Tensor, ...]
    default_model_filename: str
    instance_group: tuple[InstanceGroup, ...]
    dynamic_batching: DynamicBatching | None = None
    optimization: Optimization | None = None
    model_warmup: tuple[ModelWarmup, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def data_type(dtype: str, tensor: str) -> Keyword:
    """Triton's name of a dtype; VIM-426 for one that cannot be served."""
    if dtype not in DATA_TYPES:
        raise VimDeployError(
            "VIM-426",
            f"the tensor {tensor!r} of type {dtype} cannot be served",
            why="clients have arrays of " + ", ".join(DATA_TYPES),
            fix="export the model with --io-precision fp32",
        )
    return DATA_TYPES[dtype]


def render(config: ModelConfig) -> str:
    """The text of ``config.pbtxt``."""
    return "\n".join(_fields(config, "")) + "\n"


def _fields(message: Any, indent: str) -> Iterator[str]:  # noqa: ANN401 - any of the records
    for entry in dataclasses.fields(message):
        value = getattr(message, entry.name)
        if value in (None, "", (), False) or (isinstance(value, Mapping) and not value):
            continue
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield f"{indent}{entry.name} {{"
                yield f"{indent}  key: {_scalar(key)}"
                yield from _message("value", item, indent + "  ")
                yield f"{indent}}}"
        elif isinstance(value, tuple) and dataclasses.is_dataclass(value[0]):
            for item in value:
                yield from _message(entry.name, item, indent)
        elif isinstance(value, tuple):
            yield f"{indent}{entry.name}: [ {', '.join(map(_scalar, value))} ]"
        elif dataclasses.is_dataclass(value):
            yield from _message(entry.name, value, indent)
        else:
            yield f"{indent}{entry.name}: {_scalar(value)}"


def _message(name: str, value: Any, indent: str) -> Iterator[str]:  # noqa: ANN401
    yield f"{indent}{name} {{"
    yield from _fields(value, indent + "  ")
    yield f"{indent}}}"


def _scalar(value: Any) -> str:  # noqa: ANN401 - a str, Keyword, int or bool
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Keyword | int):
        return str(value)
    return '"' + "".join(map(_escaped, str(value))) + '"'


def _escaped(character: str) -> str:
    """One character inside a quoted string of protobuf's text form."""
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode())
