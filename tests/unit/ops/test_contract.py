"""The Python and the C++ statement of the op contract say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vim_deploy.ops import contract

HEADER = Path(__file__).parents[2] / "plugins" / "include" / "vim_plugins" / "contract.h"


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


def test_every_constant_of_the_header_equals_the_python_one() -> None:
    constants = header_constants()
    assert len(constants) > 15
    for name, value in constants.items():
        assert getattr(contract, python_name(name)) == value, name


def test_every_python_constant_is_in_the_header() -> None:
    stated = {python_name(name) for name in header_constants()}
    in_python = {name for name in vars(contract) if name.isupper()}
    # The function body's own attributes never reach a plugin; the two tables repeat, by operator,
    # what the other constants state.
    python_only = {"SCAN_INPUT_DIRECTIONS", "SCAN_OUTPUT_DIRECTIONS", "INPUTS", "FP32_INPUTS"}
    assert in_python - python_only == stated


@pytest.mark.parametrize(
    "names",
    [
        contract.SELECTIVE_SCAN_INPUTS,
        contract.SELECTIVE_SCAN_ATTRIBUTES,
        contract.BI_CAUSAL_CONV_INPUTS,
        contract.BI_SELECTIVE_SCAN_INPUTS,
        contract.BI_SELECTIVE_SCAN_ATTRIBUTES,
    ],
)
def test_names_are_unique(names: tuple[str, ...]) -> None:
    assert len(set(names)) == len(names)
