"""The adapter driven through a fake ONNX Runtime, under sanitizers.

What is checked stands in ``plugins/onnxruntime/tests``: registration, the ops against float64,
every call of ONNX Runtime failing in turn, refusals, type and shape inference. The CPU adapter runs
under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer; the CUDA adapter
in ``tests/unit/plugins``.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import ort_ops

#: Headings that a run must have printed, so that a program that checks nothing fails.
CHECKS = (
    "registration",
    "session options",
    "registration at once",
    "answers",
    "runs at once",
    "failing calls",
    "failing registration",
    "refusals",
    "missing memory",
    "inference",
    "provider",
)
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def run_checks(program: Path, **variables: str) -> None:
    done = subprocess.run(
        [str(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **SANITIZERS, **variables},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert lines == [["ok", name] for name in CHECKS]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "address",
        pytest.param(
            "thread",
            marks=pytest.mark.skipif(
                not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 looks for races"
            ),
        ),
    ],
)
def test_cpu_adapter(kind: str) -> None:
    run_checks(ort_ops.built_checks(kind))
