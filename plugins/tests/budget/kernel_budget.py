"""Registers, spills and instruction counts of every kernel, against the committed budget.

    python kernel_budget.py check [--arch 80,90,120]     compile, compare with budget.json
    python kernel_budget.py write [--arch all]           compile, write budget.json
    python kernel_budget.py table [--arch 90]            budget.json as a Markdown table

Compiling treats every warning as an error. Instruction counts need cuobjdump (beside nvcc, on PATH,
or from the PyPI packages nvidia-cuda-cuobjdump and -nvdisasm); without it only registers and spills
are looked at.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import sass

PLUGINS = Path(__file__).resolve().parents[2]
BUDGET = Path(__file__).resolve().parent / "budget.json"
ARCHITECTURES = ("75", "80", "86", "87", "89", "90", "100", "120")

#: How much an instruction count may exceed its budget: scheduling noise of a small change.
SLACK = 1.03
#: (token, channel) pairs in one pass of the serial kernels' loop: four tokens of two channels.
SERIAL_ELEMENTS = 8

WARNINGS = ["-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror"]

Counts = dict[str, int]
#: What is counted of a kernel, in the order of its row in budget.json.
COUNTED = ("stack", "spill", "registers", "instructions", "loop", "loop_mufu")


def find_nvcc() -> Path | None:
    """nvcc of CUDA_HOME, else of PATH."""
    home = os.environ.get("CUDA_HOME")
    if home and (Path(home) / "bin" / "nvcc").is_file():
        return Path(home) / "bin" / "nvcc"
    found = shutil.which("nvcc")
    return Path(found) if found else None


def find_cuobjdump(nvcc: Path | None) -> Path | None:
    """cuobjdump beside nvcc, on PATH, or of the PyPI package; None without its nvdisasm."""
    candidates = [nvcc.resolve().parent / "cuobjdump"] if nvcc else []
    if found := shutil.which("cuobjdump"):
        candidates.append(Path(found))
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        candidates += sorted(Path(root).glob("*/bin/cuobjdump"))
    # cuobjdump prints no instructions where it does not find nvdisasm.
    on_path = shutil.which("nvdisasm") is not None
    usable = (
        path
        for path in candidates
        if path.is_file() and (on_path or path.with_name("nvdisasm").is_file())
    )
    return next(usable, None)


def release_of(nvcc: Path) -> str:
    """nvcc's release, for example ``13.0.88``."""
    text = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"V(\d+\.\d+\.\d+)", text)
    if found is None:
        raise RuntimeError(f"{nvcc} does not state its version")
    return found.group(1)


def readable(mangled: str) -> str:
    """``_ZN11vim_plugins18serial_scan_kernelI6__halfLi8ELb1EE..``: ``serial_scan_kernel fp16 8 1``.

    Behind the type stand the template's arguments; of the scans first the number of states.
    """
    body = mangled.split("vim_plugins", 1)[-1]
    length = re.match(r"\d+", body)
    if length is None:
        return mangled
    start = length.end()
    name = body[start : start + int(length.group())]
    arguments = body[start + int(length.group()) :].split("EvNS", 1)[0]
    arguments = re.sub(r"^If(?=[LNE])", "Ifp32 ", arguments)
    for old, new in (("13__nv_bfloat16", "bf16 "), ("6__half", "fp16 ")):
        arguments = arguments.replace(old, new, 1)
    arguments = re.sub(r"L[bi](\d+)E", r"\1 ", arguments.replace("NS_12ChunkedShapeI", ""))
    return f"{name} {re.sub('[IE]', '', arguments)}".strip()


def ptxas_counts(log: str) -> dict[str, Counts]:
    """Registers, stack and spills by kernel from the output of ``-Xptxas -v``."""
    found: dict[str, Counts] = {}
    current: Counts = {}
    for line in log.splitlines():
        if entry := re.search(r"Compiling entry function '(\S+)'", line):
            current = found.setdefault(readable(entry.group(1)), {})
        elif frame := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line):
            current["stack"], current["spill"] = int(frame.group(1)), int(frame.group(2))
        elif used := re.search(r"Used (\d+) registers", line):
            current["registers"] = int(used.group(1))
    return found


def sass_counts(listing: str) -> dict[str, Counts]:
    """Instructions by kernel: all, and those of the hot loop with its MUFU."""
    found = {}
    for mangled, code in sass.functions(listing).items():
        loop = sass.hot_loop(code)
        found[readable(mangled)] = {
            # The padding behind a kernel's end is not code.
            "instructions": sum(i.opcode != "NOP" for i in code),
            "loop": len(loop),
            "loop_mufu": sass.mufu(loop),
        }
    return found


def compile_one(nvcc: Path, source: Path, arch: str, cubin: Path) -> dict[str, Counts]:
    """Compile one source for one architecture; what ptxas says of its kernels."""
    command = [str(nvcc), "-std=c++17", "-O3", f"-arch=sm_{arch}", "-Xptxas", "-v", *WARNINGS]
    command += [f"-I{PLUGINS / 'include'}", "-cubin", "-o", str(cubin), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{source.name} for sm_{arch}:\n{done.stdout}{done.stderr}")
    return ptxas_counts(done.stderr)


def measure(
    nvcc: Path, architectures: list[str], jobs: int = 2, sources: str = "*.cu"
) -> dict[str, dict[str, Counts]]:
    """Counts by architecture and kernel of these sources; the SASS ones only with cuobjdump."""
    cuobjdump = find_cuobjdump(nvcc)
    found = sorted((PLUGINS / "kernels").glob(sources))
    with tempfile.TemporaryDirectory(prefix="vim-budget-") as folder:

        def one(arch: str, source: Path) -> dict[str, Counts]:
            cubin = Path(folder) / f"{source.stem}.{arch}.cubin"
            counts = compile_one(nvcc, source, arch, cubin)
            if cuobjdump is not None:
                dump = [str(cuobjdump), "-sass", str(cubin)]
                listing = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
                for kernel, extra in sass_counts(listing).items():
                    counts[kernel] |= extra
            return counts

        with ThreadPoolExecutor(jobs) as pool:
            tasks = {
                arch: [pool.submit(one, arch, source) for source in found] for arch in architectures
            }
            return {
                arch: {
                    kernel: counts
                    for task in started
                    for kernel, counts in sorted(task.result().items())
                }
                for arch, started in tasks.items()
            }


def growth(budget: dict[str, Counts], measured: dict[str, Counts]) -> list[str]:
    """What is larger than budgeted, missing from the budget, or gone; one line each."""
    faults = [f"{kernel}: not in the budget" for kernel in measured.keys() - budget.keys()]
    faults += [f"{kernel}: in the budget, but gone" for kernel in budget.keys() - measured.keys()]
    for kernel in sorted(measured.keys() & budget.keys()):
        for what, value in measured[kernel].items():
            allowed = budget[kernel][what]
            limit = allowed if what in ("registers", "stack", "spill") else allowed * SLACK
            if value > limit:
                faults.append(f"{kernel}: {what} {value}, budget {allowed}")
    return faults


def load() -> dict[str, Any]:
    """The committed budget: ``nvcc``, its release, and ``kernels``, by architecture and name."""
    stored = json.loads(BUDGET.read_text(encoding="utf-8"))
    kernels = {
        arch: {kernel: dict(zip(COUNTED, row, strict=True)) for kernel, row in rows.items()}
        for arch, rows in stored["kernels"].items()
    }
    return {"nvcc": stored["nvcc"], "kernels": kernels}


def save(release: str, measured: dict[str, dict[str, Counts]]) -> None:
    """Write the budget, a kernel a line, to be compared by people."""
    rows = {
        arch: {kernel: [counts[what] for what in COUNTED] for kernel, counts in kernels.items()}
        for arch, kernels in measured.items()
    }
    budget = {"nvcc": release, "counted": COUNTED, "kernels": rows}
    text = json.dumps(budget, separators=(",", ":")).replace("],", "],\n")
    BUDGET.write_text(text + "\n", encoding="utf-8")


def serial_instructions_per_element(counts: Counts, channels: int = 2) -> float:
    """Instructions of a serial kernel per token and channel of one direction.

    A thread of it has so many ``channels``.
    """
    return counts["loop"] / (SERIAL_ELEMENTS / 2 * channels)


def table(budget: dict[str, dict[str, Counts]], architectures: list[str]) -> str:
    """The budget as a Markdown table."""
    rows = [
        "| kernel | sm | registers | spill bytes | instructions | hot loop | MUFU in it |",
        "|---|---|---|---|---|---|---|",
    ]
    for arch in architectures:
        for kernel, c in budget[arch].items():
            cells = [kernel, arch, c["registers"], c["spill"], c["instructions"], c["loop"]]
            rows.append("| " + " | ".join(map(str, [*cells, c["loop_mufu"]])) + " |")
    return "\n".join(rows)


def main(arguments: list[str]) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Kernel budget: registers, spills, instructions")
    parser.add_argument("action", choices=["check", "write", "table"])
    parser.add_argument("--arch", default="all", help="comma-separated list, or all")
    options = parser.parse_args(arguments)
    chosen = list(ARCHITECTURES) if options.arch == "all" else options.arch.split(",")
    if options.action == "table":
        print(table(load()["kernels"], chosen))
        return 0
    nvcc = find_nvcc()
    if nvcc is None:
        print("no nvcc: set CUDA_HOME or PATH", file=sys.stderr)
        return 3
    measured = measure(nvcc, chosen)
    if options.action == "write":
        if find_cuobjdump(nvcc) is None:
            print("no cuobjdump: pip install nvidia-cuda-cuobjdump", file=sys.stderr)
            return 3
        save(release_of(nvcc), measured)
        return 0
    budget = load()
    faults = [
        f"sm_{arch} {fault}"
        for arch in chosen
        for fault in growth(budget["kernels"][arch], measured[arch])
    ]
    print("\n".join(faults) or "within budget")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
