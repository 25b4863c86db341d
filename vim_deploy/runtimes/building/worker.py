"""What every build process does: take a job, tell what happens, stop when told, report the end.

A compiler crash ends this process and not the tool. The job comes as one line of JSON on standard
input; the end of that input, or any further line, is the order to stop, so a worker never outlives
its parent. Events go to standard output, one JSON object per line::

    {"event": "log", "severity": "warning", "message": ...}
    {"event": "phase", "name": ..., "parent": ..., "steps": 30}
    {"event": "step", "name": ..., "step": 4}
    {"event": "phase_end", "name": ...}
    {"event": "done", "layers": ..., "inputs": [...], "outputs": [...], ...}
    {"event": "failed", "stage": ..., ...}          stages: see ``ReportedError``
    {"event": "cancelled"}

``tensorrt.worker`` and ``tensorrt_rtx.worker`` each add the build itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from vim_deploy.text import storable

#: After the order to stop, how long a build may take to reach its next step. The compiler works
#: for many seconds without one, and there is nothing to save, so the process then just ends.
CANCEL_GRACE_SECONDS = 2.0
#: Exit status after an order to stop.
CANCELLED_STATUS = 3

_NUMPY_NAMES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


class ReportedError(Exception):
    """An expected failure, reported as an event.

    Args:
        stage: ``import``, ``parse``, ``empty``, ``interface``, ``inner-tensors``, ``target``,
            ``profile``, ``build`` or ``write``; ``plugin``, ``inspect`` and ``refit`` with full
            TensorRT.
        facts: JSON-able details for the parent's message.
    """

    def __init__(self, stage: str, **facts: Any) -> None:  # noqa: ANN401
        super().__init__(stage)
        self.stage = stage
        self.facts = facts


class CancelledError(Exception):
    """The build was stopped by order."""


class Events:
    """Writes events to the parent; safe to use from several threads."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: str, **facts: Any) -> None:  # noqa: ANN401
        """Write one event."""
        line = json.dumps({"event": event, **facts}).encode() + b"\n"
        # A parent that is gone reads nothing; the end of standard input ends this process.
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._stream.write(line)
            self._stream.flush()


#: Builds one engine from a job; gives the facts of the ``done`` event.
Build = Callable[[Mapping[str, Any], Events, threading.Event], dict[str, Any]]


def make_logger(module: ModuleType, events: Events, errors: list[str]) -> Any:  # noqa: ANN401
    """A TensorRT logger that forwards to the parent and keeps error texts in ``errors``."""

    class Forwarder(module.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            name = str(severity).rpartition(".")[2].lower()
            if name in ("error", "internal_error"):
                errors.append(message)
            if name != "verbose":
                events.send("log", severity=name, message=message)

    return Forwarder()


def make_monitor(module: ModuleType, events: Events, stop: threading.Event) -> Any:  # noqa: ANN401
    """A progress monitor that forwards to the parent and cancels once ``stop`` is set."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            events.send("phase", name=phase_name, parent=parent_phase, steps=num_steps)

        def phase_finish(self, phase_name: str) -> None:
            events.send("phase_end", name=phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            events.send("step", name=phase_name, step=step + 1)
            return not stop.is_set()

    return Monitor()


def _parser_errors(parser: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        named = hasattr(error, "node_name")
        found.append(
            {
                "code": str(error.code()).rpartition(".")[2],
                "text": error.desc(),
                "check": error.func(),
                # TensorRT 8.6 knows only the node's number.
                "node": error.node_name() if named else f"number {error.node()}",
                "op": error.node_operator() if named else "",
                "functions": list(error.local_function_stack()) if named else [],
            }
        )
    return found


def parse_model(module: ModuleType, network: Any, logger: Any, model: str) -> None:  # noqa: ANN401
    """Fill ``network`` from an ONNX file.

    Raises:
        ReportedError: ``parse`` with the parser's errors, or ``empty`` when it found nothing: the
            parser takes an empty file and most text files for a model without nodes.
    """
    parser = module.OnnxParser(network, logger)
    # The parser takes no path with bytes that are no UTF-8.
    is_text = storable(model) == model
    if not (parser.parse_from_file(model) if is_text else parser.parse(Path(model).read_bytes())):
        raise ReportedError("parse", errors=_parser_errors(parser))
    if network.num_layers == 0 or network.num_outputs == 0:
        raise ReportedError("empty", layers=network.num_layers, outputs=network.num_outputs)


def tensor_facts(tensor: Any) -> dict[str, Any]:  # noqa: ANN401
    """Name, NumPy dtype and shape of a network's tensor."""
    name = tensor.dtype.name
    return {
        "name": tensor.name,
        "dtype": _NUMPY_NAMES.get(name, name.lower()),
        "shape": [int(size) for size in tensor.shape],
    }


def check_interface(network: Any, job: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Compare names and types of the network's inputs and outputs with those of the ONNX file.

    Raises:
        ReportedError: ``interface``; the parser turns float64 into float32 without a word, for one.
    """
    found = {
        "inputs": [tensor_facts(network.get_input(i)) for i in range(network.num_inputs)],
        "outputs": [tensor_facts(network.get_output(i)) for i in range(network.num_outputs)],
    }
    for side, tensors in found.items():
        made = {tensor["name"]: tensor["dtype"] for tensor in tensors}
        if made != job[side]:
            raise ReportedError("interface", side=side, expected=job[side], found=made)


def mark_debug_tensors(network: Any, names: Sequence[str]) -> None:  # noqa: ANN401
    """Mark the tensors called ``names`` as debug tensors.

    Raises:
        ReportedError: ``inner-tensors`` when the parser has not made one of them, or TensorRT does
            not take it.
    """
    made: dict[str, Any] = {}
    for index in range(network.num_layers if names else 0):
        layer = network.get_layer(index)
        outputs = (layer.get_output(number) for number in range(layer.num_outputs))
        made.update({tensor.name: tensor for tensor in outputs})
    missing = [name for name in names if name not in made or not network.mark_debug(made[name])]
    if missing:
        raise ReportedError("inner-tensors", missing=missing)


def add_profiles(
    builder: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    job: Mapping[str, Any],
) -> None:
    """Add the job's optimisation profiles to ``config``.

    Raises:
        ReportedError: ``profile`` when the runtime refuses one.
    """
    for shapes in job["profiles"]:
        profile = builder.create_optimization_profile()
        for name, sizes in shapes.items():
            try:
                profile.set_shape(name, sizes["min"], sizes["opt"], sizes["max"])
            except (RuntimeError, ValueError, TypeError) as error:
                raise ReportedError("profile", input=name, text=str(error)) from error
        if config.add_optimization_profile(profile) < 0:
            raise ReportedError("profile", input="", text="the profile is not complete")


def peak_memory_bytes() -> int:
    """Largest resident memory of this process, in bytes.

    ``getrusage`` is only the second choice: on Linux its figure starts from the memory of the
    parent that started this process.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def write_plan(plan: Any, path: str) -> int:  # noqa: ANN401
    """Write a serialised engine; returns its size in bytes.

    Raises:
        ReportedError: ``write`` with the system's error number.
    """
    view = memoryview(plan)
    try:
        with open(path, "wb") as stream:
            stream.write(view)
    except OSError as error:
        raise ReportedError(
            "write", errno=error.errno, text=error.strerror or str(error)
        ) from error
    return view.nbytes


def _watch(stdin: IO[bytes], stop: threading.Event, scratch: list[str]) -> None:
    """Wait for the order to stop, then for the build to notice, then end the process."""
    stdin.read(1)
    stop.set()
    threading.Event().wait(CANCEL_GRACE_SECONDS)
    # The parent removes its files; this is for a parent that was killed.
    for path in scratch:
        with contextlib.suppress(OSError):
            os.unlink(path)
    os._exit(CANCELLED_STATUS)


def serve(build: Build) -> int:
    """Run one job from standard input; the exit status."""
    # Unbuffered: a thread that waits in a buffered reader would hold its lock at exit.
    stdin = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - lives as long as the process
    job = json.loads(stdin.readline())
    channel = os.fdopen(os.dup(1), "wb")
    # What the libraries print themselves must not get between the events.
    os.dup2(2, 1)
    events = Events(channel)
    stop = threading.Event()
    scratch = [job["output"], *job.get("scratch", [])]
    threading.Thread(target=_watch, args=(stdin, stop, scratch), daemon=True).start()
    try:
        facts = build(job, events, stop)
    except CancelledError:
        events.send("cancelled")
        return CANCELLED_STATUS
    except ReportedError as failure:
        if stop.is_set():
            events.send("cancelled")
            return CANCELLED_STATUS
        events.send("failed", stage=failure.stage, **failure.facts)
        return 1
    events.send("done", **facts)
    return 0
