"""Every CPU kernel against a float64 loop in C++, under the sanitizers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[3] / "plugins"
sys.path.insert(0, str(PLUGINS / "cpu" / "tests"))

import cpu_kernels  # noqa: E402 - lives beside the sources it compiles

ADDRESS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
)
THREAD = ("-fsanitize=thread",)


def build(folder: Path, sanitizer: tuple[str, ...]) -> Path:
    """The sweep with the kernels compiled in."""
    if reason := cpu_kernels.missing_tools():
        pytest.skip(reason)
    watched = cpu_kernels.kernel_sources()
    others = [PLUGINS / "tests" / "common" / "problem.cpp"]
    # The sweep's own sources only make and compare tensors; threads meet in them, though.
    sweep = [cpu_kernels.TESTS / name for name in ("region_sweep.cpp", "sweep.cpp")]
    (watched if sanitizer == THREAD else others).extend(sweep)
    flags = ("-O1", "-g1", *sanitizer)
    objects = cpu_kernels.compile_objects(watched, folder, flags)
    objects += cpu_kernels.compile_objects(others, folder, ("-O1",))
    return cpu_kernels.link(objects, folder / "sweep", flags)


def run(program: Path, cases: str) -> subprocess.CompletedProcess[str]:
    """One run, which ends at the first report."""
    options = {"UBSAN_OPTIONS": "print_stacktrace=1", "TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run(
        [program, cases], capture_output=True, text=True, env={**os.environ, **options}
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sanitizer", "cases", "fewest"),
    [
        (ADDRESS, "all", 2 * 500),
        pytest.param(
            *(THREAD, "races", 2 * 12),
            marks=pytest.mark.skipif(
                not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 looks for races"
            ),
        ),
    ],
    ids=["address and undefined", "thread"],
)
def test_every_kernel_agrees_with_float64(
    tmp_path: Path, sanitizer: tuple[str, ...], cases: str, fewest: int
) -> None:
    program = build(tmp_path, sanitizer)
    done = run(program, cases)
    assert done.returncode == 0, done.stderr[-4000:]
    totals = json.loads(done.stdout)
    print(cases, totals)
    assert totals["failures"] == 0
    # One instruction set at least, two numbers of threads.
    assert totals["runs"] >= fewest
    assert 0.0 < totals["worst_fp32"] <= 1e-6
    if cases == "all":
        assert subprocess.run([program, "some"], capture_output=True).returncode == 2
    else:
        # The sweep can see a race: here one that every piece of every op takes part in.
        planted = run(program, "planted")
        assert planted.returncode not in (0, 1)
        assert "ThreadSanitizer: data race" in planted.stderr
