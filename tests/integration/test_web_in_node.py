"""Models in onnxruntime-web under node, as pages run them; reference cases in one process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support import consumers, reference, web
from tests.support.models import config_of
from tests.support.packages import classifier
from tests.support.reference import BOUND
from vim_deploy.artifact import Artifact
from vim_deploy.codec import encode
from vim_deploy.packaging.web_runtime import FILES
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

DIGITS = 20

Array = np.ndarray[Any, np.dtype[Any]]
InNode = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A package, whose page is the same for every model."""
    return web.made_page(tmp_path_factory.mktemp("page"), pytestconfig)


@pytest.fixture
def in_node(page: Path, tmp_path: Path) -> InNode:
    """Runs jobs against the page; what went wrong is an error of the test."""
    return lambda *jobs: web.answers(page, jobs, tmp_path)


@pytest.fixture(scope="module")
def reference_runs(
    page: Path, tmp_path_factory: pytest.TempPathFactory, folder_of_traces: Path
) -> dict[str, list[tuple[Array, Array]]]:
    """What onnxruntime-web gives for standalone files of cases, beside the official outputs."""
    folder = tmp_path_factory.mktemp("cases")
    wanted: dict[str, tuple[Array, ...]] = {}
    jobs = []
    files = consumers.files_of(folder_of_traces.parent, "scan")
    for name in consumers.TRIED:
        stored = reference.arrays_of(files / f"{name}.npz")
        wanted[name] = tuple(stored[f"output_{number}"] for number in range(len(stored) - 1))
        jobs.append(web.infer_job(folder, name, files / f"{name}.onnx", stored["image"]))
    answers = web.in_node(page, jobs, folder)
    found = {}
    for name, job, item in zip(wanted, jobs, answers, strict=True):
        assert "error" not in item, f"{name}: {item}"
        # In the graph's order, which is that of the official outputs.
        outputs = web.outputs_of(job, item["answer"])
        names = [value.name for value in onnx.load(job["model"]).graph.output]
        found[name] = [
            (outputs[key], official) for key, official in zip(names, wanted[name], strict=True)
        ]
    return found


@pytest.mark.parametrize("name", consumers.TRIED)
def test_standalone_files_give_the_official_outputs(
    name: str, reference_runs: dict[str, list[tuple[Array, Array]]]
) -> None:
    for found, official in reference_runs[name]:
        assert found.shape == official.shape
        assert np.abs(found - official).max() <= BOUND


def test_other_forms_run_as_in_onnx_runtime(in_node: InNode, tmp_path: Path) -> None:
    case = reference.load_case(reference.DIGITS)
    forms: dict[str, dict[str, Any]] = {
        "functions": {},
        "unrolled": {"scan_body": "unrolled", "graph": "fused"},
        "fp16": {"precision": "fp16", "standalone": True},
        "fp16 functions": {"precision": "fp16", "io_precision": "fp16"},
        "labels": {"head": "topk:3", "preprocess": "uint8"},
    }
    pixels = np.random.default_rng(4).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
    jobs, wanted = [], []
    for name, options in forms.items():
        path = tmp_path / f"{name}.onnx"
        export("vim-digits", path, ExportOptions(check=False, **options))
        runner = OrtRunner(path)
        (spec,) = Artifact.open(path).inputs
        image = pixels if spec.dtype == "uint8" else case.image[:2].astype(spec.dtype)
        wanted.append(runner.run(image.astype(runner.input.dtype)))
        jobs.append(web.infer_job(tmp_path, name, path, image))
    for job, answer, outputs in zip(jobs, in_node(*jobs), wanted, strict=True):
        found = web.outputs_of(job, answer)
        assert found.keys() == outputs.keys()
        for key, value in outputs.items():
            # One rounding of float16 per operator at most: its sums are made in float32.
            bound = 2**-8 if "fp16" in job["model"] else BOUND
            difference = np.abs(found[key].astype(np.float64) - value).max()
            assert difference <= bound * max(1, np.abs(value).max()), job["model"]


def test_weights_beside_the_model_are_found(in_node: InNode, tmp_path: Path) -> None:
    path = classifier(tmp_path / "toy.onnx")
    image = np.random.default_rng(0).random((1, 1, 2, 3)).astype(np.float32)
    wanted = OrtRunner(path).run(image)["logits"]
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="w.data", size_threshold=0
    )
    job = web.infer_job(tmp_path, "toy", path, image)
    job["beside"] = [{"path": "w.data", "file": str(tmp_path / "w.data")}]
    found = web.outputs_of(job, in_node(job)[0])["logits"]
    assert np.abs(found - wanted).max() <= BOUND


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs Vim-Ti")
def test_vim_tiny_gives_the_official_output(in_node: InNode, tmp_path: Path) -> None:
    case = reference.load_case(reference.FULL_SIZE)
    request = ModelRequest(str(case.checkpoint), config=encode(config_of(case)))
    options = ExportOptions(standalone=True, check=False)
    path = export(request, tmp_path / "tiny.onnx", options).path
    job = web.infer_job(tmp_path, "tiny", path, case.image)
    (found,) = web.outputs_of(job, in_node(job)[0]).values()
    assert np.abs(found - case.output).max() <= BOUND


def test_the_runtime_is_the_one_that_was_tested(page: Path) -> None:
    assert {path.name for path in (page / "runtime").iterdir()} == set(FILES)
