"""Mutated inputs come from target, seed and number alone, and every mutator changes something."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.cases import Mutation, Target, mutated
from tests.fuzz.mutate_bytes import lines, on_bytes
from tests.fuzz.mutate_structure import on_json, on_toml

JSON = b'{"name": "toy", "sizes": [1, 2.5, 3], "image": {"mean": [0.5], "crop": null}}'
TOML = b'name = "toy"\nsizes = [1, 2, 3]\n[image]\nmean = [0.5]\nnorm = true\n'
ALL = [
    *((mutation, JSON) for mutation in on_bytes()),
    *((mutation, JSON) for mutation in on_json()),
    *((mutation, TOML) for mutation in on_toml()),
    (Mutation(lines), TOML),
]


def test_same_target_seed_and_number_give_the_same_bytes() -> None:
    target = Target("toy", lambda: ({"a.json": JSON},), (*on_bytes(), *on_json()), ())
    first = [mutated(target, target.seeds(), 3, number) for number in range(200)]
    assert first == [mutated(target, target.seeds(), 3, number) for number in range(200)]
    assert first != [mutated(target, target.seeds(), 4, number) for number in range(200)]
    assert len({files["a.json"] for files in first}) > 150


@pytest.mark.parametrize(("mutation", "data"), ALL)
def test_every_mutator_changes_its_file(mutation: Mutation, data: bytes) -> None:
    made = {mutation.change(data, Random(seed)) for seed in range(40)}
    assert len(made - {data}) > 3


def test_empty_files_are_no_obstacle() -> None:
    for mutation, _ in ALL:
        for seed in range(20):
            mutation.change(b"", Random(seed))
