"""Counting instructions in what cuobjdump prints: per kernel, and in its hottest loop.

A loop is the stretch from the target of a backward branch to that branch. The hot loop of a kernel
is the one with the most special-function instructions (MUFU): every kernel here spends its time in
exponentials. Counts are static, so an inner loop counts once.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_FUNCTION = re.compile(r"^\s*Function : (\S+)")
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\s*(.*?);")
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


def hot_loops(code: list[Instruction], count: int = 1) -> list[list[Instruction]]:
    """The ``count`` loops with the most MUFU, most first; the shorter one where they tie."""
    return sorted(loops(code), key=lambda body: (-mufu(body), len(body)))[:count]


def by_group(code: list[Instruction]) -> dict[str, int]:
    """Instructions by the first part of their opcode, most frequent first."""
    return dict(Counter(i.opcode.split(".")[0] for i in code).most_common())
