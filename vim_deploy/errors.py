"""Coded errors: what went wrong, why, and the command or key that mends it.

A code is ``VIM-<exit code><two digits>``: VIM-403 leaves the process with exit code 4. ``CATALOG``
is the complete list; ``docs/errors.md`` has one entry for each, and a test compares the two.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import partial
from types import ModuleType
from typing import ClassVar

from vim_deploy.installation import extra_command, pip_command


class ExitCode(IntEnum):
    """Exit status of the command line; stable."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    ENVIRONMENT = 3
    BAD_INPUT = 4
    EXPORT_FAILED = 5
    BUILD_FAILED = 6
    PARITY_NOT_MET = 7
    PRECISION_NOT_AS_ASKED = 8
    INCOMPATIBLE_ENGINE = 9
    PERFORMANCE_REGRESSION = 10
    #: Ctrl-C, by the shell's convention of 128 + SIGINT.
    INTERRUPTED = 130
    #: Whoever read standard output has gone, as in ``... | head``: 128 + SIGPIPE.
    READER_GONE = 141


#: How PyTorch, ONNX Runtime, onnx and Python itself say that memory or a thread was refused.
_NO_MEMORY = (
    "allocate memory",
    "bad_alloc",
    "bad allocation",
    "bfcarena",
    "out of memory",
    "failed to allocate",
    "can't start new thread",
    "cannot allocate",
    # The dynamic loader, of a library that an import needs.
    "failed to map segment",
    "resource temporarily unavailable",
)

CATALOG: dict[str, str] = {
    # 2: how the command was called
    "VIM-201": "unknown option name",
    "VIM-202": "option value not valid",
    "VIM-203": "options contradict each other",
    "VIM-204": "output exists and was made with other settings",
    # 3: the machine
    "VIM-301": "a needed package is not installed",
    "VIM-302": "no usable GPU",
    "VIM-303": "model hub not reachable",
    "VIM-304": "output location cannot be written",
    "VIM-305": "no space left",
    "VIM-306": "another process is writing this output",
    "VIM-307": "no CUDA compiler found",
    "VIM-308": "no TensorRT headers found",
    "VIM-309": "this TensorRT lacks what was asked for",
    "VIM-310": "a helper process stalled",
    "VIM-311": "not enough memory",
    "VIM-312": "the system refused an operation",
    "VIM-313": "no place for temporary files",
    # 4: the input
    "VIM-401": "input file not found",
    "VIM-402": "not a readable checkpoint",
    "VIM-403": "checkpoint refused: it would run code",
    "VIM-404": "checkpoint does not fit the model",
    "VIM-405": "checkpoint holds NaN or Inf",
    "VIM-406": "image size and patches do not fit",
    "VIM-407": "architecture cannot be inferred",
    "VIM-408": "model options that do not work together",
    "VIM-409": "not a readable ONNX model",
    "VIM-410": "ONNX model without vim-deploy metadata",
    "VIM-411": "not a readable image",
    "VIM-412": "recipe not valid",
    "VIM-413": "not a readable engine",
    "VIM-414": "stored outputs not readable",
    "VIM-415": "input does not fit the model",
    "VIM-416": "model config file not valid",
    "VIM-417": "not a plugin library of vim-deploy",
    "VIM-418": "benchmark report cannot be compared with",
    "VIM-419": "data set does not fit the model",
    "VIM-420": "precision policy not valid",
    "VIM-422": "inner tensors not to be had",
    "VIM-425": "package is damaged",
    "VIM-426": "artifact cannot be served",
    "VIM-427": "not a package",
    "VIM-428": "model configuration not valid",
    "VIM-429": "picture and window do not fit",
    "VIM-430": "the model gives NaN or Inf",
    "VIM-431": "dense model where a classifier is needed",
    "VIM-434": "inner tensors cannot be marked",
    "VIM-435": "engine is for diagnosis",
    "VIM-439": "input changed while it was read",
    "VIM-440": "models do not answer the same question",
    "VIM-441": "calibration not usable",
    "VIM-442": "calibration of something else",
    # 5: export
    "VIM-501": "trace failed",
    "VIM-502": "exported graph is not what it should be",
    "VIM-503": "opset cannot be produced",
    "VIM-504": "graph not taken by the fusion passes",
    "VIM-505": "weights do not fit into the precision",
    # 6: build
    "VIM-601": "runtime refused the ONNX model",
    "VIM-602": "runtime parsed the file and found nothing in it",
    "VIM-603": "engine build failed",
    "VIM-604": "engine builder died",
    "VIM-605": "plugin library did not compile",
    "VIM-606": "plugin layers missing",
    "VIM-607": "engine cannot be refitted",
    "VIM-608": "out of memory while building",
    "VIM-609": "graph cannot be lowered for this TensorRT",
    # 7: parity
    "VIM-701": "outputs differ by more than the tolerance",
    "VIM-702": "a part of the model differs by more than its limit",
    "VIM-703": "a rung of the ladder is broken",
    "VIM-704": "no precision policy meets the tolerance",
    # 8: precision
    "VIM-801": "engine precision is not what was asked for",
    # 9: engine and machine
    "VIM-901": "engine was built for another runtime or GPU",
    "VIM-902": "engine and record do not belong together",
    "VIM-903": "plugin library does not fit",
    "VIM-904": "kernel launch refused by CUDA",
    "VIM-905": "engine was not built for this shape",
    "VIM-906": "not enough GPU memory",
    "VIM-907": "server image does not fit",
    # 10: performance
    "VIM-1001": "performance regression",
    "VIM-1002": "a measurement failed",
}


class VimDeployError(Exception):
    """A failure with a code, a reason and a remedy.

    Args:
        code: a key of ``CATALOG``; one that callers tell apart gives an error of its own class,
            which is what they catch: nobody compares codes.
        message: what happened, one line, naming the file, key or value.
        why: what was found and what was expected; may have several lines.
        fix: the command or change that mends it.
    """

    #: Classes of the codes that a caller tells apart.
    _kinds: ClassVar[dict[str, type[VimDeployError]]] = {}

    def __init_subclass__(cls, *, code: str) -> None:
        """Make every error of ``code`` one of this class, wherever it is raised."""
        VimDeployError._kinds[code] = cls

    def __new__(cls, code: str, *_message: object, **_texts: object) -> VimDeployError:
        """An error of the class that its code has."""
        return super().__new__(cls._kinds.get(code, cls))

    def __init__(self, code: str, message: str, *, why: str = "", fix: str = "") -> None:
        if code not in CATALOG:
            raise KeyError(f"error code {code} is not in the catalog")
        super().__init__(message)
        self.code = code
        self.message = message
        self.why = why
        self.fix = fix

    def __reduce__(
        self,
    ) -> tuple[Callable[..., VimDeployError], tuple[str, str], dict[str, object]]:
        """How pickle and copy make it again: by its texts, and with what was noted on it."""
        again = partial(VimDeployError, why=self.why, fix=self.fix)
        return again, (self.code, self.message), self.__dict__

    @property
    def exit_code(self) -> ExitCode:
        """The process exit code: the digits of ``code`` before the last two."""
        return ExitCode(int(self.code.removeprefix("VIM-")[:-2]))

    def as_dict(self) -> dict[str, str | int]:
        """The error as a JSON object."""
        return {
            "code": self.code,
            "title": CATALOG[self.code],
            "message": self.message,
            "why": self.why,
            "fix": self.fix,
            "exit_code": int(self.exit_code),
        }

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.message}"]
        if self.why:
            lines.append(f"why: {self.why}")
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)


class OptionsContradictError(VimDeployError, code="VIM-203"):
    """Options contradict each other, or leave nothing to do."""


class NoGpuError(VimDeployError, code="VIM-302"):
    """There is no GPU that can be used."""


class HubUnreachableError(VimDeployError, code="VIM-303"):
    """The model hub does not answer; a copy of an earlier download may do."""


class OutputLocationError(VimDeployError, code="VIM-304"):
    """An output's location cannot be written."""


class NoSpaceError(VimDeployError, code="VIM-305"):
    """No space is left for an output."""


class OtherWriterError(VimDeployError, code="VIM-306"):
    """Another process or thread is writing the same output."""


class NoHeadersError(VimDeployError, code="VIM-308"):
    """There are no headers of TensorRT here, or not those asked for."""


class InputNotFoundError(VimDeployError, code="VIM-401"):
    """There is no such file, or none of the wanted kind in a folder."""


class UnreadableModelError(VimDeployError, code="VIM-409"):
    """A file is no readable ONNX model; it may be another kind of file."""


class UnreadableImageError(VimDeployError, code="VIM-411"):
    """One file is no readable picture; others may be."""


class UnreadableEngineError(VimDeployError, code="VIM-413"):
    """A file is no engine whose header is known."""


class InputMisfitError(VimDeployError, code="VIM-415"):
    """An input does not fit the model."""


class DataSetMisfitError(VimDeployError, code="VIM-419"):
    """A data set's classes are not the model's; its pictures may still be pictures."""


class NoInnerTensorsError(VimDeployError, code="VIM-422"):
    """Inner tensors are not to be had of this artifact."""


class PictureWindowError(VimDeployError, code="VIM-429"):
    """A picture and the window of its model do not fit."""


class WeightsOverflowError(VimDeployError, code="VIM-505"):
    """Weights do not fit into the precision."""


class OtherMachineError(VimDeployError, code="VIM-901"):
    """An engine was built for another runtime or GPU."""


def nearest(name: object, valid: Iterable[str]) -> str:
    """A sentence that names the closest valid name, or lists all of them when none is close."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return "valid names: " + ", ".join(names)


def missing_package(package: str, extra: str, purpose: str, why: str = "") -> VimDeployError:
    """The error for an optional package that is not installed."""
    return VimDeployError(
        "VIM-301",
        f"{purpose} needs the Python package {package!r}, which is not installed",
        why=why,
        fix=extra_command(extra),
    )


def import_package(module: str, title: str, *install: str, fix: str = "") -> ModuleType:
    """An optional package that is installed; VIM-301 when it or its libraries do not load.

    Args:
        module: to import.
        title: of the package in the message.
        install: what pip is to install to mend it.
        fix: what mends it where pip cannot.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise VimDeployError(
            "VIM-301",
            f"{title} is installed, but does not load",
            why=f"{type(error).__name__}: {error}",
            fix=fix or pip_command("install", *install),
        ) from error


def says_no_memory(error: Exception) -> bool:
    """Whether an error of any library says that memory or a thread was refused."""
    text = f"{type(error).__name__}: {error}".lower()
    return isinstance(error, MemoryError) or any(part in text for part in _NO_MEMORY)
