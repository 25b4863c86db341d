"""Addresses of debug tensors, as bindings of TensorRT pass them."""

from __future__ import annotations

import ctypes

import pytest

from vim_deploy.runtimes.tensorrt.debug import pointer_of


def capsule(pointer: int, name: bytes | None = None) -> object:
    """A capsule as pybind11 makes one of ``void const*``; with a name it is something else."""
    make = ctypes.pythonapi.PyCapsule_New
    make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    make.restype = ctypes.py_object
    made: object = make(pointer, name, None)
    return made


@pytest.mark.parametrize("pointer", [0x1000, 0x7F00_0000_0040])
def test_capsule_and_number(pointer: int) -> None:
    assert pointer_of(capsule(pointer)) == pointer
    assert pointer_of(pointer) == pointer


def test_a_capsule_of_something_else() -> None:
    name = b"other"
    with pytest.raises(ValueError, match="incorrect name"):
        pointer_of(capsule(0x1000, name))
