"""The Python and the C++ statement of the op contract say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vim_deploy import ops
from vim_deploy.ops import OPS, Op, contract
from vim_deploy.ops.functions import plugin_attributes
from vim_deploy.ops.op import Kind

HEADER = Path(__file__).parents[3] / "plugins" / "include" / "vim_plugins" / "contract.h"


def header_constants() -> dict[str, object]:
    """Every ``inline constexpr`` of contract.h by name; arrays become tuples of strings."""
    text = re.sub(r"//.*", "", HEADER.read_text(encoding="utf-8"))
    found: dict[str, object] = {}
    for kind, name, value in re.findall(
        r"inline constexpr ([^=;]*?)\s(k\w+) = (.*?);", text, flags=re.DOTALL
    ):
        strings = tuple(re.findall(r'"([^"]*)"', value))
        if "array" in kind:
            size = re.search(r", (\d+)>", kind)
            assert size is not None
            assert int(size.group(1)) == len(strings), name
            found[name] = strings
        else:
            found[name] = strings[0] if strings else int(value)
    return found


def python_name(name: str) -> str:
    """``kBiCausalConvInputs`` -> ``BI_CAUSAL_CONV_INPUTS``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name[1:]).upper()


def python_constants() -> dict[str, object]:
    """The facts of ``contract`` and of the ops, by the names that the header gives them."""
    found = {name: value for name, value in vars(contract).items() if name.isupper()}
    for constant, op in vars(ops).items():
        if not isinstance(op, Op):
            continue
        numbers = tuple(name for name, kind in op.attributes.items() if kind is Kind.NUMBER)
        found[constant] = op.name
        found[f"{constant}_INPUTS"] = op.inputs
        found[f"{constant}_OUTPUTS"] = op.outputs
        found[f"{constant}_ATTRIBUTES"] = tuple(
            name for name in plugin_attributes(op) if name not in numbers
        )
        if numbers:
            found[f"{constant}_FLOAT_ATTRIBUTES"] = numbers
    return found


def test_the_header_states_what_python_does() -> None:
    stated = {python_name(name): value for name, value in header_constants().items()}
    assert len(stated) > 15
    assert stated == python_constants()


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_an_op_names_what_it_has(op: Op) -> None:
    for names in (op.inputs, op.outputs, tuple(op.attributes)):
        assert len(set(names)) == len(names)
    assert {*op.int64, *op.optional, *op.sizes} <= set(op.inputs)
    assert set(op.fp32) <= {*op.inputs, *op.outputs}
    assert not set(op.fp32) & set(op.int64)
    assert {*op.per_node, *op.blocks} <= set(op.attributes)
