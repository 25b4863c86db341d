"""Weights that lie in files beside an ONNX file: where they may be, and that they are there.

onnx opens what the model names. Here it is made sure before that each name is a regular file of the
model's own folder, reached through no link, and that it holds what the tensors' shapes need, so
that nothing is read that is somebody else's and no small file asks for much memory.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from onnx import TensorProto
from onnx.external_data_helper import uses_external_data

#: Keys of ONNX's IR specification, and ``basepath``, which onnx adds itself.
_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})
#: More digits than any file has bytes; Python takes no more than 4300.
_MOST_DIGITS = 18
#: Tensors may share a piece of a file, as tied weights do; a file that is read often is a bomb.
_MOST_SHARED = 4


def names_of(tensors: Iterable[TensorProto]) -> list[str]:
    """The files that hold weights, as the model names them: relative to its folder."""
    outside = [tensor for tensor in tensors if uses_external_data(tensor)]
    return sorted({_entries(tensor).get("location", "") for tensor in outside})


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def misplaced(tensors: Iterable[TensorProto]) -> Iterator[str]:
    """What is wrong with the names, a sentence each; no file is looked at."""
    for tensor in tensors:
        if not uses_external_data(tensor):
            continue
        entries = _entries(tensor)
        location = entries.get("location", "")
        place = PurePosixPath(location)
        if (
            not place.parts
            or place.is_absolute()
            or ".." in place.parts
            or set("\\:\0") & set(location)
        ):
            yield f"its tensor {tensor.name!r} lies outside the model's folder: {location!r}"
        if unknown := sorted(entries.keys() - _KEYS):
            yield f"its tensor {tensor.name!r} says {unknown[0]!r} of the file it lies in"
        for key in ("offset", "length"):
            text = entries.get(key, "0")
            if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
                yield f"its tensor {tensor.name!r} has the {key} {text[:40]!r}"


def absent(
    tensors: Iterable[TensorProto], folder: Path, needed: Callable[[TensorProto], int]
) -> Iterator[str]:
    """What is wrong with the files, a sentence each; nothing of them is read.

    Args:
        tensors: of the model, their names without fault (``misplaced``).
        folder: of the model.
        needed: bytes of a tensor by type and shape.
    """
    sizes: dict[str, int] = {}
    wanted = 0
    for tensor in tensors:
        if not uses_external_data(tensor):
            continue
        entries = _entries(tensor)
        name = entries["location"]
        if name not in sizes:
            try:
                sizes[name] = _size(folder, name)
            except OSError as error:
                yield f"its weights in {name!r}: {error.strerror or error}"
                return
            except ValueError as error:
                yield f"its weights in {name!r}: {error}"
                return
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length") or max(sizes[name] - offset, 0))
        if length != needed(tensor) or offset + length > sizes[name]:
            yield (
                f"the {sizes[name]} bytes in {name!r} do not hold the tensor {tensor.name!r}: "
                f"{length} from {offset}, and its shape needs {needed(tensor)}"
            )
        wanted += length
    if wanted > _MOST_SHARED * sum(sizes.values()):
        yield f"its tensors ask for {wanted} bytes of files that have {sum(sizes.values())}"


def _size(folder: Path, name: str) -> int:
    """Bytes of the regular file ``name``; ValueError for anything else, and for links."""
    place = folder
    mode = 0
    for part in PurePosixPath(name).parts:
        place /= part
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise ValueError("it is a link")
    if not stat.S_ISREG(mode):
        raise ValueError("it is not a regular file")
    return place.stat().st_size
