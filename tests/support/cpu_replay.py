"""The cases of ``plugin test`` for ``plugins/cpu/tests/replay.cpp``, and how far it is off."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Iterator

from vim_deploy.plugin.cases import Case, cases, decode, encode
from vim_deploy.plugin.check import TOLERANCES
from vim_deploy.plugin.kernels import PARAMS
from vim_deploy.plugin.region_cases import region_cases

_OPS = list(PARAMS)


def _written(case: Case) -> bytes:
    """A case as the program reads it."""
    params = case.params()
    pointers = [name for name, kind in params._fields_ if kind is ctypes.c_void_p]
    *inputs, output = pointers
    assert output == case.output
    parts = [struct.pack("<III", _OPS.index(case.op), len(inputs), ctypes.sizeof(params))]
    parts.append(bytes(params))
    for name in inputs:
        data = case.data(name)
        parts += [struct.pack("<I", len(data)), data]
    return b"".join([*parts, struct.pack("<I", len(encode(case.expected, case.dtype)))])


def failures(command: list[str]) -> tuple[str, list[str]]:
    """The instruction set that ran, and a sentence for each case that is too far from float64."""
    chosen = [*cases(), *region_cases()]
    done = subprocess.run(command, input=b"".join(map(_written, chosen)), capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.decode().strip(), list(_compared(chosen, done.stdout))


def _compared(chosen: list[Case], answer: bytes) -> Iterator[str]:
    at = 0
    for case in chosen:
        size = len(encode(case.expected, case.dtype))
        found = decode(answer[at : at + size], case.dtype, case.expected.shape)
        at += size
        error, fault = case.compare(found)
        if error is None or error > TOLERANCES[case.dtype]:
            yield f"{case.op} {case.dtype.name} {case.name}: {fault or f'relative L2 {error:.3g}'}"
    assert at == len(answer)
