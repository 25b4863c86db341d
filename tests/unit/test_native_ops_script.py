"""``benchmarks/native_ops.py``: the profile's rows, and OpenVINO beside."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vim_deploy
from tests.support.source import REPOSITORY
from vim_deploy.runtimes import runtime_named
from vim_deploy.stages.export_options import ExportOptions

pytest.importorskip("onnxscript", reason="pip install 'vim-deploy[torch]'")


@pytest.fixture(scope="module", autouse=True)
def _scripts() -> Iterator[None]:
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    yield
    sys.path.remove(str(REPOSITORY / "benchmarks"))


@pytest.fixture(scope="module")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, exported."""
    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    vim_deploy.export("vim-digits", path, ExportOptions(check=False))
    return path


def event(name: str, op: str, microseconds: int, *shapes: list[int], kind: str = "Node") -> Any:
    inputs, made = [{"float": list(shape)} for shape in shapes[:-1]], {"float": list(shapes[-1])}
    given = {"op_name": op, "input_type_shape": inputs, "output_type_shape": [made]}
    return {"cat": kind, "name": f"{name}_kernel_time", "dur": microseconds, "args": given}


def test_a_profile_counts_the_shortest_time_of_each_node() -> None:
    from native_profile import rows_of

    product = ([1, 10, 20], [1, 10, 40])
    events = [
        *(event("block_00/in_proj", "MatMul", time, *product) for time in (900, 500, 700)),
        *(event("block_01/in_proj", "MatMul", time, *product) for time in (300, 800, 900)),
        event("scan", "VimBiSelectiveScan", 150, [2, 3], [2, 3]),
        event("add", "Add", 50, [3], [3], [3]),
        event("session", "", 10**6, [], kind="Session"),
    ]
    rows = list(rows_of(events))
    assert [(row["kind"], row["nodes"]) for row in rows] == [
        ("MatMul 1x10x20 to 1x10x40", 2),
        ("vim_deploy.VimBiSelectiveScan", 1),
        ("Add", 1),
    ]
    assert [row["ms"] for row in rows] == pytest.approx([0.8, 0.15, 0.05])
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)
    # Two products of 2 * 10 * 20 * 40 operations in 0.8 ms.
    assert rows[0]["gflops"] == pytest.approx(2 * 16_000 / 0.8e-3 / 1e9)
    assert "gflops" not in rows[1]


def test_a_profile_of_a_file(digits_file: Path) -> None:
    from native_profile import profile

    found = profile(digits_file, None, threads=1, runs=2)
    assert found["ms"] == pytest.approx(sum(row["ms"] for row in found["rows"]))
    products = [row for row in found["rows"] if row["kind"].startswith(("MatMul", "Gemm"))]
    assert products
    assert all(row["gflops"] > 0 for row in products)


def test_openvino_runs_it(digits_file: Path) -> None:
    if not runtime_named("openvino").is_installed():
        pytest.skip("pip install 'vim-deploy[openvino]'")
    from native_ops import distance

    assert distance(digits_file) < 1e-4
