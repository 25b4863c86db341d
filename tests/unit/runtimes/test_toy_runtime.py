"""A runtime from outside the package: one module and one row of the table, through every stage."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest
from onnx.reference import ReferenceEvaluator

from tests.support.packages import classifier
from tests.support.sick_models import INFO
from vim_deploy import runtimes
from vim_deploy.artifact import Artifact
from vim_deploy.bench.subject import load_runtime
from vim_deploy.bench.subject import open_runner as open_for_bench
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import Array, Runner, RunnerOptions, for_others
from vim_deploy.runtimes.building.request import BuildRequest
from vim_deploy.runtimes.inputs import check_input
from vim_deploy.stages import run, verify
from vim_deploy.stages.building import build
from vim_deploy.stages.diagnosis import diagnose
from vim_deploy.stages.verifying import VerifyOptions

# What a runtime's folder has: what is here, a runner with its opening, and a builder.


def load() -> ModuleType:
    return onnx


def describe() -> str:
    return f"onnx {onnx.__version__}, node by node"


class ToyRunner(Runner):
    """ONNX's own evaluator."""

    name = "toy"

    def __init__(self, artifact: Artifact) -> None:
        (self.input,) = artifact.inputs
        self.outputs = tuple(spec.name for spec in artifact.outputs)
        self._evaluator = ReferenceEvaluator(artifact.model)

    def run(self, image: Array, size: Array | None = None) -> Mapping[str, Array]:
        check_input(self.input, image)
        values: Any = self._evaluator.run(list(self.outputs), {self.input.name: image})
        return dict(zip(self.outputs, values, strict=True))


def open_runner(artifact: Artifact, options: RunnerOptions) -> ToyRunner:
    if options.plugin is not None:
        raise for_others("--plugin", "engines", artifact.name)
    return ToyRunner(artifact)


class ToyBuilder:
    """An engine of this runtime is a copy."""

    def refuse(self, request: BuildRequest) -> None:
        if request.compute_capabilities:
            raise VimDeployError("VIM-203", "--compute-capability: not with toy", fix="leave it")

    def build(self, request: BuildRequest, _progress: object) -> Path:
        return Path(shutil.copy(request.model, request.plan))


BUILDER = ToyBuilder()
ROW = runtimes.Runtime(
    name="toy",
    title="the toy",
    package="onnx",
    extra="toy",
    purpose="playing",
    doctor="engine: toy",
    takes=(".toy",),
    capability=__name__,
    open=f"{__name__}:open_runner",
    builder=f"{__name__}:BUILDER",
    chosen="it is always there",
)


@pytest.fixture
def in_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "RUNTIMES", (ROW, *runtimes.RUNTIMES))


def picture(folder: Path) -> Path:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(folder / "a.png")
    return folder


def test_a_toy_runtime_goes_through_every_stage(
    tmp_path: Path, in_table: None, caplog: pytest.LogCaptureFixture
) -> None:
    model = classifier(tmp_path / "m.onnx", info=INFO)
    with caplog.at_level(logging.INFO, "vim_deploy"):
        assert runtimes.choose_runtime() is ROW
    assert "runtime: toy (it is always there)" in caplog.text

    engine = tmp_path / "m.toy"
    build(BuildRequest(model, engine, runtime="toy"))
    assert engine.read_bytes() == model.read_bytes()
    with pytest.raises(VimDeployError, match="not with toy"):
        build(BuildRequest(model, engine, runtime="toy", compute_capabilities=("8.6",)))

    pictures = picture(tmp_path / "pictures")
    mine, theirs = run(engine, pictures), run(model, pictures)
    assert (mine.runtime, theirs.runtime.split(" 1.")[0]) == ("toy", "ONNX Runtime")
    assert [item.index for item in mine.images[0].top] == [
        item.index for item in theirs.images[0].top
    ]
    verify(engine, str(model), VerifyOptions(random=2, batches=(1, 2))).require_passed()
    load_runtime("toy")
    assert open_for_bench("toy", {"path": str(engine), "max_batch": 2}, threads=1).name == "toy"


def test_doctor_describes_it(in_table: None) -> None:
    subjects = [item.subject for item in diagnose()]
    (found,) = (item for item in diagnose() if item.subject == "engine: toy")
    assert (found.ok, found.detail) == (True, f"onnx {onnx.__version__}, node by node")
    assert subjects.index("reports: jinja2") < subjects.index("engine: toy")
    assert subjects.index("engine: toy") < subjects.index("GPU")


def test_it_refuses_what_it_does_not_know(tmp_path: Path, in_table: None) -> None:
    engine = classifier(tmp_path / "m.onnx", info=INFO).rename(tmp_path / "m.toy")
    artifact = Artifact.open(engine)
    with pytest.raises(VimDeployError, match=r"--plugin is for engines, and m\.toy is none"):
        runtimes.open_runner(artifact, RunnerOptions(plugin=Path("x.so")))


def test_without_its_row_nobody_knows_it(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError, match="'toy' is not a runtime"):
        runtimes.choose_runtime("toy")
    with pytest.raises(VimDeployError, match="'toy' is not a runtime"):
        runtimes.runtime_named("toy")
    assert "engine: toy" not in [item.subject for item in diagnose()]


@pytest.mark.parametrize("row", runtimes.RUNTIMES, ids=lambda row: row.name)
def test_every_row_names_what_is_there(row: runtimes.Runtime) -> None:
    for place in (row.open, row.builder):
        assert not place or runtimes.named(place)
    if row.capability:
        functions = ("load", "describe", *(["supported_version"] if row.needs_gpu else []))
        assert all(callable(runtimes.named(f"{row.capability}:{name}")) for name in functions)
    assert bool(row.open) == bool(row.takes)
