"""Try every native op in ONNX Runtime against float64: ``vim-deploy plugin test --target ...``.

Each case is a model of one node, which has no function: what runs is the library's kernel or
nothing. It runs on one thread and on several, whose cut into pieces is another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from vim_deploy.codec import stored
from vim_deploy.errors import VimDeployError
from vim_deploy.ops import OPS, contract
from vim_deploy.ops.op import Kind
from vim_deploy.plugin.cases import Case, cases
from vim_deploy.plugin.check import CheckReport, CheckResult, tolerance
from vim_deploy.plugin.kernels import DataType
from vim_deploy.plugin.ort_library import OrtLibraryInfo, describe_ort_library
from vim_deploy.plugin.region_cases import region_cases
from vim_deploy.runtimes.base import Array
from vim_deploy.runtimes.onnxruntime import capability as ort

_ELEMENTS = {
    DataType.FP32: TensorProto.FLOAT,
    DataType.FP16: TensorProto.FLOAT16,
    DataType.BF16: TensorProto.BFLOAT16,
}
#: Threads of the sessions; three cut batches of one and two in uneven pieces.
THREADS = (1, 3)
#: Oldest intermediate form and opset that exported files have.
_IR, _OPSET = 8, 17


@stored(keys=("library", "runtime=place", "ok", "runs", "failures", "results"))
@dataclass(frozen=True)
class OpsCheckReport(CheckReport):
    """Every result of one library in ONNX Runtime; a result's tactic is its number of threads."""

    way: ClassVar[str] = "threads"


def check_native_ops(
    library: Path, say: Callable[[str], None], chosen: Iterable[Case] | None = None
) -> OpsCheckReport:
    """Check a library of native ops in the installed ONNX Runtime.

    Args:
        library: the file.
        say: told what is checked.
        chosen: cases to run; by default all of every op: one that the library lacks fails.

    Raises:
        VimDeployError: VIM-301, VIM-302 (no ONNX Runtime, or not with the library's provider),
            VIM-401, VIM-417, VIM-903 (no library, or not one that fits).
    """
    info = describe_ort_library(library)
    ort.require_provider(info.provider)
    ort.require_api(info.ort_api)
    ort.try_library(library)
    place = f"ONNX Runtime {ort.capabilities().version} {info.provider.upper()}, {info.title}"
    say(f"{library} in {place}")
    results = tuple(
        _run(info, case, threads)
        for case in (_cases(info) if chosen is None else chosen)
        for threads in THREADS
    )
    return OpsCheckReport(str(library), place, results)


def _cases(info: OrtLibraryInfo) -> Iterator[Case]:
    """Those of all ops that a library for this provider must have."""
    yield from cases()
    if info.provider == "cpu":
        yield from region_cases()


def _run(info: OrtLibraryInfo, case: Case, threads: int) -> CheckResult:
    distance, fault = None, ""
    settings = ort.SessionSettings(info.provider, threads=threads, library=Path(info.path))
    try:
        session = ort.create_session(node_model(case), settings, case.op)
        given = np.asarray(ort.run_session(session, [case.output], feeds_of(case), case.op)[0])
    except VimDeployError as error:
        fault = error.why or error.message
    else:
        distance, fault = case.compare(given)
    return CheckResult(
        op=case.op,
        dtype=case.dtype.name.lower(),
        case=case.name,
        tactic=threads,
        error=distance,
        tolerance=tolerance(case, on_gpu=info.provider == "cuda"),
        fault=fault,
    )


def feeds_of(case: Case) -> dict[str, Array]:
    """The inputs of ``node_model``."""
    kinds = dict.fromkeys(OPS[case.op].int64, np.int64)
    return {
        name: values.astype(kinds.get(name, np.float32)) for name, values in case.inputs.items()
    }


def node_model(case: Case) -> bytes:
    """A model of the case's node; inputs and output are float32, which holds every type's values.

    Numbers of groups are int64. Inside, activations are cast to the case's element type, and the
    output back.
    """
    element = _ELEMENTS[case.dtype]
    names = {name: f"{name}_T" if name in case.activations else name for name in case.inputs}
    raw = f"{case.output}_T"
    nodes = [
        *(_cast(name, names[name], element) for name in names if name in case.activations),
        helper.make_node(
            case.op, list(names.values()), [raw], domain=contract.DOMAIN, **_attributes(case)
        ),
        _cast(raw, case.output, TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "case",
        [
            _value(name, values.shape, name in OPS[case.op].int64)
            for name, values in case.inputs.items()
        ],
        [_value(case.output, case.expected.shape)],
    )
    opsets = [
        helper.make_opsetid("", _OPSET),
        helper.make_opsetid(contract.DOMAIN, contract.DOMAIN_VERSION),
    ]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
    return bytes(model.SerializeToString())


def _attributes(case: Case) -> dict[str, Any]:
    """Attributes of the node; the lists of directions are the function's, which is not there."""
    params = case.params()
    return {
        name: [0] if kind is Kind.DIRECTIONS else getattr(params, name)
        for name, kind in OPS[case.op].attributes.items()
    }


def _cast(source: str, target: str, element: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], to=element)


def _value(name: str, shape: tuple[int, ...], int64: bool = False) -> ValueInfoProto:
    return helper.make_tensor_value_info(
        name, TensorProto.INT64 if int64 else TensorProto.FLOAT, shape
    )
