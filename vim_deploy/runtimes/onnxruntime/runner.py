"""ONNX Runtime runner: CPU, CUDA, or TensorRT inside ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.marked_tensors import InnerTensor
from vim_deploy.artifact.onnx_file import model_output
from vim_deploy.errors import UnreadableModelError, VimDeployError
from vim_deploy.files import require_file
from vim_deploy.onnx_graph import ELEMENT_TYPES, computed_precision, half_types
from vim_deploy.onnx_quantized import quantized_precision
from vim_deploy.ops.functions import asked_ops
from vim_deploy.paths import StrPath, optional_path
from vim_deploy.places import Place
from vim_deploy.precisions import TABLE, TYPED
from vim_deploy.runtimes.base import (
    Array,
    PartSource,
    Runner,
    RunnerOptions,
    for_others,
)
from vim_deploy.runtimes.inner_outputs import instrumented
from vim_deploy.runtimes.inputs import given_inputs, picture_inputs
from vim_deploy.runtimes.onnxruntime import capability as ort
from vim_deploy.runtimes.onnxruntime.explicit_rounding import round_explicitly
from vim_deploy.runtimes.onnxruntime.native_ops import choose_ops, require_choice, unused
from vim_deploy.runtimes.onnxruntime.quantized import NOTE, entries_for
from vim_deploy.runtimes.onnxruntime.trt_ep import to_plugin_domain
from vim_deploy.specs import OpsChoice, TensorSpec

CPU, CUDA, TENSORRT = "cpu", "cuda", "tensorrt"
_HALVES = tuple(TABLE[name].dtype for name in TYPED)


class OrtRunner(Runner):
    """Runs an ONNX file; our ops are native kernels, or their local functions are inlined.

    Half-precision inputs and outputs are float32 for the caller. On the CPU provider, which rounds
    less than the graph says (``explicit_rounding``), the rounding is made explicit.

    With ``tensorrt`` and a plugin library the file is handed over in another form, made in memory:
    its custom nodes are plugins then (``trt_ep``). The file itself does not change.

    Args:
        source: ONNX file with an image input; opened, when something else is asked of it as well.
        provider: ``cpu``, ``cuda`` or ``tensorrt``.
        threads: threads inside one operator on the CPU; 0 for the runtime's choice.
        as_stored: run a float16 graph as the provider does by itself, for its speed. It has no
            bfloat16 operators, so a bfloat16 graph is rounded explicitly all the same.
        plugin: plugin library for ``tensorrt``; without one TensorRT gets standard operators.
        max_batch: largest batch to come, for ``tensorrt``: its engine is built for 1 to that.
            None leaves the shapes to the provider, which builds again for each larger batch.
        ops: whose kernels compute our ops (``native_ops``).

    Attributes:
        library: the native ops that are used, or None.

    Raises:
        VimDeployError: VIM-203 (a plugin for another provider, kernels for a file that holds none
            of our ops), VIM-301 (no ONNX Runtime, or none
            with this provider), VIM-302 (the provider does not start), VIM-401, VIM-409 (file),
            VIM-415 (a model with other inputs); with native ops those of ``choose_ops``.
    """

    def __init__(
        self,
        source: StrPath | Artifact,
        provider: str = CPU,
        threads: int = 0,
        as_stored: bool = False,
        *,
        plugin: StrPath | None = None,
        max_batch: int | None = None,
        ops: OpsChoice = "function",
    ) -> None:
        plugin = optional_path(plugin, "plugin")
        if plugin is not None and provider != TENSORRT:
            raise VimDeployError(
                "VIM-203",
                f"the provider {provider} takes no TensorRT plugins",
                fix="use --provider tensorrt, or leave the plugin library out",
            )
        if provider == TENSORRT:
            require_choice(ops, provider)
        ort.require_provider(provider)
        artifact = Artifact.of(source)
        path, model = artifact.path, artifact.model
        if ops == "native" or plugin is not None:
            artifact.refuse_standalone("--ops native" if plugin is None else "--plugin")
        # Not the model, which is large, unless whoever opened it holds it anyway.
        self._source, self._provider, self._threads = source, provider, threads
        self._inner = ExitStack()
        self._instrumented: tuple[OrtRunner, Mapping[Place, InnerTensor]] | None = None
        stored, self.size = picture_inputs(artifact)
        self._dtype = np.dtype(stored.dtype)
        self._half = stored.dtype in _HALVES
        self.input = replace(stored, dtype="float32") if self._half else stored
        self.outputs = tuple(spec.name for spec in artifact.outputs)
        self._rounds = provider == CPU and _needs_rounding(model, as_stored)
        quantized = quantized_precision(model)
        entries = entries_for(quantized) if quantized and provider == CPU else {}
        options: dict[str, str] = {}
        handed: Path | bytes = path
        if self._rounds:
            handed = round_explicitly(model).SerializeToString()
        elif provider == CUDA:
            options = cuda_options()
        elif provider == TENSORRT:
            types = half_types(model)
            inputs = (stored,) if self.size is None else (stored, self.size)
            options = tensorrt_options(inputs, plugin, max_batch=max_batch, types=types)
            if quantized == "int8":
                # Weakly typed: what QuantizeLinear nodes say needs the flag, and no ranges.
                options["trt_int8_enable"] = "1"
            if plugin is not None:
                # Only looked for, not opened: the library registers its plugins at the moment it is
                # opened, and TensorRT is not loaded before the session is made.
                require_file(plugin, "plugin library")
                handed = to_plugin_domain(model).SerializeToString()
        settings = ort.SessionSettings(provider, options, threads, entries=entries)
        self._file = path.name
        self._session = self._open(handed, settings, ops, model)
        self.notes += (NOTE,) if quantized == "int8" and entries else ()
        used = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        native = "" if self.library is None else f", {self.library.title}"
        rounds = " (rounding after every operator)" if self._rounds else ""
        self.name = f"ONNX Runtime {ort.capabilities().version} {used}{native}{rounds}"

    def _open(
        self, handed: Path | bytes, settings: ort.SessionSettings, ops: OpsChoice, model: ModelProto
    ) -> Any:  # noqa: ANN401 - of an untyped module
        """The session, with native ops where they are wanted; sets what they have attributes for.

        Those are ``library``, ``kernels``, ``ops`` and ``notes``.
        """
        asked = asked_ops(model)
        chosen = choose_ops(ops, settings.provider, asked)
        self.library, note = chosen.library, chosen.note
        session = None
        if chosen.library is not None:
            with_ops = replace(settings, library=Path(chosen.library.path))
            try:
                session = ort.create_session(handed, with_ops, self._file)
            except UnreadableModelError as error:
                if ops == "native":
                    raise
                self.library, note = None, unused(error.why)
        self.notes = (note,) if note else ()
        self.kernels = "" if self.library is None else self.library.sentence
        # Bytes for TensorRT with plugins hold none of our functions any more.
        if asked.names and not (settings.provider == TENSORRT and isinstance(handed, bytes)):
            self.ops = "function" if self.library is None else "native"
        return session or ort.create_session(handed, settings, self._file)

    @property
    def parts(self) -> PartSource | None:
        """Inner tensors, made outputs of a second session when the first batch comes.

        None with ``tensorrt``, which fuses differently once tensors are given out. VIM-422 for a
        graph whose names do not say where its tensors are.
        """
        return None if self._provider == TENSORRT else self._run_parts

    def _run_parts(self, image: Array, size: Array | None = None) -> Mapping[Place, Array]:
        if self._instrumented is None:
            model, tensors = instrumented(Artifact.of(self._source))
            ops: OpsChoice = "function" if self.library is None else "native"
            inner = memory_runner(model, self._file, self._provider, self._threads, ops)
            self._instrumented = self._inner.enter_context(inner), tensors
        runner, places = self._instrumented
        values = runner.run(image, size)
        return {where: tensor.read(values[tensor.name]) for where, tensor in places.items()}

    def close(self) -> None:
        self._instrumented = None
        self._inner.close()

    def run(self, image: Array, size: Array | None = None) -> Mapping[str, Array]:
        given = given_inputs(self.input, self.size, image, size)
        if self._half and not self._rounds:
            given[self.input.name] = image.astype(self._dtype)
        values = ort.run_session(self._session, list(self.outputs), given, self._file)
        return {
            name: value.astype(np.float32) if value.dtype == np.float16 else value
            for name, value in zip(self.outputs, values, strict=True)
        }


def open_runner(artifact: Artifact, options: RunnerOptions) -> OrtRunner:
    """The runner for an ONNX file; VIM-203 for an option of engines."""
    if options.allow_plan_code:
        raise for_others("--allow-plan-code", "engines", artifact.name)
    return OrtRunner(
        artifact,
        options.provider or CPU,
        options.threads,
        options.as_stored,
        plugin=options.plugin,
        max_batch=options.max_batch,
        ops=options.ops,
    )


@contextmanager
def memory_runner(
    model: ModelProto,
    name: str,
    provider: str = CPU,
    threads: int = 0,
    ops: OpsChoice = "function",
) -> Iterator[OrtRunner]:
    """A runner for a model in memory. Over 2 GiB, its weights are gone from ``model`` afterwards.

    A file, not a message: ONNX Runtime takes no message above 2 GiB.

    Args:
        model: with the local functions of its ops.
        name: of the file that is made, for messages.
        provider, threads, ops: as for ``OrtRunner``.

    Raises:
        VimDeployError: VIM-304, VIM-305 (no room for the file); as ``OrtRunner``.
    """
    with tempfile.TemporaryDirectory(prefix="vim-deploy-") as folder:
        path = Path(folder) / name
        with model_output(model, path):
            pass
        with OrtRunner(path, provider, threads, ops=ops) as runner:
            yield runner


def _needs_rounding(model: ModelProto, as_stored: bool) -> bool:
    row = TABLE[computed_precision(model)]
    return not row.on_cpu or (row.typed and not as_stored)


def cuda_options() -> dict[str, str]:
    """Options of the CUDA provider: fp32 products in fp32, not in TF32 with its 10-bit mantissa."""
    return {"use_tf32": "0"}


#: TensorRT's networks in ONNX Runtime are weakly typed: a half type needs its flag.
_TYPE_FLAGS = {ELEMENT_TYPES[name]: f"trt_{name}_enable" for name in TYPED}


def tensorrt_options(
    inputs: Sequence[TensorSpec],
    plugin: Path | None,
    *,
    max_batch: int | None,
    types: set[int],
) -> dict[str, str]:
    """Options of the TensorRT provider, by its own names.

    Args:
        inputs: the image input first; all have one batch.
        plugin: library to load before the model is parsed.
        max_batch: largest batch of a dynamic input.
        types: half types that the file holds.
    """
    options = {flag: "1" for kind, flag in _TYPE_FLAGS.items() if kind in types}
    if plugin is not None:
        options["trt_extra_plugin_lib_paths"] = str(plugin.resolve())
    dynamic = [axis for axis, size in enumerate(inputs[0].shape) if isinstance(size, str)]
    if max_batch is not None and dynamic == [0]:
        for end, batch in (("min", 1), ("opt", max_batch), ("max", max_batch)):
            shapes = (f"{spec.name}:{'x'.join(map(str, (batch, *spec.shape[1:])))}"
                      for spec in inputs)  # fmt: skip
            options[f"trt_profile_{end}_shapes"] = ",".join(shapes)
    return options
