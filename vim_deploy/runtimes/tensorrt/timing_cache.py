"""The timing cache: what kernels took on one GPU with one TensorRT, kept between builds.

One file for each GPU, compute capability, TensorRT version and plugin library: timings of any
other are worse than none. A file that TensorRT does not take is left aside with a note, never an
error: the build then only takes longer. TensorRT checks the contents; the name does the rest.
"""

from __future__ import annotations

import re
from pathlib import Path

from vim_deploy.errors import VimDeployError
from vim_deploy.files import lock_in_turn, remove_leftovers, write_bytes
from vim_deploy.folders import user_cache
from vim_deploy.runtimes.building.request import OFF, ON

#: Larger ones are no timing caches, or none worth reading.
MAX_CACHE_BYTES = 1 << 30


def cache_path(
    choice: str, *, gpu: str, compute_capability: str, version: str, plugin_sha256: str
) -> Path | None:
    """The file to use, by default one in the user's cache; None when the cache is off.

    Args:
        choice: ``on``, ``off`` or the path of a file.
        gpu: the GPU's name.
        compute_capability: such as ``9.0``.
        version: of TensorRT.
        plugin_sha256: of the plugin library; empty without one.
    """
    if choice == OFF:
        return None
    if choice != ON:
        return Path(choice)
    name = re.sub(r"[^A-Za-z0-9]+", "-", gpu).strip("-").lower() or "gpu"
    plugin = plugin_sha256[:12] or "no-plugin"
    file = f"{name}-cc{compute_capability}-trt{version}-{plugin}.cache"
    return user_cache() / "timing" / file


def read_cache(path: Path) -> tuple[bytes, str]:
    """Contents of a cache file, and a note when there are none although there is a file."""
    try:
        size = path.stat().st_size
        if size > MAX_CACHE_BYTES:
            return b"", f"timing cache {path} has {size} bytes, which is too much; not used"
        return path.read_bytes(), ""
    except FileNotFoundError:
        return b"", ""
    except OSError as error:
        return b"", f"timing cache {path} cannot be read: {error.strerror}; not used"


def save_cache(path: Path, content: bytes) -> str:
    """Write a cache file atomically; a note when that fails, which costs time and no engine."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another build with the same timings is at it for a moment only.
        with lock_in_turn(path.parent / f".{path.name}.lock", path, lambda: None):
            remove_leftovers(path)
            write_bytes(path, content)
    except (OSError, VimDeployError) as error:
        return f"timing cache {path} was not saved: {error}"
    return ""
