"""What a parser gets instead of the file, by version, and that it still means the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from tests.support import tiny_onnx
from tests.support.fake_tensorrt import personality
from tests.support.trt_builds import VERSIONS
from tests.unit.ops import test_region_ops as region_ops
from vim_deploy.errors import VimDeployError
from vim_deploy.ops import PYRAMID_ROI_ALIGN, SORTED_NMS, contract
from vim_deploy.runtimes.building.build import file_to_parse
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt.lower import lower, ops_of


def capabilities(version: str) -> trt.Capabilities:
    return trt.capabilities_of(personality(version))


@pytest.fixture(scope="module")
def exported() -> dict[str, onnx.ModelProto]:
    """A two-layer model in its base and its fused form, with local functions."""
    torch = pytest.importorskip("torch", reason="not checked here: torch is not installed")
    from vim_deploy.artifact.metadata import ExportInfo
    from vim_deploy.families.vim.config import VimConfig
    from vim_deploy.families.vim.network.vim import VisionMamba
    from vim_deploy.graph.export_graph import export_graph
    from vim_deploy.heads import parse_head
    from vim_deploy.model.deployed import DeployedModel
    from vim_deploy.specs import CheckpointInfo, ImagePreparation

    config = VimConfig(
        img_size=32, patch_size=8, stride=8, depth=2, embed_dim=32, num_classes=5, d_state=4
    )
    made = {}
    for form in ("base", "fused"):
        info = ExportInfo(
            model="custom",
            model_config=VimConfig(),
            checkpoint=CheckpointInfo("seed:0", "", "seeded"),
            image=ImagePreparation(32, 32),
            preprocess="none",
            head="logits",
            graph=form,
            precision="fp32",
            opset=18,
            pos_embed="unchanged",
            tool_version="0",
            settings_hash="0",
        )
        torch.manual_seed(0)
        head = parse_head("logits", config)
        module = DeployedModel(VisionMamba(config), info.image, "none", head)
        made[form], *_ = export_graph(module, info, batch=None)
    return made


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", ["base", "fused"])
def test_with_the_plugin(exported, version, form):
    model = exported[form]
    before = model.SerializeToString()
    lowered = lower(model, capabilities(version), use_plugin=True)
    assert model.SerializeToString() == before
    assert not lowered.model.functions
    fused = {"VimBiCausalConv": 2, "VimBiSelectiveScan": 2}
    counts = {"VimSelectiveScan": 4} if form == "base" else fused
    assert Counter(lowered.plugin_nodes.values()) == counts
    assert set(counts) == ops_of(model)
    nodes = {node.name: node for node in lowered.model.graph.node}
    for name, op in lowered.plugin_nodes.items():
        attributes = {item.name: item for item in nodes[name].attribute}
        assert nodes[name].op_type == op
        assert attributes["plugin_version"].s == b"1"
        assert attributes["plugin_namespace"].s == b""
    opset = next(item.version for item in lowered.model.opset_import if item.domain == "")
    assert opset == (17 if version == "8.6" else 18)
    assert lowered.model.ir_version <= 8 or version != "8.6"


@pytest.mark.parametrize("form", ["base", "fused"])
def test_8_6_without_the_plugin_means_the_same(exported, form):
    ort = pytest.importorskip("onnxruntime", reason="not checked here: no onnxruntime")
    model = exported[form]
    lowered = lower(model, capabilities("8.6"), use_plugin=False)
    assert not lowered.model.functions
    assert not ops_of(lowered.model)
    assert not lowered.plugin_nodes
    assert "opset 18 rewritten as 17" in lowered.steps
    image = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    outputs = []
    for item in (model, lowered.model):
        session = ort.InferenceSession(
            item.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        outputs.append(session.run(None, {name: image})[0])
    # The same float32 operations in another spelling: rounding only.
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("version", ["10.3", "10.14", "11"])
def test_without_the_plugin_later_versions_get_the_file_as_it_is(exported, version):
    model = exported["fused"]
    lowered = lower(model, capabilities(version), use_plugin=False)
    assert lowered.model == model
    assert lowered.steps == ()


def test_other_functions_stay_or_are_inlined():
    model = tiny_onnx.scan_blocks(1)
    other = onnx.parser.parse_function(
        '<opset_import: ["" : 18], domain: "other"> Twice (x) => (y) { y = Add (x, x) }'
    )
    model.functions.append(other)
    model.opset_import.append(onnx.helper.make_opsetid("other", 1))
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Twice", "other"
    kept = lower(model, capabilities("10.3"), use_plugin=True)
    assert [function.name for function in kept.model.functions] == ["Twice"]
    inlined = lower(model, capabilities("8.6"), use_plugin=True)
    assert not inlined.model.functions
    assert "functions inlined: Twice" in inlined.steps
    assert list(inlined.plugin_nodes.values()) == ["VimSelectiveScan"]
    model.functions[-1].opset_import[0].version = 17
    with pytest.raises(VimDeployError, match="local functions") as caught:
        lower(model, capabilities("8.6"), use_plugin=True)
    assert caught.value.code == "VIM-609"
    assert "Twice" in caught.value.why


def test_an_operator_without_an_older_form_is_named():
    """Split has num_outputs from opset 18 on; the old parser must never see it."""
    with pytest.raises(VimDeployError, match="opset 17") as caught:
        lower(tiny_onnx.scan_blocks(1), capabilities("8.6"), use_plugin=False)
    assert caught.value.code == "VIM-609"
    assert "num_outputs" in caught.value.why


def test_a_file_without_functions_needs_the_plugin():
    model = tiny_onnx.scan_blocks(1)
    del model.functions[:]
    with pytest.raises(VimDeployError, match="VimSelectiveScan") as caught:
        lower(model, capabilities("10.14"), use_plugin=False)
    assert caught.value.code == "VIM-609"
    assert lower(model, capabilities("10.14"), use_plugin=True).plugin_nodes


def test_nodes_without_a_name_get_one():
    model = tiny_onnx.scan_blocks(2)
    scans = [node for node in model.graph.node if node.domain == contract.DOMAIN]
    scans[0].name = scans[1].name = ""
    assert len(lower(model, capabilities("11"), use_plugin=True).plugin_nodes) == 2


@pytest.mark.parametrize("large", [False, True])
def test_the_lowered_file_goes_away(tmp_path, monkeypatch, large):
    if large:
        monkeypatch.setattr("vim_deploy.runtimes.building.build._LARGEST_MESSAGE", 0)
    model = tiny_onnx.perceptron(width=64)
    plan = tmp_path / "m.plan"
    with file_to_parse(model, plan) as path:
        assert path.name.startswith(".m.plan.")
        again = onnx.load(path)
        assert len(list(tmp_path.iterdir())) == (2 if large else 1)
        np.testing.assert_array_equal(
            onnx.numpy_helper.to_array(again.graph.initializer[0]),
            onnx.numpy_helper.to_array(tiny_onnx.perceptron(width=64).graph.initializer[0]),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("use_plugin", [False, True])
def test_the_ops_of_detectors_become_operators_of_opset_17(use_plugin: bool) -> None:
    """Traced files have opset 18, which the parser of TensorRT 8.6 does not read."""
    draw = np.random.default_rng(0)
    maps = [draw.standard_normal((2, 3, side, side)).astype(np.float32) for side in (16, 8, 4, 2)]
    nms = list(region_ops.nms_inputs(0, 2, 30, 2))
    boxes = np.nan_to_num(nms[0])
    for op, given, said in (
        (SORTED_NMS, nms, {"iou_threshold": 0.5, "groups": 2}),
        (PYRAMID_ROI_ALIGN, [*maps, boxes],
         {"output_size": 2, "canonical_size": 16.0, "spatial_scale": 0.25}),
    ):  # fmt: skip
        model = region_ops.node_model(op, **said)
        lowered = lower(model, capabilities("8.6"), use_plugin=use_plugin).model
        assert not lowered.functions
        assert {node.domain for node in lowered.graph.node} == {""}
        assert {item.version for item in lowered.opset_import if not item.domain} == {17}
        onnx.checker.check_model(lowered)
        found, wanted = region_ops.run(lowered, *given), region_ops.run(model, *given)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("version", VERSIONS)
def test_beside_plugins_the_ops_of_detectors_stay_functions(version):
    model = tiny_onnx.scan_blocks(1)
    region_ops.add_nms(model)
    assert ops_of(model) == {"VimSelectiveScan"}
    lowered = lower(model, capabilities(version), use_plugin=True)
    assert set(lowered.plugin_nodes.values()) == {"VimSelectiveScan"}
    assert lowered.steps[0] == "functions dropped for the plugin: VimSelectiveScan"
    inlined = version == "8.6"
    assert [item.name for item in lowered.model.functions] == ["VimSortedNms"] * (not inlined)
    found = Counter(node.op_type for node in lowered.model.graph.node)
    assert found["NonMaxSuppression"] == inlined
    (nms,) = [node for node in lowered.model.graph.node if node.op_type == "VimSortedNms"] or [None]
    assert nms is None or {item.name for item in nms.attribute} == {"iou_threshold", "groups"}


def test_no_plugin_stands_in_for_a_function_of_a_detector():
    model = tiny_onnx.scan_blocks(1)
    region_ops.add_nms(model)
    kept = [item for item in model.functions if item.name != "VimSortedNms"]
    del model.functions[:]
    model.functions.extend(kept)
    for use_plugin in (False, True):
        with pytest.raises(VimDeployError, match="VimSortedNms") as caught:
            lower(model, capabilities("10.3"), use_plugin=use_plugin)
        assert caught.value.code == "VIM-609"
        assert "--plugin" not in caught.value.fix
