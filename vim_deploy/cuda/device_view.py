"""Arrays of other libraries on the GPU, seen without a copy.

Two protocols: DLPack, in which the owner makes its pending work precede ours on the stream it is
given, and ``__cuda_array_interface__``, which names a stream to wait for, or says nothing. An
owner that says nothing is waited for with the whole device.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from vim_deploy.cuda.runtime import Cuda
from vim_deploy.errors import VimDeployError

#: kDLCUDA and kDLCUDAManaged.
_DLPACK_CUDA = frozenset({2, 13})
#: DLDataTypeCode -> NumPy kind.
_DLPACK_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}
_CAPSULE_NAME = b"dltensor"


class _DlTensor(ctypes.Structure):
    """``DLTensor`` of dlpack.h; a ``DLManagedTensor`` begins with one."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class DeviceView:
    """Dense memory on the GPU: pointer, NumPy dtype, shape, and what keeps it alive."""

    pointer: int
    dtype: str
    shape: tuple[int, ...]
    owner: Any


def view_of(array: Any, cuda: Cuda, stream: int, *, name: str) -> DeviceView:  # noqa: ANN401
    """``array``'s memory, after making sure that work on ``stream`` comes after its owner's.

    Args:
        array: has ``__dlpack__`` or ``__cuda_array_interface__``; dense and row-major.
        cuda: the GPU it has to be on.
        stream: the stream that will use it.
        name: for messages.

    Raises:
        VimDeployError: VIM-415 when it is not such an array.
    """
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        view = _from_dlpack(array, cuda, stream, name)
    elif hasattr(array, "__cuda_array_interface__"):
        view = _from_interface(array, cuda, stream, name)
    else:
        raise _refused(name, f"{type(array).__name__} is no array on the GPU")
    if 0 not in view.shape and not cuda.on_gpu(view.pointer):
        raise _refused(name, f"its memory is not on GPU {cuda.device}")
    return view


def _refused(name: str, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-415",
        f"{name} cannot be used where it is",
        why=why,
        fix="give a dense row-major CUDA tensor of the engine's own GPU (in PyTorch "
        "tensor.contiguous()), or a NumPy array to run()",
    )


def _from_dlpack(array: Any, cuda: Cuda, stream: int, name: str) -> DeviceView:  # noqa: ANN401
    kind, index = (int(part) for part in array.__dlpack_device__())
    if kind not in _DLPACK_CUDA:
        raise _refused(name, "it is not on the GPU")
    if index != cuda.device:
        raise _refused(name, f"it is on GPU {index}, the engine on GPU {cuda.device}")
    # The capsule stays ours to hold: whoever made it frees it when the last reference goes.
    # DLPack has 1 for the default stream, and forbids 0.
    capsule = array.__dlpack__(stream=stream or 1)
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _DlTensor.from_address(get(capsule, _CAPSULE_NAME))
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    if tensor.code not in _DLPACK_KINDS or tensor.lanes != 1:
        raise _refused(name, "its element type has no NumPy name")
    if tensor.strides:
        _require_dense(name, shape, tuple(tensor.strides[axis] for axis in range(tensor.ndim)))
    kind_name = _DLPACK_KINDS[tensor.code]
    dtype = "bool" if kind_name == "b" else np.dtype(f"{kind_name}{tensor.bits // 8}").name
    pointer = (tensor.data or 0) + tensor.byte_offset
    return DeviceView(pointer, dtype, shape, (array, capsule))


def _from_interface(array: Any, cuda: Cuda, stream: int, name: str) -> DeviceView:  # noqa: ANN401
    said = array.__cuda_array_interface__
    dtype = np.dtype(said["typestr"])
    shape = tuple(int(size) for size in said["shape"])
    if said.get("strides") is not None:
        steps = tuple(int(step) for step in said["strides"])
        if any(step % dtype.itemsize for step in steps):
            raise _refused(name, f"its strides {steps} are no multiples of an element")
        _require_dense(name, shape, tuple(step // dtype.itemsize for step in steps))
    if not dtype.isnative:
        raise _refused(name, "its bytes are in the other order")
    _follow(said, cuda, stream)
    return DeviceView(int(said["data"][0]), dtype.name, shape, array)


def _follow(said: dict[str, Any], cuda: Cuda, stream: int) -> None:
    """Make ``stream`` come after the owner's work, as the interface's version 3 says."""
    if said.get("version", 0) < 3 or "stream" not in said:
        cuda.synchronize_device()
        return
    other = said["stream"]
    if other is None or other == stream:
        return
    event = cuda.create_event()
    try:
        cuda.record(event, int(other))
        cuda.wait(stream, event)
    finally:
        cuda.destroy_event(event)


def _require_dense(name: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != expected:
            raise _refused(name, f"shape {list(shape)} with strides {list(strides)} is not dense")
        expected *= size
