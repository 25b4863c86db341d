"""An exported MambaVision: one trace of a small one, in float32 and in float16."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.support import reference
from tests.unit.families.test_mambavision_reference import network_of
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.graph.export_graph import ExportedGraph, finish_graph, named_trace
from vim_deploy.graph.inner_tensors import with_inner_outputs
from vim_deploy.heads import parse_head
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.inner_outputs import inner_outputs
from vim_deploy.model.precision import typed_twin
from vim_deploy.model.seeding import seed_weights
from vim_deploy.recipe.precision_policy import default_policy
from vim_deploy.specs import CheckpointInfo, ImagePreparation

#: ONNX Runtime against PyTorch in float32; the project's promise for whole models.
BOUND = 1e-4
#: Unit roundoff of float16, and roundings that a value of these few blocks goes through.
HALF, ROUNDINGS = 2.0**-11, 40
CASE = reference.mambavision_cases()[1]


@pytest.fixture(scope="module")
def module() -> DeployedModel:
    network = network_of(reference.load_case(CASE))
    image = ImagePreparation(*network.config.image_hw)
    return DeployedModel(network, image, "none", parse_head("logits", network.config))


@pytest.fixture(scope="module")
def traced(module: DeployedModel) -> onnx.ModelProto:
    return named_trace(module, None)


def exported(
    module: DeployedModel, traced: onnx.ModelProto, precision: str, *, standalone: bool = False
) -> ExportedGraph:
    config = module.model.config
    info = ExportInfo(
        model="custom", model_config=config, checkpoint=CheckpointInfo("x", "0" * 64, "model"),
        image=ImagePreparation(*config.image_hw), preprocess="none", head="logits", graph="base",
        precision=precision, opset=18, pos_embed="none", tool_version="0", settings_hash="1",
        labels=(), standalone=standalone, precision_policy=default_policy(),
    )  # fmt: skip
    copy = onnx.ModelProto()
    copy.CopyFrom(traced)
    return finish_graph(copy, config, info)


def run(model: onnx.ModelProto, image: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": image})


@pytest.mark.parametrize("standalone", [False, True])
def test_any_batch_agrees_with_the_official_output(
    module: DeployedModel, traced: onnx.ModelProto, standalone: bool
) -> None:
    case = reference.load_case(CASE)
    graph = exported(module, traced, "fp32", standalone=standalone)
    assert (graph.summary.forward_scans, graph.summary.backward_scans) == (4, 0)
    for batch in (1, 3):
        image = np.repeat(case.image[:1], batch, axis=0)
        (found,) = run(graph.model, image)
        assert np.abs(found - case.output[:1]).max() <= BOUND


def test_what_stands_in_the_graph(traced: onnx.ModelProto) -> None:
    names = {node.name for node in traced.graph.node}
    assert {
        "patch_embed/conv_down/0/Conv", "block_00/conv1/Conv", "downsample_0/Conv", "level_2/Pad",
        "block_03/mixer/fwd/conv1d/Conv", "block_03/mixer/fwd/scan/VimSelectiveScan",
        "block_03/mixer/conv1d_z/Conv", "block_05/mixer/qkv/MatMul", "block_05/mlp/fc1/MatMul",
    } <= names  # fmt: skip
    assert not any(node.op_type == "BatchNormalization" for node in traced.graph.node)
    scans = [node for node in traced.graph.node if node.op_type == "VimSelectiveScan"]
    assert all(len(node.input) == 6 for node in scans)


def test_every_part_is_in_pytorch_and_in_the_graph(
    module: DeployedModel, traced: onnx.ModelProto
) -> None:
    case = reference.load_case(CASE)
    model, places = with_inner_outputs(exported(module, traced, "fp32").model, 8)
    wanted = inner_outputs(module, torch.tensor(case.image))
    assert list(places) == list(wanted)
    outputs = dict(zip([value.name for value in model.graph.output], run(model, case.image),
                       strict=True))  # fmt: skip
    for where, tensor in wanted.items():
        found = outputs[places[where].name]
        assert found.shape == tensor.shape, str(where)
        assert np.abs(found - tensor.numpy()).max() <= BOUND, str(where)


def test_sixteen_bits_round_like_their_twin(module: DeployedModel, traced: onnx.ModelProto) -> None:
    graph = exported(module, traced, "fp16")
    types = {tensor.name: tensor.data_type for tensor in graph.model.graph.initializer}
    for key in ("levels.2.blocks.0.mlp.fc1.weight_t", "levels.1.blocks.0.conv1.weight_folded"):
        assert types[key] == onnx.TensorProto.FLOAT16
    assert types["levels.2.blocks.0.norm1.weight"] == onnx.TensorProto.FLOAT
    image = torch.tensor(reference.load_case(CASE).image)
    twin = typed_twin(module, "fp16", default_policy())
    with torch.inference_mode():
        exact, found = module(image), twin(image)
    assert isinstance(exact, torch.Tensor)
    assert isinstance(found, torch.Tensor)
    distance = float((found - exact).norm() / exact.norm())
    assert 0 < distance <= 4 * HALF * ROUNDINGS**0.5
    (ran,) = run(graph.model, image.numpy())
    assert np.linalg.norm(ran - found.numpy()) <= 4 * HALF * ROUNDINGS**0.5 * float(exact.norm())


def test_seeded_weights_give_finite_answers_that_differ(module: DeployedModel) -> None:
    network = network_of(reference.load_case(CASE))
    seed_weights(network, 0)
    with torch.inference_mode():
        found = network(torch.tensor(reference.load_case(CASE).image))
    assert bool(torch.isfinite(found).all())
    # The scan adds the bias of its steps twice; together they are Mamba's.
    bias = network.state_dict()["levels.2.blocks.0.mixer.dt_proj.bias"]
    steps = torch.nn.functional.softplus(2 * bias)
    assert bool(((steps > 0.0009) & (steps < 0.11)).all())
