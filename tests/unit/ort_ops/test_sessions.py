"""Several sessions on one file at once, and exported files with and without native ops."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

import vim_deploy
from tests.support import ort_ops, reference
from vim_deploy.codec import encode
from vim_deploy.ops import contract
from vim_deploy.plugin.cases import cases
from vim_deploy.plugin.kernels import DataType
from vim_deploy.precisions import TABLE, Precision
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.onnxruntime.check_ops import feeds_of, node_model
from vim_deploy.specs import GraphForm
from vim_deploy.stages.export_options import ExportOptions

#: Between fp32 kernels and fp32 function bodies, relative L2: either is within 1e-6 a node of
#: float64, over the few blocks of these models.
CLOSE = 1e-5

#: Every op, and both forms of dt.
FILES = (
    ("vim_digits", "fused"),
    ("A01_middle_cls", "base"),
    ("A18_d_state8", "fused-low-rank"),
)


@pytest.fixture(scope="module")
def library() -> Path:
    return ort_ops.built_library()


def export(folder: Path, name: str, graph: GraphForm, precision: Precision = "fp32") -> Path:
    """A reference case as a file."""
    pytest.importorskip("torch", reason="not checked here: torch is not installed")
    from tests.support.models import config_of

    case = reference.load_case(name)
    request = ModelRequest("vim-digits")
    if name != reference.DIGITS:
        request = ModelRequest(str(case.checkpoint), config=encode(config_of(case)))
    options = ExportOptions(check=False, graph=graph, precision=precision)
    return vim_deploy.export(request, folder / "model.onnx", options).path


def nodes_of(path: Path) -> dict[str, int]:
    """Nodes of our domain in a file, by op."""
    nodes = onnx.load(path).graph.node
    return dict(Counter(node.op_type for node in nodes if node.domain == contract.DOMAIN))


@pytest.mark.parametrize(("name", "graph"), FILES)
def test_a_file_means_the_same_with_kernels(
    library: Path, tmp_path: Path, name: str, graph: GraphForm
) -> None:
    path = export(tmp_path, name, graph)
    before = path.read_bytes()
    image = reference.load_case(name).image[:8]
    inlined = ort_ops.open_session(path, profile=tmp_path / "inlined")
    native = ort_ops.open_session(path, library, threads=2, profile=tmp_path / "native")
    feed = {inlined.get_inputs()[0].name: image}
    (want,), (got,) = inlined.run(None, feed), native.run(None, feed)
    assert ort_ops.relative_l2(got, want) <= CLOSE
    (none,) = native.run(None, dict.fromkeys(feed, image[:0]))
    assert none.shape == (0, *want.shape[1:])
    nodes = nodes_of(path)
    assert nodes
    assert ort_ops.kernels_run(native, runs=2) == nodes
    assert ort_ops.kernels_run(inlined) == {}
    assert path.read_bytes() == before


def test_half_precision_files_take_kernels_of_their_type(library: Path, tmp_path: Path) -> None:
    """Without explicit rounding, as the provider runs them: their inner tensors are half."""
    path = export(tmp_path, "A18_d_state8", "fused", "fp16")
    image = reference.load_case("A18_d_state8").image
    native = ort_ops.open_session(path, library, profile=tmp_path / "native")
    inlined = ort_ops.open_session(path)
    feed = {native.get_inputs()[0].name: image}
    (got,), (want,) = native.run(None, feed), inlined.run(None, feed)
    assert ort_ops.relative_l2(got, want) <= TABLE["fp16"].relative_l2
    assert ort_ops.kernels_run(native) == nodes_of(path)


def test_one_model_in_two_sessions_at_once(library: Path) -> None:
    """Sessions with threads of their own run, are made and go away beside each other."""
    chosen = [case for case in cases((197,)) if case.dtype is DataType.FP32]
    made = [(node_model(case), feeds_of(case)) for case in chosen]

    def run_all(threads: int) -> list[ort_ops.Array]:
        found = []
        for model, feeds in made:
            session = ort_ops.open_session(model, library, threads=threads)
            first, second = (session.run(None, feeds)[0] for _ in range(2))
            np.testing.assert_array_equal(first, second)
            found.append(first)
        return found

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run_all, (1, 2, 1, 3)))
    for result in results:
        for output, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(output, expected)


def test_one_session_runs_in_several_threads(library: Path) -> None:
    case = next(case for case in cases((197,)) if case.op == "VimBiSelectiveScan")
    model, feeds = node_model(case), feeds_of(case)
    session = ort_ops.open_session(model, library, threads=2)
    (want,) = session.run(None, feeds)
    with ThreadPoolExecutor(4) as pool:
        for (output,) in pool.map(lambda _: session.run(None, feeds), range(16)):
            np.testing.assert_array_equal(output, want)


def test_options_and_sessions_go_in_any_order(library: Path) -> None:
    """A session outlives the options, and so the handle of the library, that it was made with."""
    case = next(case for case in cases((33,)) if case.op == "VimBiSelectiveScan")
    model, feeds = node_model(case), feeds_of(case)
    sessions = [ort_ops.open_session(model, library) for _ in range(3)]
    outputs = [session.run(None, feeds)[0] for session in sessions]
    while sessions:
        sessions.pop(0)
        for session in sessions:
            np.testing.assert_array_equal(session.run(None, feeds)[0], outputs[0])
