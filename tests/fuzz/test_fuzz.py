"""A few inputs of every fuzz target: every fifth mutator once. ``make fuzz`` runs more.

``VIM_TEST_ALL=1`` runs each mutator.
"""

from __future__ import annotations

import os

import pytest

from tests.fuzz.judge import judge
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.timeout(300)
def test_damaged_files_are_refused_or_read(name: str) -> None:
    target = TARGETS[name]
    valid = range(-1, -1 - len(target.seeds()), -1)
    changed = range(0, len(target.mutations), 1 if os.environ.get("VIM_TEST_ALL") else 5)
    findings, done = judge(target, [*valid, *changed], jobs=2)
    assert done == len(valid) + len(changed)
    shown = "\n".join(
        f"python -m tests.fuzz {name} --only {each.number}: {each.command}\n  {each.kind}\n"
        f"{each.detail[-1500:]}"
        for each in findings
    )
    assert not findings, f"{len(findings)} findings; to reproduce:\n{shown}"
