"""Packages of detectors for Triton: two inputs, five outputs, and a client that finds things."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.support.cpp import detector
from tests.support.detectors import boxes_in, described, detections_of, stand_in
from tests.support.packages import SERVED, names_of
from vim_deploy.codec import decode
from vim_deploy.errors import VimDeployError
from vim_deploy.images import batch_from_crops, fit_from
from vim_deploy.packaging.golden import differences, read_golden
from vim_deploy.packaging.manifest import read_manifest
from vim_deploy.packaging.repository import ServingOptions, model_config
from vim_deploy.packaging.servable import read_servable
from vim_deploy.parity.limits import DetectionLimits
from vim_deploy.parity.metrics import tolerance_for
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.scene.paste import pasted
from vim_deploy.stages import check_package, package
from vim_deploy.stages.packaging import PackageOptions

pytest.importorskip("onnxruntime")

SIDE, ROWS = 64, 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package for the python backend."""
    folder = tmp_path_factory.mktemp("detector")
    path = stand_in(folder / "finder.onnx", SIDE, rows=ROWS)
    serving = ServingOptions(runtime="python", max_batch=8)
    return package(path, folder / "made", PackageOptions(serving)).folder


@pytest.fixture(scope="module")
def client() -> SimpleNamespace:
    found = names_of(SERVED / "client.py")
    return SimpleNamespace(**vars(names_of(SERVED / "client_detections.py")) | vars(found))


def facts_of(made: Path) -> dict[str, Any]:
    return dict(read_manifest(made).about)


def picture(folder: Path, width: int, height: int, name: str = "picture.png") -> Path:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(folder / name)
    return folder / name


def test_the_configuration_has_two_inputs(made: Path) -> None:
    text = (made / "models/finder/config.pbtxt").read_text()
    assert '  name: "size"\n  data_type: TYPE_INT64\n  dims: [ 2 ]\n' in text
    # A count for each picture: no axis is left without the batch, and Triton knows no such tensor.
    count = '  name: "count"\n  data_type: TYPE_INT64\n  dims: [ 1 ]\n  reshape {\n  }\n'
    assert count in text
    assert text.count('key: "size"') == text.count('key: "image"') > 0
    checks = {item.name: item for item in check_package(made).checks}
    assert checks["golden output"].checked
    assert checks["configuration"].checked or "tritonclient" in checks["configuration"].detail


def test_pictures_come_one_by_one_unless_asked(tmp_path: Path) -> None:
    made = package(stand_in(tmp_path / "finder.onnx", SIDE), tmp_path / "made").folder
    assert "max_batch_size: 1\n" in (made / "models/finder/config.pbtxt").read_text()
    given, _ = read_golden(made / "golden.npz")
    assert given.sizes is not None
    # The one stored picture does not fill the input.
    assert given.sizes.tolist() == [[SIDE // 2, SIDE]]


def test_an_engine_has_warm_up_and_graphs_with_both_inputs(tmp_path: Path) -> None:
    plan = detector(64).write(tmp_path)
    config = model_config(read_servable(plan), ServingOptions(cuda_graphs=True))
    assert config["max_batch_size"] == 4
    for inputs in (
        config["optimization"]["cuda"]["graph_spec"][0]["input"],
        config["model_warmup"][0]["inputs"],
    ):
        assert {name: given.get("dim", given.get("dims")) for name, given in inputs.items()} == {
            "image": (1, 64, 64),
            "size": (2,),
        }


def test_what_the_manifest_says(made: Path) -> None:
    about = facts_of(made)
    assert about["size"] == {"name": "size", "dtype": "int64", "shape": ["batch", 2]}
    assert [spec["name"] for spec in about["outputs"]] == [
        "boxes",
        "scores",
        "classes",
        "masks",
        "count",
    ]
    assert about["fit"]["longer_side"] == SIDE
    assert (about["fit"]["interpolation"], about["fit"]["padding"]) == ("bilinear", 0)
    assert about["detector"]["score_threshold"] == 0.05
    assert about["detector"]["detections"] == ROWS
    assert about["labels"] == ["thing 0", "thing 1", "thing 2"]


def test_stored_pictures_have_sizes(made: Path, tmp_path: Path) -> None:
    given, outputs = read_golden(made / "golden.npz")
    assert given.sizes is not None
    assert given.sizes.tolist() == [[SIDE // 2, SIDE], [SIDE, SIDE], [SIDE, SIDE * 3 // 4]]
    assert outputs["count"].tolist() == [detections_of(ROWS)] * 3
    assert np.all(outputs["boxes"][0, :, 3] <= SIDE // 2)
    # Zeros before the pixels were normalised.
    zero = batch_from_crops(np.zeros((1, SIDE, SIDE, 3), np.uint8), described(SIDE).image, "none")
    np.testing.assert_array_equal(given.images[0, :, SIDE // 2 :], zero[0, :, SIDE // 2 :])


def test_a_model_whose_inputs_are_not_its_heads_is_refused(tmp_path: Path) -> None:

    info = dataclasses.replace(described(SIDE), head="features")
    with pytest.raises(VimDeployError, match="head is features") as caught:
        package(stand_in(tmp_path / "m.onnx", SIDE, info=info), tmp_path / "made")
    assert caught.value.code == "VIM-426"


#: Sizes whose shorter side is a half, whose longer side is the input's, and that nearly vanish.
SIZES = [(64, 64), (64, 40), (100, 150), (150, 100), (33, 200), (500, 3), (3, 500), (17, 9)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["RGB", "L"])
def test_pictures_are_fitted_as_in_vim_deploy(
    client: SimpleNamespace, made: Path, tmp_path: Path, size: tuple[int, int], kind: str
) -> None:
    path = picture(tmp_path, *size)
    PIL.Image.open(path).convert(kind).save(path)
    row, inside, own = client.fit(path, facts_of(made))
    how = described(SIDE).image
    pixels, wanted = fit_from(path, how)
    assert (inside, own) == (wanted, (size[1], size[0]))
    np.testing.assert_array_equal(row, batch_from_crops([pixels], how, "none")[0])


def test_a_turned_photograph_is_turned_upright(
    client: SimpleNamespace, made: Path, tmp_path: Path
) -> None:
    path, exif = tmp_path / "turned.jpg", PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.open(picture(tmp_path, 90, 40)).save(path, exif=exif)
    row, inside, own = client.fit(path, facts_of(made))
    pixels, wanted = fit_from(path, described(SIDE).image)
    assert own == (90, 40)
    assert inside == wanted
    np.testing.assert_array_equal(row, batch_from_crops([pixels], described(SIDE).image, "none")[0])


def filled(mask: dict[str, Any]) -> np.ndarray:
    """A mask of run lengths, as bool [height, width]."""
    height, width = mask["size"]
    values = np.arange(len(mask["counts"])) % 2 == 1
    return np.repeat(values, mask["counts"]).reshape(width, height).T


def test_masks_are_pasted_as_in_vim_deploy(client: SimpleNamespace) -> None:
    random, size = np.random.default_rng(0), (37, 53)
    for box in boxes_in(*size, 40):
        mask = random.random((28, 28)).astype(np.float32)
        part, corner = client.pasted(mask, box, size)
        wanted = pasted(mask, box, size)
        assert corner == (wanted.top, wanted.left)
        np.testing.assert_array_equal(part, wanted.pixels)
        whole = np.zeros(size, bool)
        whole[corner[0] :, corner[1] :][: part.shape[0], : part.shape[1]] = part
        np.testing.assert_array_equal(filled(client.run_lengths(part, corner, size)), whole)


def test_a_mask_that_fills_the_picture_is_one_run(client: SimpleNamespace) -> None:
    found = client.run_lengths(np.ones((3, 2), bool), (0, 0), (3, 2))
    assert found["counts"] == [0, 6, 0]
    assert client.run_lengths(np.zeros((3, 2), bool), (0, 0), (3, 2))["counts"] == [6]


def answers(made: Path, sizes: list[list[int]]) -> dict[str, np.ndarray]:
    images = np.zeros((len(sizes), 3, SIDE, SIDE), np.float32)
    return dict(OrtRunner(made / "models/finder/1/model.onnx").run(images, np.array(sizes)))


def test_detections_are_those_of_the_picture(client: SimpleNamespace, made: Path) -> None:
    outputs = answers(made, [[32, 64]])
    outputs["boxes"] = outputs["boxes"].copy()
    outputs["boxes"][0, 1, 2] = outputs["boxes"][0, 1, 0]
    found = client.detections(outputs, 0, facts_of(made), ((32, 64), (100, 200)))
    assert len(found) == detections_of(ROWS) - 1, "a box without area, and rows behind the count"
    assert [entry["label"] for entry in found] == ["thing 0", "thing 2", "thing 0"]
    scale = np.array([200 / 64, 100 / 32] * 2, np.float32)
    np.testing.assert_array_equal(found[0]["box"], outputs["boxes"][0, 0] * scale)
    mask = filled(found[0]["mask"])
    assert mask.shape == (100, 200)
    assert mask.sum() == found[0]["area"] > 0


def test_the_client_prints_what_was_found(
    client: SimpleNamespace, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = OrtRunner(made / "models/finder/1/model.onnx")
    model = SimpleNamespace(infer=lambda images, sizes: dict(runner.run(images, sizes)))
    pictures = [picture(tmp_path, 80, 60, "a.png"), tmp_path / "none.png", picture(tmp_path, 9, 30)]
    options = SimpleNamespace(pictures=pictures, batch=8, top=None, json=False, score=0.0)
    assert client.run(model, facts_of(made), options) == 1
    said = capsys.readouterr()
    assert "none.png: not a file" in said.err
    lines = [line.split("\t") for line in said.out.splitlines()]
    assert len(lines) == 2 * detections_of(ROWS)
    assert lines[0][0].endswith("a.png")
    assert lines[0][1] == "0 thing 0"
    assert lines[0][4].endswith(" pixels")
    options.json, options.top = True, 2
    client.run(model, facts_of(made), options)
    first, _ = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [entry["class"] for entry in first["detections"]] == [0, 1]
    assert first["detections"][0]["mask"]["size"] == [60, 80]
    options.json, options.score = False, 1.0
    client.run(model, facts_of(made), options)
    assert capsys.readouterr().out.count("nothing found") == 2


def test_a_request_of_two_inputs(client: SimpleNamespace, made: Path) -> None:
    images, sizes = np.zeros((2, 3, SIDE, SIDE), np.float32), np.array([[1, 2], [3, 4]], np.int32)
    body, length = client.encode(facts_of(made), images, sizes)
    header = json.loads(body[:length])
    assert [(item["name"], item["datatype"], item["shape"]) for item in header["inputs"]] == [
        ("image", "FP32", [2, 3, SIDE, SIDE]),
        ("size", "INT64", [2, 2]),
    ]
    np.testing.assert_array_equal(np.frombuffer(body[-32:], np.int64), [1, 2, 3, 4])
    counts = client.as_exported({"count": np.array([[2], [3]])}, facts_of(made))
    assert counts["count"].tolist() == [2, 3]


def test_the_servers_watch_asks_with_both_inputs(made: Path) -> None:
    watch = names_of(SERVED / "server_watch.py")
    facts = watch.Facts(facts_of(made))
    body, length = watch.Probe.zeros(facts)
    given = json.loads(body[:length])["inputs"]
    assert [(item["name"], item["shape"]) for item in given] == [
        ("image", [1, 3, SIDE, SIDE]),
        ("size", [1, 2]),
    ]
    assert len(body) - length == 3 * SIDE * SIDE * 4 + 16
    # An engine of TensorRT 8.6 knows no 64-bit integers.
    about = facts_of(made)
    narrow = {**about, "size": {**about["size"], "dtype": "int32"}}
    body, length = watch.Probe.zeros(watch.Facts(narrow))
    assert json.loads(body[:length])["inputs"][1]["datatype"] == "INT32"
    assert len(body) - length == 3 * SIDE * SIDE * 4 + 8


def test_without_masks_and_with_a_fixed_batch(
    client: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stand_in(tmp_path / "two.onnx", SIDE, masks=False, batch=2)
    made = package(path, tmp_path / "made", PackageOptions(ServingOptions(runtime="python"))).folder
    text = (made / "models/two/config.pbtxt").read_text()
    assert 'name: "count"\n  data_type: TYPE_INT64\n  dims: [ 2 ]\n}' in text
    assert "dims: [ 2, 2 ]" in text
    assert check_package(made).checks
    runner = OrtRunner(made / "models/two/1/model.onnx")
    model = SimpleNamespace(infer=lambda images, sizes: dict(runner.run(images, sizes)))
    options = SimpleNamespace(
        pictures=[picture(tmp_path, 20, 30)], batch=8, top=1, json=True, score=0.0
    )
    assert client.run(model, facts_of(made), options) == 0
    (entry,) = json.loads(capsys.readouterr().out)["detections"]
    assert "mask" not in entry


def test_no_page_for_a_detector(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError, match="cannot be shown in a browser") as caught:
        package(stand_in(tmp_path / "finder.onnx"), tmp_path / "page", PackageOptions(target="web"))
    assert caught.value.code == "VIM-426"
    assert "--target triton" in caught.value.fix
    assert not (tmp_path / "page").exists()


LIMITS = {"boxes": 1e-3, "scores": 1e-4, "masks": 1e-3, "margin": 1e-4, "score_threshold": 0.05}


def changed(
    outputs: dict[str, np.ndarray], row: int, **values: tuple[int, float]
) -> dict[str, np.ndarray]:
    """A copy in which ``values`` were added to a detection's boxes, scores, ..."""
    found = {name: value.copy() for name, value in outputs.items()}
    for name, (at, change) in values.items():
        found[name][row, at] += change
    return found


def test_stored_detections_are_compared_by_what_they_are(
    client: SimpleNamespace, made: Path
) -> None:
    stored = answers(made, [[SIDE, SIDE], [20, SIDE]])
    assert client.differences(stored, stored, LIMITS) == []
    swapped = {name: value.copy() for name, value in stored.items()}
    for name in ("boxes", "scores", "classes", "masks"):
        swapped[name][0, [0, 1]] = swapped[name][0, [1, 0]]
    assert client.differences(stored, swapped, LIMITS) == []
    assert client.differences(stored, changed(stored, 1, boxes=(2, 5e-4)), LIMITS) == []
    (said,) = client.differences(stored, changed(stored, 1, boxes=(2, 0.1)), LIMITS)
    assert said.startswith("picture 1: boxes differ by up to 0.1")
    (said,) = client.differences(stored, changed(stored, 0, masks=(0, 0.01)), LIMITS)
    assert said.startswith("picture 0: masks differ")
    assert client.differences(stored, changed(stored, 0, classes=(1, 1)), LIMITS) == [
        "picture 0: 1 detections are only stored",
        "picture 0: 1 detections are only answered",
    ]
    fewer = {**stored, "count": stored["count"] - 1}
    assert client.differences(stored, fewer, LIMITS)[0].endswith("1 detections are only stored")
    # The last one's score may be what the model leaves out.
    least = float(stored["scores"][:, detections_of(ROWS) - 1].max())
    near = {**LIMITS, "score_threshold": least - 1e-5}
    assert client.differences(stored, fewer, near) == []
    nan = changed(stored, 0, scores=(0, np.nan))
    assert client.differences(stored, nan, LIMITS) == ["scores: NaN or Inf in the answer"]
    assert "another shape" in client.differences(stored, answers(made, [[9, 9]]), LIMITS)[0]


def test_an_answer_that_means_nothing(client: SimpleNamespace, made: Path) -> None:
    outputs = answers(made, [[SIDE, SIDE]])
    for name, change in (("count", 9), ("count", -9)):
        sick = {**outputs, name: outputs[name] + change}
        with pytest.raises(Exception, match="mean nothing"):
            client.detections(sick, 0, facts_of(made), ((9, 9), (9, 9)))
    sick = changed(outputs, 0, classes=(1, -3))
    with pytest.raises(Exception, match="mean nothing"):
        client.detections(sick, 0, facts_of(made), ((9, 9), (9, 9)))


def test_stored_detections_are_checked_as_such(made: Path) -> None:
    _, outputs = read_golden(made / "golden.npz")
    about = read_manifest(made).about
    limits = decode(about["golden"]["detections"], DetectionLimits, ValueError)
    assert limits.score_threshold == about["detector"]["score_threshold"]
    tolerance = tolerance_for("fp32")
    assert differences(outputs, outputs, tolerance, limits) == []
    swapped = {name: value.copy() for name, value in outputs.items()}
    for name in ("boxes", "scores", "classes", "masks"):
        swapped[name][0, [0, 1]] = swapped[name][0, [1, 0]]
    assert differences(outputs, swapped, tolerance, limits) == []
    assert differences(outputs, swapped, tolerance)
    moved = changed(dict(outputs), 0, boxes=(0, 0.5))
    assert differences(outputs, moved, tolerance, limits)[0].startswith("boxes: ")
    del moved["masks"]
    assert differences(outputs, moved, tolerance, limits) == ["masks: there is no such output"]
