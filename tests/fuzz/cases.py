"""What a fuzz target is, and how one mutated input comes from target, seed and number.

The same three give the same bytes everywhere: the generator is Python's own, seeded with their
text, and every seed file is made by code that uses no clock.
"""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: Path below the folder of one input -> content.
Files = Mapping[str, bytes]
Mutator = Callable[[bytes, random.Random], bytes]

#: So many changes are made to one input at most: more of them only make it easier to refuse.
_MOST_CHANGES = 3


@dataclass(frozen=True)
class Mutation:
    """A mutator, and the files of an input that it fits (a pattern of their paths)."""

    change: Mutator
    files: str = "*"


@dataclass(frozen=True)
class Command:
    """A command line that reads the files; ``{}`` in an argument is the folder of the input.

    With a function first, that is called with the other arguments as paths.

    ``every``: it runs for each ``every``-th input, where it takes long.
    """

    arguments: tuple[Any, ...]
    every: int = 1


@dataclass(frozen=True)
class Target:
    """One kind of foreign file.

    Attributes:
        name: for the command line.
        seeds: makes the valid inputs, each with every file its commands need.
        mutations: what is changed; input number N gets number N modulo their count first.
        commands: what reads the input, in this order.
        finish: mends what would hide the change, such as hashes that a manifest holds.
        valid_exits: of the commands for the valid inputs; others than 0 where they need a GPU.
        free_bytes: memory that may be taken beside four times the input; libraries are part of it.
    """

    name: str
    seeds: Callable[[], tuple[Files, ...]]
    mutations: tuple[Mutation, ...]
    commands: tuple[Command, ...]
    finish: Callable[[Files], Files] | None = None
    valid_exits: tuple[int, ...] = (0,)
    free_bytes: int = 200 << 20

    def commands_for(self, number: int) -> list[tuple[Any, ...]]:
        """The argument lists that read input ``number``; of the valid seeds, -1, all."""
        return [
            command.arguments
            for command in self.commands
            if number < 0 or number % command.every == 0
        ]


def mutated(target: Target, seeds: tuple[Files, ...], seed: int, number: int) -> Files:
    """Input ``number`` of a target; ``seeds`` are what ``target.seeds()`` gave."""
    generator = random.Random(f"{target.name}/{seed}/{number}")
    mutations = target.mutations
    # In turns, so that every mutator meets every valid input among the first few.
    files = dict(seeds[number // len(mutations) % len(seeds)])
    for change in range(generator.randint(1, _MOST_CHANGES)):
        first = mutations[number % len(mutations)]
        mutation = first if change == 0 else generator.choice(mutations)
        names = fnmatch.filter(sorted(files), mutation.files)
        if names:
            name = generator.choice(names)
            files[name] = mutation.change(files[name], generator)
    return files if target.finish is None else target.finish(files)
