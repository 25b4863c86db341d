"""The bodies without a loop: the Scan bodies' numbers, for every length and any step sizes."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from tests.unit.ops import test_function_body as single
from tests.unit.ops import test_fused_bodies as pair
from vim_deploy.ops import BI_SELECTIVE_SCAN, SELECTIVE_SCAN
from vim_deploy.ops.functions import attach_functions
from vim_deploy.ops.log_step_scan import step_offsets

#: The promise for whole bodies; measured up to 3e-7.
RELATIVE_L2 = 1e-5
#: One token, powers of two and their neighbours, and Vim's 197.
LENGTHS = (1, 2, 3, 8, 9, 33, 197)


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def node_types(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for function in model.functions for node in function.node}


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 64, 65, 197])
def test_number_of_steps(tokens: int) -> None:
    offsets = step_offsets(tokens)
    assert len(offsets) == math.ceil(math.log2(tokens))
    # Together they reach from the last token to the first.
    assert sum(offsets) >= tokens - 1


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("gate", [False, True])
def test_one_direction_equals_its_scan(length: int, reverse: bool, gate: bool) -> None:
    model = single.scan_model(reverse, gate=gate)
    inputs = single.feeds(2, length)
    expected = single.run(model, inputs)
    attach_functions(model, unrolled_tokens=length)
    onnx.checker.check_model(model, full_check=True)
    assert not {"Scan", "Loop", "If", "Div", "Log"} & node_types(model)
    for batch in (1, 2, 5):
        inputs = single.feeds(batch, length)
        expected = single.specification(model, inputs, reverse, True, gate)
        assert relative_l2(single.run(model, inputs), expected) <= RELATIVE_L2


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("low_rank", [False, True])
def test_both_directions_equal_their_scan(length: int, low_rank: bool) -> None:
    constants, fed = pair.scan_inputs(length, low_rank)
    model = pair.scan_model(constants, low_rank)
    expected = pair.run(model, fed)
    assert "Scan" in node_types(model)
    found = unrolled(model, fed, length)
    assert not {"Scan", "Loop", "If", "Div", "Log"} & node_types(model)
    assert relative_l2(found, expected) <= RELATIVE_L2


def unrolled(model: onnx.ModelProto, fed: pair.Arrays, length: int) -> np.ndarray:
    attach_functions(model, unrolled_tokens=length)
    onnx.checker.check_model(model, full_check=True)
    return single.run(model, {name: value.astype(np.float32) for name, value in fed.items()})


@pytest.mark.parametrize("size", [1e-6, 3.0, 30.0, 500.0])
def test_steps_of_any_size_stay_finite_and_right(size: float) -> None:
    # Decays that underflow: dividing by a cumulative product of them would give NaN.
    length = 64
    constants, fed = pair.scan_inputs(length, low_rank=False)
    fed["dt"] = np.full_like(fed["dt"], size)
    fed["dt"][:, :, ::7] = -size
    model = pair.scan_model(constants, low_rank=False)
    found = unrolled(model, fed, length)
    assert np.isfinite(found).all()
    values = {
        name: v.astype(np.float32).astype(np.float64) for name, v in (constants | fed).items()
    }
    expected = BI_SELECTIVE_SCAN.reference(
        *(values[name] for name in BI_SELECTIVE_SCAN.inputs),
        **pair.OFFSETS,
        scale=0.5,
        delta_softplus=True,
        low_rank=False,
    )
    assert relative_l2(found, expected) <= RELATIVE_L2


def test_a_nan_reaches_what_comes_later_and_nothing_earlier() -> None:
    length = 16
    constants, fed = pair.scan_inputs(length, low_rank=False)
    fed["dt"][0, 1, 5, 2] = np.nan
    found = unrolled(pair.scan_model(constants, low_rank=False), fed, length)
    assert np.isnan(found[1, 5:, 2]).all()
    assert np.isfinite(found[1, :5, 2]).all()
    assert np.isfinite(found[0]).all()


@pytest.mark.parametrize("op_type", [SELECTIVE_SCAN.name, BI_SELECTIVE_SCAN.name])
def test_both_bodies_have_one_signature(op_type: str) -> None:
    if op_type == SELECTIVE_SCAN.name:
        model = single.scan_model(reverse=False)
    else:
        model = pair.scan_model(pair.scan_inputs(4, low_rank=True)[0], low_rank=True)
    signatures = []
    for tokens in (None, 4):
        attach_functions(model, tokens)
        (function,) = model.functions
        signatures.append(
            (function.name, [*function.input], [*function.output], [*function.attribute])
        )
    assert signatures[0] == signatures[1]
