"""mamba_ssm's and causal_conv1d's launches for the same work, where their extensions are.

Both are given as a folder with the built modules ``selective_scan_cuda`` and ``causal_conv1d_cuda``
for this Python and PyTorch; nothing of them is here. Their tensors are [B,D,L], and their second
direction reads flipped tokens: that is laid out before the clock. Their scan also writes ``out``
before the gate and the state ``x`` for training, which its interface cannot leave out.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from launches import Problem
from torch import Tensor

#: Relative L2 between both results: fp16 rounding of two different orders of summation.
AGREEMENT = 5e-3


class Extensions:
    """The modules of a folder; ``missing`` says why one is not there."""

    def __init__(self, folder: Path | None) -> None:
        self.missing: dict[str, str] = {}
        if folder is not None:
            sys.path.insert(0, str(folder))
        self.scan = self._module("selective_scan_cuda", folder)
        self.conv = self._module("causal_conv1d_cuda", folder)

    def _module(self, name: str, folder: Path | None) -> ModuleType | None:
        if folder is None:
            self.missing[name] = "no folder was given (--ext)"
            return None
        try:
            return importlib.import_module(name)
        except ImportError as error:
            self.missing[name] = str(error)
            return None


class TheirScan:
    """The work of a ``VimBiSelectiveScan`` with given dt by two launches of their forward."""

    def __init__(self, module: ModuleType, problem: Problem) -> None:
        self._forward = module.fwd
        given, at = problem.inputs, problem.attributes
        states = problem.sizes["states"]

        def of(direction: int, rows: Tensor) -> Tensor:
            return (rows.flip(1) if direction else rows).transpose(1, 2).contiguous()

        gate = given["xz"][..., int(at["z_off"]) :]
        self._calls = []
        for way in range(2):
            x, z = of(way, given["xdbl"][way]), of(way, gate)
            b, c = (
                x[:, None, int(at[name]) : int(at[name]) + states] for name in ("b_off", "c_off")
            )
            rates = given["A"][way].t().contiguous()
            tensors = of(way, given["u2"][way]), of(way, given["dt"][way]), rates, b, c
            self._calls.append((*tensors, given["Dskip"][way], z, given["dt_bias"][way], True))
        self._xz = given["xz"].transpose(1, 2).contiguous()
        self._scale = at["scale"]

    def scans(self) -> list[Tensor]:
        """Their two launches; gated outputs [B,D,L], the second in flipped order."""
        return [self._forward(*call)[2] for call in self._calls]

    def mixer(self) -> Tensor:
        """The launches with the flips, copies, sum and transpose that the official module makes
        around them; [B,L,D], not yet scaled."""
        channels = self._xz.shape[1] // 2
        turned = self._xz.flip([-1])
        outputs = []
        for call, xz in zip(self._calls, (self._xz, turned), strict=True):
            b, c = call[3].contiguous(), call[4].contiguous()
            given = (*call[:3], b, c, call[5], xz[:, channels:], *call[7:])
            outputs.append(self._forward(*given)[2])
        return (outputs[0] + outputs[1].flip([-1])).transpose(1, 2).contiguous()

    def distance(self, result: Tensor) -> float:
        """Relative L2 of our result [B,L,D] to theirs."""
        want = self._scale * self.mixer().float()
        return float((result.float() - want).norm() / want.norm())


def their_conv(module: ModuleType, problem: Problem) -> Callable[[], object]:
    """One direction of a ``VimBiCausalConv`` by their forward: half of the work."""
    channels = problem.sizes["channels"]
    x = problem.inputs["xz"][..., :channels].transpose(1, 2).contiguous()
    weight = problem.inputs["w"][0].t().to(x.dtype).contiguous()
    bias = problem.inputs["b"][0].to(x.dtype).contiguous()
    return lambda: module.causal_conv1d_fwd(x, weight, bias, None, None, None, True)


def agrees(distance: float) -> bool:
    """Whether both computed the same; NaN does not."""
    return distance <= AGREEMENT
