"""GPUs that a TensorRT-RTX engine runs on, by compute capability.

Without a choice an engine runs on everything from Ampere (8.0) on that TensorRT-RTX supports,
GPUs newer than the build included. Turing (7.5) must be named, and has no FP32 matrix products in
TensorRT-RTX: the graph must be FP16. Hopper (9.0), data-centre Blackwell (10.x) and Jetson Orin
(8.7) are not supported at all. Source: NVIDIA's page "CPU-Only AOT and TensorRT-RTX Engines", and
what ``set_compute_capability`` of version 1.7.1 answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vim_deploy.errors import VimDeployError
from vim_deploy.ranges import shown

TURING = "7.5"

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
