"""Forms that some runtime refuses or misreads: the same values without them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

from tests.unit.graph.test_export_graph import images, session
from tests.unit.graph.test_standalone import exported
from vim_deploy.graph.standalone import standalone
from vim_deploy.graph.verify import summarize
from vim_deploy.onnx_graph import attribute_ints, constants_of

HEAD = '<ir_version: 8, opset_import: ["": 18]>'


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + text)


def sliced(start: int, end: int, axis: int = 1, step: int = -1, shape: str = "b, 5, 2") -> str:
    constants = {"start": start, "end": end, "axis": axis, "step": step}
    stored = ", ".join(f"int64[1] {name} = {{{value}}}" for name, value in constants.items())
    return f"""agraph (float[{shape}] x) => (float[a, n, c] y) <{stored}> {{
        turned = Slice (x, start, end, axis, step)
        y = Neg (turned) }}"""


def ops_of(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def same_values(text: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The standalone form of the graph, which gives the same values to the bit."""
    model = parsed(text)
    made = standalone(model)
    onnx.checker.check_model(made, full_check=True)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for found, expected in zip(
        ReferenceEvaluator(made).run(None, {"x": x}),
        ReferenceEvaluator(model).run(None, {"x": x}),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)
    again = standalone(made)
    assert again.SerializeToString() == made.SerializeToString()
    return made


FAR = -(1 << 63)


@pytest.mark.parametrize(
    ("start", "end", "axis", "step"),
    [(-1, FAR, 1, -1), (3, 0, 1, -1), (9, -9, -2, -2), (-2, -5, 1, -2), (4, FAR, 2, -1)],
)
def test_a_slice_that_runs_backwards_becomes_a_gather(
    start: int, end: int, axis: int, step: int
) -> None:
    made = same_values(sliced(start, end, axis, step), (3, 5, 2))
    assert ops_of(made) == ["Gather", "Neg"]
    assert summarize(made, 0).flips == 1


@pytest.mark.parametrize(
    "text",
    [
        sliced(0, 4, step=1),
        # How many pictures there are, only a run tells.
        sliced(-1, FAR, axis=0),
        # ONNX takes a start before the first position for the first, Python for nothing.
        sliced(-9, FAR),
    ],
    ids=["forwards", "a size that is not known", "nothing by Python's rules"],
)
def test_other_slices_stay(text: str) -> None:
    assert ops_of(standalone(parsed(text))) == ["Slice", "Neg"]


IN_A_BRANCH = """agraph (float[b, 5] x, bool c) => (float[b, 5] y)
    <int64[1] start = {-1}, int64[1] end = {-9}, int64[1] axis = {1}, float one = {1}> {
    step = Constant <value = int64[1] {-1}> ()
    turned = Slice (x, start, end, axis, step)
    y = If (c) <
        then_branch = t () => (float[b, 5] r)
            { backwards_5 = Neg (one)  r = Mul (turned, backwards_5) },
        else_branch = e () => (float[b, 5] s)
            { int64_minus1 = Neg (step)  k = Cast <to = 1> (int64_minus1)  s = Mul (turned, k) }
    > }"""


@pytest.mark.parametrize("branch", [True, False])
def test_names_within_a_branch_are_taken(branch: bool) -> None:
    model = parsed(IN_A_BRANCH)
    made = standalone(model)
    assert ops_of(made) == ["Gather", "If"]
    feed = {"x": np.arange(10, dtype=np.float32).reshape(2, 5), "c": np.array(branch)}
    found = session(made).run(None, feed)[0]
    np.testing.assert_array_equal(found, feed["x"][:, ::-1] * (-1 if branch else 1))


def test_an_order_longer_than_any_sequence_is_not_stored() -> None:
    made = standalone(parsed(sliced(-1, FAR, shape="b, 1000000000, 2")))
    assert made.ByteSize() < 1000


def test_one_order_serves_all_that_turn_round() -> None:
    _, plain, made = exported(depth=3, flip_img_sequences_ratio=2.0, if_rope=True)
    assert made.summary.flips == plain.summary.flips > 2
    names = [item.name for item in made.model.graph.initializer if "backwards" in item.name]
    assert len(names) == 1
    assert not _backward_slices(made.model)
    assert _backward_slices(plain.model)
    image = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    found, expected = (
        session(model).run(None, {"image": image})[0] for model in (made.model, plain.model)
    )
    np.testing.assert_array_equal(found, expected)


def _backward_slices(model: onnx.ModelProto) -> list[str]:
    constants = constants_of(model.graph)
    slices = [node for node in model.graph.node if node.op_type == "Slice" and len(node.input) > 4]
    return [node.name for node in slices if (constants[node.input[4]] < 0).any()]


def pooled(height: int, width: int, window: int, more: str = "") -> str:
    return f"""agraph (float[b, 2, {height}, {width}] x) => (float[b, 2, m, n] y) {{
        y = MaxPool <kernel_shape = [{window}, {window}], strides = [{window}, {window}]{more}> (x)
    }}"""


CONV = """agraph (float[b, 1, 6, 9] x) => (float[b, 1, m, n] y)
    <float[1, 1, 2, 2] w = {1.0, 2.0, 3.0, 4.0}> {
    y = Conv <kernel_shape = [2, 2], dilations = [3, 1], strides = [3, 2]> (x, w) }"""


@pytest.mark.parametrize(
    ("text", "shape", "axes", "ends"),
    [
        (pooled(6, 6, 4), (2, 2, 6, 6), [2, 3], [4, 4]),
        (pooled(6, 10, 4), (2, 2, 6, 10), [2], [4]),
        (pooled(4, 7, 4), (1, 2, 4, 7), [3], [4]),
        (CONV, (2, 1, 6, 9), [2], [4]),
    ],
)
def test_a_window_that_fits_once_is_given_what_it_reads(
    text: str, shape: tuple[int, ...], axes: list[int], ends: list[int]
) -> None:
    made = same_values(text, shape)
    cut, window = made.graph.node
    assert (cut.op_type, window.input[0]) == ("Slice", cut.output[0])
    constants = constants_of(made.graph)
    assert [list(constants[name]) for name in cut.input[2:]] == [ends, axes]
    assert attribute_ints(window, "kernel_shape")


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (pooled(8, 10, 4), (1, 2, 8, 10)),
        (pooled(4, 4, 4), (1, 2, 4, 4)),
        (pooled(4, 4, 6, ", pads = [1, 1, 1, 1]"), (1, 2, 4, 4)),
        (pooled(5, 5, 6, ", pads = [1, 1, 1, 1]"), (1, 2, 5, 5)),
        (pooled(6, 6, 4, ", ceil_mode = 1"), (1, 2, 6, 6)),
        (pooled(6, 6, 4, ', auto_pad = "SAME_UPPER"'), (1, 2, 6, 6)),
        (
            pooled(6, 6, 4).replace("=> (", "=> (int64[b, 2, m, n] i, ").replace("y =", "y, i ="),
            (1, 2, 6, 6),
        ),
    ],
    ids=[
        *("several steps", "exact", "padded", "padded and left over", "ceil", "auto pad"),
        "numbered by the input's size",
    ],
)
def test_other_windows_stay(text: str, shape: tuple[int, ...]) -> None:
    assert ops_of(same_values(text, shape)) == ["MaxPool"]


def test_a_picture_with_room_for_one_patch() -> None:
    module, plain, made = exported(img_size=14)
    patches = next(n for n in made.model.graph.node if n.name == "patch_embed/proj/Conv")
    assert patches.input[0] == "patch_embed/proj/Slice_output_0"
    image = images(module, 3)
    found, expected = (
        session(model).run(None, {"image": image})[0] for model in (made.model, plain.model)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
