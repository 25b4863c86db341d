"""``--scan-body unrolled``: whole models whose scans need no loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.models import tiny_config
from tests.unit.graph.test_export_graph import BOUND, deployed, images, session
from vim_deploy.artifact.metadata import read_export
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.graph.export_graph import ExportedGraph, export_graph
from vim_deploy.graph.inventory import take_inventory
from vim_deploy.graph.opset import OPSETS
from vim_deploy.graph.verify import check_graph, summarize
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.ops.functions import attach_functions
from vim_deploy.runtimes.torch.runner import TorchRunner

#: Of a whole model, both bodies in float32; measured up to 4e-7.
RELATIVE_L2 = 1e-5


def exported(
    config: VimConfig | None = None, dump: Path | None = None, **changes: object
) -> tuple[DeployedModel, ExportedGraph]:
    module, info = deployed(config or tiny_config())
    info = replace(info, scan_body="unrolled", **changes)
    return module, export_graph(module, info, batch=None, dump=dump)


def operators(model: onnx.ModelProto) -> set[str]:
    held = (model.graph, *model.functions)
    return {node.op_type for item in held for node in item.node}


@pytest.mark.parametrize(
    ("graph", "changes"),
    [
        ("base", {}),
        ("fused", {"if_cls_token": False}),
        ("fused-low-rank", {"use_double_cls_token": True}),
        ("fused", {"bimamba_type": "v1"}),
        ("fused", {"bimamba_type": "none", "if_bidirectional": True}),
    ],
    ids=str,
)
def test_same_numbers_as_the_scan(graph: str, changes: dict[str, object]) -> None:
    config = tiny_config(**changes)
    module, (model, summary, *_) = exported(config, graph=graph)
    scan = onnx.ModelProto()
    scan.CopyFrom(model)
    attach_functions(scan)
    assert (summary.loops, summarize(scan, 2).loops) == (0, 1)
    assert not {"Scan", "Loop", "If"} & operators(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for batch in (1, 2, 5):
        image = images(module, batch)
        found = session(model).run(None, {"image": image})[0]
        expected = session(scan).run(None, {"image": image})[0]
        assert np.linalg.norm(found - expected) <= RELATIVE_L2 * np.linalg.norm(expected)
        np.testing.assert_allclose(found, TorchRunner(module).run(image)["logits"], atol=BOUND)


@pytest.mark.parametrize("opset", [min(OPSETS), max(OPSETS)])
def test_opsets(opset: int) -> None:
    module, (model, *_) = exported(tiny_config(depth=1), opset=opset, graph="fused")
    onnx.checker.check_model(model, full_check=True)
    image = images(module, 2)
    found = session(model).run(None, {"image": image})[0]
    np.testing.assert_allclose(found, TorchRunner(module).run(image)["logits"], atol=BOUND)


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, Path]:
    """A fused model of one block without loops, and the folder with its dumps."""
    folder = tmp_path_factory.mktemp("dumps")
    return exported(tiny_config(depth=1), graph="fused", dump=folder)[1].model, folder


@pytest.fixture
def both(dumped: tuple[onnx.ModelProto, Path]) -> dict[str, onnx.ModelProto]:
    """The model with either body."""
    models = {"unrolled": onnx.ModelProto(), "scan": onnx.ModelProto()}
    for model in models.values():
        model.CopyFrom(dumped[0])
    attach_functions(models["scan"])
    return models


def test_main_graph_is_the_same(both: dict[str, onnx.ModelProto]) -> None:
    # Only what a runtime without the plugin inlines is another.
    assert both["unrolled"].graph == both["scan"].graph
    changed = [
        first.name
        for first, second in zip(both["unrolled"].functions, both["scan"].functions, strict=True)
        if first != second
    ]
    assert changed == ["VimBiSelectiveScan"]


def test_dumps_have_the_same_body(dumped: tuple[onnx.ModelProto, Path]) -> None:
    files = sorted(dumped[1].glob("*.onnx"))
    assert len(files) == 6
    for file in files:
        assert not {"Scan", "Loop"} & operators(onnx.load(file))


def test_inventory_does_not_depend_on_the_body(both: dict[str, onnx.ModelProto]) -> None:
    assert take_inventory(both["unrolled"], 3) == take_inventory(both["scan"], 3)


@pytest.mark.parametrize(("built", "promised"), [("scan", "unrolled"), ("unrolled", "scan")])
def test_checker_finds_the_other_body(
    both: dict[str, onnx.ModelProto], built: str, promised: str
) -> None:
    check_graph(both[built], tiny_config(depth=1), "fused", built)
    with pytest.raises(VimDeployError, match="not what it should be") as caught:
        check_graph(both[built], tiny_config(depth=1), "fused", promised)
    assert caught.value.code == "VIM-502"
    assert "loops instead of" in caught.value.why


def test_a_record_from_before_the_choice_means_scan() -> None:
    older = encode(deployed(tiny_config())[1])
    del older["scan_body"]
    assert read_export(older, lambda why: VimDeployError("VIM-410", why)).scan_body == "scan"
