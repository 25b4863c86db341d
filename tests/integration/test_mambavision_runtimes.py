"""MambaVision in every runtime: official checkpoints and outputs, through the commands' functions.

The two cases have several sizes of the scan in one file, and windows that divide no level.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import reference
from tests.support.builds import build_engine_trt
from tests.support.ort_ops import built_library
from tests.support.reference import BOUND
from tests.support.trt_builds import VERSIONS, make_machine
from vim_deploy.artifact import Artifact
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin.ort_library import LIBRARY_VARIABLE
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

pytest.importorskip("torch", reason="not checked here: torch is not installed")
CASES = reference.mambavision_cases()
#: Scans of a case: its mixers.
SCANS = {"M01": 3, "M02": 4}


def request_of(name: str) -> ModelRequest:
    case = reference.load_case(name)
    config = {"family": "mambavision", **case.kwargs, "img_size": list(case.image.shape[2:])}
    return ModelRequest(str(case.checkpoint), config=config)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("mambavision")
    made = {}
    for name in CASES:
        made[name] = export(
            request_of(name), folder / f"{name}.onnx", ExportOptions(check=False)
        ).path
    return made


@pytest.fixture(scope="module")
def standalone(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ExportOptions(check=False, standalone=True, scan_body="unrolled")
    path = tmp_path_factory.mktemp("standalone") / "m02.onnx"
    return export(request_of(CASES[1]), path, options).path


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ops", ["function", "native"])
def test_official_outputs_in_onnx_runtime(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, Path], name: str, ops: str
) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, str(built_library()))
    case = reference.load_case(name)
    runner = OrtRunner(files[name], threads=1, ops=ops)  # type: ignore[arg-type]
    assert (runner.library is not None) == (ops == "native")
    for batch in (1, 3):
        image = np.repeat(case.image[:1], batch, axis=0)
        found = runner.run(image)["logits"]
        assert np.abs(found - case.output[:1]).max() <= BOUND


def test_official_outputs_in_openvino(standalone: Path) -> None:
    pytest.importorskip("openvino")
    case = reference.load_case(CASES[1])
    options = RunnerOptions(runtime="openvino")
    with open_runner(Artifact.open(standalone), options) as runner:
        found = runner.run(case.image[:1])["logits"]
    assert np.abs(found - case.output[:1]).max() <= BOUND


@pytest.mark.parametrize("version", VERSIONS)
def test_engines_hold_the_scans_as_plugins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, Path], version: str
) -> None:
    name = CASES[1]
    make_machine(monkeypatch, tmp_path, version)
    record = build_engine_trt(files[name], tmp_path / "m.plan", precision="fp16")
    assert record.plugin_layers == {"VimSelectiveScan": SCANS[name[:3]]}
    assert record.precision == "fp16"
    assert record.export is not None
    assert record.export.model_config.family == "mambavision"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"graph": "fused"}, "VIM-203"),
        ({"head": "tokens"}, "VIM-203"),
        ({"head": "labels"}, "VIM-202"),
    ],
)
def test_what_it_has_not_is_refused(tmp_path: Path, options: dict[str, str], code: str) -> None:
    with pytest.raises(VimDeployError) as caught:
        export(
            request_of(CASES[0]),
            tmp_path / "m.onnx",
            ExportOptions(check=False, **options),  # type: ignore[arg-type]
        )
    assert caught.value.code == code
    assert not (tmp_path / "m.onnx").exists()
