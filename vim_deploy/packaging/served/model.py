"""Runs the ONNX file beside this one in ONNX Runtime on a CPU, for Triton's python backend.

The server hands over several requests at once. Their rows are joined to one batch, run, and split
again. A request that cannot be run gets an error of its own; the others are answered. So does one
whose answer would not be numbers: NaN and infinity have no class. A detector takes a second input,
the size of each picture inside its padding, and finds nothing in a picture that holds NaN; that,
too, is an error of its request, and no empty picture.

A package may hold native kernels for the model's own ops. Where they do not load (an older C
library, another processor, an older ONNX Runtime) the log says why, and the model runs as the file
describes it, with the same answers, more slowly.
"""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Any

# Before the import: without it ONNX Runtime sends names and hashes of models to Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

#: onnxruntime's severity for errors.
ERRORS_ONLY = 3
#: The first ONNX Runtime that native ops are for; an older one would take none of them, silently.
LEAST_FOR_OPS = (1, 17)
#: Arrays of one request by the names of the inputs.
Rows = dict[str, NDArray[Any]]
#: The session's entry in which native ops look for their number of threads.
OPS_THREADS = "vim_deploy.intra_op_num_threads"


def require_old_numpy() -> None:
    """Refuse NumPy 2: the backend of Triton 24.10 then answers every request with no bytes."""
    if int(np.__version__.split(".")[0]) >= 2:
        raise RuntimeError(
            f"NumPy {np.__version__} is installed where Triton's python backend runs, and with it "
            "outputs go out empty; install numpy<2 there"
        )


def not_numbers(what: str, arrays: dict[str, NDArray[Any]]) -> str | None:
    """Which of the inputs or outputs holds NaN or infinity, in words; None when none does."""
    for name, values in arrays.items():
        if values.dtype.kind == "f":
            count = int(values.size - np.count_nonzero(np.isfinite(values)))
            if count:
                return f"{count} of {values.size} values of the {what} {name!r} are NaN or infinite"
    return None


def outside(sizes: NDArray[Any], sides: list[int]) -> str | None:
    """Which size does not fit a square of ``sides``, in words; None when all do."""
    for height, width in sizes.tolist():
        if not (0 <= height <= sides[0] and 0 <= width <= sides[1]):
            return f"a picture of {height} x {width} pixels in an input of {sides[0]} x {sides[1]}"
    return None


def with_ops(options: onnxruntime.SessionOptions, library: Path) -> str:
    """Hand the native ops to a session's options; what they are, in words.

    RuntimeError, or another error of ONNX Runtime, when they cannot be had here.
    """
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if version < LEAST_FOR_OPS:
        raise RuntimeError(f"ONNX Runtime {onnxruntime.__version__} is too old for them")
    options.register_custom_ops_library(str(library))
    if options.intra_op_num_threads:
        # ONNX Runtime does not tell ops how many threads there are.
        options.add_session_config_entry(OPS_THREADS, str(options.intra_op_num_threads))
    # Opened by now, so this is the same library and not a second one.
    describe = ctypes.CDLL(str(library)).vim_plugins_build_info
    describe.restype = ctypes.c_char_p
    about = json.loads(describe())
    return f"{about['name']} {about['version']}, {about['instruction_set']}"


def entries_for(precision: str) -> dict[str, str]:
    """Entries of a session for a file whose products are int8 or fp8.

    Without VNNI instructions ONNX Runtime adds int8 products wrongly. And releases of it take fp8
    products for integers, and refuse what they make of them. Told to leave the nodes as they are,
    it computes them in float32.
    """
    if precision not in ("int8", "fp8"):
        return {}
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    exact = precision == "int8" and ("avx512_vnni" in flags or "avx_vnni" in flags)
    return {} if exact else {"session.disable_quant_qdq": "1"}


def session_of(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session on the CPU."""
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class TritonPythonModel:
    """One instance of the model; the names of the methods are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the ONNX file; Triton reports the model as unavailable when this raises."""
        require_old_numpy()
        config = json.loads(args["model_config"])
        self.most = int(config["max_batch_size"])
        self.inputs = {
            given["name"]: (
                np.dtype(pb_utils.triton_string_to_numpy(given["data_type"])),
                [int(size) for size in given["dims"]],
            )
            for given in config["input"]
        }
        # The pictures come first; the sizes of a detector's behind them.
        self.image, self.size = [*self.inputs, ""][:2]
        self.outputs = [output["name"] for output in config["output"]]
        parameters = config.get("parameters", {})
        self.threads = int(parameters.get("THREADS", {}).get("string_value", "0"))
        self.precision = parameters.get("PRECISION", {}).get("string_value", "")
        folder = Path(args["model_repository"], args["model_version"])
        path = folder / "model.onnx"
        ops = parameters.get("OPS_LIBRARY", {}).get("string_value", "")
        self.session = self.open(path, folder / ops if ops else None)
        names = [output.name for output in self.session.get_outputs()]
        if not set(self.outputs) <= set(names):
            raise RuntimeError(f"{path.name} has the outputs {names}, not {self.outputs}")

    def open(self, path: Path, library: Path | None) -> onnxruntime.InferenceSession:
        """The session, on native ops where the package has them and they load."""
        if library is None:
            return session_of(path, self.options())
        options = self.options()
        try:
            found = with_ops(options, library)
            session = session_of(path, options)
        # ONNX Runtime raises what it likes; whatever it was, the file runs without.
        except Exception as error:
            why = str(error).strip().splitlines()[:1] or [type(error).__name__]
            pb_utils.Logger.log_warn(f"{path.name} runs without native ops: {why[0]}")
            return session_of(path, self.options())
        pb_utils.Logger.log_info(f"{path.name} runs on native ops ({found})")
        return session

    def options(self) -> onnxruntime.SessionOptions:
        """How a session runs."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = self.threads
        for name, value in entries_for(self.precision).items():
            options.add_session_config_entry(name, value)
        return options

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request, in their order."""
        taken = [self.read(request) for request in requests]
        good = [rows for rows in taken if isinstance(rows, dict)]
        parts = iter(self.run(good))
        return [
            self.response(request, next(parts) if isinstance(rows, dict) else rows)
            for request, rows in zip(requests, taken)
        ]

    def read(self, request: Any) -> Rows | str:  # noqa: ANN401 - Triton's
        """The request's arrays, or the reason why it is refused."""
        rows: Rows = {}
        for name in self.inputs:
            found = self.read_input(request, name)
            if isinstance(found, str):
                return found
            rows[name] = found
        counts = {name: len(values) for name, values in rows.items()}
        if len(set(counts.values())) > 1:
            return f"the inputs have different numbers of rows: {counts}"
        if self.size:
            dtype, dims = self.inputs[self.image]
            # Bytes have their channels last; a fixed batch has its own axis before them.
            sides = dims[-3:-1] if dtype == np.uint8 else dims[-2:]
            return outside(rows[self.size], sides) or rows
        return rows

    def read_input(self, request: Any, name: str) -> NDArray[Any] | str:  # noqa: ANN401
        """One array of the request, or the reason why it is refused."""
        dtype, dims = self.inputs[name]
        label = "input" if name == self.image else f"input {name!r}"
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is None:
            return f"the request has no input {name!r}"
        # A view of what the server received: nothing is copied before it is known to fit.
        rows: NDArray[Any] = tensor.as_numpy()
        found = list(rows.shape[1:] if self.most else rows.shape)
        fits = len(found) == len(dims) and all(
            wanted in (-1, size) for wanted, size in zip(dims, found)
        )
        if rows.dtype != dtype or not fits:
            return f"{label} is {rows.dtype} {list(rows.shape)}, expected {dtype} {dims}"
        if self.most and not 1 <= len(rows) <= self.most:
            return f"{label} has {len(rows)} rows, expected 1 to {self.most}"
        return rows

    def run(self, arrays: list[Rows]) -> list[dict[str, NDArray[Any]] | str]:
        """For each request's arrays its outputs by name, or the reason why there are none."""
        if not arrays:
            return []
        if len(arrays) > 1 and not self.most:
            return [part for rows in arrays for part in self.run([rows])]
        try:
            joined = arrays[0]
            if len(arrays) > 1:
                joined = {
                    name: np.concatenate([rows[name] for rows in arrays]) for name in self.inputs
                }
            values = self.session.run(self.outputs, joined)
        except Exception as error:
            if len(arrays) == 1:
                return [f"the model failed: {error}"]
            # One of them is to blame: each alone, so that only that one fails.
            return [part for rows in arrays for part in self.run([rows])]
        if len(arrays) == 1:
            return [dict(zip(self.outputs, values))]
        ends = np.cumsum([len(rows[self.image]) for rows in arrays])[:-1]
        columns = [np.split(value, ends) for value in values]
        return [dict(zip(self.outputs, row)) for row in zip(*columns)]

    def response(self, request: Any, result: dict[str, NDArray[Any]] | str) -> Any:  # noqa: ANN401
        """The answer in Triton's form: the outputs the client asked for, or an error."""
        if not isinstance(result, str):
            reason = not_numbers("output", result)
            # Classes are whole numbers, whatever they were taken from, and a detector finds nothing
            # in what is no number.
            whole = not any(values.dtype.kind == "f" for values in result.values())
            if reason or whole or self.size:
                sent = pb_utils.get_input_tensor_by_name(request, self.image).as_numpy()
                reason = not_numbers("input", {self.image: sent}) or reason
            result = reason or result
        if isinstance(result, str):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(result))
        wanted = set(request.requested_output_names()) or set(self.outputs)
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(result[name]))
            for name in self.outputs
            if name in wanted
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def finalize(self) -> None:
        """Let the session go."""
        self.session = None
