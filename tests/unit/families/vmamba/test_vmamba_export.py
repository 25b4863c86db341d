"""VMamba's exported graph: four scans a block on the one op, and the official output."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support import reference
from vim_deploy.ops.functions import nodes_of
from vim_deploy.places import parse
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.base import run_in_batches
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages import verify
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export
from vim_deploy.stages.verifying import VerifyOptions

CASE = "V01_vmamba"
ALL = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")


def exported(folder: Path, **options: Any) -> Path:
    case = reference.load_case(CASE)
    height, width = case.image.shape[2:]
    request = ModelRequest(str(case.checkpoint), image_size=(height, width))
    return export(request, folder / "v.onnx", ExportOptions(**options)).path


def off(path: Path) -> float:
    """From the official logits, in batches of one and of two."""
    case = reference.load_case(CASE)
    runner = OrtRunner(path, threads=1)
    found = [run_in_batches(runner, case.image, batch)["logits"] for batch in (1, 2)]
    return max(float(np.abs(logits - case.output).max()) for logits in found)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("vmamba"))


def test_four_scans_a_block_and_no_flip(path: Path) -> None:
    graph = onnx.load(path).graph
    scans = nodes_of(graph)
    ways = Counter(
        (place.block, place.part, place.direction)
        for place in (parse(node.name).place for node in scans)
    )
    wanted = [
        (block, f"scan_{along}", way)
        for block in range(3) for along in ("rows", "columns") for way in ("fwd", "bwd")
    ]  # fmt: skip
    assert ways == Counter(wanted)
    for node in scans:
        said = {item.name: item.i for item in node.attribute}
        assert said["reverse"] == (parse(node.name).direction == "bwd")
        assert (said["has_z"], len(node.input)) == (0, 6)
    # Every other sequence is made by moving axes: rows and columns share nothing but the map.
    assert not {node.op_type for node in graph.node} & {"Gather", "ReverseSequence", "Where"}
    kinds = {item.name for item in graph.initializer}
    assert "layers.0.blocks.0.op.conv2d.weight" in kinds


def test_onnx_runtime_gives_the_official_output(path: Path) -> None:
    assert off(path) <= reference.BOUND


def test_part_by_part(path: Path) -> None:
    case = reference.load_case(CASE)
    options = VerifyOptions(random=2, batches=(2,), per_block=True)
    report = verify(path, str(case.checkpoint), options)
    assert report.passed
    assert report.blocks is not None
    # 12 of a block's parts have a direction, and 11 have none.
    parts = [str(found.place) for found in report.blocks.parts]
    assert len([part for part in parts if part.startswith("block 1 ")]) == 23
    assert "downsample_0" in parts


@ALL
@pytest.mark.parametrize(
    "options",
    [
        {"standalone": True},
        {"scan_body": "unrolled"},
        {"scan_body": "unrolled", "standalone": True},
        {"batch": 2, "opset": 21},
    ],
    ids=str,
)
def test_other_forms(options: dict[str, Any], tmp_path: Path) -> None:
    path = exported(tmp_path, **options)
    case = reference.load_case(CASE)
    if "batch" not in options:
        assert off(path) <= reference.BOUND
    found = OrtRunner(path, threads=1).run(case.image)["logits"]
    assert np.abs(found - case.output).max() <= reference.BOUND


@ALL
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_and_its_twin(precision: str, tmp_path: Path) -> None:
    path = exported(tmp_path, precision=precision)
    case = reference.load_case(CASE)
    options = VerifyOptions(random=3, batches=(3,), twin=True, per_block=True)
    assert verify(path, str(case.checkpoint), options).passed
