"""PyTorch runner: the reference of every comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vim_deploy.artifact.metadata import IMAGE_INPUT, SIZE_INPUT
from vim_deploy.model.deployed import DeployedModel, example_input
from vim_deploy.model.inner_outputs import inner_outputs
from vim_deploy.model.scan import selective_scan_op
from vim_deploy.ops import SELECTIVE_SCAN
from vim_deploy.ops.functions import plugin_attributes
from vim_deploy.places import Place
from vim_deploy.plugin.kernels import ScanLibrary, selective_scan_params
from vim_deploy.precisions import Precision
from vim_deploy.runtimes.base import Array, PartSource, Runner
from vim_deploy.runtimes.inputs import given_inputs
from vim_deploy.specs import TensorSpec
from vim_deploy.threads import TORCH


class ModuleRunner(Runner):
    """Runs any module that takes images, or images and sizes, eagerly on the CPU.

    Args:
        module: with weights, in eval mode.
        spec: of its input.
        outputs: names of what it returns, a tensor or a tuple of them.
        precision: what it computes in, for the name.
        threads: threads inside one operator while running; None for PyTorch's own setting. The
            scan makes many small calls, and on a busy machine their threads wait for each other:
            one thread is then many times faster than two.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: TensorSpec,
        outputs: tuple[str, ...],
        precision: Precision = "fp32",
        threads: int | None = None,
    ) -> None:
        self._module, self._threads = module, threads
        self.input, self.outputs = spec, outputs
        typed = "" if precision == "fp32" else f" {precision}"
        self.name = f"PyTorch {torch.__version__} CPU{typed}"

    def run(self, image: Array, size: Array | None = None) -> Mapping[str, Array]:
        given = given_inputs(self.input, self.size, image, size)
        with _threads(self._threads), torch.inference_mode():
            result = self._module(*map(torch.from_numpy, given.values()))
        values = result if isinstance(result, tuple) else (result,)
        return {name: value.numpy() for name, value in zip(self.outputs, values, strict=True)}


class TorchRunner(ModuleRunner):
    """The reference: a Vim module with its preparation and head.

    Args:
        module: with weights.
        precision, threads: as for ``ModuleRunner``.
    """

    def __init__(
        self, module: DeployedModel, precision: Precision = "fp32", threads: int | None = None
    ) -> None:
        example = example_input(module.model.config, module.preprocess, 1)
        dtype = str(example.dtype).removeprefix("torch.")
        spec = TensorSpec(IMAGE_INPUT, dtype, ("batch", *example.shape[1:]))
        super().__init__(module, spec, module.head.output_names, precision, threads)
        if module.head.takes_size:
            self.size = TensorSpec(SIZE_INPUT, "int64", ("batch", 2))
        self._deployed = module

    @property
    def parts(self) -> PartSource:
        """The module's inner tensors for one batch, float32, in order of computation."""
        return self._run_parts

    def _run_parts(self, image: Array, size: Array | None = None) -> Mapping[Place, Array]:
        given = given_inputs(self.input, self.size, image, size)
        with _threads(self._threads):
            found = inner_outputs(self._deployed, *map(torch.from_numpy, given.values()))
        return {where: value.numpy() for where, value in found.items()}


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """PyTorch's threads inside one operator; None leaves them."""
    with TORCH:
        before = torch.get_num_threads()
        torch.set_num_threads(count or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def launch_scan(
    kernels: ScanLibrary,
    *tensors: Tensor | None,
    stream: int = 0,
    **attributes: bool | int,
) -> Tensor:
    """One scan direction by the plugin library's kernel.

    Args:
        kernels: the library.
        tensors: u to z, in the order of ``scan.selective_scan``.
        stream: CUDA stream to enqueue on; the result is there when the stream gets to it.
        attributes: the keyword arguments of ``scan.selective_scan``.

    Returns:
        y T[B,L,D], on the device of ``u``.

    Raises:
        VimDeployError: VIM-415 (a tensor does not fit), VIM-904 (CUDA refused).
    """
    # Held until the launch is enqueued; its parameters are addresses.
    given = [None if tensor is None else tensor.contiguous() for tensor in tensors]
    assert given[0] is not None
    y = torch.empty_like(given[0], memory_format=torch.contiguous_format)
    params = selective_scan_params(*given, y, **attributes)  # type: ignore[arg-type, call-arg]
    size = kernels.workspace_bytes(params)
    workspace = torch.empty(size, dtype=torch.uint8, device=y.device)
    kernels.launch(params, workspace=workspace.data_ptr() if size else 0, stream=stream)
    return y


def use_scan_kernels(kernels: ScanLibrary) -> None:
    """From now on, scans of CUDA tensors in this process run on the plugin library's kernels.

    The module itself does not change: its scan operator gets an implementation for CUDA. PyTorch's
    allocator reuses the copies made here only in stream order, so they need not be kept.
    """
    last, attributes = len(SELECTIVE_SCAN.inputs) - 1, plugin_attributes(SELECTIVE_SCAN)

    @selective_scan_op.register_kernel("cuda")
    def _(*given: Any) -> Tensor:  # noqa: ANN401 - what the operator's schema says
        tensors, gate = given[:last], given[last]
        settings = dict(zip(attributes, given[last + 1 :], strict=True))
        has_gate = settings.pop("has_z")
        with torch.cuda.device(gate.device):
            stream = torch.cuda.current_stream(gate.device).cuda_stream
            return launch_scan(
                kernels, *tensors, gate if has_gate else None, stream=stream, **settings
            )
