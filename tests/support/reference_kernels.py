"""The plugin library's launches by the ops' float64 references: the same calls, no compiler.

Memory is read and written at the addresses that the parameters hold, with the shapes that they
say, so that a wrong offset, size or type of a caller shows as it would with the kernels.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from vim_deploy.ops import BI_CAUSAL_CONV, BI_SELECTIVE_SCAN
from vim_deploy.plugin.kernels import DataType, Params

_TYPES: dict[int, type[np.generic]] = {DataType.FP32: np.float32, DataType.FP16: np.float16}
#: Asked for and checked, so that a caller who forgets it fails.
WORKSPACE = 64


class ReferenceKernels:
    """What ``plugin.kernels.ScanLibrary`` is, for the two fused ops on the CPU."""

    def __init__(self) -> None:
        self.launched: list[str] = []

    def workspace_bytes(self, params: Params, tactic: int) -> int:
        return WORKSPACE if params.op is BI_SELECTIVE_SCAN else 0

    def launch(self, params: Params, *, tactic: int, workspace: int, stream: int) -> None:
        assert stream == 0
        assert bool(workspace) == bool(self.workspace_bytes(params, tactic))
        shapes = _conv_shapes(params) if params.op is BI_CAUSAL_CONV else _scan_shapes(params)
        given: dict[str, Any] = {}
        for name, shape in shapes.items():
            dtype = np.float32 if name in params.op.fp32 else _TYPES[params.type]
            given[name] = _at(getattr(params, name), shape, dtype)
        out = given.pop(params.op.outputs[0])
        facts = {name: getattr(params, name) for name in params.op.attributes}
        wide = [value.astype(np.float64) for value in given.values()]
        out[...] = params.op.reference(*wide, **facts)
        self.launched.append(params.op.name)


def _conv_shapes(p: Any) -> dict[str, tuple[int, ...]]:
    return {
        "xz": (p.batch, p.length, p.xz_columns),
        "w": (2, p.width, p.channels),
        "b": (2, p.channels),
        "u2": (2, p.batch, p.length, p.channels),
    }


def _scan_shapes(p: Any) -> dict[str, tuple[int, ...]]:
    rows = (p.batch, p.length)
    return {
        "u2": (2, *rows, p.channels),
        "dt": (2, p.channels, p.rank) if p.low_rank else (2, *rows, p.channels),
        "xdbl": (2, *rows, p.xdbl_columns),
        "A": (2, p.states, p.channels),
        "Dskip": (2, p.channels),
        "dt_bias": (2, p.channels),
        "xz": (*rows, p.xz_columns),
        "y": (*rows, p.channels),
    }


def _at(address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = (ctypes.c_char * count).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)
