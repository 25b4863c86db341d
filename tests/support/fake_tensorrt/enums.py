"""Members of TensorRT's enums, by release; of flags those that builds ask for or look out for."""

from __future__ import annotations

import enum
from typing import Any

from tests.support.fake_tensorrt.api import FIRST, LAST, Release

_TEN, _ELEVEN = (10, 0), (11, 0)

#: Enum -> (member, since, until).
_MEMBERS: dict[str, list[tuple[str, Release, Release]]] = {
    "BuilderFlag": [
        *((name, FIRST, _ELEVEN) for name in ("FP16", "INT8")),
        ("REFIT", FIRST, LAST),
        ("TF32", FIRST, LAST),
        ("OBEY_PRECISION_CONSTRAINTS", FIRST, _ELEVEN),
        ("VERSION_COMPATIBLE", FIRST, LAST),
        ("BF16", _TEN, _ELEVEN),
        ("STRIP_PLAN", _TEN, LAST),
        ("REFIT_IDENTICAL", _TEN, LAST),
    ],
    "NetworkDefinitionCreationFlag": [
        ("EXPLICIT_BATCH", FIRST, _ELEVEN),
        ("STRONGLY_TYPED", _TEN, LAST),
    ],
    "HardwareCompatibilityLevel": [
        ("NONE", FIRST, LAST),
        ("AMPERE_PLUS", FIRST, LAST),
        ("SAME_COMPUTE_CAPABILITY", (10, 9), LAST),
    ],
    "DataType": [
        *((name, FIRST, LAST) for name in ("FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8")),
        ("FP8", FIRST, LAST),
        *((name, _TEN, LAST) for name in ("BF16", "INT64", "INT4")),
    ],
    "LayerType": [
        *(
            (name, FIRST, LAST)
            for name in (
                "CONVOLUTION", "CAST", "CONSTANT", "ELEMENTWISE", "GATHER", "IDENTITY",
                "MATRIX_MULTIPLY", "PLUGIN", "PLUGIN_V2", "REDUCE", "SHAPE", "SHUFFLE", "SLICE",
                "UNARY", "ACTIVATION", "CONCATENATION", "TRIP_LIMIT", "RECURRENCE", "ITERATOR",
                "LOOP_OUTPUT", "FILL", "QUANTIZE", "DEQUANTIZE",
            )
        ),
        ("PLUGIN_V3", _TEN, LAST),
    ],
    "MemoryPoolType": [
        *((name, FIRST, LAST) for name in ("WORKSPACE", "TACTIC_DRAM")),
        ("TACTIC_SHARED_MEMORY", _TEN, LAST),
    ],
    "ProfilingVerbosity": [
        (name, FIRST, LAST) for name in ("LAYER_NAMES_ONLY", "NONE", "DETAILED")
    ],
    "LayerInformationFormat": [(name, FIRST, LAST) for name in ("ONELINE", "JSON")],
    "TacticSource": [
        *((name, FIRST, _ELEVEN) for name in ("CUBLAS", "CUBLAS_LT", "CUDNN")),
        *((name, FIRST, LAST) for name in ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")),
    ],
    "TensorIOMode": [(name, FIRST, LAST) for name in ("NONE", "INPUT", "OUTPUT")],
    "TensorLocation": [(name, FIRST, LAST) for name in ("DEVICE", "HOST")],
    "SerializationFlag": [
        ("EXCLUDE_WEIGHTS", _TEN, LAST),
        ("INCLUDE_REFIT", (10, 14), LAST),
    ],
}  # fmt: skip


class _Member(enum.IntEnum):
    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


def enums_of(release: Release) -> dict[str, Any]:
    """The enums of one release."""
    made: dict[str, Any] = {}
    for name, members in _MEMBERS.items():
        here = [member for member, since, until in members if since <= release < until]
        if here:
            made[name] = _Member(name, {member: value for value, member in enumerate(here)})
    return made
