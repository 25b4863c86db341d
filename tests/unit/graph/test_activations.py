"""Sizes of activations: by hand on small graphs, linear in the tokens on exported ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support.models import perturbed, tiny_config
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.graph.activations import measure_activations, peak_of_live
from vim_deploy.graph.export_graph import ExportedGraph, export_graph
from vim_deploy.heads import parse_head
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.specs import CheckpointInfo, ImagePreparation
from vim_deploy.stages import inspect

node = helper.make_node
#: 17 x 17 patches and a class token: no width of the tiny model is a multiple of 289 or 290.
SIDE = 136
TOKENS = 290


def peak(nodes: list[onnx.NodeProto], outputs: list[str], **sizes: int) -> int:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, None)], [value(name, 1, None) for name in outputs]
    )
    return peak_of_live(helper.make_model(graph), sizes, {"w"})


def test_a_tensor_lives_until_it_is_read_last() -> None:
    # x (10) with a (20), then a with b (5), then b with c (1).
    chain = [node("Relu", ["x"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["c"])]
    assert peak(chain, ["c"], x=10, a=20, b=5, c=1) == 30
    # a is read again at the end, beside b and c.
    again = [*chain[:2], node("Add", ["a", "b"], ["c"])]
    assert peak(again, ["c"], x=10, a=20, b=15, c=1) == 36
    # An output is never given back.
    assert peak(chain, ["a", "c"], x=1, a=20, b=5, c=7) == 32


def test_views_weights_and_unread_tensors() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Reshape", ["a", "shape"], ["view"]),
        node("Relu", ["view"], ["b"]),
        node("Relu", ["b"], ["unread"]),
    ]
    # The view holds no bytes and keeps a's alive; w is a weight.
    assert peak(nodes, ["b"], x=1, w=1000, a=20, view=20, b=5, unread=2) == 25


@functools.lru_cache
def exported(
    image: int, batch: int | None = None, **changes: object
) -> tuple[VimConfig, ExportedGraph]:
    config = tiny_config(img_size=image, depth=1, **changes)
    info = ExportInfo(
        model="custom",
        model_config=config,
        checkpoint=CheckpointInfo("seed:0", "", "seeded"),
        image=ImagePreparation(image, image),
        preprocess="none",
        head="features",
        graph="fused",
        precision="fp32",
        opset=18,
        pos_embed="as stored",
        tool_version="0",
        settings_hash="0",
    )
    head = parse_head("features", config)
    module = DeployedModel(perturbed(VisionMamba(config)), info.image, "none", head)
    return config, export_graph(module, info, batch=batch)


@pytest.fixture(scope="module")
def plain() -> tuple[VimConfig, ExportedGraph]:
    return exported(SIDE)


def test_activations_of_an_exported_graph(plain: tuple[VimConfig, ExportedGraph]) -> None:
    found = plain[1].activations
    assert (found.batch, found.tokens, found.square_told) == (1, TOKENS, True)
    # in_proj gives x and z: four times the width of 16, in float32.
    assert found.largest_shape == (1, TOKENS, 64)
    assert found.largest_bytes == TOKENS * 64 * 4
    assert found.largest_bytes < found.peak_bytes <= found.inlined_peak_bytes
    assert found.bytes_per_token == found.peak_bytes / TOKENS
    assert "none is tokens x tokens" in str(found)
    assert str(TOKENS) in str(found)


@pytest.mark.parametrize(
    ("sides", "changes"), [((96, SIDE), {}), ((96, 192), {"if_rope": True, "if_cls_token": False})]
)
def test_the_memory_grows_as_the_tokens_do(
    sides: tuple[int, int], changes: dict[str, object]
) -> None:
    (_, small), (_, large) = (exported(side, **changes) for side in sides)
    tokens = large.activations.tokens / small.activations.tokens
    for name in ("peak_bytes", "inlined_peak_bytes", "largest_bytes"):
        ratio = getattr(large.activations, name) / getattr(small.activations, name)
        assert ratio == pytest.approx(tokens, rel=0.02), name


def changed(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], **weights: np.ndarray
) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    return copy


def tokens_of(model: onnx.ModelProto) -> str:
    """Name of a [B, L, D] activation."""
    return next(n.output[0] for n in model.graph.node if n.name.endswith("out_proj/MatMul"))


def attention(model: onnx.ModelProto) -> onnx.ModelProto:
    x = tokens_of(model)
    return changed(
        model,
        [node("Transpose", [x], ["k"], perm=[0, 2, 1]), node("MatMul", [x, "k"], ["scores"]),
         node("Softmax", ["scores"], ["weights"], axis=-1)],
    )  # fmt: skip


def heads_side_by_side(model: onnx.ModelProto) -> onnx.ModelProto:
    return changed(
        model,
        [node("Expand", [tokens_of(model), "s"], ["e"]), node("Reshape", ["e", "t"], ["wide"])],
        s=np.array([TOKENS // 10, TOKENS, 16]),
        t=np.array([1, TOKENS * 16 // 10, TOKENS]),
    )


def flat(model: onnx.ModelProto) -> onnx.ModelProto:
    return changed(
        model,
        [node("Expand", ["one", "s"], ["long"])],
        one=np.ones((1, 1), np.float32),
        s=np.array([1, TOKENS**2]),
    )


def inside_a_function(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = changed(model, [])
    body = next(item for item in copy.functions if item.name == "VimBiCausalConv")
    x = body.input[0]
    body.node.extend(
        [node("Transpose", [x], ["kt"], perm=[0, 2, 1]), node("MatMul", [x, "kt"], ["scores"])]
    )
    return copy


def square_weight(model: onnx.ModelProto) -> onnx.ModelProto:
    return changed(model, [], **{"bias.pos_embed": np.zeros((TOKENS, TOKENS), np.float32)})


@pytest.mark.parametrize(
    "plant", [attention, heads_side_by_side, flat, inside_a_function, square_weight]
)
def test_what_grows_with_the_square_is_caught(
    plant: Callable[[onnx.ModelProto], onnx.ModelProto], plain: tuple[VimConfig, ExportedGraph]
) -> None:
    config, found = plain
    assert measure_activations(found.model, config) == found.activations
    with pytest.raises(VimDeployError) as caught:
        measure_activations(plant(found.model), config)
    assert caught.value.code == "VIM-502"
    assert "square of the tokens" in caught.value.message
    assert "290" in caught.value.why or "elements" in caught.value.why


def test_few_tokens_are_not_told_from_widths() -> None:
    # 16 patches, and widths of 16, 32 and 64: nothing is claimed, and nothing refused.
    found = exported(32)[1].activations
    assert not found.square_told
    assert "none is" not in str(found)


def test_a_batch_of_as_many_pictures_as_tokens_is_no_square() -> None:
    found = exported(88, batch=122)[1].activations
    assert (found.batch, found.tokens) == (122, 122)
    assert not found.square_told


def test_inspect_describes_a_changed_file_all_the_same(
    plain: tuple[VimConfig, ExportedGraph], tmp_path: Path
) -> None:
    onnx.save(plain[1].model, tmp_path / "plain.onnx")
    found = inspect(tmp_path / "plain.onnx")["activations"]
    assert found["tokens"] == TOKENS
    onnx.save(attention(plain[1].model), tmp_path / "changed.onnx")
    found = inspect(tmp_path / "changed.onnx")["activations"]
    assert found["not_measured"].startswith("VIM-502")
