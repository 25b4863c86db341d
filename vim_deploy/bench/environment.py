"""What was measured on, and in which state it was: without that, a figure means nothing."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import vim_deploy
from vim_deploy.cuda import driver as cuda_driver
from vim_deploy.errors import VimDeployError

#: What has to be equal before two reports may be compared.
IDENTITY = ("cpu_model", "architecture", "cpus", "gpu")
_PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "torch",
    "transformers",
)
#: Other processes' share of the processors above which a report says that it was disturbed.
BUSY_SHARE = 0.1
_FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def available_cpus() -> int:
    """Logical processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """The machine itself; ``gpu`` is None where there is none with a driver."""
    fields = _cpu_fields()
    memory = memory_fields()
    return {
        "cpu_model": fields.get("model name") or platform.processor() or "unknown",
        "architecture": platform.machine(),
        "cpus": available_cpus(),
        "cpus_total": os.cpu_count(),
        "cores_per_socket": _whole(fields.get("cpu cores")),
        "virtual_machine": "hypervisor" in fields.get("flags", "").split() if fields else None,
        "memory_bytes": memory.get("MemTotal"),
        "gpu": _gpu(),
    }


def _gpu() -> str | None:
    """Name and compute capability of the GPU that engines would run on."""
    try:
        found = cuda_driver.gpu()
    except VimDeployError:
        return None
    return f"{found.name} ({found.major}.{found.minor})"


def state() -> dict[str, Any]:
    """The machine's state and the software, now; None where the system does not say."""
    memory = memory_fields()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "memory_available_bytes": memory.get("MemAvailable"),
        "swap_used_bytes": _difference(memory.get("SwapTotal"), memory.get("SwapFree")),
        "cpu_governor": _read(_FREQUENCY / "scaling_governor"),
        "cpu_frequency_mhz": _megahertz(_read(_FREQUENCY / "scaling_cur_freq")),
        "cpu_frequency_max_mhz": _megahertz(_read(_FREQUENCY / "scaling_max_freq")),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"vim-deploy": vim_deploy.__version__, **_versions()},
        "commit": _commit(),
        "thread_variables": {
            name: value for name, value in os.environ.items() if _sets_threads(name)
        },
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two ``machine`` records are not the same machine, as sentences."""
    return [
        f"{key}: {old.get(key)!r} then, {new.get(key)!r} now"
        for key in IDENTITY
        if old.get(key) != new.get(key)
    ]


@dataclass(frozen=True)
class CpuTimes:
    """Seconds of processor time since boot over all processors."""

    busy: float
    stolen: float
    total: float


def cpu_times() -> CpuTimes | None:
    """From ``/proc/stat``; None on systems without it."""
    line = (_read(Path("/proc/stat")) or "").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    user, nice, system, idle, iowait, irq, softirq, steal = (int(v) / ticks for v in line[1:9])
    busy = user + nice + system + irq + softirq
    return CpuTimes(busy, steal, busy + idle + iowait + steal)


def disturbance(before: CpuTimes | None, after: CpuTimes | None, own: float) -> dict[str, Any]:
    """What else ran between two ``cpu_times``, as shares of all processors.

    Args:
        own: processor seconds of the measuring processes in between.

    Returns:
        ``other_share`` (other processes of this system) and ``stolen_share`` (taken away by the
        host of a virtual machine); None where not known.
    """
    if before is None or after is None or after.total <= before.total:
        return {"other_share": None, "stolen_share": None}
    total = after.total - before.total
    other = max(after.busy - before.busy - own, 0.0)
    return {"other_share": other / total, "stolen_share": (after.stolen - before.stolen) / total}


def memory_fields() -> dict[str, int]:
    """Bytes by name from ``/proc/meminfo``; empty on systems without it."""
    values = {}
    for line in (_read(Path("/proc/meminfo")) or "").splitlines():
        name, _, rest = line.partition(":")
        if rest.strip().endswith(" kB"):
            values[name] = int(rest.split()[0]) * 1024
    return values


def available_memory() -> int | None:
    """Bytes that new processes can have: the system's, or the container's if that is less."""
    found = [memory_fields().get("MemAvailable"), _container_memory()]
    known = [value for value in found if value is not None]
    return min(known, default=None)


def _container_memory() -> int | None:
    """What the control group (version 2) leaves; None without a limit."""
    limit = _whole(_read(Path("/sys/fs/cgroup/memory.max")))
    used = _whole(_read(Path("/sys/fs/cgroup/memory.current")))
    return None if limit is None or used is None else max(limit - used, 0)


def _cpu_fields() -> dict[str, str]:
    """Name and value of the first processor's lines in ``/proc/cpuinfo``."""
    first = (_read(Path("/proc/cpuinfo")) or "").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The checkout this package runs from, ``-dirty`` with changes; None for an installed one."""
    root = Path(vim_deploy.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _sets_threads(name: str) -> bool:
    return name.startswith(("OMP_", "MKL_", "GOMP_", "KMP_", "OPENBLAS_"))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _megahertz(kilohertz: str | None) -> float | None:
    value = _whole(kilohertz)
    return None if value is None else value / 1000


def _difference(total: int | None, free: int | None) -> int | None:
    return None if total is None or free is None else total - free
