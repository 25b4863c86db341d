"""Full TensorRT: the only module that imports ``tensorrt``, and what that version can do.

TensorRT 8.6, 10 and 11 differ in typing, plugins, parser and removed names. Each such question is
asked here, once, of the module itself; everything else reads the answer as a capability.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from vim_deploy.errors import VimDeployError, import_package
from vim_deploy.plugin.describe import INTERFACES
from vim_deploy.runtimes import runtime_named
from vim_deploy.specs import Generation

#: Opset of the operators that TensorRT 8.6's parser knows (onnx-tensorrt, release 8.6).
_OPSET_OF_8_6 = 17


@dataclass(frozen=True)
class Capabilities:
    """What the installed TensorRT can do.

    Attributes:
        version: of the library, such as ``10.3.0``.
        generation: ``8.6``, ``10`` or ``11``: which plugin libraries and plans go together.
        strongly_typed: tensors have the types of the graph. Otherwise types are chosen by
            builder flags and per-layer precisions.
        network_flags: NetworkDefinitionCreationFlag members that a network must be created with.
        local_functions: its parser knows the model's own functions.
        max_opset: newest ONNX opset whose operators the parser takes; None when it takes all that
            vim-deploy writes.
        builder_flags: names of the BuilderFlag members.
        hardware_levels: names of the HardwareCompatibilityLevel members.
        bfloat16: it has that type.
        float8: it has products of that type, which only strongly typed networks have.
        narrow_constants: weights may be stored in 8 bits.
        progress_monitor: the build reports its phases and can be cancelled between them.
        plugins_to_serialize: plugin libraries can be put into a version-compatible engine.
        serialization_config: an engine can be serialised with chosen parts.
        debug_tensors: inner tensors can be marked, and reach a listener while an engine runs.
    """

    version: str
    generation: Generation
    strongly_typed: bool
    network_flags: tuple[str, ...]
    local_functions: bool
    max_opset: int | None
    builder_flags: frozenset[str]
    hardware_levels: frozenset[str]
    bfloat16: bool
    float8: bool
    narrow_constants: bool
    progress_monitor: bool
    plugins_to_serialize: bool
    serialization_config: bool
    debug_tensors: bool


def load() -> ModuleType:
    """The module ``tensorrt``.

    Raises:
        VimDeployError: VIM-301 when it is not installed or its libraries do not load.
    """
    runtime_named("tensorrt").require_installed()
    return import_package(
        "tensorrt",
        "TensorRT",
        fix="install TensorRT again so that it fits this machine's CUDA version",
    )


def capabilities() -> Capabilities:
    """Ask the installed TensorRT.

    Raises:
        VimDeployError: VIM-301 as for ``load``, VIM-309 for a release that is not supported.
    """
    return capabilities_of(load())


def supported_version() -> str:
    """Its version; VIM-301 and VIM-309 as for ``capabilities``."""
    return capabilities().version


def describe() -> str:
    """How it builds, in words; errors as for ``capabilities``."""
    found = capabilities()
    typing = "strongly typed" if found.strongly_typed else "typed by flags"
    interface = INTERFACES[found.generation]
    return f"{found.version}, {typing}, plugins {interface}; builds for the GPU at hand"


def capabilities_of(module: ModuleType) -> Capabilities:
    """Ask a ``tensorrt`` module; VIM-309 for a release that is not supported."""
    text = str(module.__version__)
    release = _release(text)
    generation = generation_of(text)
    creation = module.NetworkDefinitionCreationFlag.__members__
    # 8.6 knows only explicit batches of the two, 10 only typing, and 11 has neither to say.
    flag = "EXPLICIT_BATCH" if release < (10, 0) else "STRONGLY_TYPED"
    return Capabilities(
        version=text,
        generation=generation,
        strongly_typed="STRONGLY_TYPED" in creation or release >= (11, 0),
        network_flags=(flag,) if flag in creation and release < (11, 0) else (),
        local_functions=release >= (10, 0),
        max_opset=_OPSET_OF_8_6 if generation == "8.6" else None,
        builder_flags=frozenset(module.BuilderFlag.__members__),
        hardware_levels=frozenset(module.HardwareCompatibilityLevel.__members__),
        bfloat16="BF16" in module.DataType.__members__,
        # 8.6 names the type, and its parser takes no file of the opset that has it.
        float8=release >= (10, 0) and "FP8" in module.DataType.__members__,
        narrow_constants=release >= (10, 0),
        progress_monitor=hasattr(module, "IProgressMonitor"),
        plugins_to_serialize=hasattr(module.IBuilderConfig, "plugins_to_serialize"),
        serialization_config=hasattr(module.ICudaEngine, "serialize_with_config"),
        debug_tensors=hasattr(module, "IDebugListener"),
    )


def _release(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def generation_of(text: str) -> Generation:
    """The generation of a version of TensorRT; VIM-309 for a release that is not supported."""
    release = _release(text)
    if release == (8, 6):
        return "8.6"
    if release[0] == 10:
        return "10"
    if release[0] >= 11:
        return "11"
    raise VimDeployError(
        "VIM-309",
        f"TensorRT {text} is not supported",
        why=f"vim-deploy builds and runs with TensorRT {', '.join(INTERFACES)}",
        fix="install one of these, or use --runtime tensorrt-rtx",
    )


def context_bytes(engine: Any) -> int:  # noqa: ANN401 - a TensorRT object
    """Device memory that one execution context takes, for the largest profile.

    The 64-bit queries came with 10.3, those without V2 went with 11.
    """
    for name in ("device_memory_size_v2", "device_memory_size"):
        if hasattr(engine, name):
            return int(getattr(engine, name))
    return 0
