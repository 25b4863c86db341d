"""Facts of exported graphs: names, counts, repeatability, opsets, heads and preparation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.support.models import perturbed, tiny_config
from vim_deploy.artifact import metadata
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.graph.export_graph import export_graph
from vim_deploy.graph.opset import OPSETS, convert_opset
from vim_deploy.graph.trace import trace
from vim_deploy.graph.verify import GraphSummary, check_graph
from vim_deploy.heads import parse_head
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.seeding import seed_weights
from vim_deploy.runtimes.torch.runner import TorchRunner
from vim_deploy.specs import CheckpointInfo, ImagePreparation

#: ONNX Runtime against PyTorch in float32; the project's promise for whole models.
BOUND = 1e-4


def deployed(
    config: VimConfig, preprocess: str = "none", head: str = "logits"
) -> tuple[DeployedModel, ExportInfo]:
    height, width = config.image_hw
    image = ImagePreparation(height, width)
    module = DeployedModel(
        perturbed(VisionMamba(config)), image, preprocess, parse_head(head, config)
    )
    info = ExportInfo(
        model="custom",
        model_config=config,
        checkpoint=CheckpointInfo("x.pth", "0" * 64, "model"),
        image=image,
        preprocess=preprocess,
        head=head,
        graph="base",
        precision="fp32",
        opset=18,
        pos_embed="as stored",
        tool_version="0",
        settings_hash="1",
        labels=("a", "b"),
    )
    return module, info


def exported(
    config: VimConfig | None = None,
    preprocess: str = "none",
    head: str = "logits",
    batch: int | None = None,
) -> tuple[DeployedModel, onnx.ModelProto, GraphSummary]:
    module, info = deployed(config or tiny_config(), preprocess, head)
    model, summary, *_ = export_graph(module, info, batch=batch)
    return module, model, summary


@pytest.fixture(scope="module")
def plain() -> tuple[DeployedModel, onnx.ModelProto, GraphSummary]:
    return exported()


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def images(module: DeployedModel, batch: int) -> np.ndarray:
    spec = TorchRunner(module).input
    generator = np.random.default_rng(batch)
    shape = (batch, *spec.shape[1:])
    if spec.dtype == "uint8":
        return generator.integers(0, 256, shape, dtype=np.uint8)
    return generator.random(shape, dtype=np.float32)


def test_two_scans_a_block_and_no_flip(
    plain: tuple[DeployedModel, onnx.ModelProto, GraphSummary],
) -> None:
    _, _, summary = plain
    assert (summary.scans, summary.forward_scans, summary.backward_scans) == (4, 2, 2)
    assert summary.flips == 0


def test_names_say_block_and_direction(
    plain: tuple[DeployedModel, onnx.ModelProto, GraphSummary],
) -> None:
    _, model, _ = plain
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    for node in model.graph.node:
        if node.op_type == "VimSelectiveScan":
            reverse = next(item.i for item in node.attribute if item.name == "reverse")
            assert ("/bwd/" if reverse else "/fwd/") in node.name
            assert node.output[0].startswith(node.name)
    assert "block_01/mixer/bwd/x_proj/MatMul" in names
    initializers = {tensor.name for tensor in model.graph.initializer}
    assert {"patch_embed.proj.weight", "layers.1.mixer.D_b", "norm_f.weight"} <= initializers
    assert "layers.0.mixer.scan_b.A" in initializers


def test_mirrored_layers_are_named_by_their_direction() -> None:
    config = tiny_config(if_bidirectional=True, bimamba_type="none", if_cls_token=False)
    _, model, summary = exported(config)
    assert summary.flips == 0
    scans = {
        node.name: next(item.i for item in node.attribute if item.name == "reverse")
        for node in model.graph.node
        if node.op_type == "VimSelectiveScan"
    }
    assert scans == {
        "block_00/mixer/fwd/scan/VimSelectiveScan": 0,
        "block_01/mixer/bwd/scan/VimSelectiveScan": 1,
    }


def test_nothing_of_the_exporting_machine_is_in_the_file(
    plain: tuple[DeployedModel, onnx.ModelProto, GraphSummary],
) -> None:
    _, model, _ = plain
    data = model.SerializeToString()
    assert str(Path(__file__).parents[3]).encode() not in data
    assert b"stack_trace" not in data
    assert not any(node.metadata_props for node in model.graph.node)


def test_metadata_round_trip(plain: tuple[DeployedModel, onnx.ModelProto, GraphSummary]) -> None:
    _, model, _ = plain
    assert metadata.find(model) == deployed(tiny_config())[1]


def test_structure_does_not_depend_on_values() -> None:
    # Equal or zero parameters must not be merged or dropped.
    config = tiny_config()
    module, info = deployed(config)
    blank = DeployedModel(VisionMamba(config), info.image, "none", module.head)
    seed_weights(blank.model, 0)
    first, *_ = export_graph(module, info, batch=None)
    second, *_ = export_graph(blank, info, batch=None)
    assert [node.name for node in first.graph.node] == [node.name for node in second.graph.node]
    assert [t.name for t in first.graph.initializer] == [t.name for t in second.graph.initializer]


@pytest.mark.parametrize(
    ("preprocess", "head"),
    [
        ("none", "logits"),
        ("none", "softmax"),
        ("none", "topk:3"),
        ("none", "features"),
        ("normalize", "logits"),
        ("uint8", "logits"),
        ("uint8", "topk:3"),
    ],
)
def test_preparation_and_heads(preprocess: str, head: str) -> None:
    module, model, _ = exported(preprocess=preprocess, head=head)
    runtime = session(model)
    assert [value.name for value in runtime.get_outputs()] == list(module.head.output_names)
    for batch in (1, 5):
        image = images(module, batch)
        expected = TorchRunner(module).run(image)
        for name, value in zip(expected, runtime.run(None, {"image": image}), strict=True):
            assert value.dtype == expected[name].dtype
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=BOUND)


def test_preprocess_modes_agree_with_each_other() -> None:
    pixels = images(exported(preprocess="uint8")[0], 2)
    scaled = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    mean = np.array(ImagePreparation(1, 1).mean, np.float32).reshape(1, 3, 1, 1)
    std = np.array(ImagePreparation(1, 1).std, np.float32).reshape(1, 3, 1, 1)
    inputs = {"uint8": pixels, "normalize": scaled, "none": (scaled - mean) / std}
    outputs = [
        session(exported(preprocess=mode)[1]).run(None, {"image": value})[0]
        for mode, value in inputs.items()
    ]
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=0, atol=BOUND)


def test_fixed_batch() -> None:
    module, model, _ = exported(batch=3)
    assert metadata.inputs_of(model)[0].shape == (3, 3, 16, 16)
    image = images(module, 3)
    found = session(model).run(None, {"image": image})[0]
    expected = TorchRunner(module).run(image)["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUND)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_opsets(opset: int, pool: str) -> None:
    module, info = deployed(tiny_config(if_cls_token=False, final_pool_type=pool))
    info = replace(info, opset=opset)
    model, *_ = export_graph(module, info, batch=None)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    assert versions[""] == opset
    assert model.ir_version == {17: 8, 18: 8, 19: 9, 20: 9, 21: 10}[opset]
    onnx.checker.check_model(model, full_check=True)
    image = images(module, 2)
    found = session(model).run(None, {"image": image})[0]
    expected = TorchRunner(module).run(image)["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUND)


def test_unknown_opset_is_refused(
    plain: tuple[DeployedModel, onnx.ModelProto, GraphSummary],
) -> None:
    with pytest.raises(VimDeployError) as caught:
        convert_opset(plain[1], 16)
    assert caught.value.code == "VIM-202"


def test_operator_without_an_older_form_is_refused() -> None:
    # Group norm appeared in opset 18: there is nothing to write in 17.
    node = onnx.helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=1)
    value = onnx.helper.make_tensor_value_info
    names = [value(name, 1, None) for name in ("x", "s", "b")]
    graph = onnx.helper.make_graph([node], "g", names, [value("y", 1, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    with pytest.raises(VimDeployError) as caught:
        convert_opset(model, 17)
    assert caught.value.code == "VIM-503"


def _drop_scan(model: onnx.ModelProto) -> None:
    scan = next(node for node in model.graph.node if node.op_type == "VimSelectiveScan")
    scan.op_type, scan.domain = "Add", ""


def _add_loop(model: onnx.ModelProto) -> None:
    model.graph.node.append(onnx.helper.make_node("Loop", [], ["nothing"]))


def _drop_function(model: onnx.ModelProto) -> None:
    del model.functions[:]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(_drop_scan, "1 scans forward"), (_add_loop, "Loop"), (_drop_function, "local function")],
)
def test_checker_finds_what_is_wrong(
    plain: tuple[DeployedModel, onnx.ModelProto, GraphSummary], spoil: object, said: str
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(plain[1])
    spoil(model)  # type: ignore[operator]
    with pytest.raises(VimDeployError) as caught:
        check_graph(model, tiny_config())
    assert caught.value.code == "VIM-502"
    assert said in caught.value.why


def test_flip_is_counted_and_allowed_where_the_config_asks_for_it() -> None:
    config = tiny_config(flip_img_sequences_ratio=2.0)
    _, model, summary = exported(config)
    assert summary.flips == 1
    with pytest.raises(VimDeployError, match="not what it should be"):
        check_graph(model, tiny_config())


@pytest.mark.parametrize(
    ("head", "config", "code"),
    [
        ("logit", {}, "VIM-202"),
        ("topk:0", {}, "VIM-202"),
        ("topk:8", {}, "VIM-202"),
        ("softmax", {"num_classes": 0}, "VIM-203"),
        ("topk:2", {"final_pool_type": "max"}, "VIM-203"),
    ],
)
def test_heads_that_do_not_fit(head: str, config: dict[str, object], code: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        parse_head(head, tiny_config(**config))
    assert caught.value.code == code


def test_eager_and_traced_use_the_same_op() -> None:
    with torch.inference_mode():
        module, _, _ = exported()
        out = module(torch.zeros(1, 3, 16, 16))
    assert out.shape == (1, 7)


@pytest.mark.parametrize(
    ("option", "taken"),
    [({}, True), ({"antialias": 0}, True), ({"antialias": 1}, False), ({"axes": [2, 3]}, False),
     ({"keep_aspect_ratio_policy": "stretch"}, True),
     ({"keep_aspect_ratio_policy": "not_larger"}, False)],
)  # fmt: skip
def test_resize_before_opset_18_has_fewer_options(option: dict[str, object], taken: bool) -> None:
    node = onnx.helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="linear", **option)
    value = onnx.helper.make_tensor_value_info
    given = [value("x", 1, None), value("s", 7, None)]
    graph = onnx.helper.make_graph([node], "g", given, [value("y", 1, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    if taken:
        convert_opset(model, 17)
        assert [item.name for item in model.graph.node[0].attribute] == ["mode"]
    else:
        with pytest.raises(VimDeployError) as caught:
            convert_opset(model, 17)
        assert caught.value.code == "VIM-503"


@pytest.mark.parametrize("cause", [FileNotFoundError(2, "No usable temporary directory"),
                                   OSError(27, "File too large"), MemoryError()])  # fmt: skip
def test_what_the_machine_refuses_within_the_trace_is_no_fault_of_the_model(
    monkeypatch: pytest.MonkeyPatch, cause: Exception
) -> None:
    """PyTorch wraps everything into an error of its exporter."""

    def export(*_: object, **__: object) -> None:
        try:
            raise cause
        except (OSError, MemoryError) as error:
            raise torch.onnx.OnnxExporterError("step 1/3") from error

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(type(cause)):
        trace(deployed(tiny_config())[0], batch=1)
