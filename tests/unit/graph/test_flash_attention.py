"""Spelt-out attention to ONNX Runtime's operator: what is replaced, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import parser

from vim_deploy.errors import VimDeployError
from vim_deploy.graph.flash_attention import drop_idle_masks, use_flash_attention
from vim_deploy.runtimes.onnxruntime import capability as ort

_TOKENS, _HEADS, _WIDTH = 5, 2, 4
_GRAPH = """
< ir_version: 8, opset_import: ["" : 18] >
attention (float[N,5,8] q, float[N,5,8] k, float[N,5,8] v, float[5] late) => (float[N,5,8] y)
<
    int64[4] split = {0, 5, 2, 4}, int64[3] joined = {0, 5, 8}, float scale = {0.7},
    bool[1,1,5,5] seen = {%s}, float none = {0.0}, float much = {-1000.0}
>
{
    qs = Reshape(q, split)
    qh = Transpose<perm = [0, 2, 1, 3]>(qs)
    ks = Reshape(k, split)
    kh = Transpose<perm = [0, 2, 3, 1]>(ks)
    vs = Reshape(v, split)
    vh = Transpose<perm = [0, 2, 1, 3]>(vs)
    products = MatMul(qh, kh)
    scaled = Mul(products, scale)
    mask = Where(seen, none, much)
    scores = Add(scaled, mask)
    shares = Softmax<axis = -1>(scores)
    heads = MatMul(shares, vh)
    tokens = Transpose<perm = [0, 2, 1, 3]>(heads)
    y = Reshape(tokens, joined)
}
"""


def attention(change: Callable[[str], str] = lambda text: text, hidden: int = 0) -> onnx.ModelProto:
    """One attention; ``hidden`` of its 25 scores are masked, ``change`` edits its text."""
    seen = ", ".join("0" if index < hidden else "1" for index in range(_TOKENS**2))
    return parser.parse_model(change(_GRAPH % seen))


def outputs(model: onnx.ModelProto) -> np.ndarray:
    generator = np.random.default_rng(0)
    shape = (2, _TOKENS, _HEADS * _WIDTH)
    inputs = {name: generator.standard_normal(shape, dtype=np.float32) for name in "qkv"}
    inputs["late"] = np.zeros(_TOKENS, np.float32)
    session = ort.create_session(model.SerializeToString(), ort.SessionSettings(), "attention")
    return ort.run_session(session, ["y"], inputs, "attention")[0]


def replace(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        replace("Mul(products, scale)", "Div(products, scale)"),
        replace("scores = Add(scaled, mask)", "scores = Identity(scaled)"),
        replace("Mul(products, scale)", "Identity(products)"),
    ],
    ids=["multiplied", "divided", "no mask", "no scale"],
)
def test_it_computes_the_same(change: Callable[[str], str]) -> None:
    model = attention(change)
    # Identity stands for a node that is not there.
    for node in [node for node in model.graph.node if node.op_type == "Identity"]:
        for reader in model.graph.node:
            reader.input[:] = [node.input[0] if i == node.output[0] else i for i in reader.input]
        model.graph.node.remove(node)
    expected = outputs(model)
    use_flash_attention(model, 1)
    assert [(node.op_type, node.domain) for node in model.graph.node] == [
        ("MultiHeadAttention", "com.microsoft")
    ]
    assert not model.graph.initializer
    np.testing.assert_allclose(outputs(model), expected, atol=2e-6)


def test_masks_that_hide_nothing_are_left_out() -> None:
    model = attention()
    expected = outputs(model)
    assert drop_idle_masks(model) == 1
    assert not {"Where", "Add", "Identity"} & {node.op_type for node in model.graph.node}
    assert drop_idle_masks(model) == 0
    np.testing.assert_array_equal(outputs(model), expected)
    late = replace("Add(scaled, mask)", "Add(scaled, late)")
    for kept in (attention(hidden=1), attention(late)):
        before = outputs(kept)
        assert drop_idle_masks(kept) == 0
        assert "Add" in {node.op_type for node in kept.graph.node}
        np.testing.assert_array_equal(outputs(kept), before)


def refused(model: Callable[[], onnx.ModelProto], why: str) -> None:
    with pytest.raises(VimDeployError, match=re.escape(why)) as caught:
        use_flash_attention(model(), 1)
    assert caught.value.code == "VIM-502"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (replace("float scale = {0.7}", "float[5] scale = {1, 1, 1, 1, 1}"), "scale is no number"),
        (replace("Where(seen, none, much)", "Where(seen, much, none)"), "its mask hides something"),
        (replace("Add(scaled, mask)", "Add(scaled, late)"), "its mask hides something"),
        (replace("Softmax<axis = -1>", "Softmax<axis = -2>"), "not over the keys"),
        (replace("MatMul(qh, kh)", "Sub(kh, kh)"), "not a product of queries and keys"),
        (replace("kh = Transpose<perm = [0, 2, 3, 1]>", "kh = Identity"), "not split into heads"),
        (replace("tokens = Transpose<perm = [0, 2, 1, 3]>", "tokens = Identity"), "one Transpose"),
        (replace("vs = Reshape(v, split)", "vs = Reshape(v, other)"), "how many heads"),
    ],
)
def test_what_is_written_otherwise_is_refused(change: Callable[[str], str], why: str) -> None:
    refused(lambda: attention(change), why)


def test_a_mask_that_hides_one_score_is_refused() -> None:
    refused(lambda: attention(hidden=1), "its mask hides something")


def test_another_number_of_attentions_is_refused() -> None:
    model = attention()
    with pytest.raises(VimDeployError, match="it has 1 attentions and 12 blocks"):
        use_flash_attention(model, 12)
