"""ONNX Runtime runner: CPU, CUDA, or TensorRT inside ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from vim_deploy.artifact.half_weights import half_types
from vim_deploy.artifact.metadata import inputs_of, load_model, outputs_of
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file
from vim_deploy.runtimes.base import Array, Runner, check_input
from vim_deploy.runtimes.onnxruntime import capability as ort
from vim_deploy.runtimes.onnxruntime.explicit_rounding import round_explicitly
from vim_deploy.runtimes.onnxruntime.trt_ep import to_plugin_domain
from vim_deploy.specs import TensorSpec

CPU, CUDA, TENSORRT = "cpu", "cuda", "tensorrt"
_HALVES = ("float16", "bfloat16")


class OrtRunner(Runner):
    """Runs an ONNX file; the local functions of our ops are inlined by the runtime.

    Half-precision inputs and outputs are float32 for the caller. On the CPU provider, which rounds
    less than the graph says (``explicit_rounding``), the rounding is made explicit.

    With ``tensorrt`` and a plugin library the file is handed over in another form, made in memory:
    its custom nodes are plugins then (``trt_ep``). The file itself does not change.

    Args:
        path: ONNX file with one input.
        provider: ``cpu``, ``cuda`` or ``tensorrt``.
        threads: threads inside one operator on the CPU; 0 for the runtime's choice.
        as_stored: run a float16 graph as the provider does by itself, for its speed. It has no
            bfloat16 operators, so a bfloat16 graph is rounded explicitly all the same.
        plugin: plugin library for ``tensorrt``; without one TensorRT gets standard operators.
        max_batch: largest batch to come, for ``tensorrt``: its engine is built for 1 to that.
            None leaves the shapes to the provider, which builds again for each larger batch.

    Raises:
        VimDeployError: VIM-203 (a plugin for another provider), VIM-301 (no ONNX Runtime, or none
            with this provider), VIM-302 (the provider does not start), VIM-401, VIM-409 (file),
            VIM-415 (not a model with one image input).
    """

    def __init__(
        self,
        path: Path,
        provider: str = CPU,
        threads: int = 0,
        as_stored: bool = False,
        *,
        plugin: Path | None = None,
        max_batch: int | None = None,
    ) -> None:
        if plugin is not None and provider != TENSORRT:
            raise VimDeployError(
                "VIM-203",
                f"the provider {provider} takes no TensorRT plugins",
                fix="use --provider tensorrt, or leave the plugin library out",
            )
        ort.require_provider(provider)
        model = load_model(path)
        stored = _single_input(model, path)
        self._dtype = np.dtype(stored.dtype)
        self._half = stored.dtype in _HALVES
        self.input = replace(stored, dtype="float32") if self._half else stored
        self.outputs = tuple(spec.name for spec in outputs_of(model))
        self._rounds = provider == CPU and _needs_rounding(model, as_stored)
        options: dict[str, str] = {}
        source: Path | bytes = path
        if self._rounds:
            source = round_explicitly(model).SerializeToString()
        elif provider == CUDA:
            options = cuda_options()
        elif provider == TENSORRT:
            types = half_types(model)
            options = tensorrt_options(stored, plugin, max_batch=max_batch, types=types)
            if plugin is not None:
                # Only looked for, not opened: the library registers its plugins at the moment it is
                # opened, and TensorRT is not loaded before the session is made.
                require_file(plugin, "plugin library")
                source = to_plugin_domain(model).SerializeToString()
        settings = ort.SessionSettings(provider, options, threads)
        self._session = ort.create_session(source, settings, path.name)
        self._file = path.name
        used = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        rounds = " (rounding after every operator)" if self._rounds else ""
        self.name = f"ONNX Runtime {ort.capabilities().version} {used}{rounds}"

    def run(self, image: Array) -> Mapping[str, Array]:
        check_input(self.input, image)
        if self._half and not self._rounds:
            image = image.astype(self._dtype)
        values = ort.run_session(
            self._session, list(self.outputs), {self.input.name: image}, self._file
        )
        return {
            name: value.astype(np.float32) if value.dtype == np.float16 else value
            for name, value in zip(self.outputs, values, strict=True)
        }


def _needs_rounding(model: onnx.ModelProto, as_stored: bool) -> bool:
    types = half_types(model)
    return onnx.TensorProto.BFLOAT16 in types or (bool(types) and not as_stored)


def cuda_options() -> dict[str, str]:
    """Options of the CUDA provider: fp32 products in fp32, not in TF32 with its 10-bit mantissa."""
    return {"use_tf32": "0"}


#: TensorRT's networks in ONNX Runtime are weakly typed: a half type needs its flag.
_TYPE_FLAGS = {
    onnx.TensorProto.FLOAT16: "trt_fp16_enable",
    onnx.TensorProto.BFLOAT16: "trt_bf16_enable",
}


def tensorrt_options(
    spec: TensorSpec, plugin: Path | None, *, max_batch: int | None, types: set[int]
) -> dict[str, str]:
    """Options of the TensorRT provider, by its own names.

    Args:
        spec: the image input.
        plugin: library to load before the model is parsed.
        max_batch: largest batch of a dynamic input.
        types: half types that the file holds.
    """
    options = {flag: "1" for kind, flag in _TYPE_FLAGS.items() if kind in types}
    if plugin is not None:
        options["trt_extra_plugin_lib_paths"] = str(plugin.resolve())
    dynamic = [axis for axis, size in enumerate(spec.shape) if isinstance(size, str)]
    if max_batch is not None and dynamic == [0]:
        tail = "x".join(str(size) for size in spec.shape[1:])
        for end, batch in (("min", 1), ("opt", max_batch), ("max", max_batch)):
            options[f"trt_profile_{end}_shapes"] = f"{spec.name}:{batch}x{tail}"
    return options


def _single_input(model: onnx.ModelProto, path: Path) -> TensorSpec:
    inputs = inputs_of(model)
    if len(inputs) != 1:
        raise VimDeployError(
            "VIM-415",
            f"{path} has {len(inputs)} inputs; one image input is expected",
            why=", ".join(spec.name for spec in inputs),
            fix="give a model made by vim-deploy export",
        )
    return inputs[0]
