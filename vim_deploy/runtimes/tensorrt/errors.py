"""What TensorRT says when it does not load or run an engine, turned into coded errors.

TensorRT explains itself in its log and returns None or False. The texts are those of TensorRT 8.6
to 11 and TensorRT-RTX 1.7.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from vim_deploy.errors import VimDeployError

_BUILD_HERE = "build it again on this machine: vim-deploy build-engine MODEL.onnx"
_OTHER_VERSION = (
    f"{_BUILD_HERE}; or install the TensorRT that built it; or build with --version-compatible"
)
_OTHER_GPU = f"{_BUILD_HERE}; or build with --hardware-compat for several kinds of GPU"
_NAME_PLUGIN = (
    "name the library the engine was built with: --plugin libvim_plugins.so "
    "(trtexec --dynamicPlugins=, Triton --backend-config=tensorrt,plugins=)"
)
_SMALLER = (
    "end other programs on this GPU, use a smaller batch or fewer contexts, or build the engine "
    "with a smaller --max-batch"
)
#: Lines of TensorRT's log that a message repeats.
_LINES_SHOWN = 6


@dataclass(frozen=True)
class _Known:
    """A text of TensorRT's, and what it means. Groups of the pattern fill ``message``."""

    pattern: str
    code: str
    message: str
    fix: str


#: The first that matches counts, so the more special come first.
_TEXTS = (
    _Known(
        r"CUDA initialization failure|cudaError 35|CUDA driver version is insufficient|"
        r"no CUDA-capable device",
        "VIM-302",
        "no usable GPU for {subject}",
        "run this on a machine with an NVIDIA GPU and a driver for this CUDA version",
    ),
    _Known(
        r"not compatible with this version of TensorRT, expecting library version (\S+) got "
        r"([\d.]+)",
        "VIM-901",
        "{subject} was built by TensorRT {1}, this is TensorRT {0}",
        _OTHER_VERSION,
    ),
    _Known(
        r"Version tag does not match\. Note: Current Version: (\d+), Serialized Engine Version: "
        r"(\d+)",
        "VIM-901",
        "{subject} was built by another version of TensorRT (serialisation {1}, here {0})",
        _OTHER_VERSION,
    ),
    _Known(
        r"incompatible serialization version",
        "VIM-901",
        "{subject} was built by another version of TensorRT, or for another operating system",
        _OTHER_VERSION,
    ),
    _Known(
        r"generated on an incompatible device, expecting compute (\S+) got compute ([\d.]+)",
        "VIM-901",
        "{subject} was built for compute capability {1}, this GPU has {0}",
        _OTHER_GPU,
    ),
    _Known(
        r"not compatible with this hardware-compatible engine\. Expected compute capability >= "
        r"([\d.]+\d)",
        "VIM-901",
        "{subject} needs compute capability {0} or later, which this GPU has not",
        _OTHER_GPU,
    ),
    _Known(
        r"cannot run on this GPU, which has compute capability ([\d.]+\d)",
        "VIM-901",
        "{subject} does not run on this GPU of compute capability {0}",
        "use full TensorRT on this GPU: vim-deploy build-engine MODEL.onnx --runtime tensorrt",
    ),
    _Known(
        r"getEngineHostCodeAllowed\(\) is false|leanStubs",
        "VIM-203",
        "{subject} holds code of its own, and running that was not allowed",
        "--allow-plan-code, if you trust whoever made the file",
    ),
    _Known(
        r"(?:could not find plugin:? |Cannot find plugin: )(\w+)",
        "VIM-903",
        "{subject} needs the plugin {0}, which is not loaded",
        _NAME_PLUGIN,
    ),
    _Known(
        r"IPluginCreator(?:Interface)? not found in Plugin Registry|Plugin not found, are the "
        r"plugin name, version, and namespace correct",
        "VIM-903",
        "{subject} needs a plugin that is not loaded",
        _NAME_PLUGIN,
    ),
    _Known(
        r"plan\.header\.size == blobSize|bufferSize >= minBufferSize|empty memory buffer",
        "VIM-413",
        "{subject} is truncated",
        "copy it again and compare its SHA-256 with the one in its .plan.json, or build it again",
    ),
    _Known(
        r"does not satisfy any optimization profiles|profile.{0,40}(?:minimum|maximum|range)",
        "VIM-905",
        "{subject} was not built for this shape",
        "give a batch within the engine's profiles (vim-deploy inspect shows them)",
    ),
    _Known(
        r"[Oo]ut ?[Oo]f ?[Mm]emory|bad_alloc|cudaErrorMemoryAllocation|"
        r"Requested amount of GPU memory|Cuda Runtime \(out of memory\)",
        "VIM-906",
        "the GPU's memory does not suffice for {subject}",
        _SMALLER,
    ),
)

#: Warnings worth repeating to people, as they say what TensorRT will not refuse.
_NOTES = (
    (
        "across different models of devices",
        "the engine was built on another model of GPU; TensorRT does not support that and warns of "
        "slower runs or errors",
    ),
)


def explain(texts: Sequence[str], subject: str, otherwise: VimDeployError) -> VimDeployError:
    """The coded error for what TensorRT logged.

    Args:
        texts: errors of its log, oldest first, and the text of an exception.
        subject: name of the engine.
        otherwise: for texts that are not known; they become its reason.
    """
    said = "\n".join(text.strip() for text in texts)
    why = "\n".join(said.splitlines()[-_LINES_SHOWN:])
    for known in _TEXTS:
        match = re.search(known.pattern, said, re.DOTALL)
        if match is not None:
            message = known.message.format(*match.groups(), subject=subject)
            return VimDeployError(known.code, message, why=f"TensorRT: {why}", fix=known.fix)
    reason = f"TensorRT: {why}" if why else "TensorRT gave no reason"
    return VimDeployError(otherwise.code, otherwise.message, why=reason, fix=otherwise.fix)


def make_runtime(
    module: ModuleType,
    logger: Any,  # noqa: ANN401 - a TensorRT object
    said: Callable[[], Sequence[str]],
    subject: str,
    otherwise: VimDeployError,
) -> Any:  # noqa: ANN401
    """A ``Runtime`` of TensorRT.

    Bindings raise when TensorRT gives them a null pointer. But where CUDA does not start, as with a
    driver older than TensorRT's CUDA, the lean runtimes 10.15 to 11.4 log an error and give an
    object around no runtime, which ends the process when it is used, and also when it is given
    back. So an error in the log counts, and what was made then is kept for good.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        logger: for it.
        said: gives the errors of its log.
        subject: name of the engine that it is made for.
        otherwise: as for ``explain``.

    Raises:
        VimDeployError: VIM-302 and what else the log's errors mean.
    """
    try:
        made = module.Runtime(logger)
    # pybind11 turns any C++ exception of TensorRT into one of the built-in errors.
    except Exception as error:
        raise explain([*said(), str(error)], subject, otherwise) from error
    errors = said()
    if errors:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
        raise explain(errors, subject, otherwise)
    return made


def notes_in(warnings: Sequence[str]) -> tuple[str, ...]:
    """Notes for people about warnings of TensorRT's log."""
    return tuple(note for part, note in _NOTES if any(part in warning for warning in warnings))
