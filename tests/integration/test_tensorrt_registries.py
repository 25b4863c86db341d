"""The real plugin library in real registries: TensorRT-RTX's and those of TensorRT's lean runtimes.

Nothing here builds an engine: lean runtimes have no builder, and TensorRT-RTX takes no plugins
without a GPU. What a plugin serialises is not to be had from Python either: there the bindings have
nothing behind ``get_fields_to_serialize``. The harness of ``plugins/tests/host`` goes that way.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import plugins
from tests.support.tensorrt_wheels import LEAN, LEAN_MORE, run_lean, run_rtx
from vim_deploy.ops import OPS, PLUGIN_OPS, contract
from vim_deploy.ops.op import Kind

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("registries")]
PROGRAM = "tests.support.plugin_registry"
RTX = "rtx"
more = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
REGISTRIES = [RTX, *LEAN, *(pytest.param(version, marks=more) for version in LEAN_MORE)]

Field = list[Any]
CREATORS = [[op, contract.PLUGIN_VERSION, contract.PLUGIN_NAMESPACE] for op in PLUGIN_OPS]
#: Attributes that a plugin has: those of the op without what only its function reads.
ATTRIBUTES = {
    op: {name: kind for name, kind in OPS[op].attributes.items() if kind is not Kind.DIRECTIONS}
    for op in PLUGIN_OPS
}
ORDERS = (
    ("dlopen",),
    ("load",),
    ("load", "load"),
    ("dlopen", "load"),
    ("load", "dlopen"),
    ("dlopen", "dlopen", "load", "dlopen"),
)


def right(op: str, wide: bool = False) -> list[Field]:
    """Fields with a value for each attribute; ``wide`` as NumPy's own integers and floats."""
    integer, number = ("int64", "float64") if wide else ("int32", "float32")
    return [
        [name, number, [0.5]] if kind is Kind.NUMBER else [name, integer, [1]]
        for name, kind in ATTRIBUTES[op].items()
    ]


def wrong(op: str) -> list[tuple[list[Field], str]]:
    """Fields that no plugin is made from, and what is said about each."""
    fields = right(op)
    cases = [
        ([*fields, ["other", "int32", [1]]], "attribute other is not known"),
        (
            [*fields, ["contract_version", "int32", [contract.CONTRACT_VERSION + 1]]],
            f"this library has {contract.CONTRACT_VERSION}: ",
        ),
    ]
    for at, (name, kind) in enumerate(ATTRIBUTES[op].items()):
        number = kind is Kind.NUMBER
        same = "float32" if number else "int32"

        def with_(change: Field, at: int = at, name: str = name) -> list[Field]:
            return [*fields[:at], [name, *change], *fields[at + 1 :]]

        changed = [
            (with_([same, [1, 1]]), "must have exactly one value"),
            (with_([same, []]), "must have exactly one value"),
            ([*fields[:at], *fields[at + 1 :]], "is missing"),
            ([*fields, fields[at]], "is given twice"),
        ]
        if number:
            changed += [
                (with_(["int32", [1]]), "must be a float"),
                (with_([same, [math.nan]]), "must be finite"),
                (with_([same, [math.inf]]), "must be finite"),
            ]
        else:
            bounds = "must be 0 or 1" if kind is Kind.FLAG else "must be 0 or more"
            changed += [
                (with_(["float32", [1]]), "must be an integer"),
                (with_([same, [-1]]), f"is -1, {bounds}"),
                (with_(["int64", [1 << 40]]), "does not fit 32 bits"),
            ]
            if kind is Kind.FLAG:
                changed.append((with_([same, [2]]), f"is 2, {bounds}"))
        cases += [(case, f"attribute {name} {text}") for case, text in changed]
    return cases


def scenarios(registry: str) -> dict[str, list[Any]]:
    """All that is tried in a registry. The product has no plugins for TensorRT-RTX."""
    first = "load" if registry == RTX else "product"
    found: dict[str, list[Any]] = {" ".join(order): list(order) for order in ORDERS}
    found["refused"] = ["refused"]
    found["unload"] = ["dlopen", "load", "unload", "load"]
    if registry != RTX:
        found |= {"product": ["product", "product"], "load product": ["load", "product", "unload"]}
    found["fields"] = [first, "fields"]
    for op in PLUGIN_OPS:
        given = [right(op), right(op, wide=True)]
        given.append([*right(op), ["contract_version", "int32", [contract.CONTRACT_VERSION]]])
        found[f"right {op}"] = [first, *(["create", op, fields] for fields in given)]
        found[f"wrong {op}"] = [first, *(["create", op, fields] for fields, _ in wrong(op))]
    # The way to the logger is another where the library was only opened.
    op = next(iter(PLUGIN_OPS))
    found["opened wrong"] = ["dlopen", ["create", op, wrong(op)[0][0]]]
    return found


Told = Callable[[str, str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def told(pytestconfig: pytest.Config) -> Told:
    """What the steps of a scenario led to; all of a registry's are run at once."""

    @functools.cache
    def everything(registry: str) -> dict[str, Any]:
        words = (str(plugins.need_plugin().library), json.dumps(scenarios(registry)))
        if registry == RTX:
            return run_rtx(PROGRAM, *words)
        return run_lean(pytestconfig, registry, PROGRAM, *words)

    def of(registry: str, scenario: str) -> list[dict[str, Any]]:
        found = everything(registry)[scenario]
        assert isinstance(found, list), found
        return found

    return of


@pytest.mark.parametrize("registry", REGISTRIES)
@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_creators_are_registered_once(registry: str, order: tuple[str, ...], told: Told) -> None:
    answers = {"dlopen": [None], "load": [True, False]}
    for step, found in zip(order, told(registry, " ".join(order)), strict=True):
        assert found["creators"] == CREATORS
        # The second time, a registry has no handle to give.
        assert found["answer"] == answers[step][0]
        answers[step] = answers[step][-1:]
        assert found["messages"] == []


@pytest.mark.parametrize("registry", REGISTRIES)
def test_unloaded_and_loaded_again(registry: str, told: Told) -> None:
    found = told(registry, "unload")
    assert [item["creators"] for item in found] == [CREATORS, CREATORS, [], CREATORS]
    assert [item["messages"] for item in found] == [[]] * 4


@pytest.mark.parametrize("registry", REGISTRIES[1:])
def test_the_tool_loads_the_library(registry: str, told: Told) -> None:
    for found in told(registry, "product"):
        assert (found["answer"], found["creators"]) == (list(PLUGIN_OPS), CREATORS)
        assert found["messages"] == []
    loaded, again, gone = told(registry, "load product")
    assert loaded["creators"] == again["creators"] == CREATORS
    assert again["answer"] == list(PLUGIN_OPS)
    assert gone["creators"] == []


@pytest.mark.parametrize("registry", REGISTRIES)
def test_creators_announce_the_attributes(registry: str, told: Told) -> None:
    fields = told(registry, "fields")[1]["answer"]
    assert fields == {
        op: [
            [name, "FLOAT32" if kind is Kind.NUMBER else "INT32", 1]
            for name, kind in attributes.items()
        ]
        for op, attributes in ATTRIBUTES.items()
    }


@pytest.mark.parametrize("registry", REGISTRIES)
@pytest.mark.parametrize("op", PLUGIN_OPS)
def test_plugins_are_made_from_right_fields(registry: str, op: str, told: Told) -> None:
    made = [item["answer"] for item in told(registry, f"right {op}")[1:]]
    assert len(made) == 3
    values = "".join(f";{name}={values[0]}" for name, _, values in right(op))
    for plugin in made:
        assert plugin["is"] == [op, contract.PLUGIN_VERSION, contract.PLUGIN_NAMESPACE]
        assert plugin["outputs"] == 1
        says = f"op={op};contract={contract.CONTRACT_VERSION}{values};kernels="
        assert plugin["timing"].startswith(says)
        assert plugin["runtime"] == "IPluginV3OneRuntime"


@pytest.mark.parametrize("registry", REGISTRIES)
@pytest.mark.parametrize("op", PLUGIN_OPS)
def test_wrong_fields_make_none_and_are_told(registry: str, op: str, told: Told) -> None:
    found, cases = told(registry, f"wrong {op}")[1:], wrong(op)
    for item, (fields, text) in zip(found, cases, strict=True):
        assert item["answer"] is None, fields
        (message,) = item["messages"]
        assert message.startswith(f"vim_plugins: createPlugin: {op}: attribute "), message
        assert text in message
        assert item["creators"] == CREATORS


@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_library_that_was_only_opened_is_heard(registry: str, told: Told) -> None:
    _, made = told(registry, "opened wrong")
    assert made["answer"] is None
    assert len(made["messages"]) == 1


def test_a_runtime_that_cannot_be_is_an_error(told: Told) -> None:
    """Where CUDA does not start, lean runtimes hand out an object that ends the process."""
    assert told(RTX, "refused")[0]["answer"] is None
    for version in LEAN:
        (found,) = told(version, "refused")
        assert found["answer"] in (None, "VIM-302")
