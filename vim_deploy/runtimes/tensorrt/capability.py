"""Full TensorRT: the only module that imports ``tensorrt``, and what that version can do.

TensorRT 8.6, 10 and 11 differ in typing, plugins, parser and removed names. Each such question is
asked here, once, of the module itself; everything else reads the answer as a capability.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from vim_deploy.errors import VimDeployError, missing_package

_MODULE = "tensorrt"
#: Releases that vim-deploy builds and runs with, as the plugin library names them.
GENERATIONS = ("8.6", "10", "11")
#: From here on the ONNX parser prefers a registered plugin to a local function of the same name
#: (TensorRT's changelog, 10.7); from 10.0 on it was the other way round.
_PLUGIN_FIRST = (10, 7)
#: Opset of the operators that TensorRT 8.6's parser knows (onnx-tensorrt, release 8.6).
_OPSET_OF_8_6 = 17


@dataclass(frozen=True)
class Capabilities:
    """What the installed TensorRT can do.

    Attributes:
        version: of the library, such as ``10.3.0``.
        generation: ``8.6``, ``10`` or ``11``: which plugin libraries and plans go together.
        plugin_interface: ``V2`` (IPluginV2DynamicExt) or ``V3`` (IPluginV3).
        strongly_typed: tensors have the types of the graph. Otherwise types are chosen by
            builder flags and per-layer precisions.
        typing_flag: a network is strongly typed only when it is created with that flag.
        explicit_batch_flag: a network must be created with that flag.
        local_functions: what the parser does with them: ``none`` (it knows none),
            ``function-first`` (a function hides a plugin of its name) or ``plugin-first``.
        max_opset: newest ONNX opset whose operators the parser takes; None when it takes all that
            vim-deploy writes.
        builder_flags: names of the BuilderFlag members.
        hardware_levels: names of the HardwareCompatibilityLevel members.
        bfloat16: it has that type.
        progress_monitor: the build reports its phases and can be cancelled between them.
        plugins_to_serialize: plugin libraries can be put into a version-compatible engine.
        device_memory_v2: an engine tells its memory as a 64-bit number, for each profile.
        serialization_config: an engine can be serialised with chosen parts.
        debug_tensors: inner tensors can be marked, and reach a listener while an engine runs.
    """

    version: str
    generation: Literal["8.6", "10", "11"]
    plugin_interface: Literal["V2", "V3"]
    strongly_typed: bool
    typing_flag: bool
    explicit_batch_flag: bool
    local_functions: Literal["none", "function-first", "plugin-first"]
    max_opset: int | None
    builder_flags: frozenset[str]
    hardware_levels: frozenset[str]
    bfloat16: bool
    progress_monitor: bool
    plugins_to_serialize: bool
    device_memory_v2: bool
    serialization_config: bool
    debug_tensors: bool


def is_installed() -> bool:
    """Whether the package is there; says nothing about whether its libraries load."""
    return importlib.util.find_spec(_MODULE) is not None


def load() -> ModuleType:
    """The module ``tensorrt``.

    Raises:
        VimDeployError: VIM-301 when it is not installed or its libraries do not load.
    """
    if not is_installed():
        raise missing_package(_MODULE, "trt", "working with full TensorRT")
    try:
        return importlib.import_module(_MODULE)
    except (ImportError, OSError) as error:
        raise VimDeployError(
            "VIM-301",
            "TensorRT is installed, but does not load",
            why=f"{type(error).__name__}: {error}",
            fix="install TensorRT again so that it fits this machine's CUDA version",
        ) from error


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
    return (
        f"{found.version}, {typing}, plugins {found.plugin_interface}; builds for the GPU at hand"
    )


def capabilities_of(module: ModuleType) -> Capabilities:
    """Ask a ``tensorrt`` module; VIM-309 for a release that is not supported."""
    text = str(module.__version__)
    release = _release(text)
    generation = generation_of(text)
    creation = module.NetworkDefinitionCreationFlag.__members__
    typing_flag = "STRONGLY_TYPED" in creation and release < (11, 0)
    engine = module.ICudaEngine
    return Capabilities(
        version=text,
        generation=generation,
        plugin_interface="V2" if generation == "8.6" else "V3",
        strongly_typed="STRONGLY_TYPED" in creation or release >= (11, 0),
        typing_flag=typing_flag,
        explicit_batch_flag="EXPLICIT_BATCH" in creation and release < (10, 0),
        local_functions=_local_functions(release),
        max_opset=_OPSET_OF_8_6 if generation == "8.6" else None,
        builder_flags=frozenset(module.BuilderFlag.__members__),
        hardware_levels=frozenset(module.HardwareCompatibilityLevel.__members__),
        bfloat16="BF16" in module.DataType.__members__,
        progress_monitor=hasattr(module, "IProgressMonitor"),
        plugins_to_serialize=hasattr(module.IBuilderConfig, "plugins_to_serialize"),
        device_memory_v2=hasattr(engine, "device_memory_size_v2"),
        serialization_config=hasattr(engine, "serialize_with_config"),
        debug_tensors=hasattr(module, "IDebugListener"),
    )


def _release(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def generation_of(text: str) -> Literal["8.6", "10", "11"]:
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
        why=f"vim-deploy builds and runs with TensorRT {', '.join(GENERATIONS)}",
        fix="install one of these, or use --runtime tensorrt-rtx",
    )


def _local_functions(
    release: tuple[int, int],
) -> Literal["none", "function-first", "plugin-first"]:
    if release < (10, 0):
        return "none"
    return "plugin-first" if release >= _PLUGIN_FIRST else "function-first"
