"""The table of precisions: adding a row is enough for every list of choices."""

from __future__ import annotations

import ast
from typing import Any, get_args

import click
import numpy as np
import pytest
from onnx import TensorProto, defs, helper

from tests.support.source import modules
from vim_deploy import precisions
from vim_deploy.cli.main import cli as program
from vim_deploy.ranges import OPSET


def test_names_and_rows_are_the_same() -> None:
    assert get_args(precisions.Precision) == precisions.NAMES == tuple(precisions.TABLE)
    assert precisions.TYPED_IN_WORDS == "fp16 or bf16"
    assert precisions.QUANTIZED_IN_WORDS == "int8 or fp8"
    words = "0.01 for fp16, 0.08 for bf16, 0.1 for int8, 0.2 for fp8"
    assert words == precisions.RELATIVE_L2_IN_WORDS
    assert precisions.FLOATS + precisions.QUANTIZED == precisions.NAMES


@pytest.mark.parametrize("row", precisions.TABLE.values(), ids=lambda row: row.name)
def test_a_row_agrees_with_onnx_and_numpy(row: precisions.Row) -> None:
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(row.onnx))
    assert kind.name == row.dtype
    # Half of the smallest normal number is a number still, and no normal one.
    below = np.asarray(row.smallest_normal / 2, np.float64).astype(kind).astype(np.float64)
    assert below in (0, row.smallest_normal / 2)
    if row.quantized:
        assert row.io == ("fp32",)
        assert float(np.asarray(row.largest, np.float32).astype(kind)) == row.largest
        outputs = quantized_types(row.opset)
        assert row.onnx in outputs
        assert row.opset == OPSET.low or row.onnx not in quantized_types(row.opset - 1)
    else:
        assert row.io == tuple(dict.fromkeys(("fp32", row.name)))


def quantized_types(opset: int) -> set[str]:
    """What QuantizeLinear gives in an opset, by ONNX's names."""
    schema = defs.get_schema("QuantizeLinear", opset, "")
    (types,) = [
        item.allowed_type_strs
        for item in schema.type_constraints
        if item.type_param_str == schema.outputs[0].type_str
    ]
    return {text.removeprefix("tensor(").removesuffix(")").upper() for text in types}


def test_the_precision_of_types() -> None:
    assert precisions.of_types([]) == precisions.of_types(["INT64", "FLOAT"]) == "fp32"
    assert precisions.of_types(["FLOAT", "FLOAT16"]) == "fp16"
    assert precisions.of_types(["BFLOAT16", "FLOAT16"]) == "bf16"


def choices(command: click.Command, path: str = "") -> list[tuple[str, Any]]:
    """Every choice between precisions, with the command and option it belongs to."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        names = command.list_commands(context)
        found = [(name, command.get_command(context, name)) for name in names]
        return [item for name, each in found if each for item in choices(each, f"{path} {name}")]
    return [
        (f"{path} {option.name}", option.type.choices)
        for option in command.params
        if isinstance(option.type, click.Choice) and "fp16" in option.type.choices
    ]


def test_choices_on_the_command_line_are_the_table() -> None:
    found = choices(program)
    assert len(found) > 4
    known = (precisions.NAMES, precisions.FLOATS)
    assert {name: tuple(names) for name, names in found if tuple(names) not in known} == {}


def test_no_module_lists_the_names_again() -> None:
    lists = [
        f"{module.name}:{node.lineno}"
        for module in modules()
        if module.name != "vim_deploy.precisions"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict)
        for items in [node.keys if isinstance(node, ast.Dict) else node.elts]
        if {"fp16", "bf16"} <= {item.value for item in items if isinstance(item, ast.Constant)}
    ]
    assert lists == []
