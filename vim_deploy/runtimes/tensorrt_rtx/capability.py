"""TensorRT-RTX: the only module that imports ``tensorrt_rtx``, and what that version can do.

Its wheel (``tensorrt-rtx-cu13``) builds engines without a GPU. Importing it loads about 240 MB of
shared libraries, so nothing here imports it before it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from vim_deploy.errors import import_package
from vim_deploy.runtimes import runtime_named

#: Turing: an engine runs there only when it is named, by NVIDIA's page "CPU-Only AOT and
#: TensorRT-RTX Engines" (docs.nvidia.com/deeplearning/tensorrt-rtx).
_NOT_BY_DEFAULT = frozenset({"7.5"})


@dataclass(frozen=True)
class Capabilities:
    """What the installed TensorRT-RTX can do.

    Attributes:
        version: of the runtime, four numbers.
        compute_capabilities: GPUs an engine can be built for, such as ``8.6``, ascending.
        default_compute_capabilities: those an engine runs on when none is named; GPUs newer than
            all of them are included as well.
    """

    version: str
    compute_capabilities: tuple[str, ...]
    default_compute_capabilities: tuple[str, ...]


def load() -> ModuleType:
    """The module ``tensorrt_rtx``.

    Raises:
        VimDeployError: VIM-301 when it is not installed or its libraries do not load.
    """
    runtime_named("tensorrt-rtx").require_installed()
    return import_package("tensorrt_rtx", "TensorRT-RTX", "--force-reinstall", "tensorrt-rtx-cu13")


def describe() -> str:
    """What it builds for, in words; VIM-301 as for ``load``."""
    found = capabilities()
    return (
        f"{found.version}, builds without a GPU for compute capability "
        f"{', '.join(found.compute_capabilities)}"
    )


def _named(members: dict[str, object]) -> tuple[str, ...]:
    numbers = sorted(int(name[2:]) for name in members if name.startswith("SM"))
    return tuple(f"{number // 10}.{number % 10}" for number in numbers)


def capabilities() -> Capabilities:
    """Ask the installed TensorRT-RTX; VIM-301 as for ``load``."""
    module = load()
    named = _named(dict(module.ComputeCapability.__members__))
    return Capabilities(
        version=str(module.__version__),
        compute_capabilities=named,
        default_compute_capabilities=tuple(cc for cc in named if cc not in _NOT_BY_DEFAULT),
    )
