"""The fusion passes: what they make of every kind of mixer, and what they refuse."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support.models import tiny_config
from tests.unit.graph.test_export_graph import BOUND, deployed, images, session
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.fusion.class_tokens import place_class_tokens
from vim_deploy.families.vim.fusion.run import PASSES, run_passes
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.graph.export_graph import (
    ExportedGraph,
    export_graph,
    finish_graph,
    named_trace,
)
from vim_deploy.graph.opset import OPSETS
from vim_deploy.graph.verify import summarize
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.seeding import seed_weights
from vim_deploy.onnx_graph import Rewriter
from vim_deploy.ops.functions import attach_functions
from vim_deploy.runtimes.torch.runner import TorchRunner

#: Operators of a block's own nodes beside the decomposed norm and the residual sum before it.
FUSED_BLOCK = {"MatMul": 4, "VimBiCausalConv": 1, "VimBiSelectiveScan": 1}
LOW_RANK_BLOCK = {**FUSED_BLOCK, "MatMul": 3}
#: Two float32 evaluations of a two-layer model; measured up to 9e-7 on outputs of about 1.
CLOSE = 1e-5


def exported(
    graph: str, config: VimConfig | None = None, opset: int = 18, dump: Path | None = None
) -> tuple[DeployedModel, ExportedGraph]:
    module, info = deployed(config or tiny_config())
    info = replace(info, graph=graph, opset=opset)
    return module, export_graph(module, info, batch=None, dump=dump)


@pytest.fixture(scope="module")
def base() -> onnx.ModelProto:
    return exported("base")[1].model


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def fused(model: onnx.ModelProto, **options: object) -> onnx.ModelProto:
    run_passes(model, **options)  # type: ignore[arg-type]
    attach_functions(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def output(model: onnx.ModelProto, batch: int = 3) -> np.ndarray:
    image = np.random.default_rng(batch).random((batch, 3, 16, 16), dtype=np.float32)
    return session(model).run(None, {"image": image})[0]


def block_ops(model: onnx.ModelProto, block: int) -> dict[str, int]:
    """Compute nodes of one block by operator; add and norm left out."""
    prefix = f"block_{block:02d}/"
    return dict(
        Counter(
            node.op_type
            for node in model.graph.node
            if node.name.startswith(prefix)
            and not node.name.startswith(f"{prefix}norm/")
            and node.name != f"{prefix}Add"
        )
    )


@pytest.mark.parametrize(
    ("graph", "ops"), [("fused", FUSED_BLOCK), ("fused-low-rank", LOW_RANK_BLOCK)]
)
def test_a_block_is_six_nodes_and_the_norm(graph: str, ops: dict[str, int]) -> None:
    module, (model, summary, passes, *_) = exported(graph)
    assert [block_ops(model, block) for block in range(2)] == [ops, ops]
    assert (summary.fused_scans, summary.fused_convolutions, summary.scans) == (2, 2, 4)
    assert [report.name for report in passes] == list(PASSES)
    assert all(report.as_expected and not report.refused for report in passes)
    for batch in (1, 2, 5):
        image = images(module, batch)
        found = session(model).run(None, {"image": image})[0]
        np.testing.assert_allclose(found, TorchRunner(module).run(image)["logits"], atol=BOUND)


def test_names_and_layouts() -> None:
    _, (model, *_) = exported("fused", tiny_config(ssm_cfg={"dt_rank": 3}))
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert {name: shapes[name] for name in shapes if "_pair" in name and "layers.1" in name} == {
        "layers.1.mixer.conv1d_pair.w": (2, 4, 32),
        "layers.1.mixer.conv1d_pair.b": (2, 32),
        # B and C of 4 states and dt of rank 3 are 11 columns, padded to 16.
        "layers.1.mixer.x_proj_pair.weight_packed": (2, 1, 32, 16),
        "layers.1.mixer.dt_proj_pair.weight_packed": (2, 1, 16, 32),
        "layers.1.mixer.scan_pair.A": (2, 4, 32),
        "layers.1.mixer.scan_pair.Dskip": (2, 32),
        "layers.1.mixer.scan_pair.dt_bias": (2, 32),
    }
    packed = next(
        t for t in model.graph.initializer if t.name.endswith("1.mixer.x_proj_pair.weight_packed")
    )
    values = numpy_helper.to_array(packed)
    assert np.abs(values[..., :11]).min() > 0
    assert not values[..., 11:].any()
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {
        "block_01/mixer/conv1d/VimBiCausalConv",
        "block_01/mixer/x_proj/MatMul",
        "block_01/mixer/dt_proj/MatMul",
        "block_01/mixer/scan/VimBiSelectiveScan",
    } <= set(names)


def test_low_rank_weight_is_the_checkpoints() -> None:
    module, (model, *_) = exported("fused-low-rank")
    weight = next(
        t for t in model.graph.initializer if t.name.endswith("0.mixer.dt_proj_pair.weight")
    )
    mixer = module.model.layers[0].mixer
    expected = np.stack([mixer.dt_proj.weight.detach(), mixer.dt_proj_b.weight.detach()])
    np.testing.assert_array_equal(numpy_helper.to_array(weight), expected)


@pytest.mark.parametrize("low_rank", [False, True])
def test_every_step_runs_and_means_the_same(
    base: onnx.ModelProto, tmp_path: Path, low_rank: bool
) -> None:
    run_passes(copy_of(base), expected=2, low_rank=low_rank, dump=tmp_path / "new" / "folder")
    files = sorted((tmp_path / "new" / "folder").glob("*.onnx"))
    assert [file.stem for file in files] == [
        "00_base",
        *(f"{number:02d}_{name}" for number, name in enumerate(PASSES, 1)),
    ]
    expected = output(base)
    for file in files:
        step = onnx.load(file)
        onnx.checker.check_model(step, full_check=True)
        np.testing.assert_allclose(output(step), expected, rtol=0, atol=CLOSE, err_msg=file.stem)
    reports = json.loads((files[0].parent / "passes.json").read_text())["passes"]
    assert [report["matched"] for report in reports] == [1, 2, 2, 0 if low_rank else 2, 2]


LONG = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 traces these")


@pytest.mark.parametrize(
    "changes",
    [
        {"if_divide_out": False},
        {"ssm_cfg": {"conv_bias": False, "bias": True, "d_conv": 3}},
        pytest.param({"ssm_cfg": {"d_conv": 1, "dt_rank": 5}}, marks=LONG),
        {"if_bidirectional": True},
        pytest.param({"init_layer_scale": 0.5}, marks=LONG),
        {"use_double_cls_token": True},
        pytest.param({"use_middle_cls_token": False}, marks=LONG),
        {"flip_img_sequences_ratio": 2.0},
    ],
    ids=str,
)
def test_every_v2_model_is_fused(changes: dict[str, object]) -> None:
    module, (model, *_) = exported("base", tiny_config(**changes))
    image = images(module, 3)
    expected = TorchRunner(module).run(image)["logits"]
    for low_rank in (False, True):
        deployed_graph = fused(copy_of(model), expected=2, low_rank=low_rank)
        ops = block_ops(deployed_graph, 1)
        assert not {"Transpose", "Flip", "Split", "Concat", "Slice"} & ops.keys()
        found = session(deployed_graph).run(None, {"image": image})[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=BOUND)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bimamba_type": "v1"}, "share one convolution"),
        ({"bimamba_type": "none"}, "no scan of the other direction"),
        ({"ssm_cfg": {"use_fast_path": False}}, "no scan of the other direction"),
        ({"bimamba_type": "none", "if_bidirectional": True}, "no scan of the other direction"),
    ],
)
def test_other_models_keep_their_scans_and_say_why(changes: dict[str, object], reason: str) -> None:
    module, (model, summary, passes, *_) = exported("fused", tiny_config(**changes))
    assert summary.fused_scans == summary.fused_convolutions == 0
    assert summary.scans == sum(n.op_type == "VimSelectiveScan" for n in model.graph.node) > 0
    scans = [report for report in passes if report.name == "bi_selective_scan"]
    assert len(scans[0].refused) == summary.scans
    assert all(reason in refusal.reason for refusal in scans[0].refused)
    image = images(module, 2)
    found = session(model).run(None, {"image": image})[0]
    np.testing.assert_allclose(found, TorchRunner(module).run(image)["logits"], atol=BOUND)


@pytest.mark.parametrize("opset", OPSETS)
def test_opsets(opset: int) -> None:
    module, (model, *_) = exported("fused", opset=opset)
    onnx.checker.check_model(model, full_check=True)
    image = images(module, 2)
    found = session(model).run(None, {"image": image})[0]
    np.testing.assert_allclose(found, TorchRunner(module).run(image)["logits"], atol=BOUND)


def test_class_tokens_are_placed_bit_for_bit(base: onnx.ModelProto) -> None:
    model = copy_of(base)
    graph = Rewriter(model.graph)
    assert place_class_tokens(graph) == (1, ())
    graph.finish()
    assert not {"Shape", "Expand", "Slice_1"} & {node.op_type for node in model.graph.node}
    np.testing.assert_array_equal(output(model), output(base))


def test_class_tokens_without_position_embedding_stay() -> None:
    _, (model, _, passes, *_) = exported("fused", tiny_config(if_abs_pos_embed=False))
    assert passes[0].matched == 0
    assert "token count is not known" in passes[0].refused[0].reason
    assert "Expand" in {node.op_type for node in model.graph.node}


def test_renamed_nodes_and_tensors_are_fused_all_the_same(base: onnx.ModelProto) -> None:
    model = copy_of(base)
    fixed = {value.name for value in [*model.graph.input, *model.graph.output]}
    names: dict[str, str] = {}
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
        for tensors in (node.input, node.output):
            for index, name in enumerate(tensors):
                if name not in fixed:
                    tensors[index] = names.setdefault(name, f"t{len(names)}")
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    fused(model, expected=2)
    np.testing.assert_allclose(output(model), output(base), rtol=0, atol=CLOSE)
    assert "mixer_01/scan/VimBiSelectiveScan" in {node.name for node in model.graph.node}


def test_shared_initializers_are_not_changed_under_other_readers(base: onnx.ModelProto) -> None:
    # Both blocks read one A, one x_proj and one convolution.
    model = copy_of(base)
    shared = ("mixer.scan.A", "mixer.x_proj.weight_t", "mixer.conv1d.weight")
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name.startswith("layers.1.") and name.endswith(shared):
                node.input[index] = name.replace("layers.1.", "layers.0.")
    expected = output(model)
    np.testing.assert_allclose(output(fused(model, expected=2)), expected, rtol=0, atol=CLOSE)


def _node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def _tap(model: onnx.ModelProto) -> None:
    name = "block_01/mixer/fwd/conv1d/Mul_output_0"
    model.graph.output.append(helper.make_tensor_value_info(name, 1, None))


def _read_inside(model: onnx.ModelProto) -> None:
    name = "block_01/mixer/bwd/x_proj/MatMul_output_0"
    model.graph.node.append(helper.make_node("Neg", [name], ["negated"], name="spy"))
    model.graph.output.append(helper.make_tensor_value_info("negated", 1, None))


def _other_padding(model: onnx.ModelProto) -> None:
    conv = _node(model, "block_01/mixer/bwd/conv1d/Conv")
    next(item for item in conv.attribute if item.name == "pads").ints[:] = [1, 2]


def _weight_as_input(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("layers.1.mixer.x_proj.weight_t", 1, [32, 9])
    model.graph.input.append(value)


def _other_activation(model: onnx.ModelProto) -> None:
    _node(model, "block_01/mixer/fwd/conv1d/Sigmoid").op_type = "Tanh"


def _same_direction(model: onnx.ModelProto) -> None:
    scan = _node(model, "block_01/mixer/bwd/scan/VimSelectiveScan")
    next(item for item in scan.attribute if item.name == "reverse").i = 0


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_tap, "is an output of the graph"),
        (_read_inside, "is also read by spy"),
        (_other_padding, "not the depthwise convolution of its direction"),
        (_weight_as_input, "is not a constant"),
        (_other_activation, "is not x * Sigmoid(x)"),
        (_same_direction, "run in the same direction"),
    ],
)
def test_an_edited_block_stays_whole_and_the_other_is_fused(
    base: onnx.ModelProto, edit: object, reason: str
) -> None:
    model = copy_of(base)
    edit(model)  # type: ignore[operator]
    expected = output(model)
    before = block_ops(model, 1)
    reports = run_passes(model)
    attach_functions(model)
    assert block_ops(model, 1) == before
    assert block_ops(model, 0) == FUSED_BLOCK
    assert all(reason in refusal.reason for refusal in reports[-1].refused)
    assert len(reports[-1].refused) == 2
    assert (summarize(model, 2).fused_scans, summarize(model, 2).scans) == (1, 4)
    np.testing.assert_allclose(output(model), expected, rtol=0, atol=CLOSE)


def test_a_count_that_is_not_the_promised_one_stops_the_run(base: onnx.ModelProto) -> None:
    model = copy_of(base)
    _tap(model)
    with pytest.raises(VimDeployError, match="1 mixers instead of 2") as caught:
        run_passes(model, expected=2)
    assert caught.value.code == "VIM-502"
    assert "is an output of the graph" in caught.value.why


def test_a_fused_graph_has_nothing_left_to_fuse() -> None:
    _, (model, *_) = exported("fused")
    before = model.SerializeToString(deterministic=True)
    reports = run_passes(model)
    assert [report.matched for report in reports] == [0] * len(PASSES)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs this")
def test_every_one_of_24_blocks_is_fused() -> None:
    _, (model, summary, passes, *_) = exported("fused", tiny_config(depth=24))
    assert (summary.fused_scans, summary.fused_convolutions, summary.scans) == (24, 24, 48)
    assert [block_ops(model, block) for block in range(24)] == [FUSED_BLOCK] * 24
    assert [report.matched for report in passes] == [1, 24, 24, 24, 24]


@pytest.mark.parametrize("graph", ["fused", "fused-low-rank"])
def test_structure_does_not_depend_on_values(graph: str) -> None:
    config = tiny_config(depth=1)
    module, info = deployed(config)
    info = replace(info, graph=graph)
    blank = DeployedModel(VisionMamba(config), info.image, "none", module.head)
    seed_weights(blank.model, 0)
    first, second = (export_graph(m, info, batch=None).model for m in (module, blank))
    assert [node.name for node in first.graph.node] == [node.name for node in second.graph.node]
    shapes = [[(t.name, list(t.dims)) for t in m.graph.initializer] for m in (first, second)]
    assert shapes[0] == shapes[1]


def digests() -> list[str]:
    """SHA-256 of one model's graph before and after fusion, traced once and in this process."""
    module, info = deployed(tiny_config())
    model = named_trace(module, None)
    found = []
    for graph in ("base", "fused"):
        finished = finish_graph(copy_of(model), module.model.config, replace(info, graph=graph))
        data = finished.model.SerializeToString(deterministic=True)
        found.append(hashlib.sha256(data).hexdigest())
    return found


def test_same_input_gives_the_same_bytes_in_another_process() -> None:
    # Hash randomisation orders sets differently in every process.
    code = "from tests.unit.families.vim.test_passes import digests; print(*digests())"
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={"PYTHONHASHSEED": other, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    here = digests()
    assert done.stdout.split() == here
    assert len(set(here)) == 2
