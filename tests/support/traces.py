"""Traces that the tests of one run share: PyTorch's exporter sees each module once.

Tracing is nine tenths of an export, and the same few models are exported again and again: in
another form or precision, by another stage, in the other worker. A trace is kept under everything
it is made of, so whatever differs in a module, or in the code of its parts, is traced anew. What
every export makes of a trace first, a graph that is tidied, is kept under the trace's bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import onnx

from tests.support.locks import alone
from tests.support.source import REPOSITORY

if TYPE_CHECKING:
    from vim_deploy.model.deployed import DeployedModel

Trace = Callable[..., onnx.ModelProto]
Step = Callable[[onnx.ModelProto], onnx.ModelProto]
#: Attributes of a part of a module that its traced graph may depend on, beside its tensors.
_PLAIN = (bool, int, float, str, tuple, type(None))
#: Fields of a configuration that change no float32 result, so that no module reads them: one value
#: for all. They stand in no checkpoint, and an inferred configuration has another than a given one.
_NO_EFFECT: dict[str, Any] = {"fused_add_norm": True, "residual_in_fp32": True}
#: The exporter's tables of operators, by what they were asked for with.
_OPERATORS: dict[str, Any] = {}


def replaced(exporter: Any, folder: Path) -> dict[str, Trace | Step]:
    """What of ``vim_deploy.graph.export_graph`` is to be replaced, by name."""
    return {
        "trace": shared(exporter.trace, folder),
        "tidy": shared_step(exporter.tidy, folder),
    }


def shared(trace: Trace, folder: Path) -> Trace:
    """``vim_deploy.graph.trace.trace``, which takes from ``folder`` what it has traced before.

    Several processes may use one folder: who wants what another is tracing waits for it. What an
    exporter refuses is not kept.
    """

    def traced(module: DeployedModel, *, batch: int | None) -> onnx.ModelProto:
        path = folder / f"{key(module, batch)}.onnx"
        with operators_read_once():
            return _kept(path, lambda: trace(module, batch=batch))

    return traced


@contextlib.contextmanager
def operators_read_once() -> Iterator[None]:
    """PyTorch's exporter reads its operators for the first trace of this process only.

    It reads the source of all of them for every trace, which is a fifth of a small model's. Each
    trace gets lists of its own: its caller's operators are put into them.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = ONNXRegistry.from_torchlib

    def from_torchlib(**options: int) -> ONNXRegistry:
        asked = repr(sorted(options.items()))
        if asked not in _OPERATORS:
            _OPERATORS[asked] = read(**options)
        known, table = _OPERATORS[asked], ONNXRegistry()
        vars(table).update(vars(known), functions={k: [*v] for k, v in known.functions.items()})
        return table

    with mock.patch.object(ONNXRegistry, "from_torchlib", staticmethod(from_torchlib)):
        yield


def shared_step(step: Step, folder: Path) -> Step:
    """``step``, which makes a graph of a graph, taking from ``folder`` what it has made before."""

    def made(model: onnx.ModelProto) -> onnx.ModelProto:
        given = hashlib.sha256(model.SerializeToString()).hexdigest()
        return _kept(folder / f"{given}-{step.__name__}.onnx", lambda: step(model))

    return made


def _kept(path: Path, make: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
    """The graph at ``path``, which one process makes where there is none yet."""
    if not path.exists():
        with alone(path.with_suffix(".lock")):
            if not path.exists():
                model = make()
                # Under its name only when it is whole: another process may look at any time.
                handle, part = tempfile.mkstemp(dir=path.parent)
                with os.fdopen(handle, "wb") as stream:
                    stream.write(model.SerializeToString())
                Path(part).replace(path)
                return model
    return onnx.load(path)


def variables(folder: Path) -> dict[str, str]:
    """Environment variables of a Python process that shares the traces in ``folder``.

    What it runs is not changed otherwise; the repository is on its path.
    """
    path = (Path(__file__).with_name("started"), REPOSITORY)
    return {"VIM_TEST_TRACES": str(folder), "PYTHONPATH": os.pathsep.join(map(str, path))}


def key(module: DeployedModel, batch: int | None) -> str:
    """SHA-256 of what a trace of ``module`` is made of: parts, their code, settings, tensors."""
    state = hashlib.sha256()
    for said in _described(module, batch):
        state.update(said.encode() + b"\0")
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        values = tensor.detach().cpu().contiguous().numpy()
        state.update(f"{name} {values.dtype} {values.shape}".encode() + b"\0")
        state.update(values.tobytes())
    return state.hexdigest()


def _described(module: DeployedModel, batch: int | None) -> Iterator[str]:
    network = module.model
    known = {name: value for name, value in _NO_EFFECT.items() if hasattr(network.config, name)}
    config = dataclasses.replace(network.config, **known)
    # How a picture is cut into windows is no part of a network either.
    dense = network.dense and dataclasses.replace(network.dense, test=None)
    yield repr((batch, module.preprocess, module.head, config, dense))
    yield repr(module.head.output_names)
    yield from _kind(module.head)
    for name, part in module.named_modules():
        yield name
        yield from _kind(part)
        plain = {k: v for k, v in vars(part).items() if isinstance(v, _PLAIN)}
        yield repr(sorted(plain.items()))


def _kind(part: object) -> Iterator[str]:
    """What class it is of, and what its ``forward`` does."""
    kind = type(part)
    code = kind.forward.__code__  # type: ignore[attr-defined]
    yield f"{kind.__module__}.{kind.__qualname__}"
    yield code.co_code.hex()
    yield repr([value for value in code.co_consts if isinstance(value, _PLAIN)])
