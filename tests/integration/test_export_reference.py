"""Every reference case: checkpoint file to ONNX file to ONNX Runtime, against the official output.

Each file runs as it is, and with the library of native ops. 1e-4 is the bound the project promises
for ONNX Runtime; measured differences are below 1e-5.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support import reference
from tests.support.models import config_of
from tests.support.ort_ops import built_library, kernels_run, open_session
from tests.support.reference import BOUND
from vim_deploy.codec import encode
from vim_deploy.ops import OPS, contract
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.base import run_in_batches
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.specs import GraphForm
from vim_deploy.stages import verify
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import ExportResult, export
from vim_deploy.stages.verifying import VerifyOptions

#: Every case, in the two forms that export makes by itself.
FUSED = [
    (name, graph)
    for name in reference.cases()
    for graph in ("fused", "fused-low-rank")
    if name != reference.DIGITS
]
FULL_SIZE = [
    pytest.param(reference.FULL_SIZE, graph, marks=[pytest.mark.reference, pytest.mark.slow])
    for graph in ("fused", "fused-low-rank")
]
#: The base graph, on cases that differ in what the passes meet.
BASE = [
    (name, "base") for name in ("A01_middle_cls", "A08_bimamba_v1", "A18_d_state8", "A22_ssm_cfg")
]


Exports = Callable[[str, GraphForm], ExportResult]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """The file of a case in a form, exported once for the tests of this module."""
    folder = tmp_path_factory.mktemp("exports")

    @functools.cache
    def exported(name: str, graph: GraphForm) -> ExportResult:
        case = reference.load_case(name)
        request = ModelRequest(str(case.checkpoint), config=encode(config_of(case)))
        # The comparisons below are stricter than the export's own check.
        options = ExportOptions(graph=graph, check=False)
        return export(request, folder / f"{name}-{graph}.onnx", options)

    return exported


@pytest.mark.parametrize(("name", "graph"), [*FUSED, *FULL_SIZE, *BASE])
def test_exported_file_gives_the_official_output(
    name: str, graph: GraphForm, exports: Exports
) -> None:
    case = reference.load_case(name)
    config = config_of(case)
    result = exports(name, graph)
    assert result.summary.scans == config.layers_run * config.scans_per_layer
    fuses = graph != "base" and config.direction_type == "v2" and config.scans_per_layer == 2
    assert result.summary.fused_scans == (config.layers_run if fuses else 0)
    assert result.summary.flips == 0 or config.flips_sequence
    runner = OrtRunner(result.path)
    rows = np.arange(5) % len(case.image)
    for batch in (1, 2, 5):
        found = run_in_batches(runner, case.image[rows], batch)[runner.outputs[0]]
        assert np.abs(found - case.output[rows]).max() <= BOUND, batch


@pytest.mark.parametrize(("name", "graph"), [*FUSED, *FULL_SIZE, *BASE])
def test_native_ops_give_the_official_output(
    name: str, graph: GraphForm, exports: Exports, tmp_path: Path
) -> None:
    case = reference.load_case(name)
    result = exports(name, graph)
    session = open_session(result.path, built_library(), profile=tmp_path / "profile")
    rows = np.arange(5) % len(case.image)
    batches = (1, 2, 5)
    for batch in batches:
        (found,) = session.run(None, {"image": case.image[rows[:batch]]})
        assert np.abs(found - case.output[rows[:batch]]).max() <= BOUND, batch
    # Every node of ours ran as a kernel of the library, none as its function.
    ours = {op: result.summary.ops.get(f"{contract.DOMAIN}::{op}", 0) for op in OPS}
    assert kernels_run(session, len(batches)) == {op: count for op, count in ours.items() if count}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    return export("vim-digits", path).path


def test_digits_predictions_are_the_stored_ones(digits: Path) -> None:
    case = reference.load_case(reference.DIGITS)
    found = run_in_batches(OrtRunner(digits), case.image, 32)["logits"]
    assert np.abs(found - case.output).max() <= BOUND
    assert (found.argmax(1) == case.output.argmax(1)).all()


def test_digits_predictions_of_native_ops(digits: Path) -> None:
    case = reference.load_case(reference.DIGITS)
    (found,) = open_session(digits, built_library()).run(None, {"image": case.image})
    assert len(found) == 360
    assert np.abs(found - case.output).max() <= BOUND
    assert (found.argmax(1) == case.output.argmax(1)).all()


def test_digits_averaged_weights(tmp_path: Path) -> None:
    case = reference.load_case(reference.DIGITS)
    request = ModelRequest(str(case.checkpoint), use_ema=True, config=encode(config_of(case)))
    result = export(request, tmp_path / "ema.onnx", ExportOptions(check=False))
    assert result.info.checkpoint.part == "model_ema"
    found = run_in_batches(OrtRunner(result.path), case.image, 64)["logits"]
    assert (found.argmax(1) == case.outputs["output_ema"].argmax(1)).all()


def test_verify_against_stored_outputs_and_checkpoint(digits: Path) -> None:
    case = reference.load_case(reference.DIGITS)
    # By ones, twos and fives, as is the default, 360 pictures take long.
    options = VerifyOptions(batches=(7, 45))
    stored = verify(digits, str(reference.SMALL / f"{reference.DIGITS}.npz"), options)
    assert stored.passed
    assert {item.rows for result in stored.results for item in result.comparisons} == {360}
    live = verify(digits, str(case.checkpoint), VerifyOptions(random=3, batches=(1, 3)))
    assert live.passed
    json.dumps(encode(live), allow_nan=False)


@pytest.mark.parametrize("name", ["A01_middle_cls", "A10_if_bidirectional", "A12_rope_residual"])
def test_block_outputs_in_the_exported_file(name: str, tmp_path: Path) -> None:
    # Tensor names say what they are: the mixer's last node and the block's own sum.
    import onnx

    case = reference.load_case(name)
    config = config_of(case)
    request = ModelRequest(str(case.checkpoint), config=encode(config))
    path = export(request, tmp_path / "model.onnx", ExportOptions(check=False)).path
    model = onnx.load(path)
    names = {output for node in model.graph.node for output in node.output}
    wanted = {
        block: (
            f"block_{block:02d}/mixer/out_proj/MatMul_output_0",
            f"block_{block:02d}/Add_output_0",
        )
        for block in case.blocks
    }
    kept = {tensor for pair in wanted.values() for tensor in pair if tensor in names}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None)
        for tensor in sorted(kept)
    )
    onnx.save(model, path)
    found = OrtRunner(path).run(case.image)
    compared = 0
    for block, pair in wanted.items():
        for kind, tensor in zip(("hidden", "residual"), pair, strict=True):
            if tensor not in kept:
                continue
            value = found[tensor]
            stored = case.extras[f"block_{block:02d}_{kind}"]
            if config.mirrored(block):
                stored = stored[:, ::-1]
            assert np.abs(value - stored).max() <= BOUND, tensor
            compared += 1
    assert compared >= len(case.blocks)
