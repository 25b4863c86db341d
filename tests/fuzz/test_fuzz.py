"""A few inputs of every fuzz target: each mutator once. ``make fuzz`` runs more."""

from __future__ import annotations

import pytest

from tests.fuzz.judge import judge
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.timeout(300)
def test_damaged_files_are_refused_or_read(name: str) -> None:
    target = TARGETS[name]
    valid = range(-1, -1 - len(target.seeds()), -1)
    findings, done = judge(target, [*valid, *range(len(target.mutations))], jobs=2)
    assert done == len(valid) + len(target.mutations)
    shown = "\n".join(
        f"python -m tests.fuzz {name} --only {each.number}: {each.command}\n  {each.kind}\n"
        f"{each.detail[-1500:]}"
        for each in findings
    )
    assert not findings, f"{len(findings)} findings; to reproduce:\n{shown}"
