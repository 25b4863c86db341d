"""Members of TensorRT's enums, by release."""

from __future__ import annotations

import enum
from typing import Any

from tests.support.fake_tensorrt.api import FIRST, LAST, Release

_TEN, _ELEVEN = (10, 0), (11, 0)

#: Enum -> (member, since, until).
_MEMBERS: dict[str, list[tuple[str, Release, Release]]] = {
    "BuilderFlag": [
        *((name, FIRST, _ELEVEN) for name in ("FP16", "INT8")),
        *((name, FIRST, LAST) for name in ("DEBUG", "GPU_FALLBACK")),
        ("REFIT", FIRST, LAST),
        ("DISABLE_TIMING_CACHE", FIRST, LAST),
        ("TF32", FIRST, LAST),
        *((name, FIRST, LAST) for name in ("SPARSE_WEIGHTS", "SAFETY_SCOPE", "DIRECT_IO")),
        ("OBEY_PRECISION_CONSTRAINTS", FIRST, _ELEVEN),
        ("PREFER_PRECISION_CONSTRAINTS", FIRST, _ELEVEN),
        ("REJECT_EMPTY_ALGORITHMS", FIRST, _ELEVEN),
        ("VERSION_COMPATIBLE", FIRST, LAST),
        ("EXCLUDE_LEAN_RUNTIME", FIRST, LAST),
        ("FP8", FIRST, _ELEVEN),
        ("BF16", _TEN, _ELEVEN),
        ("ERROR_ON_TIMING_CACHE_MISS", _TEN, LAST),
        ("DISABLE_COMPILATION_CACHE", _TEN, LAST),
        ("STRIP_PLAN", _TEN, LAST),
        ("WEIGHTLESS", _TEN, _ELEVEN),
        ("REFIT_IDENTICAL", _TEN, LAST),
        ("WEIGHT_STREAMING", _TEN, LAST),
        ("INT4", (10, 3), _ELEVEN),
        ("REFIT_INDIVIDUAL", (10, 3), LAST),
        ("EDITABLE_TIMING_CACHE", (10, 8), LAST),
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
                "LOOP_OUTPUT", "FILL",
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
        ("EXCLUDE_LEAN_RUNTIME", _TEN, LAST),
        ("INCLUDE_REFIT", (10, 14), LAST),
    ],
    "ExecutionContextAllocationStrategy": [
        (name, _TEN, LAST) for name in ("STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED")
    ],
}  # fmt: skip


class _Member(enum.IntEnum):
    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


def enums_of(release: Release) -> dict[str, Any]:
    """The enums of one release, and the shorthands ``float32`` and so on."""
    made: dict[str, Any] = {}
    for name, members in _MEMBERS.items():
        here = [member for member, since, until in members if since <= release < until]
        if here:
            made[name] = _Member(name, {member: value for value, member in enumerate(here)})
    types = made["DataType"]
    made["float32"], made["float16"] = types.FLOAT, types.HALF
    return made
