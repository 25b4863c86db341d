"""NumPy calls of the kernels compiled for the CPU: arrays in, float32 array out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import reference
from kernel_library import (
    DATA_TYPES,
    TACTICS,
    BiCausalConvParams,
    BiSelectiveScanParams,
    KernelLibrary,
    Params,
    SelectiveScanParams,
)
from numpy.typing import NDArray

Array = NDArray[np.float32]

SCAN_TACTICS = ("serial", "chunked4", "chunked8", "chunked16", "generic")


def aligned(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """A copy whose data starts at a multiple of 16 bytes."""
    raw = np.empty(array.nbytes + 16, np.uint8)
    start = -raw.ctypes.data % 16
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@dataclass
class Scan:
    """Inputs of one VimSelectiveScan with B and C side by side in ``bc``.

    Shapes: u, dt [B, L, D]; a [N, D]; b, c [B, L, N]; skip, bias [D]; z [B, L, D] or None. Each row
    of ``bc`` has ``before`` columns of NaN in front.
    """

    u: Array
    dt: Array
    a: Array
    b: Array
    c: Array
    skip: Array
    bias: Array
    z: Array | None = None
    reverse: bool = False
    delta_softplus: bool = True
    before: int = 0
    keep: list[NDArray[np.generic]] = field(default_factory=list)

    @classmethod
    def random(
        cls, batch: int, length: int, channels: int, states: int = 16, seed: int = 0
    ) -> Scan:
        """Values of the size Mamba's initialisation gives."""
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> Array:
            return rng.standard_normal(shape).astype(np.float32)

        delta = 10.0 ** rng.uniform(-3, -1, channels)
        rates = np.arange(1, states + 1)[:, None] * rng.uniform(0.5, 1.5, (states, channels))
        return cls(
            u=normal(batch, length, channels),
            dt=0.5 * normal(batch, length, channels),
            a=-rates.astype(np.float32),
            b=normal(batch, length, states),
            c=normal(batch, length, states),
            skip=normal(channels),
            bias=np.log(np.expm1(delta)).astype(np.float32),
        )

    def with_(self, **changes: object) -> Scan:
        """A copy with some inputs changed."""
        return replace(self, keep=[], **changes)  # type: ignore[arg-type]

    def tokens(self, part: slice) -> Scan:
        """The same scan over some of the tokens."""
        cut = {name: getattr(self, name)[:, part] for name in ("u", "dt", "b", "c")}
        z = None if self.z is None else self.z[:, part]
        return self.with_(**cut, z=z)

    def expected(self, initial: reference.Array | None = None) -> reference.Array:
        """y [B, L, D] in float64, from the state ``initial`` [B, N, D]."""
        wide = [
            np.asarray(x, np.float64)
            for x in (self.u, self.dt, self.a, self.b, self.c, self.skip, self.bias)
        ]
        with np.errstate(invalid="ignore", over="ignore"):
            y, _ = reference.selective_scan(
                *wide, reverse=self.reverse, delta_softplus=self.delta_softplus, initial=initial
            )
            return y if self.z is None else y * reference.silu(np.asarray(self.z, np.float64))

    def params(self) -> SelectiveScanParams:
        """Parameters that point at aligned copies, which live as long as this object."""
        out = SelectiveScanParams()
        unused = np.full((*self.b.shape[:-1], self.before), np.nan, np.float32)
        bc = np.concatenate([unused, self.b, self.c], axis=-1)
        tensors = {
            "u": self.u,
            "dt": self.dt,
            "A": self.a,
            "bc": bc,
            "d_skip": self.skip,
            "dt_bias": self.bias,
            "y": np.full_like(self.u, np.nan),
        }
        if self.z is not None:
            tensors["z"] = self.z
            out.z_columns = self.z.shape[-1]
            out.has_z = 1
        for name, array in tensors.items():
            self.keep.append(aligned(np.ascontiguousarray(array, np.float32)))
            setattr(out, name, self.keep[-1].ctypes.data)
            if name == "y":
                self.y = self.keep[-1]
        out.batch, out.length, out.channels = self.u.shape
        out.states = self.a.shape[0]
        out.bc_columns = bc.shape[-1]
        out.b_off = self.before
        out.c_off = self.before + out.states
        out.reverse = int(self.reverse)
        out.delta_softplus = int(self.delta_softplus)
        out.type = DATA_TYPES["fp32"]
        return out

    def run(self, library: KernelLibrary, tactic: str) -> NDArray[np.float64]:
        """y [B, L, D] of one tactic, as float64."""
        params = self.params()
        fault = library.validate(params)
        if fault is not None:
            raise ValueError(fault)
        status = library.launch(params, TACTICS[tactic])
        if status != 0:
            raise RuntimeError(f"{tactic}: CUDA error {status}")
        return self.y.astype(np.float64)


def empty_params() -> Iterator[Params]:
    """Parameters of each op that are valid except for being null pointers."""
    yield SelectiveScanParams(
        batch=1, length=1, channels=8, states=16, bc_columns=32, c_off=16, delta_softplus=1
    )
    yield BiCausalConvParams(batch=1, length=1, channels=8, width=4, xz_columns=16)
    yield BiSelectiveScanParams(
        scale=1.0,
        batch=1,
        length=1,
        channels=8,
        states=16,
        xdbl_columns=32,
        xz_columns=16,
        c_off=16,
        z_off=8,
        delta_softplus=1,
    )
