"""Models in standard operators alone: the same numbers, nothing of our own, every node named."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

from tests.support.models import tiny_config
from tests.unit.graph.test_export_graph import deployed, images, session
from vim_deploy.errors import VimDeployError
from vim_deploy.graph import standalone as module_under_test
from vim_deploy.graph.activations import measure_activations
from vim_deploy.graph.export_graph import ExportedGraph, export_graph, standalone_graph
from vim_deploy.graph.inner_tensors import with_inner_outputs
from vim_deploy.graph.standalone import is_standalone, standalone
from vim_deploy.graph.verify import check_standalone, summarize
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.onnx_graph import subgraphs_of
from vim_deploy.ops.functions import call_of
from vim_deploy.places import place
from vim_deploy.recipe.precision_policy import default_policy

#: Relative L2 of float32 computed in the same order; ONNX Runtime 1.32 gives the same bits.
SAME = 1e-6
FORMS = [
    ("base", "scan", {}),
    ("base", "unrolled", {"bimamba_type": "v1"}),
    ("fused", "scan", {"if_cls_token": False}),
    ("fused", "unrolled", {"use_double_cls_token": True}),
    ("fused-low-rank", "scan", {}),
    ("fused-low-rank", "unrolled", {}),
    ("fused", "scan", {"bimamba_type": "none", "if_bidirectional": True}),
]


def exported(
    graph: str = "fused", body: str = "scan", batch: int | None = None, **changes: object
) -> tuple[DeployedModel, ExportedGraph, ExportedGraph]:
    """A module, its export with functions, and the standalone form of that."""
    precision = changes.pop("precision", "fp32")
    opset = changes.pop("opset", 18)
    module, info = deployed(tiny_config(**changes))
    policy = None if precision == "fp32" else default_policy()
    info = replace(info, graph=graph, scan_body=body, opset=opset, precision=precision)
    info = replace(info, precision_policy=policy)
    plain = export_graph(module, info, batch=batch)
    return module, plain, standalone_graph(plain.model, replace(info, standalone=True))


def all_nodes(nodes: object) -> list[onnx.NodeProto]:
    found = []
    for node in nodes:  # type: ignore[attr-defined]
        found.append(node)
        for graph in subgraphs_of(node):
            found += all_nodes(graph.node)
    return found


@pytest.mark.parametrize(("graph", "body", "changes"), FORMS, ids=str)
def test_same_numbers_in_standard_operators(
    graph: str, body: str, changes: dict[str, object]
) -> None:
    module, plain, made = exported(graph, body, **changes)
    model = made.model
    assert is_standalone(model)
    assert not is_standalone(plain.model)
    assert [entry.domain for entry in model.opset_import] == [""]
    assert (made.summary.loops > 0) == (body == "scan")
    assert replace(made.summary, ops={}, loops=0) == replace(plain.summary, ops={}, loops=0)
    assert summarize(model, made.summary.blocks) == made.summary
    nodes = all_nodes(model.graph.node)
    names = Counter(node.name for node in model.graph.node)
    assert "" not in names
    assert set(names.values()) == {1}
    assert all(node.name for node in nodes)
    assert not [n for n in nodes for item in n.attribute if item.name == "allowzero"]
    for batch in (1, 3):
        image = images(module, batch)
        found = session(model).run(None, {"image": image})[0]
        expected = session(plain.model).run(None, {"image": image})[0]
        assert np.linalg.norm(found - expected) <= SAME * np.linalg.norm(expected)


@pytest.mark.parametrize("opset", [17, 21])
def test_other_opsets(opset: int) -> None:
    module, plain, made = exported(opset=opset, depth=2)
    assert made.model.opset_import[0].version == opset
    assert made.model.ir_version == plain.model.ir_version
    image = images(module, 2)
    found = session(made.model).run(None, {"image": image})[0]
    expected = session(plain.model).run(None, {"image": image})[0]
    assert np.linalg.norm(found - expected) <= SAME * np.linalg.norm(expected)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_stays_as_it_was_typed(precision: str) -> None:
    _, plain, made = exported("fused-low-rank", precision=precision)
    onnx.checker.check_model(made.model, full_check=True)

    def bytes_of(model: onnx.ModelProto) -> int:
        return sum(len(item.raw_data) for item in model.graph.initializer)

    # Constants come in, and no weight is stored wider than it was.
    assert bytes_of(made.model) < bytes_of(plain.model) + 4096
    casts = [n for n in made.model.graph.node if n.op_type in ("Cast", "CastLike")]
    assert any(call_of(node.name) for node in casts)


def test_other_body_than_the_file_has() -> None:
    module, plain, _ = exported()
    _, info = deployed(tiny_config())
    info = replace(info, graph="fused", scan_body="unrolled", standalone=True)
    made = standalone_graph(plain.model, info)
    direct = export_graph(module, info, batch=None)
    assert made.model.SerializeToString() == direct.model.SerializeToString()
    assert made.summary.loops == 0


def test_a_fixed_batch_leaves_no_shapes_to_work_out() -> None:
    _, _, made = exported(batch=2)
    assert "Shape" not in made.summary.ops
    _, _, dynamic = exported()
    assert "Shape" in dynamic.summary.ops


def test_sizes_of_activations_leave_the_insides_out() -> None:
    _, plain, made = exported("fused", "unrolled")
    assert made.activations == plain.activations
    found = measure_activations(made.model, tiny_config())
    assert (found.largest, found.tokens) == (plain.activations.largest, plain.activations.tokens)
    assert found.inlined_peak_bytes == found.peak_bytes


def test_the_source_is_not_changed() -> None:
    _, plain, _ = exported()
    before = plain.model.SerializeToString()
    standalone(plain.model)
    assert plain.model.SerializeToString() == before


def test_a_graph_that_lost_a_scan_is_refused() -> None:
    _, plain, made = exported("base")
    scan = next(node for node in made.model.graph.node if node.op_type == "Scan")
    scan.name = "elsewhere"
    del made.model.graph.node[0].attribute[:]
    with pytest.raises(VimDeployError) as caught:
        check_standalone(made.model, replace(plain.summary, scans=99))
    assert caught.value.code == "VIM-502"
    assert "scans instead of 99" in caught.value.why


# Functions of anybody's: what ONNX allows of them.

HEAD = '<ir_version: 8, opset_import: ["": 18, "own": 1]>'


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + text)


NESTED = """
agraph (float[n] x) => (float[n] y) { t = own.Twice <factor: float = 3.0> (x)
  y = own.Twice (t) }
<opset_import: ["": 18, "own": 1], domain: "own"> Twice <factor: float = 2.0> (a) => (b) {
  k = Constant <value_float: float = @factor> ()
  s = own.Sum (a, k)
  b = Mul (s, k) }
<opset_import: ["": 18], domain: "own"> Sum (a, b) => (c) { c = Add (a, b) }
"""
OPTIONAL = """
agraph (float[n] x) => (float[n] y) { y = own.Clipped (x) }
<opset_import: ["": 18], domain: "own"> Clipped (a, low, high) => (c) {
  c = Clip (a, low, high) }
"""
PASSED_ON = """
agraph (float[n] x) => (float[n] y, float[n] z) { z, y = own.Both (x) }
<opset_import: ["": 18], domain: "own"> Both (a) => (a, b) { b = Neg (a) }
"""
IN_A_BRANCH = """
agraph (float[n] x, bool c) => (float[n] y) {
  y = If (c) <
    then_branch = yes () => (float[n] b) { b = own.Negative (x) },
    else_branch = no () => (float[n] b) { b = Identity (x) }
  > }
<opset_import: ["": 18], domain: "own"> Negative (a) => (b) { t = Neg (a)  b = Identity (t) }
"""
TAKEN_NAMES = """
agraph (float[n] x) => (float[n] y) {
  "y/t" = Abs (x)
  t = Neg ("y/t")
  y = own.Negative (t) }
<opset_import: ["": 18], domain: "own"> Negative (a) => (b) { t = Neg (a)  b = Exp (t) }
"""


TWICE_OUT = """
agraph (float[n] x) => (float[n] z, float[n] y) { z, y = own.Both (x) }
<opset_import: ["": 18], domain: "own"> Both (a) => (b, b) { b = Neg (a) }
"""
# Initialisers that are called as shared constants are, with other values.
TAKEN_CONSTANT = """
agraph (float[n] x) => (float[1, n] y) <int64[1] int64_0 = {7}> {
  k = Cast <to: int = 1> (int64_0)
  s = Add (x, k)
  y = own.Raised (s) }
<opset_import: ["": 18], domain: "own"> Raised (a) => (b) {
  axis = Constant <value = int64[1] {0}> ()
  b = Unsqueeze (a, axis) }
"""
# Nothing is known of the sizes of a Squeeze without axes.
UNKNOWN_RANK = """
agraph (float[n, m] x) => (int64[k] y) {
  s = Squeeze (x)
  t = Shape <start: int = 1> (s)
  y = Identity (t) }
"""
# A few bytes that ask for 4 GB.
HUGE = """
agraph (float[n] x) => (float[a, b] y) {
  shape = Constant <value = int64[2] {32768, 32768}> ()
  zeros = ConstantOfShape <value = float[1] {0}> (shape)
  y = Add (x, zeros) }
"""
X = np.array([-1.5, 0.25, 3.0], np.float32)


def test_a_size_that_is_not_known_is_left_to_the_runtime() -> None:
    assert "Shape" in {node.op_type for node in standalone(parsed(UNKNOWN_RANK)).graph.node}


def test_small_files_do_not_become_large() -> None:
    made = standalone(parsed(HUGE))
    assert made.ByteSize() < 1000
    assert "ConstantOfShape" in {node.op_type for node in made.graph.node}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NESTED, ((X + 3) * 3 + 2) * 2),
        (OPTIONAL, X),
        (PASSED_ON, -X),
        (IN_A_BRANCH, -X),
        (TAKEN_NAMES, np.exp(np.abs(X))),
        (TWICE_OUT, -X),
        (TAKEN_CONSTANT, X[None] + 7),
    ],
    ids=[
        *("nested", "optional input", "passed on", "in a branch", "taken names"),
        *("one output twice", "taken constant"),
    ],
)
def test_functions_of_every_kind(text: str, expected: np.ndarray) -> None:
    model = parsed(text)
    made = standalone(model)
    onnx.checker.check_model(made, full_check=True)
    assert is_standalone(made)
    feed = {"x": X, "c": np.array(True)}
    found = ReferenceEvaluator(made).run(None, {v.name: feed[v.name] for v in model.graph.input})
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    for other in found[1:]:
        np.testing.assert_array_equal(np.abs(other), np.abs(X))


def test_one_constant_serves_all_that_read_it() -> None:
    _, _, made = exported(depth=4)
    names = [item.name for item in made.model.graph.initializer]
    assert len(names) == len(set(names))
    small = [name for name in names if name.startswith(("int64_", "scalar_"))]
    assert {"scalar_0", "scalar_1", "int64_2"} <= set(small)
    assert not any(node.op_type == "Constant" for node in made.model.graph.node)


def test_a_constant_that_onnx_counts_otherwise_than_python_stays() -> None:
    # ONNX takes a start before the first position for the first, Python for nothing.
    model = parsed("""agraph (float[1] x) => (float[1] y)
        <float[3] w = {5, 6, 7}, int64[1] s = {-9}, int64[1] e = {-99}, int64[1] a = {0},
         int64[1] t = {-1}> { first = Slice (w, s, e, a, t)  y = Add (x, first) }""")
    made = standalone(model)
    found = session(made).run(None, {"x": np.array([1], np.float32)})[0]
    assert found.tolist() == [6.0]
    assert [node.op_type for node in made.graph.node] == ["Slice", "Add"]


def test_a_constant_without_a_value_is_left_to_the_runtime() -> None:
    made = standalone(
        parsed("agraph (float[1] x) => (float[1] y) { c = Constant () y = Add(x, c) }")
    )
    assert [node.op_type for node in made.graph.node] == ["Constant", "Add"]


FOREIGN = "agraph (float[n] x) => (float[n] y) { y = own.Unknown (x) }"
OTHER_OPSET = """
agraph (float[n] x) => (float[n] y) { y = own.Negative (x) }
<opset_import: ["": 17], domain: "own"> Negative (a) => (b) { b = Neg (a) }
"""
TOO_MANY_INPUTS = """
agraph (float[n] x) => (float[n] y) { y = own.Negative (x, x) }
<opset_import: ["": 18], domain: "own"> Negative (a) => (b) { b = Neg (a) }
"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (FOREIGN, "own::Unknown"),
        (OTHER_OPSET, "opset 17, the graph 18"),
        (TOO_MANY_INPUTS, "more than it takes"),
    ],
)
def test_what_cannot_be_written_is_refused(text: str, why: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        standalone(parsed(text))
    assert caught.value.code == "VIM-409"
    assert why in caught.value.why


def test_functions_that_grow_without_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_under_test, "_MOST_NODES", 50)
    functions = "\n".join(
        f'<opset_import: ["": 18, "own": 1], domain: "own"> F{depth} (a) => (b) {{ '
        f"t = own.F{depth + 1} (a)  b = own.F{depth + 1} (t) }}"
        for depth in range(10)
    )
    last = '<opset_import: ["": 18], domain: "own"> F10 (a) => (b) { b = Neg (a) }'
    text = f"agraph (float[n] x) => (float[n] y) {{ y = own.F0 (x) }}\n{functions}\n{last}"
    with pytest.raises(VimDeployError, match="standard operators") as caught:
        standalone(parsed(text))
    assert "more than 50 nodes" in caught.value.why


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("block_00/mixer/scan/VimBiSelectiveScan/delta", "VimBiSelectiveScan"),
        ("block_00/mixer/fwd/scan/VimSelectiveScan_1/delta", "VimSelectiveScan"),
        # Casts that typing puts around a node of ours, and that node itself.
        ("block_00/mixer/conv1d/VimBiCausalConv_output_0/Cast_fp16", None),
        ("block_00/mixer/scan/VimBiSelectiveScan", None),
        ("Add_1", None),
    ],
)
def test_names_of_what_stands_in_the_place_of_a_call(name: str, expected: str | None) -> None:
    found = call_of(name)
    assert (found and found[1]) == expected


@pytest.mark.parametrize(
    ("graph", "body", "precision"),
    [("fused", "scan", "fp32"), ("fused-low-rank", "unrolled", "fp32"), ("fused", "scan", "fp16")],
)
def test_it_shows_each_direction_as_its_source_does(graph: str, body: str, precision: str) -> None:
    module, plain, made = exported(graph, body, precision=precision, if_divide_out=True)
    found = []
    for model in (plain.model, made.model):
        shown, tensors = with_inner_outputs(model, module.model.config.dt_rank)
        names = sorted({tensor.name for tensor in tensors.values()})
        values = session(shown).run(names, {"image": images(module, 2)})
        given = dict(zip(names, values, strict=True))
        found.append({at: tensor.read(given[tensor.name]) for at, tensor in tensors.items()})
    expected, parts = found
    assert parts.keys() == expected.keys()
    assert place(1, "scan", "bwd") in parts
    # The source rounds a direction's output to the type of its activations.
    limit = SAME if precision == "fp32" else 2**-11
    for at, value in parts.items():
        difference = np.float64(value) - expected[at]
        assert np.linalg.norm(difference) <= limit * np.linalg.norm(np.float64(expected[at])), at
