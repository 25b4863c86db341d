"""Faults planted in exported files: verify finds each, and names block, role and direction.

Base files hold one scan node a direction, fused files both directions in one; a fault has to be
found in either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch

from tests.support import plant
from tests.support.models import perturbed, save_training_file, tiny_config
from vim_deploy.artifact import metadata
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.fusion.run import run_passes
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.ops import BI_SELECTIVE_SCAN, SELECTIVE_SCAN
from vim_deploy.ops.functions import attach_functions
from vim_deploy.parity.report import ParityReport
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.stages import verify
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export
from vim_deploy.stages.verifying import VerifyOptions

DEPTH = 8
ONE_IMAGE = VerifyOptions(random=1, batches=(1,), per_block=True)
A = SELECTIVE_SCAN.inputs.index("A")
A_OF_PAIR = BI_SELECTIVE_SCAN.inputs.index("A")


class Model(NamedTuple):
    """A checkpoint and right exports of it."""

    checkpoint: Path
    base: Path
    fused: Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("faults")
    config = tiny_config(depth=DEPTH)
    module = perturbed(VisionMamba(config))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "dt_proj" in name and name.endswith("bias"):
                # Step sizes about 1: where an early softplus makes a difference.
                parameter.add_(4)
    checkpoint = save_training_file(module, folder / "true.pth")
    request = ModelRequest(str(checkpoint), config=encode(config))
    base = export(request, folder / "base.onnx", ExportOptions(graph="base", check=False)).path
    graph = onnx.load(base)
    info = metadata.find(graph)
    assert info is not None
    run_passes(graph, expected=DEPTH)
    attach_functions(graph)
    metadata.attach(graph, dataclasses.replace(info, graph="fused"))
    onnx.save(graph, folder / "fused.onnx")
    return Model(checkpoint, base, folder / "fused.onnx")


def verified(path: Path, model: Model, fault: Callable[[onnx.ModelProto], None]) -> ParityReport:
    """The report on a copy of ``path`` with the fault."""
    graph = onnx.load(path)
    fault(graph)
    wrong = path.with_name(f"wrong_{path.name}")
    onnx.save(graph, wrong)
    return verify(wrong, str(model.checkpoint), ONE_IMAGE)


def assert_named(report: ParityReport, place: str, role: str) -> None:
    """Caught, and the right part named in the report and in the error."""
    assert report.blocks is not None
    assert not report.passed
    first = report.blocks.first
    assert first is not None, report.blocks.verdict
    assert (str(first.place), first.place.role) == (place, role)
    with pytest.raises(VimDeployError) as caught:
        report.require_passed()
    assert caught.value.code == "VIM-702"
    assert place in caught.value.message
    stored = encode(report)["blocks"]
    assert (stored["first"]["place"], stored["first"]["role"]) == (place, role)
    before = [part for part in report.blocks.parts if part.place < first.place]
    assert all(part.relative_l2 < 1e-5 for part in before)


@pytest.mark.parametrize("form", ["base", "fused"])
def test_the_right_files_pass(model: Model, form: str) -> None:
    report = verify(getattr(model, form), str(model.checkpoint), ONE_IMAGE)
    report.require_passed()
    assert report.blocks is not None
    assert report.blocks.missing == ()
    assert len(report.blocks.growth("out_proj")) == DEPTH
    assert len(report.blocks.growth("residual")) == DEPTH - 1


def test_one_weight_of_block_7_base(model: Model) -> None:
    def fault(graph: onnx.ModelProto) -> None:
        plant.change_weight(graph, "layers.7.mixer.x_proj_b.weight_t", raise_one((3, 1)))

    assert_named(verified(model.base, model, fault), "block 7 x_proj bwd", "x_proj")


def test_one_weight_of_block_7_fused(model: Model) -> None:
    def fault(graph: onnx.ModelProto) -> None:
        plant.change_weight(
            graph, "layers.7.mixer.x_proj_pair.weight_packed", raise_one((1, 0, 3, 1))
        )

    assert_named(verified(model.fused, model, fault), "block 7 x_proj bwd", "x_proj")


def raise_one(index: tuple[int, ...]) -> Callable[[plant.Values], plant.Values]:
    def change(values: plant.Values) -> plant.Values:
        values[index] += 0.01
        return values

    return change


def test_scan_direction_reversed_base(model: Model) -> None:
    def fault(graph: onnx.ModelProto) -> None:
        plant.reverse_scan(graph, "block_05/mixer/bwd/scan/VimSelectiveScan")

    assert_named(verified(model.base, model, fault), "block 5 scan bwd", "scan")


def test_scan_direction_reversed_fused(model: Model) -> None:
    def fault(graph: onnx.ModelProto) -> None:
        # The blocks share one function: the first block shows it.
        plant.scan_forward_twice(plant.function_of(graph, BI_SELECTIVE_SCAN.name))

    assert_named(verified(model.fused, model, fault), "block 0 scan bwd", "scan")


def test_a_untransposed_base(model: Model) -> None:
    def fault(graph: onnx.ModelProto) -> None:
        scan = plant.node_of(graph, "block_03/mixer/fwd/scan/VimSelectiveScan")
        plant.change_weight(graph, scan.input[A], plant.lay_out_wrongly)

    assert_named(verified(model.base, model, fault), "block 3 scan fwd", "scan")


def test_a_untransposed_fused(model: Model) -> None:
    def backward_only(values: plant.Values) -> plant.Values:
        return np.stack([values[0], plant.lay_out_wrongly(values[1])])

    def fault(graph: onnx.ModelProto) -> None:
        scan = plant.node_of(graph, "block_03/mixer/scan/VimBiSelectiveScan")
        plant.change_weight(graph, scan.input[A_OF_PAIR], backward_only)

    assert_named(verified(model.fused, model, fault), "block 3 scan bwd", "scan")


def test_nan_of_one_direction_is_not_taken_for_the_other_s(model: Model) -> None:
    def backward_bias(values: plant.Values) -> plant.Values:
        values[1] = np.nan
        return values

    def fault(graph: onnx.ModelProto) -> None:
        plant.change_weight(graph, "layers.6.mixer.conv1d_pair.b", backward_bias)

    report = verified(model.fused, model, fault)
    assert_named(report, "block 6 conv bwd", "conv")
    assert report.blocks is not None
    found = {str(part.place): part.relative_l2 for part in report.blocks.parts}
    assert found["block 6 scan fwd"] < 1e-5
    assert found["block 6 scan bwd"] == float("inf")


#: PyTorch's threshold is 20, where both sides are equal to float32's last bit.
THRESHOLD = 2.0


def test_softplus_threshold_base(model: Model) -> None:
    def fault(graph: onnx.ModelProto) -> None:
        scan = "block_04/mixer/bwd/scan/VimSelectiveScan"
        plant.early_softplus(plant.own_function(graph, scan), THRESHOLD)

    assert_named(verified(model.base, model, fault), "block 4 scan bwd", "scan")


def test_softplus_threshold_fused(model: Model) -> None:
    def fault(graph: onnx.ModelProto) -> None:
        plant.early_softplus(plant.function_of(graph, BI_SELECTIVE_SCAN.name), THRESHOLD)

    assert_named(verified(model.fused, model, fault), "block 0 scan fwd", "scan")


@pytest.mark.parametrize("form", ["base", "fused"])
def test_class_token_index_off_by_one(model: Model, form: str) -> None:
    report = verified(getattr(model, form), model, plant.take_next_token)
    assert_named(report, "features", "pooling")


def test_class_token_put_in_one_place_too_late(model: Model) -> None:
    def swap(values: plant.Values) -> plant.Values:
        place = int(np.argmax(values))
        values[[place, place + 1]] = values[[place + 1, place]]
        return values

    def fault(graph: onnx.ModelProto) -> None:
        plant.change_weight(graph, "class_tokens.order", swap)

    assert_named(verified(model.fused, model, fault), "tokens", "tokens")
