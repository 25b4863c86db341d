"""Every reference case in half precision: base and fused graphs in ONNX Runtime, and the twin.

By default fused graphs in float16 and base ones in bfloat16; VIM_TEST_ALL=1 runs both in both, as
four cases always do: those that differ in what the passes meet.

The graphs run with every rounding explicit, since ONNX Runtime's CPU provider rounds less than a
GPU does. Bounds: fp16 1e-2 relative L2 against the official output, as the project promises; bf16
8e-2, eight times its unit roundoff's share (``parity.metrics``).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support import reference
from tests.support.models import config_of
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.codec import encode
from vim_deploy.families.vim.fusion.run import run_passes
from vim_deploy.graph.export_graph import export_graph
from vim_deploy.graph.precision import apply_precision
from vim_deploy.graph.verify import check_graph, fused_mixers
from vim_deploy.heads import parse_head
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.load import load_model
from vim_deploy.model.precision import typed_twin
from vim_deploy.ops.functions import attach_functions
from vim_deploy.precisions import TABLE, Precision
from vim_deploy.recipe.precision_policy import default_policy
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.base import run_in_batches
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.runtimes.torch.runner import TorchRunner
from vim_deploy.specs import GraphForm
from vim_deploy.stages import verify
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export
from vim_deploy.stages.verifying import VerifyOptions

BOUND = 1e-4
CASES = [
    *(name for name in reference.cases() if name != reference.DIGITS),
    pytest.param(reference.FULL_SIZE, marks=[pytest.mark.reference, pytest.mark.slow]),
]
#: Of the digits files, with their inputs and outputs.
IO_PRECISIONS: tuple[tuple[Precision, Precision], ...] = (("fp16", "fp16"), ("bf16", "fp32"))
HALVES: tuple[Precision, ...] = ("fp16", "bf16")
#: Forms by precision: all, and those that most cases run in by default.
ALL_FORMS: dict[Precision, tuple[GraphForm, ...]] = dict.fromkeys(HALVES, ("base", "fused"))
FORMS: dict[Precision, tuple[GraphForm, ...]] = {"fp16": ("fused",), "bf16": ("base",)}
WHOLE = ("A01_middle_cls", "A08_bimamba_v1", "A18_d_state8", "A22_ssm_cfg")


def loaded(case: reference.ReferenceCase) -> tuple[DeployedModel, ExportInfo]:
    config = config_of(case)
    found = load_model(ModelRequest(str(case.checkpoint), config=encode(config)))
    head = parse_head("logits", config)
    module = DeployedModel(found.module, found.image, "none", head)
    info = ExportInfo(
        model=found.name,
        model_config=config,
        checkpoint=found.checkpoint,
        image=found.image,
        preprocess="none",
        head="logits",
        graph="base",
        precision="fp32",
        opset=18,
        pos_embed=found.pos_embed,
        tool_version="0",
        settings_hash="",
    )
    return module, info


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def run(model: onnx.ModelProto, folder: Path, images: np.ndarray, batch: int) -> np.ndarray:
    path = folder / "model.onnx"
    onnx.save(model, path)
    # One thread: on a busy machine, several that wait for each other are many times slower.
    runner = OrtRunner(path, threads=1)
    return run_in_batches(runner, images, batch)[runner.outputs[0]]


@pytest.mark.parametrize("name", CASES)
def test_half_precision_graphs_give_the_official_output(name: str, tmp_path: Path) -> None:
    case = reference.load_case(name)
    module, info = loaded(case)
    config = module.model.config
    base = export_graph(module, info, batch=None).model
    fused = onnx.ModelProto()
    fused.CopyFrom(base)
    run_passes(fused, expected=fused_mixers(config, "fused"))
    attach_functions(fused)
    rows = np.arange(2 if name == reference.FULL_SIZE else 5) % len(case.image)
    images, expected = case.image[rows], case.output[rows]
    assert np.abs(run(base, tmp_path, images, 5) - expected).max() <= BOUND
    graphs: dict[GraphForm, onnx.ModelProto] = {"base": base, "fused": fused}
    forms = ALL_FORMS if name in WHOLE or os.environ.get("VIM_TEST_ALL") else FORMS
    for precision in HALVES:
        twin = TorchRunner(typed_twin(module, precision, default_policy()), precision, threads=1)
        assert distance(twin.run(images)["logits"], expected) <= TABLE[precision].relative_l2
        for form in forms[precision]:
            typed = onnx.ModelProto()
            typed.CopyFrom(graphs[form])
            apply_precision(typed, precision, default_policy())
            check_graph(typed, config, form)
            # Batches of 3 and 2.
            found = run(typed, tmp_path, images, 3)
            assert np.isfinite(found).all()
            assert distance(found, expected) <= TABLE[precision].relative_l2, form


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The digits model in each half precision; float16 with inputs and outputs of its own type."""
    folder = tmp_path_factory.mktemp("digits")
    return {
        precision: export(
            "vim-digits",
            folder / f"{precision}.onnx",
            ExportOptions(precision=precision, io_precision=io_precision),
        ).path
        for precision, io_precision in IO_PRECISIONS
    }


@pytest.mark.parametrize(("precision", "changed"), [("fp16", 1), ("bf16", 4)])
def test_digits_predictions(digits: dict[str, Path], precision: str, changed: int) -> None:
    # fp16: the project's promise of 1 in 360; bf16 rounds eight times as coarsely.
    case = reference.load_case(reference.DIGITS)
    runner = OrtRunner(digits[precision], threads=1)
    assert runner.input.dtype == "float32"
    found = run_in_batches(runner, case.image, 32)["logits"]
    assert (found.argmax(1) != case.output.argmax(1)).sum() <= changed
    assert distance(found, case.output) <= TABLE[precision].relative_l2


def test_onnx_runtime_by_itself_rounds_less(digits: dict[str, Path]) -> None:
    # The reason for explicit_rounding; when this fails, ONNX Runtime has changed its casts.
    case = reference.load_case(reference.DIGITS)
    images = case.image[:64]
    runners = [OrtRunner(digits["fp16"], threads=1, as_stored=plain) for plain in (True, False)]
    plain, explicit = (
        distance(run_in_batches(runner, images, 64)["logits"], case.output[:64])
        for runner in runners
    )
    assert plain < explicit <= TABLE["fp16"].relative_l2


def test_verify_knows_the_precision_of_a_file(digits: dict[str, Path]) -> None:
    case = reference.load_case(reference.DIGITS)
    for twin in (False, True):
        options = VerifyOptions(random=3, batches=(3,), twin=twin)
        report = verify(digits["bf16"], str(case.checkpoint), options)
        assert report.passed
        assert report.tolerance.relative_l2 == TABLE["bf16"].relative_l2
        assert report.reference.endswith("bf16") == twin
    strict = VerifyOptions(random=3, batches=(3,), limits={"relative_l2": 1e-5})
    assert not verify(digits["bf16"], str(case.checkpoint), strict).passed
