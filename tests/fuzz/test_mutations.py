"""Mutated inputs come from target, seed and number alone, and every mutator changes something."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.cases import Mutation, Target, mutated
from tests.fuzz.mutate_bytes import lines, on_bytes
from tests.fuzz.mutate_onnx import on_graph, on_onnx
from tests.fuzz.mutate_structure import on_json, on_toml
from tests.support.tiny_onnx import scan_blocks

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


@pytest.mark.parametrize("mutation", [*on_onnx(), *on_graph()])
def test_every_change_of_a_graph_gives_several_messages(mutation: Mutation) -> None:
    data = scan_blocks().SerializeToString(deterministic=True)
    made = {mutation.change(data, Random(seed)) for seed in range(30)}
    # There is no record of ours in this one.
    wanted = 1 if made == {data} else 3
    assert len(made) >= wanted


def test_most_changes_of_a_graph_change_something() -> None:
    data = scan_blocks().SerializeToString(deterministic=True)
    still = [each for each in (*on_onnx(), *on_graph())
             if all(each.change(data, Random(seed)) == data for seed in range(10))]  # fmt: skip
    assert len(still) == 2, "the two that change our record"
