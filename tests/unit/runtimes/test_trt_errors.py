"""TensorRT's own texts become coded errors with a fix; unknown ones are passed on."""

from __future__ import annotations

import gc
from types import ModuleType
from typing import Any

import pytest

from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.tensorrt.errors import explain, make_runtime, notes_in

UNKNOWN = VimDeployError("VIM-904", "it did not run", fix="look at the log")

#: Text as TensorRT or TensorRT-RTX writes it, code, and what the message has to name.
TEXTS = [
    (
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion "
        "stdVersionRead == kSERIALIZATION_VERSION failed. The engine plan file is not compatible "
        "with this version of TensorRT, expecting library version 10.14.1.48 got 10.3.0.26, please "
        "rebuild.)",
        "VIM-901",
        "TensorRT 10.3.0.26, this is TensorRT 10.14.1.48",
    ),
    (
        "1: [stdArchiveReader.cpp::StdArchiveReader::42] Error Code 1: Serialization "
        "(Serialization assertion stdVersionRead == serializationVersion failed.Version tag does "
        "not match. Note: Current Version: 232, Serialized Engine Version: 213)",
        "VIM-901",
        "serialisation 213, here 232",
    ),
    (
        "Trying to load an engine created with incompatible serialization version (239 != 228). "
        "Check that the engine was not created using safety runtime, same OS was used and version "
        "compatibility parameters were set accordingly and that it is a TRT engine file.",
        "VIM-901",
        "another version",
    ),
    (
        "The engine plan file is generated on an incompatible device, expecting compute 8.6 got "
        "compute 9.0, please rebuild.",
        "VIM-901",
        "compute capability 9.0, this GPU has 8.6",
    ),
    (
        "The current device is not compatible with this hardware-compatible engine. Expected "
        "compute capability >= 8.0.",
        "VIM-901",
        "compute capability 8.0 or later",
    ),
    (
        "The engine cannot run on this GPU, which has compute capability 9.0. TensorRT-RTX does "
        "not support this compute capability, so the engine cannot be rebuilt for it.",
        "VIM-901",
        "compute capability 9.0",
    ),
    ("Serialization assertion plan.header.size == blobSize failed.", "VIM-413", "truncated"),
    ("Cannot deserialize with an empty memory buffer.", "VIM-413", "truncated"),
    ("Assertion bufferSize >= minBufferSize failed.", "VIM-413", "truncated"),
    (
        "Cannot deserialize plugin since corresponding IPluginCreatorInterface not found in Plugin "
        "Registry",
        "VIM-903",
        "plugin",
    ),
    (
        "Cannot deserialize plugin since corresponding IPluginCreator not found in Plugin Registry",
        "VIM-903",
        "plugin",
    ),
    (
        "3: getPluginCreator could not find plugin: VimBiSelectiveScan version: 1",
        "VIM-903",
        "VimBiSelectiveScan",
    ),
    ("getPluginCreator could not find plugin VimBiSelectiveScan version 1", "VIM-903", "VimBi"),
    ("Cannot find plugin: VimBiCausalConv, version: 1, namespace:.", "VIM-903", "VimBiCausalConv"),
    (
        "Assertion failed: Plugin not found, are the plugin name, version, and namespace correct?",
        "VIM-903",
        "plugin",
    ),
    (
        "Cannot deserialize engine with lean runtime since IRuntime::getEngineHostCodeAllowed() is "
        "false.",
        "VIM-203",
        "code of its own",
    ),
    (
        "Error Code 3: API Usage Error (Parameter check failed, condition: engineDims.d[i] == "
        "dims.d[i]. Static dimension mismatch, supplied shape does not satisfy any optimization "
        "profiles)",
        "VIM-905",
        "shape",
    ),
    ("Error Code 2: OutOfMemory (Requested size was 123456 bytes.)", "VIM-906", "memory"),
    ("Error Code 1: Cuda Runtime (out of memory)", "VIM-906", "memory"),
    ("[virtualMemoryBuffer.cpp] std::bad_alloc", "VIM-906", "memory"),
    (
        "CUDA initialization failure with error: 35 (cudaError 35): CUDA driver version is "
        "insufficient for CUDA runtime version",
        "VIM-302",
        "GPU",
    ),
]


@pytest.mark.parametrize(("text", "code", "part"), TEXTS)
def test_known_texts(text: str, code: str, part: str) -> None:
    error = explain(["an earlier line", text], "model.plan", UNKNOWN)
    assert error.code == code
    assert part in error.message
    assert error.fix
    assert error.fix != UNKNOWN.fix
    assert text.splitlines()[-1].strip() in error.why


def test_unknown_texts_become_the_reason() -> None:
    error = explain(["something new"], "model.plan", UNKNOWN)
    assert (error.code, error.message, error.fix) == ("VIM-904", "it did not run", UNKNOWN.fix)
    assert error.why == "TensorRT: something new"
    assert explain([], "model.plan", UNKNOWN).why == "TensorRT gave no reason"


def test_long_logs_are_cut_to_their_end() -> None:
    lines = [f"line {number}" for number in range(100)]
    why = explain(lines, "model.plan", UNKNOWN).why
    assert "line 99" in why
    assert "line 10" not in why.splitlines()[0]
    assert len(why.splitlines()) < 10


def test_another_model_of_gpu_is_a_note() -> None:
    text = (
        "Using an engine plan file across different models of devices is not supported and is "
        "likely to affect performance or even cause errors or deadlock."
    )
    assert len(notes_in([text, "other"])) == 1
    assert notes_in(["other"]) == ()


#: As the lean runtimes 10.15, 10.16 and 11.0 say it; 11.4 adds "(cudaError 35: ...)" to the last.
NO_CUDA = (
    "createInferRuntime: Error Code 6: API Usage Error (CUDA initialization failure with error: 35 "
    "In checkCudaInstallation at /_src/runtime/dispatch/runtime.cpp:824)",
    "[checkMacros.cpp::catchCudaError::229] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:229)",
)


def test_a_runtime_around_nothing_is_refused_and_never_given_back() -> None:
    said: list[str] = []
    given_back = []

    class Runtime:
        def __init__(self, logger: Any) -> None:
            said.extend(NO_CUDA)

        def __del__(self) -> None:
            given_back.append(self)

    module = ModuleType("tensorrt")
    module.Runtime = Runtime  # type: ignore[attr-defined]
    with pytest.raises(VimDeployError) as caught:
        make_runtime(module, None, lambda: said, "m.plan", UNKNOWN)
    assert (caught.value.code, caught.value.message) == ("VIM-302", "no usable GPU for m.plan")
    del caught
    gc.collect()
    assert given_back == []


def test_a_runtime_that_raises_is_refused() -> None:
    def fails(logger: Any) -> Any:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    module = ModuleType("tensorrt")
    module.Runtime = fails  # type: ignore[attr-defined]
    with pytest.raises(VimDeployError, match="it did not run") as caught:
        make_runtime(module, None, list, "m.plan", UNKNOWN)
    assert "returned nullptr" in caught.value.why
    with pytest.raises(VimDeployError) as caught:
        make_runtime(module, None, lambda: NO_CUDA, "m.plan", UNKNOWN)
    assert caught.value.code == "VIM-302"
