"""PyTorch runner: the reference of every comparison."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vim_deploy.model.heads import DeployedModel, example_input
from vim_deploy.run.base import Array, check_input
from vim_deploy.specs import TensorSpec


class TorchRunner:
    """Runs a module eagerly on the CPU in float32."""

    def __init__(self, module: DeployedModel) -> None:
        self._module = module
        example = example_input(module.model.config, module.preprocess, 1)
        dtype = str(example.dtype).removeprefix("torch.")
        self._input = TensorSpec("image", dtype, ("batch", *example.shape[1:]))

    @property
    def name(self) -> str:
        return f"PyTorch {torch.__version__} CPU"

    @property
    def input(self) -> TensorSpec:
        return self._input

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._module.head.output_names

    def run(self, image: Array) -> Mapping[str, Array]:
        check_input(self._input, image)
        with torch.inference_mode():
            result = self._module(torch.from_numpy(image))
        values = result if isinstance(result, tuple) else (result,)
        return {name: value.numpy() for name, value in zip(self.outputs, values, strict=True)}
