"""The fakes of TensorRT, and what the tool asks of it, against NVIDIA's own Python bindings.

Each personality of the fakes is compared with the bindings of full TensorRT that it stands for:
classes, members and when they came and went, parameters, enums. Lean runtimes lack what builds;
``LEAN_LACKS`` says what, and may not grow.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import tensorrt_api
from tests.support.fake_cudart import FakeCudart
from tests.support.fake_tensorrt import PARTS, enums, onnx_engine, personality, runtime
from tests.support.source import PACKAGE
from tests.support.tensorrt_api import Api, differences, is_public
from tests.support.tensorrt_wheels import FULL, LEAN, LEAN_MORE, run_full, run_lean
from vim_deploy.artifact.engine_file import DATA_TYPES
from vim_deploy.runtimes.building.request import HARDWARE_LEVELS
from vim_deploy.runtimes.tensorrt import build
from vim_deploy.runtimes.tensorrt.capability import capabilities_of, generation_of

pytestmark = pytest.mark.xdist_group("registries")
more = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
#: Of the fakes' classes and enums, those that the bindings of lean runtimes lack.
LEAN_LACKS = {
    "Builder",
    "EngineInspector",
    "IBuilderConfig",
    "ILayer",
    "INetworkDefinition",
    "ITensor",
    "LayerType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
}
#: TensorRT-RTX's alone.
OF_RTX = {"ComputeCapability"}
#: Modules in which ``module`` is TensorRT.
ASKING = ("runtimes/tensorrt", "runtimes/tensorrt_rtx", "runtimes/building")

Real = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def real(pytestconfig: pytest.Config) -> Real:
    """What ``tests.support.tensorrt_product`` says of a version of full TensorRT."""
    program = "tests.support.tensorrt_product"
    return functools.cache(lambda version: run_full(pytestconfig, version, program))


def fakes(name: str) -> Iterator[tuple[str, type]]:
    """The classes of a personality's fakes, under the names of those they stand for."""
    module = personality(name)
    for part in PARTS:
        for cls in part.CLASSES:
            if hasattr(module, cls.__name__):
                yield cls.__name__, getattr(module, cls.__name__)
    made = runtime.runtime_module(name, FakeCudart())
    new = made.state.release >= (10, 0)
    yield "ILogger", made.ILogger
    yield "Runtime", made.Runtime
    yield "IPluginRegistry", type(made.get_plugin_registry())
    yield "ICudaEngine", runtime._Engine
    yield "ICudaEngine", onnx_engine.OnnxEngine
    yield "IExecutionContext", runtime._Context
    yield "IExecutionContext", onnx_engine._DebugContext if new else onnx_engine._Context
    if new:
        yield "IDebugListener", made.IDebugListener


def members(module: Any, name: str) -> set[str]:
    """Members of an enum of a fake; none where it has no such enum."""
    return set(getattr(getattr(module, name, None), "__members__", ()))


def real_members(api: Api, name: str) -> set[str]:
    return {key for key, what in api.get(name, {}).items() if what["kind"] == "enum"}


@pytest.mark.parametrize(("version", "name"), FULL.items())
def test_what_fakes_offer_is_there(version: str, name: str, real: Real) -> None:
    api = real(version)["api"]
    found = [
        f"{known}.{line}" for known, fake in fakes(name) for line in differences(fake, api[known])
    ]
    assert found == []


@pytest.mark.parametrize(("version", "name"), FULL.items())
def test_what_a_fake_lacks_is_not_there(version: str, name: str, real: Real) -> None:
    api, module = real(version)["api"], personality(name)
    found = []
    for part in PARTS:
        for cls in part.CLASSES:
            fake = getattr(module, cls.__name__, None)
            if fake is None:
                found += [cls.__name__] if cls.__name__ in api else []
                continue
            gone = [key for key in vars(cls) if is_public(key) and not hasattr(fake, key)]
            found += [f"{cls.__name__}.{key}" for key in gone if key in api[cls.__name__]]
    release = runtime.runtime_module(name, FakeCudart()).state.release
    for key, (since, until) in runtime._ENGINE_SPANS.items():
        if (since <= release < until) != (key in api["ICudaEngine"]):
            found.append(f"ICudaEngine.{key}")
    assert found == []


@pytest.mark.parametrize(("version", "name"), FULL.items())
def test_enums_have_the_members_of_the_release(version: str, name: str, real: Real) -> None:
    api, module = real(version)["api"], personality(name)
    for enum, known in enums._MEMBERS.items():
        names = {member for member, _, _ in known}
        assert members(module, enum) == real_members(api, enum) & names, enum
    made = runtime.runtime_module(name, FakeCudart())
    for enum in ("DataType", "TensorIOMode", "TensorLocation"):
        assert members(made, enum) <= real_members(api, enum), enum
    own = {key for key in dir(made.ILogger.Severity) if key.isupper()}
    assert own == set(made.ILogger.Severity.__members__)
    assert own <= api["ILogger"].keys()


@pytest.mark.parametrize(("version", "name"), FULL.items())
def test_the_tool_finds_the_same_capabilities(version: str, name: str, real: Real) -> None:
    found = real(version)["capabilities"]
    fake = dataclasses.asdict(capabilities_of(personality(name)))
    # Of flags the fake has those that the tool knows.
    assert set(fake.pop("builder_flags")) <= set(found.pop("builder_flags"))
    assert set(fake.pop("hardware_levels")) <= set(found.pop("hardware_levels"))
    assert found.pop("version") == version
    del fake["version"]
    assert {**fake, "network_flags": list(fake["network_flags"])} == found


@pytest.mark.parametrize("version", FULL)
def test_names_came_with_the_release_that_messages_say(version: str, real: Real) -> None:
    api = real(version)["api"]
    here = tuple(map(int, version.split(".")[:2]))
    enums_of_names = ("BuilderFlag", "HardwareCompatibilityLevel", "DataType")
    found = {key for enum in enums_of_names for key in real_members(api, enum)}
    for name, since in build._SINCE.items():
        # 8.6 names FP8, and has nothing of that type.
        there = name in found and (name != "FP8" or here >= (10, 0))
        assert there == (here >= tuple(map(int, since.split(".")))), name
    assert {*HARDWARE_LEVELS.values()} - found <= build._SINCE.keys()
    if here >= (10, 0):
        assert DATA_TYPES.keys() <= real_members(api, "DataType")


@pytest.mark.parametrize("version", FULL)
def test_methods_that_tensorrt_calls(version: str, real: Real) -> None:
    api, called = real(version)["api"], real(version)["called_back"]
    new = {"IProgressMonitor", "IDebugListener"} if generation_of(version) != "8.6" else set()
    assert called.keys() == {"ILogger"} | new
    for owner, classes in called.items():
        for own in classes:
            for name, count in own.items():
                overloads = api[owner][name]["overloads"]
                assert [len(item) for item in overloads] == [count], (owner, name)


@pytest.mark.parametrize("version", FULL)
def test_loggers_and_weights_of_the_tool(version: str, real: Real) -> None:
    told = real(version)
    assert told["logged"] == [["INTERNAL_ERROR", "ERROR"]] * 2
    bfloat16 = None if generation_of(version) == "8.6" else ["BF16", 6]
    kinds = {"float32": ["FLOAT", 6], "float16": ["HALF", 6], "bfloat16": bfloat16}
    assert told["weights"] == kinds


@pytest.mark.parametrize("version", FULL)
def test_no_runtime_and_no_builder_is_an_error(version: str, real: Real) -> None:
    told = real(version)["refusals"]
    assert {name: code for name, (code, _) in told.items()} == {
        "engine": "VIM-413",
        "build": "VIM-603",
    }
    assert all("factory function returned nullptr" in why for _, why in told.values())


@pytest.mark.parametrize(
    "version", [*LEAN, *(pytest.param(version, marks=more) for version in LEAN_MORE)]
)
def test_lean_runtimes_have_the_classes_that_run(version: str, pytestconfig: pytest.Config) -> None:
    api = run_lean(pytestconfig, version, "tests.support.tensorrt_api")
    name = {"10": "10.14", "11": "11"}[generation_of(version)]
    known = list(fakes(name))
    wanted = {cls for cls, _ in known} | set(enums.enums_of(personality(name).fake.release))
    assert wanted - api.keys() == LEAN_LACKS
    found = [
        f"{cls}.{line}"
        for cls, fake in known
        if cls not in LEAN_LACKS
        for line in differences(fake, api[cls])
    ]
    assert found == []
    for enum in enums._MEMBERS.keys() - LEAN_LACKS:
        assert members(personality(name), enum) <= real_members(api, enum), enum


def test_the_tool_asks_for_nothing_that_no_fake_knows() -> None:
    known = set(OF_RTX)
    for name in FULL.values():
        known |= {cls for cls, _ in fakes(name)} | vars(personality(name)).keys()
    asked = set()
    for path in (file for folder in ASKING for file in (PACKAGE / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and "module" in (
                getattr(node.value, "id", ""),
                getattr(node.value, "attr", ""),
            ):
                asked.add(node.attr)
    assert {"Builder", "Runtime", "get_plugin_registry"} <= asked
    assert asked - known == set()


def test_differences_are_found() -> None:
    """The comparison itself, on a class of each kind of fault."""

    class Fake:
        def __init__(self, logger: Any) -> None: ...

        def same(self, name: str, size: int = 0) -> None: ...

        def shorter(self, name: str) -> None: ...

        def renamed(self, path: str) -> None: ...

        def longer(self, name: str, other: int = 0) -> None: ...

        def optional(self, name: str = "") -> None: ...

        def gone(self) -> None: ...

        read = property(lambda self: 0)
        written = property(lambda self: 0, lambda self, value: None)

    read = tensorrt_api.parameters
    texts = {
        "__init__": ["__init__(self: a.B, logger: a.L) -> None"],
        "same": ["same(self: a.B, name: str, size: int = <Kind.X: 1>, z: str = ', ') -> a.C"],
        "shorter": [
            "shorter(self: a.B) -> None",
            "shorter(self: a.B, arg0: Dict[str, int]) -> int",
        ],
        "renamed": ["renamed(self: a.B, plugin_path: str) -> None"],
        "longer": ["longer(self: a.B, name: str) -> None"],
        "optional": ["optional(self: a.B, name: str) -> None"],
    }
    api: dict[str, Any] = {
        name: {"kind": "method", "overloads": [read(text) for text in lines]}
        for name, lines in texts.items()
    }
    api["read"] = api["written"] = {"kind": "property", "set": False}
    found = [line.partition(":")[0].partition("[")[0] for line in differences(Fake, api)]
    assert sorted(found) == ["gone", "longer", "optional", "renamed", "written"]
    assert differences(Fake, None) == ["there is no such class"]
