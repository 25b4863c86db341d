"""ONNX Runtime runner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from vim_deploy.deps import ort
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.explicit_rounding import round_explicitly
from vim_deploy.graph.half_weights import half_types
from vim_deploy.graph.metadata import inputs_of, load_model, outputs_of
from vim_deploy.run.base import Array, check_input
from vim_deploy.specs import TensorSpec

_CPU = "CPUExecutionProvider"
_HALVES = ("float16", "bfloat16")


class OrtRunner:
    """Runs an ONNX file; the local functions of our ops are inlined by the runtime.

    Half-precision inputs and outputs are float32 for the caller. On the CPU provider, which rounds
    less than the graph says (``graph.explicit_rounding``), the rounding is made explicit.

    Args:
        path: ONNX file with one input.
        providers: ONNX Runtime execution providers.
        threads: threads inside one operator; 0 for the runtime's choice.
        as_stored: run a float16 graph as the provider does by itself, for its speed. It has no
            bfloat16 operators, so a bfloat16 graph is rounded explicitly all the same.

    Raises:
        VimDeployError: VIM-301 (no ONNX Runtime), VIM-401, VIM-409 (file), VIM-415 (not a model
            with one image input).
    """

    def __init__(
        self,
        path: Path,
        providers: tuple[str, ...] = (_CPU,),
        threads: int = 0,
        as_stored: bool = False,
    ) -> None:
        model = load_model(path)
        stored = _single_input(model, path)
        self._dtype = np.dtype(stored.dtype)
        self._half = stored.dtype in _HALVES
        self._input = replace(stored, dtype="float32") if self._half else stored
        self._outputs = tuple(spec.name for spec in outputs_of(model))
        self._rounds = providers == (_CPU,) and _needs_rounding(model, as_stored)
        source = round_explicitly(model).SerializeToString() if self._rounds else path
        self._session = ort.create_session(source, providers, threads)

    @property
    def name(self) -> str:
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        rounds = " (rounding after every operator)" if self._rounds else ""
        return f"ONNX Runtime {ort.capabilities().version} {provider}{rounds}"

    @property
    def input(self) -> TensorSpec:
        return self._input

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._outputs

    def run(self, image: Array) -> Mapping[str, Array]:
        check_input(self._input, image)
        if self._half and not self._rounds:
            image = image.astype(self._dtype)
        values = self._session.run(list(self._outputs), {self._input.name: image})
        return {
            name: value.astype(np.float32) if value.dtype == np.float16 else value
            for name, value in zip(self._outputs, values, strict=True)
        }


def _needs_rounding(model: onnx.ModelProto, as_stored: bool) -> bool:
    types = half_types(model)
    return onnx.TensorProto.BFLOAT16 in types or (bool(types) and not as_stored)


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
