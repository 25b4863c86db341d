"""OpenVINO: the only module that imports it, and what its errors become.

``import openvino`` forks a process that tells Google Analytics of it, and writes a number for the
user to ``~/intel``, unless the user has refused that before. It does so by another package, which
is made to be missed: OpenVINO has a stub for that case. No variable of the environment turns it off
on its own.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vim_deploy.errors import VimDeployError, import_package, says_no_memory
from vim_deploy.runtimes import runtime_named
from vim_deploy.runtimes.base import Array

#: The package that sends.
_TELEMETRY = "openvino_telemetry"
#: The device that models are compiled for, by OpenVINO's name.
CPU = "CPU"
#: Lines of an error that say where in OpenVINO's source it arose, and no more.
_PLACES = ("Check '", "Exception from ", "FrontEnd API failed", "Summary:")
#: Lines of an error that are shown.
_MOST_LINES = 3
_ELSEWHERE = "leave --runtime out: ONNX Runtime runs every exported file"


def load() -> Any:  # noqa: ANN401 - an untyped module
    """The module ``openvino``, which sends nothing home; VIM-301 when it is not to be had."""
    runtime_named("openvino").require_installed()
    # Who has imported it before has decided for himself.
    hidden = contextlib.nullcontext() if "openvino" in sys.modules else _missing(_TELEMETRY)
    with hidden:
        return import_package("openvino", "OpenVINO", "-U", "openvino")


@contextlib.contextmanager
def _missing(package: str) -> Iterator[None]:
    """Meanwhile ``package`` is not to be found, whether it is installed or imported."""
    hidden = {name: module for name, module in sys.modules.items()
              if name.partition(".")[0] == package}  # fmt: skip
    sys.modules[package] = None  # type: ignore[assignment]  # what Python takes for missing
    try:
        yield
    finally:
        del sys.modules[package]
        sys.modules.update(hidden)


def version() -> str:
    """Of the release, such as ``2026.4.1``."""
    return str(load().__version__).partition("-")[0]


def describe() -> str:
    """Version and devices in words; VIM-301 when there is none."""
    devices = ", ".join(load().Core().available_devices)
    return f"{version()}, devices {devices}"


def read_network(model: str | bytes, name: str) -> Any:  # noqa: ANN401 - of an untyped module
    """An ``openvino.Model`` whose half-precision inputs and outputs are float32 for the caller.

    Args:
        model: a serialised ONNX model in standard operators, or the path of a file.
        name: of the file, for messages.

    Raises:
        VimDeployError: VIM-301; VIM-409 with OpenVINO's words for what it does not take.
    """
    openvino = load()
    with _refusing(f"OpenVINO {version()} does not read {name}"):
        network = openvino.Core().read_model(model)
        halves = (openvino.Type.f16, openvino.Type.bf16)
        ends = openvino.preprocess.PrePostProcessor(network)
        for ports, end in ((network.inputs, ends.input), (network.outputs, ends.output)):
            for index, port in enumerate(ports):
                if port.element_type in halves:
                    end(index).tensor().set_element_type(openvino.Type.f32)
        return ends.build()


def compile_network(
    network: Any,  # noqa: ANN401 - of an untyped module
    shapes: Mapping[str, Sequence[int]],
    settings: Mapping[str, str],
    name: str,
) -> Any:  # noqa: ANN401
    """An ``openvino.CompiledModel`` for the CPU; VIM-409 when OpenVINO cannot make one.

    Args:
        network: what ``read_network`` gave; it has these shapes afterwards.
        shapes: of its inputs, -1 for a size that only an array tells.
        settings: by OpenVINO's names.
        name: of the file, for messages.
    """
    with _refusing(f"OpenVINO {version()} does not compile {name}"):
        network.reshape({key: list(shape) for key, shape in shapes.items()})
        return load().compile_model(network, CPU, dict(settings))


def infer(
    request: Any,  # noqa: ANN401 - of an untyped module
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    name: str,
) -> dict[str, Array]:
    """The outputs of that name, as arrays of the caller's own; VIM-409 when the model fails."""
    with _refusing(f"{name} fails in OpenVINO"):
        # The inputs are read during the call alone.
        found = request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        return {output: np.asarray(found[output]) for output in outputs}


@contextlib.contextmanager
def _refusing(message: str) -> Iterator[None]:
    """VIM-409 for an error of OpenVINO's; a lack of memory comes as it is."""
    try:
        yield
    # OpenVINO raises RuntimeError, and other classes of its own by build.
    except Exception as error:
        if isinstance(error, VimDeployError) or says_no_memory(error):
            raise
        raise VimDeployError("VIM-409", message, why=_said(error), fix=_ELSEWHERE) from error


def _said(error: Exception) -> str:
    """What an error says, without the places in OpenVINO's source that it begins with."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(_PLACES)]
    return " ".join(said[:_MOST_LINES]) or type(error).__name__
