"""Counting instructions in what cuobjdump prints: per kernel, and in its hottest loop.

A loop is the stretch from the target of a backward branch to that branch. The hot loop of a kernel
is the innermost one with the most special-function instructions (MUFU): the scans spend their time
in exponentials. Counts are static, so a loop inside it counts once.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_FUNCTION = re.compile(r"^\s*Function : (\S+)")
_INSTRUCTION = re.compile(
    r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\s*(.*?);"
)
_ADDRESS = re.compile(r"0x([0-9a-f]+)\s*$")


@dataclass(frozen=True)
class Instruction:
    """One SASS instruction: byte address, opcode with its suffixes, operands as printed."""

    address: int
    opcode: str
    operands: str


def functions(listing: str) -> dict[str, list[Instruction]]:
    """Instructions of every function in ``cuobjdump -sass`` output, by mangled name."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in listing.splitlines():
        if head := _FUNCTION.match(line):
            current = found.setdefault(head.group(1), [])
        elif body := _INSTRUCTION.match(line):
            current.append(Instruction(int(body.group(1), 16), body.group(2), body.group(3)))
    return found


def loops(code: list[Instruction]) -> list[list[Instruction]]:
    """Bodies of all backward branches."""
    bodies = []
    for instruction in code:
        if not instruction.opcode.startswith("BRA"):
            continue
        target = _ADDRESS.search(instruction.operands.rstrip("`() "))
        if target is None or int(target.group(1), 16) >= instruction.address:
            continue
        start = int(target.group(1), 16)
        body = [i for i in code if start <= i.address <= instruction.address]
        # A branch back from a rarely taken stretch behind the kernel's end is not a loop.
        if not any(i.opcode == "EXIT" for i in body):
            bodies.append(body)
    return bodies


def mufu(code: list[Instruction]) -> int:
    """Special-function instructions, without the reciprocals of integer divisions."""
    return sum(i.opcode.startswith("MUFU") for i in code)


def hot_loop(code: list[Instruction]) -> list[Instruction]:
    """The innermost loop with the most MUFU, the shorter one where two tie; empty if there is none.

    Innermost among the loops with MUFU: a small loop without any, inside it, belongs to it.
    """
    busy = [body for body in loops(code) if mufu(body) > 0]

    def contains(outer: list[Instruction], inner: list[Instruction]) -> bool:
        return (
            len(inner) < len(outer)
            and outer[0].address <= inner[0].address
            and inner[-1].address <= outer[-1].address
        )

    innermost = [body for body in busy if not any(contains(body, other) for other in busy)]
    return max(innermost, key=lambda body: (mufu(body), -len(body)), default=[])


def by_group(code: list[Instruction]) -> dict[str, int]:
    """Instructions by the first part of their opcode, most frequent first."""
    return dict(Counter(i.opcode.split(".")[0] for i in code).most_common())
