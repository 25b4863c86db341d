"""ONNX Runtime runner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from vim_deploy.deps import ort
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.metadata import inputs_of, load_model, outputs_of
from vim_deploy.run.base import Array, check_input
from vim_deploy.specs import TensorSpec


class OrtRunner:
    """Runs an ONNX file as it is; the scan's local function is inlined by the runtime.

    Args:
        path: ONNX file with one input.
        providers: ONNX Runtime execution providers.
        threads: threads inside one operator; 0 for the runtime's choice.

    Raises:
        VimDeployError: VIM-301 (no ONNX Runtime), VIM-401, VIM-409 (file), VIM-415 (not a model
            with one image input).
    """

    def __init__(
        self,
        path: Path,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
        threads: int = 0,
    ) -> None:
        model = load_model(path)
        self._input = _single_input(model, path)
        self._outputs = tuple(spec.name for spec in outputs_of(model))
        self._session = ort.create_session(path, providers, threads)

    @property
    def name(self) -> str:
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        return f"ONNX Runtime {ort.capabilities().version} {provider}"

    @property
    def input(self) -> TensorSpec:
        return self._input

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._outputs

    def run(self, image: Array) -> Mapping[str, Array]:
        check_input(self._input, image)
        values = self._session.run(list(self._outputs), {self._input.name: image})
        return dict(zip(self._outputs, values, strict=True))


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
