"""One op at one shape on tensors of PyTorch, and its launches: ``kernels.py`` stands on them.

The device may be the CPU, for kernels that were compiled for it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vim_deploy.ops import Op
from vim_deploy.plugin.kernels import PARAMS, Params, ScanLibrary, data_type

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins" / "tests" / "host"))

from kernel_library import TACTICS

#: The tactics' ids by name, and their names by id.
TACTIC_IDS: dict[str, int] = TACTICS
TACTIC_NAMES = {number: name for name, number in TACTIC_IDS.items()}
#: Bytes before and behind an output or a workspace that nothing may touch; keeps their alignment.
GUARD = 1024
#: Every byte 0xFF is a NaN in fp32, fp16 and bf16 alike.
POISON = 0xFF


class Guarded:
    """Memory full of NaN between two guards that are full of it as well."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._whole = torch.empty(size + 2 * GUARD, dtype=torch.uint8, device=device)
        self._size = size
        self.poison()

    @classmethod
    def like(cls, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Guarded:
        """Room for a tensor of that shape and type."""
        return cls(math.prod(shape) * dtype.itemsize, device)

    def poison(self) -> None:
        """NaN everywhere."""
        self._whole.fill_(POISON)

    def view(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The memory between the guards as a tensor."""
        return self._whole[GUARD : GUARD + self._size].view(dtype).view(shape)

    def address(self) -> int:
        """Of the memory between the guards."""
        return int(self._whole.data_ptr()) + GUARD

    def intact(self) -> bool:
        """Whether both guards are as ``poison`` left them."""
        edges = torch.cat([self._whole[:GUARD], self._whole[GUARD + self._size :]])
        return bool((edges == POISON).all())


@dataclass
class Problem:
    """One op at one shape.

    Attributes:
        op: what runs.
        label: shape and attributes, for people.
        inputs: by the contract's names.
        sizes, attributes: of the op's params.
        shape: of the output.
        truth: computes the output in float64 [shape].
        mufu: results of the special-function unit: an exponential for each state, one for the
            softplus, two for a gate's sigmoid. What a kernel cannot do without.
        traffic: bytes of all that is read or written, once each.
    """

    op: Op
    label: str
    inputs: dict[str, Tensor]
    sizes: dict[str, int]
    attributes: dict[str, float]
    shape: tuple[int, ...]
    truth: Callable[[], Tensor]
    mufu: int
    traffic: int
    output: Guarded = field(init=False)

    def __post_init__(self) -> None:
        first = self.inputs[self.op.inputs[0]]
        self.dtype, self.device = first.dtype, first.device
        self.output = Guarded.like(self.shape, self.dtype, self.device)

    @property
    def result(self) -> Tensor:
        """What the last launch wrote."""
        return self.output.view(self.shape, self.dtype)

    def params(self) -> Params:
        """What the library takes; the problem has to outlive every launch."""
        pointers = {name: tensor.data_ptr() for name, tensor in self.inputs.items()}
        pointers[self.op.outputs[0]] = self.output.address()
        kind = int(data_type(self.inputs[self.op.inputs[0]]))
        return PARAMS[self.op.name](**pointers, **self.sizes, **self.attributes, type=kind)

    def launch(self, library: ScanLibrary, tactic: int) -> Launch:
        """The op with one tactic and a workspace of its own."""
        return Launch(self, library, tactic)


class Launch:
    """A problem bound to a library's tactic; calling it enqueues it on PyTorch's current stream."""

    def __init__(self, problem: Problem, library: ScanLibrary, tactic: int) -> None:
        self._problem, self._library, self._tactic = problem, library, tactic
        self._params = problem.params()
        size = library.workspace_bytes(self._params, tactic)
        self.workspace = Guarded(size, problem.device)
        self._address = self.workspace.address() if size else 0

    def poison(self) -> None:
        """NaN in output, workspace and guards."""
        self._problem.output.poison()
        self.workspace.poison()

    def intact(self) -> bool:
        """Whether nothing outside of output and workspace was written."""
        return self._problem.output.intact() and self.workspace.intact()

    def __call__(self) -> None:
        stream = 0
        if self._problem.device.type == "cuda":
            stream = torch.cuda.current_stream().cuda_stream
        self._library.launch(
            self._params, tactic=self._tactic, workspace=self._address, stream=stream
        )
