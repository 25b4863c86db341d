"""Files whose ``VimSelectiveScan`` nodes differ: one function for all, one body for each call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.support import mixed_scans as mixed
from tests.support import ort_ops
from tests.support.builds import needs_rtx
from tests.support.mixed_scans import Sizes
from tests.unit.ops import test_fused_bodies as pair
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.activations import tensor_sizes
from vim_deploy.graph.standalone import standalone
from vim_deploy.graph.verify import check_standalone, summarize
from vim_deploy.onnx_graph import inlined
from vim_deploy.ops import BI_SELECTIVE_SCAN, SELECTIVE_SCAN
from vim_deploy.ops.functions import attach_functions, type_functions
from vim_deploy.ops.log_step_scan import step_offsets
from vim_deploy.ops.single_calls import bodies_of_calls, scan_lengths, with_own_functions

#: float32 against float64 over at most 33 tokens and 5 states; measured up to 4e-7.
RELATIVE_L2 = 2e-6
FILES = {
    "forward": mixed.FORWARD,
    "both ways": mixed.BOTH_WAYS,
    "gated": mixed.GATED,
    "tokens alone": mixed.TOKENS_ALONE,
}
files = pytest.mark.parametrize("nodes", FILES.values(), ids=FILES)
bodies = pytest.mark.parametrize("unrolled", [False, True], ids=["scan", "unrolled"])


def model_of(
    nodes: tuple[Sizes, ...], unrolled: bool, element: int = TensorProto.FLOAT, **more: object
) -> onnx.ModelProto:
    """The nodes and their function."""
    model = mixed.mixed_model(nodes, element, **more)
    attach_functions(model, scan_lengths(model) if unrolled else None)
    if element != TensorProto.FLOAT:
        type_functions(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with a body of its own for each call in the place of the call."""
    made = standalone(model, bodies_of_calls(model))
    check_standalone(made, summarize(model, 2))
    return made


def worst(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    pairs = zip(found, wanted, strict=True)
    return max(ort_ops.relative_l2(np.float64(one), other) for one, other in pairs)


def run(model: onnx.ModelProto, fed: mixed.Arrays, *libraries: Path) -> list[np.ndarray]:
    return ort_ops.open_session(model.SerializeToString(), *libraries).run(None, fed)


@files
@bodies
def test_they_agree_with_float64(nodes: tuple[Sizes, ...], unrolled: bool) -> None:
    model = model_of(nodes, unrolled)
    for batch in (1, 3):
        fed = mixed.feeds(nodes, batch)
        wanted = mixed.expected(nodes, fed)
        # The last is what OpenVINO's runner makes: the file's function in the place of each call.
        for form in (model, alone(model), standalone(model)):
            assert worst(run(form, fed), wanted) <= RELATIVE_L2
    # Every tensor's size can be told, within the functions as well.
    for form in (model, inlined(with_own_functions(model))):
        sizes = tensor_sizes(form, 2)
        assert sizes.shapes["y_0"] == (2, nodes[0].tokens, nodes[0].channels)


@files
@bodies
def test_half_precision(nodes: tuple[Sizes, ...], unrolled: bool) -> None:
    for element in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        model = model_of(nodes, unrolled, element)
        made = alone(model)
        if element == TensorProto.FLOAT16:
            fed = {name: value.astype(np.float16) for name, value in mixed.feeds(nodes).items()}
            wanted = mixed.expected(nodes, fed)
            for form in (model, made):
                # Inputs are given in 16 bits; what is left is the rounding of the output.
                assert worst(run(form, fed), wanted) <= 2**-11


@files
def test_native_ops_take_each_node_as_it_is(nodes: tuple[Sizes, ...]) -> None:
    fed = mixed.feeds(nodes)
    found = run(model_of(nodes, unrolled=False), fed, ort_ops.built_library())
    assert worst(found, mixed.expected(nodes, fed)) <= RELATIVE_L2


@files
@bodies
def test_openvino(nodes: tuple[Sizes, ...], unrolled: bool) -> None:
    openvino = pytest.importorskip("openvino")
    core, fed = openvino.Core(), mixed.feeds(nodes)
    model, fixed = (model_of(nodes, unrolled, batch=batch) for batch in ("batch", 2))
    for made in (alone(model), alone(fixed), standalone(fixed)):
        read = core.read_model(made.SerializeToString())
        compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        outputs = compiled([fed[value.name] for value in made.graph.input])
        found = [outputs[number] for number in range(len(nodes))]
        assert worst(found, mixed.expected(nodes, fed)) <= RELATIVE_L2


@pytest.mark.rtx
@needs_rtx
@bodies
def test_tensorrt_rtx_builds_the_function(unrolled: bool) -> None:
    import tensorrt_rtx as trt

    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    model = model_of(mixed.BOTH_WAYS, unrolled, batch=2)
    assert parser.parse(model.SerializeToString()), parser.get_error(0)
    shapes = [tuple(network.get_output(number).shape) for number in range(3)]
    assert shapes == [(2, sizes.tokens, sizes.channels) for sizes in mixed.BOTH_WAYS]
    assert builder.build_serialized_network(network, builder.create_builder_config())


@bodies
def test_nodes_that_agree_have_the_body_of_one(unrolled: bool) -> None:
    one, two = (model_of(mixed.TOKENS_ALONE[:1] * count, unrolled) for count in (1, 2))
    assert one.functions[0] == two.functions[0]
    assert not bodies_of_calls(two)


def test_no_call_has_more_inputs_than_its_function_and_none_fewer() -> None:
    # TensorRT's parser refuses either.
    for nodes in FILES.values():
        model = model_of(nodes, unrolled=False)
        (function,) = model.functions
        assert {len(node.input) for node in model.graph.node} == {len(function.input)}


def test_a_call_alone_takes_no_more_steps_than_its_tokens_need() -> None:
    model = model_of(mixed.FORWARD, unrolled=True)
    assert scan_lengths(model) == (1, 5, 12)

    def pads(nodes: object) -> int:
        return sum(node.op_type == "Pad" for node in nodes)  # type: ignore[attr-defined]

    steps = [len(step_offsets(sizes.tokens)) for sizes in mixed.FORWARD]
    # Each step moves states and sums of steps, the last states alone.
    assert pads(alone(model).graph.node) == sum(2 * n - 1 for n in steps if n)
    assert pads(model.functions[0].node) == 2 * max(steps) - 1
    # Where no node goes backwards, no token changes its place.
    assert "Gather" not in {node.op_type for node in model.functions[0].node}


@pytest.mark.parametrize(
    ("change", "named"),
    [({"gate": True}, "has_z"), ({"softplus": False}, "delta_softplus")],
)
def test_what_changes_the_meaning_is_refused(change: dict[str, bool], named: str) -> None:
    nodes = (Sizes(4, 3, 2, 0, 2), Sizes(4, 3, 2, 0, 2, **change))
    with pytest.raises(VimDeployError, match="do not share one form") as caught:
        attach_functions(mixed.mixed_model(nodes))
    assert caught.value.code == "VIM-502"
    assert f"they differ in {named};" in caught.value.why


def test_an_op_whose_body_knows_one_form_only_is_refused() -> None:
    model = pair.scan_model(pair.scan_inputs(2, True)[0], True)
    other = onnx.NodeProto()
    other.CopyFrom(model.graph.node[0])
    other.output[0] = "y1"
    next(item for item in other.attribute if item.name == "c_off").i = 0
    model.graph.node.append(other)
    with pytest.raises(VimDeployError, match=BI_SELECTIVE_SCAN.name) as caught:
        attach_functions(model)
    assert "they differ in c_off;" in caught.value.why


def test_tokens_that_the_graph_does_not_tell_are_refused() -> None:
    model = mixed.mixed_model(mixed.FORWARD)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "L"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "L"
    attach_functions(model)
    with pytest.raises(VimDeployError, match="fixed number of tokens") as caught:
        scan_lengths(model)
    assert caught.value.code == "VIM-502"
    assert "u_0" in caught.value.why


def test_both_directions_at_once_take_several_lengths() -> None:
    for length in (1, 2, 5, 9):
        constants, fed = pair.scan_inputs(length, low_rank=True)
        model = pair.scan_model(constants, low_rank=True)
        wanted = pair.run(model, fed)
        attach_functions(model, (2, 9, 1, 9))
        found = run(model, {name: value.astype(np.float32) for name, value in fed.items()})
        assert worst(found, [wanted]) <= RELATIVE_L2


@pytest.mark.parametrize("reverse", [False, True])
def test_one_state_in_openvino(reverse: bool) -> None:
    """2026.4 took the step's input for the state's, where a fixed batch gave both one shape."""
    openvino = pytest.importorskip("openvino")
    nodes = (Sizes(9, 6, 1, 2, 3, reverse=reverse),)
    model, fed = model_of(nodes, unrolled=False, batch=2), mixed.feeds(nodes)
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(standalone(model).SerializeToString()),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    found = compiled([fed[value.name] for value in model.graph.input])[0]
    assert worst([found], mixed.expected(nodes, fed)) <= RELATIVE_L2
    assert SELECTIVE_SCAN.name == model.graph.node[0].op_type
