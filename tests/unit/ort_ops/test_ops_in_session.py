"""The native ops through ONNX Runtime, against float64: sizes, types and threads."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.support import ort_ops
from vim_deploy.ops import OPS, PLUGIN_OPS, SORTED_NMS
from vim_deploy.plugin.cases import Case, cases
from vim_deploy.plugin.check import TOLERANCES
from vim_deploy.plugin.kernels import DataType
from vim_deploy.plugin.region_cases import region_cases
from vim_deploy.runtimes.onnxruntime.check_ops import feeds_of, node_model

THREADS = (1, 2, 4)
#: 1, both sides of the middle where the directions meet, and Vim's own.
LENGTHS = (1, 2, 33, 197)


@pytest.fixture(scope="module")
def library() -> Path:
    return ort_ops.built_library()


@pytest.mark.parametrize("dtype", DataType, ids=lambda dtype: dtype.name.lower())
def test_every_op_agrees_with_float64(library: Path, dtype: DataType) -> None:
    worst: dict[str, float] = defaultdict(float)
    for case in (*cases(LENGTHS), *region_cases()):
        if case.dtype is not dtype:
            continue
        for threads, output in zip(THREADS, outputs(library, case), strict=True):
            distance = ort_ops.relative_l2(output, case.expected)
            assert distance <= TOLERANCES[dtype], (case.op, case.name, threads, distance)
            worst[case.op] = max(worst[case.op], distance)
    print(dict(worst))
    assert set(worst) == set(OPS if dtype is DataType.FP32 else PLUGIN_OPS)
    # Of suppression there is nothing to round.
    assert all(error > 0.0 for op, error in worst.items() if op != SORTED_NMS.name)


def outputs(library: Path, case: Case) -> list[ort_ops.Array]:
    """The node's output with 1, 2 and 4 threads."""
    model, feeds = node_model(case), feeds_of(case)
    return [
        ort_ops.open_session(model, library, threads=threads).run(None, feeds)[0]
        for threads in THREADS
    ]


def test_the_pool_decides_nothing_but_the_time(library: Path) -> None:
    chosen = (*cases((197,)), *region_cases())
    by_op = {case.op: case for case in chosen if case.dtype is DataType.FP32}
    for case in by_op.values():
        first, *others = outputs(library, case)
        for other in others:
            np.testing.assert_array_equal(first, other)


def test_any_column_of_a_row_may_be_the_first(library: Path) -> None:
    """x lies at odd columns, so that no row of it is aligned to more than its element."""
    graph = """g (float[B,L,C] xz, float[2,3,5] w, float[2,5] b) => (float[2,B,L,5] y) {
        y = vim_deploy.VimBiCausalConv <x_off = 3> (xz, w, b)
    }"""
    draw = np.random.default_rng(0).standard_normal
    feeds = {"xz": draw((2, 9, 11)), "w": draw((2, 3, 5)), "b": draw((2, 5))}
    feeds = {name: values.astype(np.float32) for name, values in feeds.items()}
    (y,) = ort_ops.open_session(ort_ops.text_model(graph), library).run(None, feeds)
    wide = [values.astype(np.float64) for values in feeds.values()]
    assert ort_ops.relative_l2(y, OPS["VimBiCausalConv"].reference(*wide, x_off=3)) <= 1e-6


#: A node whose input's sizes, or even rank, are known at run time only, and one that reads it.
CHAIN = """g ({element}[N] flat, int64[{rank}] sizes, float[2,4,4] w, float[2,4] b)
    => (float total) {{
    xz = Reshape (flat, sizes)
    u = vim_deploy.VimBiCausalConv <x_off = 0> (xz, w, b)
    first = Constant <value = int64 {{0}}> ()
    forward = Gather <axis = 0> (u, first)
    v = vim_deploy.VimBiCausalConv <x_off = 0> (forward, w, b)
    wide = Cast <to = 1> (v)
    total = ReduceSum <keepdims = 0> (wide)
}}"""


@pytest.mark.parametrize("rank", ["3", "K"])
@pytest.mark.parametrize("element", ["float", "float16", "bfloat16"])
def test_the_type_goes_on_where_sizes_are_not_known(library: Path, element: str, rank: str) -> None:
    session = ort_ops.open_session(
        ort_ops.text_model(CHAIN.format(element=element, rank=rank)), library
    )
    if element == "bfloat16":
        return  # NumPy has none to feed; that the model loads is what its types decide
    feeds = {
        "flat": np.ones(64, "float32" if element == "float" else element),
        "sizes": np.array([2, 8, 4]),
        "w": np.ones((2, 4, 4), np.float32),
        "b": np.zeros((2, 4), np.float32),
    }
    (total,) = session.run(None, feeds)
    steps = OPS["VimBiCausalConv"].reference
    x = np.ones((2, 8, 4))
    weights = feeds["w"].astype(np.float64), feeds["b"].astype(np.float64)
    want = steps(steps(x, *weights)[0], *weights).sum()
    assert abs(total - want) <= want * (2.0**-9 if element == "float16" else 1e-6)


def test_sizes_are_told_with_their_names(library: Path) -> None:
    graph = """g (float[batch,L,12] xz, float[2,4,6] w, float[2,6] b) => (float[] y) {
        u = vim_deploy.VimBiCausalConv <x_off = 0> (xz, w, b)
        y = Identity (u)
    }"""
    session = ort_ops.open_session(ort_ops.text_model(graph), library)
    (output,) = session.get_outputs()
    assert output.shape == [2, "batch", "L", 6]
