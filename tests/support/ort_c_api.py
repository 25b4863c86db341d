"""ONNX Runtime's C interface through ctypes: what a C++ program calls, without its headers.

Functions are found by their place in the table ``OrtApi``, which never changes once released
(onnxruntime_c_api.h says so); those used here are in version 17, which is asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

#: The version of the table that is asked for, as the library of native ops does.
API_VERSION = 17
#: Function -> place in the table.
_PLACES = {
    "GetErrorMessage": 2,
    "CreateEnv": 3,
    "DisableTelemetryEvents": 6,
    "CreateSession": 7,
    "Run": 9,
    "CreateSessionOptions": 10,
    "CreateTensorWithDataAsOrtValue": 49,
    "GetTensorMutableData": 51,
    "CreateCpuMemoryInfo": 69,
    "ReleaseEnv": 92,
    "ReleaseStatus": 93,
    "ReleaseMemoryInfo": 94,
    "ReleaseSession": 95,
    "ReleaseValue": 96,
    "ReleaseSessionOptions": 100,
    "RegisterCustomOpsLibrary_V2": 228,
}
_FATAL, _FLOAT, _ARENA, _DEFAULT_MEMORY = 4, 1, 1, 0


class OrtError(Exception):
    """What a call returned instead of nothing."""


def shared_library() -> Path:
    """The C++ library in the installed wheel; skips where that has none of its own."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    found = sorted(folder.glob("libonnxruntime.so*"))
    if not found:
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} has no library for C++ in its wheel")
    return found[0]


class OrtApi:
    """The functions of one ONNX Runtime; every object made is released by ``close``."""

    def __init__(self, library: Path) -> None:
        base = ctypes.CDLL(str(library)).OrtGetApiBase
        base.restype = ctypes.POINTER(ctypes.c_void_p)
        get_api = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint32)(base()[0])
        self._table = get_api(API_VERSION)
        assert self._table, f"it has no version {API_VERSION} of its interface"
        self._made = contextlib.ExitStack()

    def close(self) -> None:
        self._made.close()

    def _function(self, name: str, result: type | None, *kinds: type) -> ctypes._CFunctionType:
        return ctypes.CFUNCTYPE(result, *kinds)(self._table[_PLACES[name]])

    def call(self, name: str, *words: object) -> None:
        """Call a function that returns a status; OrtError with its message when it failed."""
        status = self._function(name, ctypes.c_void_p, *map(_kind, words))(*words)
        if not status:
            return
        say = self._function("GetErrorMessage", ctypes.c_char_p, ctypes.c_void_p)
        message = say(status).decode()
        self._function("ReleaseStatus", None, ctypes.c_void_p)(status)
        raise OrtError(message)

    def make(self, name: str, release: str, *words: object) -> ctypes.c_void_p:
        """The object that ``name`` gives by its last argument."""
        found = ctypes.c_void_p()
        self.call(name, *words, ctypes.byref(found))
        self._made.callback(self._function(f"Release{release}", None, ctypes.c_void_p), found)
        return found


def _kind(word: object) -> type:
    if isinstance(word, bytes):
        return ctypes.c_char_p
    if isinstance(word, int):
        return ctypes.c_size_t
    return ctypes.c_void_p


@contextlib.contextmanager
def opened() -> Iterator[OrtApi]:
    """The interface of the installed ONNX Runtime, for as long as the block lasts."""
    api = OrtApi(shared_library())
    try:
        yield api
    finally:
        api.close()


def run_with_ops(
    api: OrtApi, model: Path, ops: Path | None, feeds: Mapping[str, np.ndarray], output: np.ndarray
) -> None:
    """Fill ``output``, float32, as a C++ program gets it of ``model`` with the library ``ops``.

    The model's only output is named ``y``.
    """
    env = api.make("CreateEnv", "Env", _FATAL, b"test")
    api.call("DisableTelemetryEvents", env)
    options = api.make("CreateSessionOptions", "SessionOptions")
    if ops is not None:
        # The one line that a program adds.
        api.call("RegisterCustomOpsLibrary_V2", options, bytes(ops))
    session = api.make("CreateSession", "Session", env, bytes(model), options)
    memory = api.make("CreateCpuMemoryInfo", "MemoryInfo", _ARENA, _DEFAULT_MEMORY)
    values, kept = [], []
    for array in feeds.values():
        held = np.ascontiguousarray(array, np.float32)
        shape = (ctypes.c_int64 * held.ndim)(*held.shape)
        place = ctypes.c_void_p(held.ctypes.data)
        words = (memory, place, held.nbytes, shape, held.ndim, _FLOAT)
        values.append(api.make("CreateTensorWithDataAsOrtValue", "Value", *words))
        kept.append((held, shape))
    given = (ctypes.c_char_p * len(feeds))(*(name.encode() for name in feeds))
    tensors = (ctypes.c_void_p * len(feeds))(*(value.value for value in values))
    wanted = (ctypes.c_char_p * 1)(b"y")
    words = (session, None, given, tensors, len(feeds), wanted, 1)
    answer = api.make("Run", "Value", *words)
    data = ctypes.c_void_p()
    api.call("GetTensorMutableData", answer, ctypes.byref(data))
    assert data.value is not None
    ctypes.memmove(output.ctypes.data, data.value, output.nbytes)
