"""Exported detectors in ONNX Runtime against what the official ones found, in every form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.detector_cases import DetectorCase, apart, detector_case
from tests.support.ort_ops import built_library
from tests.support.reference import Array
from vim_deploy.artifact import Artifact
from vim_deploy.heads import parse_head
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.model.load import load_model
from vim_deploy.onnx_graph import element_types
from vim_deploy.ops import PYRAMID_ROI_ALIGN, SORTED_NMS
from vim_deploy.plugin.ort_library import LIBRARY_VARIABLE
from vim_deploy.precisions import Precision
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.runtimes.torch.runner import TorchRunner
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

#: Pixels, scores and masks, as for PyTorch (tests/unit/model/test_detector_reference.py).
BOUNDS = np.array([1e-3, 1e-4, 1e-3])
#: Of half precision: steps of float16 at the sizes of these pictures are at most 1/16 pixel, and
#: maps of 11 bits move a box by some of them. Masks were at most 0.08 off.
HALF = np.array([0.5, 0.01, 0.15])
SHORT = ("F01", "F02")
#: A detection at the threshold, or the last of a full list, is one rounding from being none.
NEAR = 0.02
Files = dict[str, Path]


def exported(
    short: str,
    folder: Path,
    precision: Precision = "fp32",
) -> Path:
    case = detector_case(short)
    options = ExportOptions(precision=precision, check=False)
    request = ModelRequest(str(case.checkpoint), config=dict(case.config))
    return export(request, folder / f"{short}-{precision}.onnx", options).path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("detectors")
    return {short: exported(short, folder) for short in SHORT}


def outputs_of(path: Path, image: Array, size: Array) -> Mapping[str, Array]:
    with OrtRunner(path) as runner:
        found = runner.run(image, size)
    assert all(np.isfinite(value).all() for value in found.values())
    return found


def assert_official(
    path: Path, case: DetectorCase, bounds: Array = BOUNDS, *, near: float = 0.0
) -> None:
    """Every picture of ``case`` by itself; nothing more than the official detections in fp32."""
    for number, expected in enumerate(case.pictures):
        found = outputs_of(path, case.normalized(number), case.sizes(number))
        full = len(expected.boxes) == len(found["scores"][0])
        last = expected.scores.min() if full else 0.05
        assert (apart(found, 0, expected, last + near if near else 0.0) <= bounds).all()
        if near == 0.0:
            there = int(found["count"][0])
            assert there == len(expected.boxes)
            assert found["classes"][0, :there].tolist() == expected.classes.tolist()
            assert not any(found[name][0, there:].any() for name in found if name != "count")


@pytest.mark.parametrize("short", SHORT)
def test_as_exported(files: Files, short: str) -> None:
    assert_official(files[short], detector_case(short))


def test_pictures_of_one_batch_and_one_that_is_no_number(files: Files) -> None:
    case = detector_case("F01")
    image, size = case.normalized(0, 1, 2, 1), case.sizes(0, 1, 2, 1)
    image[3, 0, 40, 40] = np.nan
    with OrtRunner(files["F01"]) as runner:
        found = runner.run(image, size)
        again = runner.run(image[:1], size[:1])
    assert not any(value[3].any() for value in found.values())
    for row in range(3):
        assert (apart(found, row, case.pictures[row]) <= BOUNDS).all()
    # The run after one with NaN knows nothing of it.
    assert (apart(again, 0, case.pictures[0]) <= BOUNDS).all()


@pytest.mark.parametrize("short", SHORT)
def test_pictures_of_no_size(files: Files, short: str) -> None:
    image = detector_case(short).normalized(0, 0)
    found = outputs_of(files[short], image, np.array([[0, 0], [1, 1]], np.int64))
    assert not any(value[0].any() for value in found.values())
    assert (found["boxes"] <= 1).all()


@pytest.mark.parametrize("short", SHORT)
def test_native_ops(files: Files, short: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels for CPUs find the same, also in pictures that are none."""
    monkeypatch.setenv(LIBRARY_VARIABLE, str(built_library()))
    with OrtRunner(files[short], ops="native") as runner:
        assert runner.library is not None
        assert {SORTED_NMS.name, PYRAMID_ROI_ALIGN.name} <= set(runner.library.ops)
    case = detector_case(short)
    assert_official(files[short], case)
    image, size = case.normalized(0, 0, 0), case.sizes(0, 0, 0)
    size[1], image[2, 0, 40, 40] = 0, np.nan
    found = outputs_of(files[short], image, size)
    assert (apart(found, 0, case.pictures[0]) <= BOUNDS).all()
    assert not any(value[1:].any() for value in found.values())


def test_what_is_around_a_picture_does_not_matter(files: Files) -> None:
    case = detector_case("F01")
    image, size = case.normalized(1), case.sizes(1)
    height, width = size[0]
    image[:, :, height:], image[:, :, :, width:] = np.nan, 1e30
    found = outputs_of(files["F01"], image, size)
    assert (apart(found, 0, case.pictures[1]) <= BOUNDS).all()


@pytest.mark.parametrize("short", SHORT)
@pytest.mark.parametrize("body", ["scan", "unrolled"])
def test_standalone(files: Files, short: str, body: str, tmp_path: Path) -> None:
    """``unrolled`` is without NonMaxSuppression and RoiAlign as well."""
    options = ExportOptions(check=False, standalone=True, scan_body=body)  # type: ignore[arg-type]
    path = export(files[short], tmp_path / "s.onnx", options).path
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert ({"NonMaxSuppression", "RoiAlign"} <= operators) == (body == "scan")
    assert_official(path, detector_case(short))


@pytest.mark.parametrize("short", SHORT)
def test_half_precision(short: str, tmp_path: Path) -> None:
    path = exported(short, tmp_path, "fp16")
    assert_official(path, detector_case(short), HALF, near=NEAR)
    model = Artifact.open(path).model
    types = element_types(model)
    aligned = [node for node in model.graph.node if node.op_type == "VimPyramidRoiAlign"]
    assert aligned
    for node in aligned:
        assert {types[name] for name in (*node.input, *node.output)} == {onnx.TensorProto.FLOAT}


def test_pixels_of_a_file() -> None:
    """The preparation in the graph, before it is traced: bytes, whatever is around the picture."""
    case = detector_case("F01")
    loaded = load_model(ModelRequest(str(case.checkpoint), config=dict(case.config)))
    network = loaded.module
    head = parse_head(None, network.config, network.dense)
    module = DeployedModel(network, loaded.image, "uint8", head)
    image = np.full((1, case.side, case.side, 3), 255, np.uint8)
    height, width = case.pictures[1].size
    image[0, :height, :width] = case.pictures[1].resized
    found = TorchRunner(module).run(image, case.sizes(1))
    assert (apart(found, 0, case.pictures[1]) <= BOUNDS).all()
