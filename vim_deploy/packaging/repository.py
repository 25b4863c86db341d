"""From an artifact and options to the configuration of its model in Triton, and its text.

A configuration is a mapping with the names of Triton's ``ModelConfig`` (model_config.proto). Its
text is written by hand: protobuf's own writer needs the schema of tritonclient, which only
``package --check`` asks for. A str becomes a quoted string, a ``Keyword`` an enum's name, a tuple a
repeated field, a mapping a message, a ``Map`` a map; what is None, empty, 0 or False is left out,
as protobuf's own text form does with defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from vim_deploy import heads
from vim_deploy.artifact.profiles import DEFAULT_MAX_BATCH
from vim_deploy.errors import VimDeployError
from vim_deploy.packaging.servable import ONNX_NAME, PLAN_NAME, Servable
from vim_deploy.precisions import TABLE
from vim_deploy.ranges import (
    BATCH,
    INSTANCES,
    QUEUE_DELAY_US,
    SERVED_THREADS,
    require_all,
    require_names,
)
from vim_deploy.specs import Backend, OpsChoice, TensorSpec

LABELS_NAME = "labels.txt"
TENSORRT, ONNXRUNTIME, PYTHON = "tensorrt", "onnxruntime", "python"
#: Of a detector's ONNX file: each picture has up to a thousand regions, which take memory and time,
#: and the server prepares itself with the largest batch.
DETECTOR_MAX_BATCH = 1
#: How long the server waits for more requests to join a batch, in microseconds: well below the
#: time of one picture on a CPU, and about that of a small model on a GPU.
DEFAULT_QUEUE_DELAY_US = 500
#: The parameter in which the python backend's model.py finds the name of the native ops.
OPS_PARAMETER = "OPS_LIBRARY"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PLATFORMS = {TENSORRT: "tensorrt_plan", ONNXRUNTIME: "onnxruntime_onnx", PYTHON: ""}
_KINDS = {TENSORRT: "KIND_GPU", ONNXRUNTIME: "KIND_AUTO", PYTHON: "KIND_CPU"}
_FILES = {TENSORRT: PLAN_NAME, ONNXRUNTIME: ONNX_NAME, PYTHON: "model.py"}


class Keyword(str):
    """The name of an enum's value, which stands unquoted."""

    __slots__ = ()


class Map(dict[str, Mapping[str, Any]]):
    """A protobuf map: messages by key."""


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
class ServingOptions:
    """How the model is served.

    Attributes:
        runtime: Triton's backend: ``tensorrt``, ``onnxruntime`` or ``python``; None for the one of
            the artifact.
        name: of the model; None for the artifact's file name.
        max_batch: most pictures in one execution; None for what the artifact takes, or 32, or of a
            detector 1.
        instances: copies of the model that run side by side.
        queue_delay_us: how long a request may wait for others; 0 runs what is there at once.
        dynamic_batching: let the server join requests.
        cuda_graphs: record CUDA graphs, for the TensorRT backend.
        threads: threads inside one operator, for the python backend; 0 for its own choice.
        ops: native ops for an ONNX file: ``auto`` takes them along where they are found and fit,
            ``native`` in any case, ``function`` never.
    """

    runtime: str | None = None
    name: str | None = None
    max_batch: int | None = None
    instances: int = 1
    queue_delay_us: int = DEFAULT_QUEUE_DELAY_US
    dynamic_batching: bool = True
    cuda_graphs: bool = False
    threads: int = 0
    ops: OpsChoice = "auto"

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_names(self, runtime=get_args(Backend), ops=get_args(OpsChoice))
        require_all(
            self,
            max_batch=BATCH,
            instances=INSTANCES,
            queue_delay_us=QUEUE_DELAY_US,
            threads=SERVED_THREADS,
        )


def choose_runtime(servable: Servable, asked: str | None) -> str:
    """The backend to serve with: the one asked for, else that of the artifact.

    Raises:
        VimDeployError: VIM-203 when the artifact is of another kind; VIM-426 when ONNX Runtime
            cannot run it.
    """
    is_plan = servable.file.record is not None
    runtime = asked or (TENSORRT if is_plan else ONNXRUNTIME)
    if is_plan != (runtime == TENSORRT):
        raise VimDeployError(
            "VIM-203",
            f"--runtime {runtime} does not serve {servable.file.name}",
            why="tensorrt serves engines, onnxruntime and python serve ONNX files",
            fix="leave --runtime away, or name the other file",
        )
    if servable.off_cpu:
        raise VimDeployError(
            "VIM-426",
            f"{servable.file.name} cannot be served by ONNX Runtime",
            why=f"it holds {servable.off_cpu} operators, which ONNX Runtime does not have on a CPU",
            fix="package an engine of it, or export with --precision "
            + " or ".join(name for name, row in TABLE.items() if row.on_cpu),
        )
    if runtime == ONNXRUNTIME and servable.precision == "fp8":
        raise VimDeployError(
            "VIM-426",
            f"{servable.file.name} cannot be served by Triton's backend for ONNX Runtime",
            why="releases of ONNX Runtime refuse fp8 products unless a session is told to leave "
            "them as they are (session.disable_quant_qdq), and that backend cannot be told",
            fix="--runtime python, package an engine of it, or export with --precision int8",
        )
    return runtime


def model_name(servable: Servable, asked: str | None) -> str:
    """The model's name; VIM-202 for one that is no file name or no part of an address."""
    name = asked or servable.file.name.partition(".")[0]
    if not _NAME.fullmatch(name):
        raise VimDeployError(
            "VIM-202",
            f"{name!r} is not a name for a model",
            why="it becomes a folder and a part of an address: letters, digits, _ . - are taken, "
            "and a letter or digit comes first",
            fix="--name NAME",
        )
    return name


def largest_batch(servable: Servable, asked: int | None) -> int:
    """``max_batch_size`` of the configuration; 0 for a model with a fixed batch.

    Raises:
        VimDeployError: VIM-203 for a batch asked of a model whose batch is fixed; VIM-905 for one
            that no profile of the engine takes.
    """
    if not servable.batches:
        if asked is not None:
            raise VimDeployError(
                "VIM-203",
                f"--max-batch {asked} contradicts {servable.file.name}, whose batch is fixed",
                why=f"its input is {list(servable.input.shape)}",
                fix="leave --max-batch away, or export the model with --batch dynamic",
            )
        return 0
    if not servable.profiles:
        return asked or (DEFAULT_MAX_BATCH if servable.size is None else DETECTOR_MAX_BATCH)
    most = max(item.max for item in servable.profiles)
    if asked is not None and asked > most:
        raise VimDeployError(
            "VIM-905",
            f"{servable.file.name} does not take a batch of {asked}",
            why="its profiles take "
            + ", ".join(f"{item.min} to {item.max}" for item in servable.profiles),
            fix=f"--max-batch {most} or less, or build the engine with --max-batch {asked}",
        )
    return asked or most


def model_config(
    servable: Servable, options: ServingOptions, *, ops_library: str = ""
) -> dict[str, Any]:
    """The configuration; errors as of the functions it joins.

    ``ops_library`` is the library of native ops by the path that the backend opens it by.
    """
    runtime = choose_runtime(servable, options.runtime)
    most = largest_batch(servable, options.max_batch)
    inputs = tuple(_tensor(spec, most) for spec in servable.inputs)
    if options.cuda_graphs and runtime != TENSORRT:
        raise VimDeployError(
            "VIM-203",
            f"--cuda-graphs is for engines, and --runtime is {runtime}",
            fix="leave it away, or package an engine",
        )
    batching = bool(most) and options.dynamic_batching
    if batching:
        _require_no_gap(servable, most)
    sizes = _sizes(servable, most)
    preferred = tuple(size for size in sizes if size > 1) if servable.profiles else ()
    return {
        "name": model_name(servable, options.name),
        "platform": _PLATFORMS[runtime],
        "backend": runtime,
        # 0 for a model that does not batch.
        "max_batch_size": most,
        "input": inputs,
        "output": tuple(
            _tensor(spec, most, _labels(servable, spec)) for spec in servable.file.outputs
        ),
        "default_model_filename": _FILES[runtime],
        "instance_group": (_instances(servable, runtime, options.instances),),
        "dynamic_batching": {
            "preferred_batch_size": preferred,
            "max_queue_delay_microseconds": options.queue_delay_us,
        }
        if batching
        else None,
        "optimization": _graphs(inputs, sizes) if options.cuda_graphs else None,
        "model_warmup": tuple(_warmup(inputs, size) for size in sizes),
        "parameters": _parameters(runtime, options.threads, ops_library, servable.precision),
        # ONNX Runtime's backend hands each name to the loader as it stands here.
        "model_operations": {"op_library_filename": (ops_library,)}
        if ops_library and runtime == ONNXRUNTIME
        else None,
    }


def _require_no_gap(servable: Servable, most: int) -> None:
    """VIM-905 for a batch that no profile takes, but that the server may form from smaller ones."""
    gaps = []
    reached = min((item.min for item in servable.profiles), default=1) - 1
    for item in sorted(servable.profiles, key=lambda item: item.min):
        last = min(item.min - 1, most)
        if last > reached:
            gaps.append(f"{reached + 1}" if last == reached + 1 else f"{reached + 1} to {last}")
        reached = max(reached, item.max)
    if gaps:
        raise VimDeployError(
            "VIM-905",
            f"{servable.file.name} takes no batch of {', '.join(gaps)}",
            why="the server joins requests to batches of any size up to the largest; its profiles "
            "take " + ", ".join(f"{item.min} to {item.max}" for item in servable.profiles),
            fix="--no-dynamic-batching, or build the engine with profiles that leave no gap",
        )


def _sizes(servable: Servable, most: int) -> list[int]:
    """Batch sizes worth preparing for: the ends of the profiles and what they are tuned for."""
    if not most:
        return [1]
    if not servable.profiles:
        return sorted({1, most})
    named: Iterable[int] = (
        size for item in servable.profiles for size in (item.min, item.usual, item.max)
    )
    return sorted({size for size in named if size <= most} | {most})


def _tensor(spec: TensorSpec, most: int, labels: str = "") -> dict[str, Any]:
    """``dims`` without the batch where the model batches, -1 for any size.

    Triton knows no tensor without axes: one number for each picture, as the count of detections,
    goes out as one of a single element.
    """
    sizes = spec.shape[1:] if most else spec.shape
    dims = tuple(-1 if isinstance(size, str) else size for size in sizes)
    if not dims and not most:
        raise VimDeployError(
            "VIM-426",
            f"the tensor {spec.name!r} cannot be served",
            why="it has no axes",
            fix="export the model with another --head",
        )
    kind = data_type(spec.dtype, spec.name)
    return {
        "name": spec.name,
        "data_type": kind,
        "dims": dims or (1,),
        "reshape": None if dims else {"shape": ()},
        "label_filename": labels,
    }


def _labels(servable: Servable, spec: TensorSpec) -> str:
    """The label file of an output whose columns are the classes."""
    scores = heads.of_file(servable.info).has_classes({spec.name: spec.shape})
    fits = len(servable.info.labels) == (spec.shape[-1] if spec.shape else None)
    return LABELS_NAME if scores and fits else ""


def _instances(servable: Servable, runtime: str, count: int) -> dict[str, Any]:
    profiles = tuple(map(str, range(len(servable.profiles)))) if len(servable.profiles) > 1 else ()
    return {"count": count, "kind": Keyword(_KINDS[runtime]), "profile": profiles}


def _graphs(inputs: Iterable[Mapping[str, Any]], sizes: list[int]) -> dict[str, Any]:
    given = Map({tensor["name"]: {"dim": tensor["dims"]} for tensor in inputs})
    specs = tuple({"batch_size": size, "input": given} for size in sizes)
    return {"cuda": {"graphs": True, "graph_spec": specs}}


def _warmup(inputs: Iterable[Mapping[str, Any]], size: int) -> dict[str, Any]:
    """A request of zeros that the server answers to itself before it reports ready."""
    given = Map(
        {
            tensor["name"]: {
                "data_type": tensor["data_type"],
                "dims": tensor["dims"],
                "zero_data": True,
            }
            for tensor in inputs
        }
    )
    return {"name": f"batch_{size}", "batch_size": size, "inputs": given, "count": 1}


def _parameters(runtime: str, threads: int, ops_library: str, precision: str) -> Map:
    if runtime != PYTHON:
        return Map()
    # Tensors then come to the model's code in the CPU's memory, whatever sent them.
    values = {"FORCE_CPU_ONLY_INPUT_TENSORS": "yes", "THREADS": str(threads)}
    if TABLE[precision].quantized:
        values["PRECISION"] = precision
    if ops_library:
        values[OPS_PARAMETER] = ops_library
    return Map({name: {"string_value": value} for name, value in values.items()})


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


def render(config: Mapping[str, Any]) -> str:
    """The text of ``config.pbtxt``."""
    return "\n".join(_fields(config, "")) + "\n"


def _fields(message: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Map):
            for key, item in value.items():
                yield from _message(name, {"key": key, "value": item}, indent)
        elif isinstance(value, Mapping):
            yield from _message(name, value, indent)
        elif value and isinstance(value, tuple) and isinstance(value[0], Mapping):
            for item in value:
                yield from _message(name, item, indent)
        elif value and isinstance(value, tuple):
            yield f"{indent}{name}: [ {', '.join(map(_scalar, value))} ]"
        elif value:
            yield f"{indent}{name}: {_scalar(value)}"


def _message(name: str, value: Mapping[str, Any], indent: str) -> Iterator[str]:
    yield f"{indent}{name} {{"
    yield from _fields(value, indent + "  ")
    yield f"{indent}}}"


def _scalar(value: str | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Keyword | int):
        return str(value)
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    """One character inside a quoted string of protobuf's text form."""
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode())
