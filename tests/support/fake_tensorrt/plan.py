"""The bytes of a fake plan: TensorRT's header as trtexec reads it, then JSON.

The JSON says: ``version``, ``compute_capability``, ``hardware`` (compatibility level),
``inputs`` and ``outputs`` (``name``, ``dtype`` as a DataType member, ``shape``), ``debug`` (names
of tensors that were marked), ``profiles`` (per
profile and input: ``min``, ``opt``, ``max``), ``layers`` (in the inspector's form), ``plugins``
(op types it needs), ``refit`` and ``stripped``, ``weights`` (name -> [dtype, number of values,
sha256]), ``host_code`` (carries a plugin library).
"""

from __future__ import annotations

import json
from typing import Any

MAGIC = b"ftrt"
_HEADER_BYTES = 36


def encode_plan(engine: dict[str, Any]) -> bytes:
    """A plan with a header of its version."""
    payload = json.dumps(engine).encode()
    numbers = [int(part) for part in engine["version"].split(".")][:4]
    numbers += [0] * (4 - len(numbers))
    size = _HEADER_BYTES + len(payload)
    head = MAGIC + bytes(4) + bytes(8) + size.to_bytes(8, "little") + bytes(numbers)
    return head.ljust(_HEADER_BYTES, b"\0") + payload


def decode_plan(plan: bytes) -> dict[str, Any]:
    """The engine in a plan; ValueError with TensorRT's words when it is none, or not whole."""
    if not plan:
        raise ValueError("Cannot deserialize with an empty memory buffer.")
    if plan[:4] != MAGIC:
        raise ValueError(
            "Trying to load an engine created with incompatible serialization version. Check that "
            "the engine was not created using safety runtime, same OS was used and version "
            "compatibility parameters were set accordingly and that it is a TRT engine file."
        )
    if int.from_bytes(plan[16:24], "little") != len(plan):
        raise ValueError("Serialization assertion plan.header.size == blobSize failed.")
    engine: dict[str, Any] = json.loads(plan[_HEADER_BYTES:])
    return engine
