"""Build ``kernel_bench.cpp`` with g++ and run it: ``python plugins/cpu/bench/run.py [ISA ...]``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent / "tests"))

import cpu_kernels  # noqa: E402 - knows how the kernels are compiled


def main() -> int:
    """The benchmark's exit status."""
    if reason := cpu_kernels.missing_tools():
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="vim-cpu-bench-") as name:
        folder = Path(name)
        sources = [*cpu_kernels.kernel_sources(), BENCH / "kernel_bench.cpp"]
        objects = cpu_kernels.compile_objects(sources, folder, ("-O3",))
        program = cpu_kernels.link(objects, folder / "kernel_bench")
        return subprocess.run([program, *sys.argv[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
