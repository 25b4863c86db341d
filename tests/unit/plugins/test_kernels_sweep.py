"""The kernels' own source on the CPU, under AddressSanitizer, against a float64 loop in C++.

Two sevenths of the short sweep by default, among which are each kernel and tactic in each type,
each length, batch, width and state size, and half of the cases for pairs of blocks, with each of
their lengths but the largest. ``VIM_TEST_ALL=1`` runs the long sweep, which has all of these in it,
and every channel count with every batch and length.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[3] / "plugins"
sys.path.insert(0, str(PLUGINS / "tests" / "host"))

import kernel_library  # noqa: E402 - lives beside the shim it compiles

#: What is run, and which parts of how many: parts 1 and 5 of 7 have what the module's text says.
WHICH, CHOSEN, SHARDS = "short", (1, 5), 7
if os.environ.get("VIM_TEST_ALL"):
    WHICH, CHOSEN, SHARDS = "long", (0, 1), 2

SANITIZERS = (
    "-O1",
    "-g1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness with the kernels compiled in."""
    if reason := kernel_library.missing_host_tools():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("sweep")
    sources = [
        *kernel_library.kernel_sources(),
        kernel_library.SHIM / "fibers.cpp",
        PLUGINS / "tests" / "common" / "launches.cpp",
        PLUGINS / "tests" / "common" / "problem.cpp",
        PLUGINS / "tests" / "host" / "sweep.cpp",
    ]
    objects = kernel_library.compile_host(sources, folder / "objects", SANITIZERS)
    program = folder / "sweep"
    subprocess.run(["g++", *SANITIZERS, "-o", program, *objects], check=True)
    return program


@pytest.mark.timeout(3600)
@pytest.mark.slow
def test_every_tactic_agrees_with_float64(sweep: Path) -> None:
    shards = [
        subprocess.Popen(
            [sweep, WHICH, str(part), str(SHARDS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for part in CHOSEN
    ]
    outputs = [shard.communicate() for shard in shards]
    for shard, (_, errors) in zip(shards, outputs, strict=True):
        assert shard.returncode == 0, errors[-4000:]
    totals = [json.loads(text) for text, _ in outputs]
    print(WHICH, totals)
    assert sum(t["failures"] for t in totals) == 0
    assert sum(t["runs"] for t in totals) >= (500 if WHICH == "long" else 140)
    assert 0.0 < max(t["worst_fp32"] for t in totals) <= 1e-6


@pytest.mark.slow
@pytest.mark.skipif(WHICH == "long", reason="the long sweep has these cases")
def test_pairs_of_blocks_agree_with_float64(sweep: Path) -> None:
    done = subprocess.run([sweep, "clusters", "0", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    totals = json.loads(done.stdout)
    assert totals["failures"] == 0
    assert totals["runs"] == 22
    assert 0.0 < totals["worst_fp32"] <= 1e-6


@pytest.mark.parametrize("arguments", [[], ["medium"], ["short", "2", "2"], ["short", "1"]])
def test_refuses_what_it_does_not_know(sweep: Path, arguments: list[str]) -> None:
    assert subprocess.run([sweep, *arguments], capture_output=True).returncode == 2
