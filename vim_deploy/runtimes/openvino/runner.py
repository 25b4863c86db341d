"""OpenVINO runner: exported ONNX files on the CPU, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.marked_tensors import InnerTensor
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.standalone import is_standalone, standalone
from vim_deploy.onnx_graph import computed_precision
from vim_deploy.onnx_quantized import quantized_precision
from vim_deploy.ops.functions import asked_ops
from vim_deploy.paths import StrPath
from vim_deploy.places import Place
from vim_deploy.precisions import TABLE, TYPED, Precision
from vim_deploy.runtimes.base import (
    Array,
    PartSource,
    Runner,
    RunnerOptions,
)
from vim_deploy.runtimes.inputs import given_inputs, picture_inputs
from vim_deploy.runtimes.openvino import capability as ov
from vim_deploy.runtimes.openvino.network import Network
from vim_deploy.runtimes.processor import saturates

#: Said where int8 products would be wrong sums.
_NO_VNNI = (
    "this processor has no VNNI instructions: OpenVINO multiplies int8 in float32, and more slowly"
)
_HALVES = tuple(TABLE[name].dtype for name in TYPED)


class OpenVinoRunner(Runner):
    """Runs an ONNX file in the form of standard operators, which is made in memory if need be.

    OpenVINO knows no local functions. Half-precision inputs and outputs are float32 for the caller;
    an input is rounded to the file's type first.

    Args:
        source: ONNX file with an image input; opened, when something else is asked of it as well.
        threads: for one call; 0 for OpenVINO's own choice.
        batch: to be ready for; other batches are compiled for when they come.

    Raises:
        VimDeployError: VIM-301 (no OpenVINO), VIM-401, VIM-409 (file), VIM-415 (a model with
            other inputs).
    """

    def __init__(
        self, source: StrPath | Artifact, threads: int = 0, *, batch: int | None = None
    ) -> None:
        ov.load()
        artifact = Artifact.of(source)
        model = artifact.model
        # Not the model, which is large, unless whoever opened it holds it anyway.
        self._source, self._threads = source, threads
        stored, self.size = picture_inputs(artifact)
        self._half = np.dtype(stored.dtype) if stored.dtype in _HALVES else None
        self.input = stored if self._half is None else replace(stored, dtype="float32")
        self.outputs = tuple(spec.name for spec in artifact.outputs)
        self.ops = "function" if asked_ops(model).names else None
        quantized = quantized_precision(model)
        self._integers = quantized != "int8" or not saturates()
        self.notes = _notes(computed_precision(model), quantized)
        self.notes += () if self._integers else (_NO_VNNI,)
        self.name = f"OpenVINO {ov.version()} CPU"
        self._file = artifact.name
        self._inner: tuple[Network, Mapping[Place, InnerTensor]] | None = None
        self._network = self._open(model, self.outputs)
        sides = tuple(size for size in self.input.shape[1:] if isinstance(size, int))
        if batch is not None and len(sides) == len(self.input.shape) - 1:
            self._network.compile((self.fixed_batch or batch, *sides))

    def _open(self, model: ModelProto, outputs: tuple[str, ...]) -> Network:
        form = model if is_standalone(model) else standalone(model)
        inputs = (self.input,) if self.size is None else (self.input, self.size)
        return Network(form, inputs, outputs, self._file, self._threads, integers=self._integers)

    def run(self, image: Array, size: Array | None = None) -> Mapping[str, Array]:
        return self._network.run(self._taken(image, size))

    def _taken(self, image: Array, size: Array | None) -> Mapping[str, Array]:
        """Arrays by input, the image as the file's own input holds it, in float32."""
        given = given_inputs(self.input, self.size, image, size)
        if self._half is not None:
            given[self.input.name] = image.astype(self._half).astype(np.float32)
        return given

    @property
    def parts(self) -> PartSource:
        """Inner tensors, made outputs of a second network when the first batch comes.

        VIM-422 for a graph whose names do not say where its tensors are.
        """
        return self._run_parts

    def _run_parts(self, image: Array, size: Array | None = None) -> Mapping[Place, Array]:
        if self._inner is None:
            from vim_deploy.runtimes.inner_outputs import instrumented

            model, tensors = instrumented(Artifact.of(self._source))
            self._inner = self._open(model, tuple(one.name for one in tensors.values())), tensors
        network, places = self._inner
        values = network.run(self._taken(image, size))
        return {where: tensor.read(values[tensor.name]) for where, tensor in places.items()}

    def close(self) -> None:
        self._inner = None


def _notes(precision: Precision, quantized: Precision | None) -> tuple[str, ...]:
    """What a reader of results has to know of a file in half precision or fp8.

    int8 products are computed as the file says. OpenVINO does to float16 what it is told by its
    hint, and leaves bfloat16 as the graph has it where the processor knows the type.
    """
    fp8 = (
        ("OpenVINO computes products in fp8 in float32, and rounds to float16 before fp8",)
        if quantized == "fp8"
        else ()
    )
    row = TABLE[precision]
    if not row.typed:
        return fp8
    how = (
        "in float32: its weights have 16 bits, what it computes is not rounded to them"
        if row.on_cpu
        else f"as the processor does: in {row.dtype}, or in float32 where that knows none"
    )
    return (*fp8, f"OpenVINO computes this {row.dtype} file {how}")


def open_runner(artifact: Artifact, options: RunnerOptions) -> OpenVinoRunner:
    """The runner for an ONNX file; VIM-203 for an option of other runtimes."""
    refuse_options(options)
    for option, given in (
        ("--plugin", options.plugin is not None),
        ("--allow-plan-code", options.allow_plan_code),
    ):
        if given:
            raise _without_effect(option, "it is for engines of TensorRT")
    return OpenVinoRunner(artifact, options.threads, batch=options.max_batch)


def refuse_options(options: RunnerOptions) -> None:
    """VIM-203 for what is ONNX Runtime's, whatever else is opened with the same options."""
    if options.provider is not None:
        raise _without_effect("--provider", "execution providers are ONNX Runtime's")
    if options.ops == "native":
        raise _without_effect("--ops native", "native ops are kernels for ONNX Runtime")


def _without_effect(option: str, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-203", f"{option} has no effect in OpenVINO", why=why, fix=f"leave {option} away"
    )
