"""The plugin objects of both interfaces, driven as TensorRT drives them, under sanitizers.

What is checked stands in ``plugins/tests/host/adapters_v3*.cpp`` and ``adapters_v2.cpp``: creation
from fields, shapes, types, every format combination, tactics, serialisation, clones, and what is
refused. Each run also registers the library by dlopen alone, by loadLibrary, and by both.
"""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support import plugins

#: Headings that a run must have printed, so that a harness that checks nothing fails.
CHECKS = {
    "v3": (
        "creators",
        "identity",
        "output types and shapes",
        "format combinations",
        "tactics",
        "timing cache id",
        "answers stay",
        "serialisation and clones",
        "bad attributes",
        "bad shapes",
        "bad calls",
    ),
    "v2": ("identity", "types, shapes and formats", "run", "serialisation", "bad attributes"),
}


@pytest.mark.slow
@pytest.mark.parametrize("first", ["dlopen", "load"])
@pytest.mark.parametrize("interface", ["v3", "v2"])
def test_plugin_objects(interface: str, first: str) -> None:
    program, tensorrt, library = plugins.harness(interface)
    done = subprocess.run(
        [str(program), str(tensorrt), str(library), first],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert lines == [["ok", name] for name in CHECKS[interface]]
