"""``inspect --graph`` of dense models: what stands behind the blocks is counted by itself."""

from __future__ import annotations

from tests.support.reference import checkpoint_path
from vim_deploy.graph.export_graph import named_trace
from vim_deploy.graph.inventory import BlockInventory, take_inventory
from vim_deploy.heads import parse_head
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.load import load_model
from vim_deploy.ops.functions import attach_functions
from vim_deploy.recipe.schema import ModelRequest


def inventory(case: str, head: str) -> dict[str, BlockInventory]:
    loaded = load_model(ModelRequest(str(checkpoint_path(case))))
    network = loaded.module
    parsed = parse_head(head, network.config, network.dense)
    module = DeployedModel(network, loaded.image, "none", parsed)
    model = named_trace(module, None)
    attach_functions(model)
    return {block.name: block for block in take_inventory(model, 1)}


def test_neck_and_head_of_a_segmentation_network() -> None:
    found = inventory("E01_upernet", "logits+aux")
    assert list(found)[-3:] == ["neck", "decode_head", "outside"]
    assert found["neck"].ops["ConvTranspose"] == 3
    head = found["decode_head"]
    # 3 lateral, 4 pooled, bottleneck, 3 and 1 behind them, logits; the auxiliary head has two.
    assert head.ops["Conv"] == 3 + 4 + 1 + 3 + 1 + 1 + 2
    # A ReLU is done with its convolution, and sizes are put together before anything runs.
    sums_and_joins = head.ops["Resize"] + head.ops["Add"] + 2
    assert head.launches == head.ops["Conv"] + head.ops["MatMul"] + sums_and_joins
    assert "Conv" in found["outside"].ops
    assert "Relu" not in found["outside"].ops


def test_pyramid() -> None:
    found = inventory("D08_det_sfp", "features")
    assert list(found)[-2:] == ["neck", "outside"]
    assert found["neck"].ops["LayerNormalization"] == 9
