"""ONNX models as files: the one door through which anybody's come in, and how ours are written.

protobuf takes nearly any bytes for a message, and onnx reads what it is told to beside the file.
Here it is made sure that what comes in is a graph that later code may walk (``onnx_rules``);
whether it makes sense is for the runtimes. A message of two bytes takes some hundred in memory, so
a small file can fill a large machine; and protobuf keeps text that is no UTF-8 as bytes, which then
stand where every caller expects a name. Both are seen before protobuf builds anything, in one pass
over the fields that jumps over the weights
(https://protobuf.dev/programming-guides/encoding).

An ONNX file is one protobuf message, and no message is longer than 2 GiB. Above that the weights go
to one file beside it, ``NAME.onnx.data``, as ONNX's external data; what reads the model finds them
by that name in the model's folder, so the two are moved and copied together.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data, write_external_data_tensors

from vim_deploy import interrupts
from vim_deploy.artifact.onnx_rules import absent, broken_rule, flaws, names_of, tensors_of
from vim_deploy.errors import VimDeployError
from vim_deploy.files import atomic_output, output_errors, require_file
from vim_deploy.onnx_graph import WEIGHT_BYTES, tensor_bytes
from vim_deploy.text import storable
from vim_deploy.untrusted import read_bytes

if TYPE_CHECKING:
    from vim_deploy.artifact.record import FileIdentity

#: protobuf's limit of one message.
MAX_FILE_BYTES = 2**31 - 1
#: Bytes of weights that one file holds: protobuf's limit of 2**31 - 1 bytes a message, less room
#: for the rest. Nodes, names and functions of a 24-layer model take less than 1 MiB.
WEIGHTS_LIMIT = 2**31 - 1 - 2**24
#: What onnx and protobuf raise for damaged files and for external data that are not as described.
_UNREADABLE = (
    DecodeError, OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError,
    RecursionError, OverflowError, onnx.checker.ValidationError,
)  # fmt: skip
#: Of these counts a large exporter's output stays far below: 24 layers, unrolled over 197 tokens
#: by hand, are some 60,000 nodes of 7 messages.
MAX_MESSAGES = 500_000
MAX_FIELDS = 2_000_000
#: Below protobuf's own limit of 100. A graph inside a node takes 3 levels.
MAX_DEPTH = 64
#: Whole numbers of one byte become 8 in memory: so many more bytes than twice the file's.
MAX_NUMBER_BYTES = 1 << 27
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
#: A number has at most so many bytes (64 bits, 7 in each).
_MOST_VARINT = 10


def unreadable(path: Path, why: str) -> VimDeployError:
    """VIM-409 for ``path``."""
    return VimDeployError(
        "VIM-409",
        f"{path} is not a readable ONNX model",
        why=why,
        fix=f"export it again: vim-deploy export CHECKPOINT -o {path}",
    )


class OnnxFile(NamedTuple):
    """A model in memory, and the names of the files beside it that its weights came from."""

    model: onnx.ModelProto
    beside: tuple[str, ...]


def read_onnx(path: Path, *, outside: bool = True) -> OnnxFile:
    """Parse an ONNX file.

    Args:
        path: of the file.
        outside: read weights that lie beside it, too.

    Raises:
        VimDeployError: VIM-401 when missing, VIM-409 when empty, truncated, not ONNX, or not as
            this module's docstring says.
    """
    require_file(path, "ONNX model")
    data = read_bytes(path, lambda why: unreadable(path, why), max_bytes=MAX_FILE_BYTES)
    beside: tuple[str, ...] = ()
    try:
        require_modest(data, onnx.ModelProto.DESCRIPTOR)
        model = onnx.ModelProto()
        model.ParseFromString(data)
        del data
        flaw = next(flaws(model), None)
        # Once they are read, the model does not name the files any more.
        beside = () if flaw else tuple(names_of(tensors_of(model)))
        if beside and outside:
            flaw = _unsayable(path) or next(absent(tensors_of(model), path.parent), None)
            if flaw is None:
                onnx.load_external_data_for_model(model, str(path.parent))
        flaw = broken_rule(model) if flaw is None and outside else flaw
    except _UNREADABLE as error:
        raise unreadable(path, f"{type(error).__name__}: {error}") from error
    if flaw is not None:
        raise unreadable(path, flaw)
    return OnnxFile(model, beside)


def _unsayable(path: Path) -> str | None:
    """Why weights beside ``path`` cannot be found by runtimes; None when they can.

    A runtime gets the bytes of a model whose path is no text, and then looks for its weights in the
    folder the user works in.
    """
    if storable(str(path)) == str(path):
        return None
    return "its weights lie beside it, and runtimes find them only by a path in UTF-8: rename it"


def data_path(path: Path) -> Path:
    """Where the weights of the model at ``path`` go when it is too large for one file."""
    return path.with_name(f"{path.name}.data")


def is_large(model: onnx.ModelProto) -> bool:
    """Whether the initialisers, all in memory, are too many for one file."""
    return sum(tensor_bytes(tensor) for tensor in model.graph.initializer) > WEIGHTS_LIMIT


@contextlib.contextmanager
def model_output(model: onnx.ModelProto, path: Path) -> Iterator[Path]:
    """Write ``model``; yield a temporary file that runs, and put it in place when the block ends.

    Afterwards there is one file, ``path``, or it and ``data_path(path)``: both new, or nothing
    changed. Weights that go to the second file are gone from ``model`` then. Weights of a replaced
    model that lay beside it are replaced or removed with it. A process that is killed between the
    two renames leaves no model, never one with the weights of another.

    Raises:
        VimDeployError: VIM-304, VIM-305 (output).
    """
    if is_large(model):
        _require_text_name(path)
        with _two_files(model, path) as temporary:
            yield temporary
        return
    stale = owned_data(path)
    with atomic_output(path) as temporary:
        _write(model, temporary, path)
        yield temporary
    if stale is not None:
        with output_errors(stale):
            stale.unlink(missing_ok=True)


def _require_text_name(path: Path) -> None:
    """VIM-304 for a name that a model cannot hold: it names the file with its weights."""
    if storable(path.name) != path.name:
        raise VimDeployError(
            "VIM-304",
            f"cannot write {path}",
            why="the weights go to a second file, and the model names it in UTF-8",
            fix="name an output in UTF-8 with -o",
        )


@contextlib.contextmanager
def _two_files(model: onnx.ModelProto, path: Path) -> Iterator[Path]:
    data = data_path(path)
    # Contexts end from the right: the weights take their place, then the model.
    with (
        _old_files() as put_aside,
        atomic_output(path) as temporary,
        atomic_output(data) as temporary_data,
    ):
        with output_errors(data):
            _move_weights(model, temporary_data)
        _write(model, temporary, path)
        yield temporary
        # It ran with the name that its weights had; in place they have another.
        _name_data(model, data.name)
        _write(model, temporary, path)
        put_aside(path, data)


@contextlib.contextmanager
def _old_files() -> Iterator[Callable[..., None]]:
    """Yield a function that moves files out of the way: for good, or until the block fails."""
    moved: list[tuple[Path, Path | None]] = []

    def put_aside(*paths: Path) -> None:
        for path in paths:
            if not path.exists():
                moved.append((path, None))
                continue
            # An interrupt between the two would lose what was moved.
            with interrupts.deferred(), output_errors(path):
                # The name of a temporary file: the next run removes what a killed one leaves.
                handle, name = tempfile.mkstemp(
                    prefix=f".{path.name}.", suffix=".part", dir=path.parent
                )
                os.close(handle)
                path.replace(name)
                moved.append((path, Path(name)))

    try:
        yield put_aside
    except BaseException:
        for path, old in moved:
            if old is not None:
                old.replace(path)
            else:
                path.unlink(missing_ok=True)
        raise
    for _, old in moved:
        if old is not None:
            old.unlink(missing_ok=True)


def _write(model: onnx.ModelProto, temporary: Path, path: Path) -> None:
    with output_errors(path):
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def _move_weights(model: onnx.ModelProto, data: Path) -> None:
    """Write the weights of ``model`` to ``data``, one after the other, and refer to them there."""
    for tensor in model.graph.initializer:
        if tensor_bytes(tensor) >= WEIGHT_BYTES:
            if not tensor.HasField("raw_data"):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
            set_external_data(tensor, data.name)
    write_external_data_tensors(model, str(data.parent))


def _name_data(model: onnx.ModelProto, name: str) -> None:
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name


def bytes_with(path: Path, weights: Iterable[FileIdentity]) -> int:
    """Of a model's file and the files with its weights beside it (``Artifact.companions``)."""
    return path.stat().st_size + sum(one.bytes for one in weights)


def owned_data(path: Path) -> Path | None:
    """The file beside ``path`` with the weights of the model there; None when there is none."""
    data = data_path(path)
    if not path.is_file() or not data.is_file():
        return None
    try:
        beside = read_onnx(path, outside=False).beside
    except VimDeployError:
        return None
    return data if data.name in beside else None


class _Field(NamedTuple):
    """What the scan needs to know of a field of length-delimited form."""

    message: Descriptor | None
    is_text: bool
    #: Bytes of one element in memory, when the field is a packed list of whole numbers.
    number_bytes: int


@functools.cache
def _fields(message: Descriptor) -> dict[int, _Field]:
    known = {}
    for field in message.fields:
        kind = field.cpp_type
        wide = kind in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
        narrow = kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32)
        known[field.number] = _Field(
            field.message_type,
            field.type == FieldDescriptor.TYPE_STRING,
            8 if wide else 4 if narrow else 0,
        )
    return known


def require_modest(data: bytes, message: Descriptor) -> None:
    """ValueError, with a sentence, for bytes that are no such message or hold too much of it.

    Args:
        data: a serialised message; fields that are not known are passed over.
        message: its type.
    """
    view = memoryview(data)
    messages = fields = numbers = 0
    # Start, end, type and depth of the messages that are still to be read.
    waiting = [(0, len(data), message, 0)]
    while waiting:
        place, end, kind, depth = waiting.pop()
        messages += 1
        if messages > MAX_MESSAGES:
            raise ValueError(f"it has more than {MAX_MESSAGES} parts, which no exporter writes")
        if depth > MAX_DEPTH:
            raise ValueError(f"it is more than {MAX_DEPTH} levels deep")
        known = _fields(kind)
        while place < end:
            fields += 1
            if fields > MAX_FIELDS:
                raise ValueError(f"it has more than {MAX_FIELDS} fields, which no exporter writes")
            tag, place = _varint(data, place, end)
            wire = tag & 7
            if wire == _VARINT:
                _, place = _varint(data, place, end)
                continue
            if wire == _LENGTH:
                length, place = _varint(data, place, end)
            elif wire in _FIXED:
                length = _FIXED[wire]
            else:
                raise ValueError("it is no protobuf message, or is damaged")
            stop = place + length
            if stop > end:
                raise ValueError("it is cut off, or a length in it is wrong")
            field = known.get(tag >> 3)
            if wire == _LENGTH and field is not None:
                if field.message is not None:
                    waiting.append((place, stop, field.message, depth + 1))
                elif field.is_text:
                    _require_text(view[place:stop])
                elif field.number_bytes:
                    numbers += _elements(view[place:stop]) * field.number_bytes
                    if numbers > MAX_NUMBER_BYTES + 2 * len(data):
                        raise ValueError(f"its numbers take {numbers} bytes in memory, too many")
            place = stop


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """The number at ``place``, and the place behind it."""
    value = shift = 0
    for position in range(place, min(end, place + _MOST_VARINT)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
    raise ValueError("it is cut off, or a number in it has no end")


def _require_text(part: memoryview) -> None:
    try:
        str(part, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"a text in it is no UTF-8: {error}") from error


def _elements(part: memoryview) -> int:
    """Numbers in a packed list: each ends with a byte below 128."""
    return int(np.count_nonzero(np.frombuffer(part, np.uint8) < 0x80))
