"""What an ONNX message holds, counted on its bytes before protobuf builds anything from them.

A message of two bytes takes some hundred in memory, so a small file can fill a large machine; and
protobuf keeps text that is no UTF-8 as bytes, which then stand where every caller expects a name.
Both are seen here, in one pass over the fields that jumps over the weights. The encoding is
protobuf's: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor

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
