"""An exported Vision Mamba, its scans as local functions, through TensorRT-RTX."""

from __future__ import annotations

import os

import onnx
import pytest

from tests.support.builds import build_engine_rtx, needs_rtx
from vim_deploy.artifact.marked_tensors import DEBUG, OUTPUT
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import read_record
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.runtimes.building.request import TrtOptions
from vim_deploy.specs import CheckpointInfo, ImagePreparation
from vim_deploy.stages.inspecting import inspect

torch = pytest.importorskip("torch", reason="not checked here: torch is not installed")

pytestmark = [
    pytest.mark.rtx,
    needs_rtx,
]
LONG = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")


@pytest.mark.parametrize("precision", ["", "fp16"])
def test_inner_tensors_are_in_the_network_of_nvidias_parser(tmp_path, precision):
    """Every one is found by name and marked; running such an engine needs a GPU of TensorRT-RTX."""
    from tests.support.models import perturbed, save_training_file, tiny_config
    from vim_deploy.families.vim.network.vim import VisionMamba
    from vim_deploy.recipe.schema import ModelRequest
    from vim_deploy.stages.export_options import ExportOptions
    from vim_deploy.stages.exporting import export

    config = tiny_config()
    checkpoint = save_training_file(perturbed(VisionMamba(config)), tmp_path / "tiny.pth")
    request = ModelRequest(str(checkpoint), config=encode(config))
    model = export(request, tmp_path / "m.onnx", ExportOptions(graph="fused", check=False)).path
    plan = tmp_path / "m.plan"
    options = ProfileOptions(max_batch=4)
    record = build_engine_rtx(
        model, plan, profiles=options, precision=precision, options=TrtOptions(inner_tensors=True)
    )
    assert read_record(plan) == record
    assert record.precision == precision
    debug = {item.name for item in record.inner_tensors if item.how == DEBUG}
    places = {str(item.place) for item in record.inner_tensors if item.how == DEBUG}
    assert len(debug) == 19
    assert {"tokens", "block 0 norm", "block 1 conv bwd", "block 1 mixed", "norm_f"} <= places
    assert {spec.name for spec in record.outputs} == {"logits"} | {
        item.name for item in record.inner_tensors if item.how == OUTPUT
    }
    assert build_engine_rtx(
        model, plan, profiles=options, precision=precision, options=TrtOptions(inner_tensors=True)
    ).up_to_date
    with pytest.raises(VimDeployError, match="VIM-204"):
        build_engine_rtx(model, plan, profiles=options, precision=precision)


@pytest.mark.parametrize(
    ("batch", "head", "graph", "scan_body"),
    [
        (None, "topk:2", "base", "scan"),
        (3, "logits", "fused", "scan"),
        (None, "logits", "fused-low-rank", "scan"),
        pytest.param(None, "logits", "base", "unrolled", marks=LONG),
        (None, "logits", "fused", "unrolled"),
    ],
)
def test_exported_model_becomes_an_engine(tmp_path, batch, head, graph, scan_body):
    from vim_deploy.families.vim.network.vim import VisionMamba
    from vim_deploy.graph.export_graph import export_graph
    from vim_deploy.heads import parse_head
    from vim_deploy.model.deployed import DeployedModel

    config = VimConfig(
        img_size=32, patch_size=8, stride=8, depth=2, embed_dim=32, num_classes=5, d_state=4
    )
    image = ImagePreparation(32, 32)
    info = ExportInfo(
        model="custom",
        model_config=VimConfig(),
        checkpoint=CheckpointInfo("seed:0", "", "seeded"),
        image=image,
        preprocess="none",
        head=head,
        graph=graph,
        precision="fp32",
        opset=18,
        pos_embed="unchanged",
        tool_version="0",
        settings_hash="0",
        scan_body=scan_body,
    )
    torch.manual_seed(0)
    module = DeployedModel(VisionMamba(config), image, "none", parse_head(head, config))
    model, *_ = export_graph(module, info, batch=batch)
    onnx.save(model, tmp_path / "model.onnx")

    options = ProfileOptions(max_batch=4) if batch is None else ProfileOptions()
    record = build_engine_rtx(tmp_path / "model.onnx", tmp_path / "m.plan", profiles=options)
    assert record.export == info
    assert inspect(tmp_path / "m.plan")["record"] == encode(record)
    (shapes,) = (profile.shapes[record.inputs[0].name] for profile in record.profiles)
    expected = (1, 4, 4) if batch is None else (3, 3, 3)
    assert (shapes.min[0], shapes.opt[0], shapes.max[0]) == expected
    assert len(record.outputs) == (2 if head.startswith("topk") else 1)


def test_a_float32_file_is_typed_in_memory(tmp_path):
    from tests.support.models import perturbed, save_training_file, tiny_config
    from vim_deploy.families.vim.network.vim import VisionMamba
    from vim_deploy.recipe.schema import ModelRequest
    from vim_deploy.stages.export_options import ExportOptions
    from vim_deploy.stages.exporting import export

    config = tiny_config()
    checkpoint = save_training_file(perturbed(VisionMamba(config)), tmp_path / "tiny.pth")
    request = ModelRequest(str(checkpoint), config=encode(config))
    model = export(request, tmp_path / "m.onnx", ExportOptions(check=False)).path
    before = model.read_bytes()
    options = ProfileOptions(max_batch=2)
    plan = tmp_path / "m.plan"
    record = build_engine_rtx(model, plan, profiles=options, precision="fp16")
    assert model.read_bytes() == before
    assert record.precision == record.export.precision == "fp16"
    assert record.lowering[0].startswith("typed as fp16")
    assert build_engine_rtx(model, plan, profiles=options, precision="fp16").up_to_date
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
