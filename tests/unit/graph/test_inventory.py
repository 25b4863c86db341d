"""What ``inspect --graph`` counts in a graph, and the bound it predicts with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.models import tiny_config
from tests.unit.families.vim.test_passes import FUSED_BLOCK, block_ops, copy_of, exported
from tests.unit.graph.test_standalone import exported as standalone_export
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.inventory import BlockInventory, Scan, take_inventory
from vim_deploy.graph.scan_bound import GPUS, find_gpu, predict
from vim_deploy.onnx_graph import rename_tensors, subgraphs_of
from vim_deploy.places import OUTSIDE

#: Of tiny_config: 4 patches and a class token; embed_dim 16, d_inner 32, d_state 4, dt_rank 1.
TOKENS, WIDTH, INNER, STATES = 5, 16, 32, 4


@pytest.fixture(scope="module")
def fused_model() -> onnx.ModelProto:
    return exported("fused")[1].model


def test_blocks_of_the_fused_graph(fused_model: onnx.ModelProto) -> None:
    first, second, outside = take_inventory(fused_model, 3)
    assert [first.name, second.name, outside.name] == ["block_00", "block_01", OUTSIDE]
    assert (first.launches, second.launches) == (7, 7)
    own = {name: second.ops[name] for name in ("VimBiCausalConv", "VimBiSelectiveScan", "MatMul")}
    assert own == FUSED_BLOCK == block_ops(fused_model, 1)
    assert first.edge_types == {"float": sum(first.ops.values())}
    assert second.scans[0].tokens == TOKENS
    assert (second.scans[0].directions, second.scans[0].channels) == (2, INNER)


def test_low_rank_and_base_launches() -> None:
    low_rank = take_inventory(exported("fused-low-rank")[1].model, 1)
    assert [block.launches for block in low_rank[:2]] == [6, 6]
    base = take_inventory(exported("base")[1].model, 1)
    # norm, in_proj, slice, one transpose for both; for each direction conv, transpose, SiLU,
    # x_proj, slice, dt_proj, scan; sum with halving, out_proj.
    assert [block.launches for block in base[:2]] == [4 + 2 * 7 + 2] * 2


def test_sizes_are_those_of_the_tensors(fused_model: onnx.ModelProto) -> None:
    batch = 3
    rows = 4 * batch * TOKENS  # bytes of one fp32 column
    columns = 16  # B, C and dt of rank 1, padded
    block = take_inventory(fused_model, batch)[1]
    moved_by_scan = rows * (2 * INNER * 2 + 2 * columns + INNER + INNER)
    assert block.scans[0].activation_bytes == moved_by_scan
    mixer = (
        WIDTH * 2 * INNER
        + 2 * (4 + 1) * INNER
        + 2 * INNER * columns
        + 2 * columns * INNER
        + 2 * (STATES + 2) * INNER
        + INNER * WIDTH
    )
    # The norm's weight and its three constants: exponent, axis and epsilon.
    assert block.parameters == mixer + WIDTH + 3
    stream = rows * WIDTH
    # Read hidden and residual, write the sum and the normed tokens; the parts in between are free.
    norm = 4 * stream
    in_proj = stream + rows * 2 * INNER
    conv = rows * (INNER + 2 * INNER)
    x_proj = rows * (2 * INNER + 2 * columns)
    dt_proj = rows * (2 * columns + 2 * INNER)
    out_proj = rows * INNER + stream
    activations = norm + in_proj + conv + x_proj + dt_proj + moved_by_scan + out_proj
    assert block.moved_bytes == activations + block.parameter_bytes


def test_a_fixed_batch_and_a_dynamic_one_agree(fused_model: onnx.ModelProto) -> None:
    fixed = copy_of(fused_model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    assert take_inventory(fixed, 9) == take_inventory(fused_model, 2)


def test_every_kind_of_model_has_an_inventory() -> None:
    for changes in ({"bimamba_type": "v1"}, {"if_rope": True, "if_cls_token": False}):
        blocks = take_inventory(exported("fused", tiny_config(**changes))[1].model, 2)
        assert sum(len(block.scans) for block in blocks) in (2, 4)


def test_shapes_that_contradict_each_other_are_refused(fused_model: onnx.ModelProto) -> None:
    broken = copy_of(fused_model)
    broken.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 24
    with pytest.raises(VimDeployError) as caught:
        take_inventory(broken, 1)
    assert caught.value.code == "VIM-409"


def _block(*scans: Scan, moved: int) -> BlockInventory:
    return BlockInventory("block_00", {}, 1, {}, 0, 0, 0, moved, scans)


def test_prediction_by_special_functions() -> None:
    # 2 * (16 + 2) + 2 = 38 results a token and channel at 132 * 16 * 1.98e9 a second.
    scan = Scan(directions=2, tokens=197, channels=384, states=16, activation_bytes=1000)
    found = predict([_block(scan, moved=4_321_000)] * 24, GPUS["h200"], 64)
    assert found.scan_us == pytest.approx(24 * 64 * 197 * 384 * 38 / (132 * 16 * 1.98e9) * 1e6)
    assert found.rest_us == pytest.approx(24 * 4_320_000 / (4.8e12 * 0.9) * 1e6)
    assert found.scan_share == pytest.approx(found.scan_us / (found.scan_us + found.rest_us))
    assert found.scan_bound_by == "special functions"


def test_prediction_by_memory_and_without_scans() -> None:
    scan = Scan(directions=2, tokens=1, channels=8, states=16, activation_bytes=27_000_000)
    found = predict([_block(scan, moved=54_000_000)], GPUS["l4"], 1)
    assert (found.scan_bound_by, found.scan_share) == ("memory", 0.5)
    assert found.scan_us == pytest.approx(100)
    assert predict([_block(moved=1)], GPUS["l4"], 1).scan_share == 0


def test_unknown_gpu_is_refused() -> None:
    with pytest.raises(VimDeployError, match="no figures for GPU 'h2000'"):
        find_gpu("h2000")


def test_command(
    fused_model: onnx.ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(fused_model, path)
    assert run(["inspect", str(path), "--graph", "--gpu", "l4", "--batch", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["inventory"]
    assert (found["batch"], found["tokens"]) == (4, TOKENS)
    assert found["prediction"]["gpu"] == "l4"
    assert [block["launches"] for block in found["blocks"]][:2] == [7, 7]
    assert run(["inspect", str(path), "--graph"]) == 0
    printed = capsys.readouterr()
    assert "VimBiSelectiveScan" in printed.out
    assert "kernel launches expected" in printed.out
    assert run(["inspect", str(path)]) == 0
    assert "launches" not in capsys.readouterr().out


def test_command_refuses_what_it_would_ignore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Path(__file__).parents[3] / "export" / "vim-digits.toml"
    assert run(["inspect", str(recipe), "--gpu", "l4"]) == 2
    assert "belong to --graph" in capsys.readouterr().err
    assert run(["inspect", str(recipe), "--graph"]) == 2
    assert "VIM-202" in capsys.readouterr().err


@pytest.mark.parametrize(("graph", "precision"), [("fused", "fp32"), ("fused-low-rank", "fp16")])
@pytest.mark.parametrize("body", ["scan", "unrolled"])
def test_a_standalone_graph_tells_its_scans_and_no_launches(
    graph: str, precision: str, body: str
) -> None:
    _, plain, made = standalone_export(graph, body, precision=precision)
    blocks, expected = (take_inventory(item.model, 2) for item in (made, plain))
    assert [block.name for block in blocks] == [block.name for block in expected]
    for block, before in zip(blocks, expected, strict=True):
        assert block.scans == tuple(replace(scan, activation_bytes=None) for scan in before.scans)
        assert block.launches == (None if before.scans else before.launches)
    with pytest.raises(ValueError, match="does not tell"):
        predict(blocks, GPUS["l4"], 2)


def test_each_direction_of_a_standalone_base_graph_is_a_scan() -> None:
    _, plain, made = standalone_export("base")
    blocks, expected = (take_inventory(item.model, 1) for item in (made, plain))
    assert sum(len(block.scans) for block in blocks) == 4
    for block, before in zip(blocks, expected, strict=True):
        assert block.scans == tuple(replace(scan, activation_bytes=None) for scan in before.scans)


def test_what_a_tool_took_from_a_standalone_graph_is_left_out() -> None:
    model = standalone_export("fused")[2].model
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("/b_rows", "/renamed") for name in names]
    scans = [scan for block in take_inventory(model, 1) for scan in block.scans]
    assert [(scan.tokens, scan.states) for scan in scans] == [(TOKENS, None)] * 2


def test_axes_that_a_tool_took_out_of_a_loop_are_found_outside() -> None:
    model = standalone_export("fused")[2].model
    expected = take_inventory(model, 1)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axes"))
    for scan in [node for node in model.graph.node if node.op_type == "Scan"]:
        body = subgraphs_of(scan)[0]
        (constant,) = [node for node in body.node if node.op_type == "Constant"]
        rename_tensors(body.node, {constant.output[0]: "axes"})
        body.node.remove(constant)
    onnx.checker.check_model(model)
    found = take_inventory(model, 1)
    assert [block.scans for block in found] == [block.scans for block in expected]


def test_command_says_why_there_is_no_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(standalone_export("fused")[2].model, path)
    assert run(["inspect", str(path), "--graph", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["inventory"]
    assert (found["tokens"], found["launches"], found["prediction"]) == (TOKENS, None, None)
    assert run(["inspect", str(path), "--graph"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{TOKENS} tokens, batch 1" in printed
    assert "2 scans, 4 directions in all; no ideal times: the file is standalone" in printed
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, path)
    assert run(["inspect", str(path), "--graph"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "tokens, batch" not in printed
    assert "no ideal times: no scan was found" in printed
