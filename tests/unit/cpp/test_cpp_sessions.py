"""Sessions of the C++ runtime under fakes of TensorRT and CUDA, with sanitizers.

What each case checks stands in ``cpp/tests/runtime_checks.cpp``. The fakes also end a
process that leaves memory, streams, graphs or TensorRT objects behind, or misuses them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import cpp, cpp_builds
from vim_deploy.artifact.record import record_path

CASES = {
    "infer": cpp.FakeEngine(),
    "wrong_input": cpp.FakeEngine(),
    "cuda_graph": cpp.FakeEngine(),
    "capture_refused": cpp.FakeEngine(lines=("fail capture the layer is not capturable",)),
    "on_device": cpp.FakeEngine(),
    "profiles": cpp.FakeEngine(profiles=((1, 1, 1), (2, 4, 4))),
    "lifetime": cpp.FakeEngine(),
    "failures": cpp.FakeEngine(),
    "log": cpp.FakeEngine(),
    "sizes": cpp.detector(),
}
THREADS = pytest.mark.skipif(
    not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 looks for races"
)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_sessions(case: str, tmp_path: Path) -> None:
    program = cpp_builds.need_program("runtime_checks")
    done = cpp_builds.run(program, case, CASES[case].write(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_engines_that_carry_code(tmp_path: Path) -> None:
    program = cpp_builds.need_program("runtime_checks")
    done = cpp_builds.run(
        program, "embedded_code", cpp.FakeEngine(lines=("embedded",)).write(tmp_path)
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_plan_without_a_record(tmp_path: Path) -> None:
    program = cpp_builds.need_program("runtime_checks")
    plan = cpp.FakeEngine().write(tmp_path)
    record_path(plan).unlink()
    done = cpp_builds.run(program, "missing_record", plan)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["address", pytest.param("thread", marks=THREADS)])
def test_two_threads_with_sessions_of_their_own(kind: str, tmp_path: Path) -> None:
    program = cpp_builds.need_program("runtime_checks", kind)
    done = cpp_builds.run(program, "threads", cpp.FakeEngine().write(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_failing_check_is_noticed(tmp_path: Path) -> None:
    # The case expects two profiles; this engine has one.
    program = cpp_builds.need_program("runtime_checks")
    done = cpp_builds.run(program, "profiles", cpp.FakeEngine().write(tmp_path))
    assert done.returncode == 1
    assert "not so: fake_last_profile() == profile" in done.stderr
