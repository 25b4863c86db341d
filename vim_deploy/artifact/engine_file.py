"""What an engine file is, read from its first bytes and the record beside it.

Nothing is deserialised, so no runtime and no GPU is needed and no code of the plan is run. Header
of TensorRT (``ftrt``; the fields its own trtexec reads) and TensorRT-RTX (``vtrt``; read off plans
of version 1.7.1)::

    byte 0   magic, 4 bytes
    byte 4   0, u32 little-endian
    byte 16  RTX: size of the file, u64 little-endian
    byte 24  version: major, minor, patch, build; one byte each
    byte 32  RTX 1.7: GPUs the engine runs on, one bit each (from_plan_word)

Without a choice an engine runs on everything from Ampere (8.0) on that TensorRT-RTX supports,
GPUs newer than the build included. Turing (7.5) must be named, and has no FP32 matrix products in
TensorRT-RTX: the graph must be FP16. Hopper (9.0), data-centre Blackwell (10.x) and Jetson Orin
(8.7) are not supported at all. Source: NVIDIA's page "CPU-Only AOT and TensorRT-RTX Engines", and
what ``set_compute_capability`` of version 1.7.1 answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file
from vim_deploy.precisions import TABLE
from vim_deploy.ranges import shown

#: What an engine's file is called.
ENGINE_SUFFIXES = (".plan", ".engine")
#: Runtimes that make engines, and their names as NVIDIA writes them.
TENSORRT: Final = "tensorrt"
TENSORRT_RTX: Final = "tensorrt-rtx"
TITLES: Final = {TENSORRT: "TensorRT", TENSORRT_RTX: "TensorRT-RTX"}
#: Their types of tensors (``DataType``), and what NumPy calls them; it has no bfloat16.
DATA_TYPES: Final = {row.tensorrt: row.dtype for row in TABLE.values()} | {
    name: name.lower() for name in ("INT8", "INT32", "INT64", "UINT8", "BOOL")
}

#: Compute capability from which GPUs have products in fp8: Ada.
FLOAT8_SINCE: Final = (8, 9)

#: First bytes of an engine, and what built it.
MAGIC = {b"ftrt": TENSORRT, b"vtrt": TENSORRT_RTX}
_HEADER_BYTES = 36
#: Versions whose word at byte 32 is known.
_RTX_GPU_WORD_VERSIONS = ((1, 7),)

#: GPUs people ask for and TensorRT-RTX refuses.
_NEVER = {
    "8.7": "Jetson Orin",
    "9.0": "Hopper (H100, H200, GH200)",
    "10.0": "data-centre Blackwell (B200)",
    "10.3": "data-centre Blackwell (B300)",
    "11.0": "Jetson Thor",
}

#: Bits of the 32-bit word at byte 32 of a plan written by TensorRT-RTX 1.7. Not documented:
#: read off plans built for one capability each, and for the default.
_PLAN_BITS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
_PLAN_BIT_LATER = 6


@dataclass(frozen=True)
class PlanHeader:
    """What a plan's first bytes say.

    Attributes:
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the runtime that built it.
        compute_capabilities: GPUs it runs on; empty when the header does not tell.
        later_gpus: whether newer GPUs are included.
    """

    runtime: str
    version: str
    compute_capabilities: tuple[str, ...]
    later_gpus: bool


def _not_an_engine(path: Path, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-413",
        f"{path} is not a readable engine",
        why=why,
        fix="build it again: vim-deploy build-engine MODEL.onnx -o " + str(path),
    )


def read_header(path: Path) -> PlanHeader:
    """Read a plan's header.

    Raises:
        VimDeployError: VIM-401 (no such file), VIM-413 (empty, truncated or not an engine).
    """
    require_file(path, "engine")
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    runtime = MAGIC.get(head[:4])
    if not head:
        raise _not_an_engine(path, "the file is empty")
    if runtime is None:
        raise _not_an_engine(path, f"it begins with {head[:4]!r}, not with an engine's mark")
    if len(head) < _HEADER_BYTES:
        raise _not_an_engine(path, f"it is truncated: {size} bytes are less than a header")
    if int.from_bytes(head[4:8], "little") != 0:
        raise _not_an_engine(path, "its header is damaged")
    numbers = tuple(head[24:28])
    capabilities: tuple[str, ...] = ()
    later = False
    if runtime == TENSORRT_RTX:
        expected = int.from_bytes(head[16:24], "little")
        if expected != size:
            kind = "truncated" if size < expected else "longer than it should be"
            raise _not_an_engine(path, f"it is {kind}: {size} bytes, its header says {expected}")
        if numbers[:2] in _RTX_GPU_WORD_VERSIONS:
            capabilities, later = from_plan_word(int.from_bytes(head[32:36], "little"))
    return PlanHeader(runtime, ".".join(map(str, numbers)), capabilities, later)


def parse_compute_capabilities(
    given: Iterable[str], supported: Sequence[str], runtime: str = "TensorRT-RTX"
) -> tuple[str, ...]:
    """Compute capabilities as ``8.6``, ascending and without repeats.

    Args:
        given: each ``8.6``, ``86`` or ``sm_86``.
        supported: those the runtime can build for.
        runtime: its name and version, for the message.

    Raises:
        VimDeployError: VIM-202 when one cannot be read or is not supported.
    """
    wanted = {_canonical(text, supported) for text in given}
    for capability in wanted:
        if capability not in supported:
            gpu = f", {_NEVER[capability]}" if capability in _NEVER else ""
            raise VimDeployError(
                "VIM-202",
                f"{runtime} does not build for compute capability {capability}{gpu}",
                why="it builds for " + ", ".join(supported),
                fix="name one of these, or use full TensorRT on a machine with that GPU",
            )
    return tuple(sorted(wanted, key=_order))


def without_float8(capabilities: Sequence[str]) -> tuple[str, ...]:
    """Of these compute capabilities those whose GPUs have no products in fp8."""
    return tuple(item for item in capabilities if _order(item) < FLOAT8_SINCE)


def _canonical(text: str, supported: Sequence[str]) -> str:
    match = re.fullmatch(r"(?:sm_?)?([0-9]{1,2})\.?([0-9])", text.strip().lower(), re.ASCII)
    if match is None:
        raise VimDeployError(
            "VIM-202",
            f"{shown(text)} is not a compute capability",
            fix="write it as 8.6; possible are " + ", ".join(supported),
        )
    return f"{int(match[1])}.{match[2]}"


def _order(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor)


def from_plan_word(word: int) -> tuple[tuple[str, ...], bool]:
    """Compute capabilities in a plan's header word, and whether later GPUs are included."""
    capabilities = tuple(cc for bit, cc in enumerate(_PLAN_BITS) if word >> bit & 1)
    return capabilities, bool(word >> _PLAN_BIT_LATER & 1)


def describe_gpus(capabilities: Sequence[str], later: bool) -> str:
    """``compute capability 8.0, 8.6 and later``."""
    return "compute capability " + ", ".join(capabilities) + (" and later" if later else "")
