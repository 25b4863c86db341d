"""What a page computes, under node: models in onnxruntime-web, preparation, heads, maps.

The page's own modules run here, in one process of node for all reference cases.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest

from tests.support import reference, web
from tests.support.dense_graphs import expected_outputs, traced
from tests.support.models import config_of
from tests.support.packages import classifier
from tests.support.scenes import export_e01
from vim_deploy import heads
from vim_deploy.artifact import Artifact
from vim_deploy.codec import encode
from vim_deploy.graph.standalone import standalone
from vim_deploy.images import INTERPOLATIONS, batch_from_crops, crop_from
from vim_deploy.packaging.web_runtime import FILES
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.scene.classifying import top_predictions
from vim_deploy.scene.segment import Scene, SceneModel, run_scenes
from vim_deploy.scene.windows import scene_settings
from vim_deploy.specs import ImagePreparation
from vim_deploy.stages import package
from vim_deploy.stages.exporting import ExportOptions, export
from vim_deploy.stages.packaging import PackageOptions

#: As for ONNX Runtime, of which this is a build; measured: 2.2e-5 at most.
BOUND = 1e-4
DIGITS = 20

Array = np.ndarray[Any, np.dtype[Any]]
InNode = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A package, whose page is the same for every model."""
    web.require_node()
    runtime = web.runtime_of(pytestconfig)
    folder = tmp_path_factory.mktemp("page")
    toy = classifier(folder / "toy.onnx")
    options = PackageOptions(target="web", web_runtime=runtime)
    return package(toy, folder / "page", options).folder


@pytest.fixture
def in_node(page: Path, tmp_path: Path) -> InNode:
    """Runs jobs against the page; what went wrong is an error of the test."""

    def run(*jobs: dict[str, Any]) -> list[Any]:
        answers = web.in_node(page, jobs, tmp_path)
        assert not [item["error"] for item in answers if "error" in item]
        return [item["answer"] for item in answers]

    return run


def infer_job(folder: Path, name: str, model: Path, image: Array) -> dict[str, Any]:
    """The job that runs ``image`` through ``model``."""
    (folder / f"{name}.in").write_bytes(np.ascontiguousarray(image).tobytes())
    return {
        "kind": "infer",
        "model": str(model),
        "input": str(folder / f"{name}.in"),
        "type": image.dtype.name,
        "dims": image.shape,
        "to": str(folder / f"{name}.out"),
    }


def outputs_of(job: dict[str, Any], answer: list[dict[str, Any]]) -> dict[str, Array]:
    """The arrays that a job has left."""
    found = {}
    for item in answer:
        raw = Path(f"{job['to']}.{item['name']}").read_bytes()
        found[item["name"]] = np.frombuffer(raw, item["type"]).reshape(item["dims"])
    return found


@pytest.fixture(scope="module")
def reference_runs(
    page: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[Array, Array]]]:
    """What onnxruntime-web gives for every case's standalone file, beside the official outputs."""
    folder = tmp_path_factory.mktemp("cases")
    wanted: dict[str, tuple[Array, ...]] = {}
    jobs = []
    for name in reference.cases():
        case = reference.load_case(name)
        request = ModelRequest(str(case.checkpoint), config=encode(config_of(case)))
        options = ExportOptions(standalone=True, check=False)
        path = export(request, folder / f"{name}.onnx", options).path
        wanted[name] = (case.output[:DIGITS],)
        jobs.append(infer_job(folder, name, path, case.image[:DIGITS]))
    for name in reference.dense_cases():
        case = reference.load_case(name)
        head, wanted[name] = expected_outputs(case)
        path = folder / f"{name}.onnx"
        onnx.save(standalone(traced(name[:3], head).finished(graph="fused").model), path)
        jobs.append(infer_job(folder, name, path, case.image))
    answers = web.in_node(page, jobs, folder)
    found = {}
    for name, job, item in zip(wanted, jobs, answers, strict=True):
        assert "error" not in item, f"{name}: {item}"
        # In the graph's order, which is that of the official outputs.
        outputs = outputs_of(job, item["answer"])
        names = [value.name for value in onnx.load(job["model"]).graph.output]
        found[name] = [
            (outputs[key], official) for key, official in zip(names, wanted[name], strict=True)
        ]
    return found


@pytest.mark.parametrize("name", [*reference.cases(), *reference.dense_cases()])
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
        jobs.append(infer_job(tmp_path, name, path, image))
    for job, answer, outputs in zip(jobs, in_node(*jobs), wanted, strict=True):
        found = outputs_of(job, answer)
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
    job = infer_job(tmp_path, "toy", path, image)
    job["beside"] = [{"path": "w.data", "file": str(tmp_path / "w.data")}]
    found = outputs_of(job, in_node(job)[0])["logits"]
    assert np.abs(found - wanted).max() <= BOUND


def picture_job(folder: Path, name: str, pixels: Array) -> dict[str, Any]:
    """A picture as the driver reads it."""
    file = folder / f"{name}.pixels"
    file.write_bytes(np.ascontiguousarray(pixels).tobytes())
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return {"width": width, "height": height, "channels": channels, "file": str(file)}


def preparations() -> list[tuple[tuple[int, ...], ImagePreparation, str]]:
    """Sizes of pictures, preparations and modes: odd, tiny, elongated, exact; every filter."""
    generator = np.random.default_rng(7)
    found: list[tuple[tuple[int, ...], ImagePreparation, str]] = []
    sizes = [(1, 1), (2, 3), (37, 45), (64, 64), (7, 300), (301, 9), (33, 28), (250, 333)]
    for size in sizes:
        for interpolation in INTERPOLATIONS:
            channels = 1 if len(found) % 3 == 0 else 3
            given = (*size, 3) if len(found) % 2 else size
            height, width = (int(side) for side in generator.integers(5, 48, 2))
            if size == (64, 64):
                height = width = 56
            mean = tuple(float(value) for value in generator.random(channels))
            std = tuple(float(value) for value in generator.random(channels) + 0.1)
            ratio = (0.875, 1.0, 0.9)[len(found) % 3]
            how = ImagePreparation(height, width, channels, mean, std, ratio, interpolation)
            found.append((given, how, ("none", "normalize", "uint8")[(len(found) // 3) % 3]))
    return found


def test_preparation_is_that_of_python_bit_for_bit(in_node: InNode, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    jobs, wanted = [], []
    for number, (size, how, mode) in enumerate(preparations()):
        pixels = generator.integers(0, 256, size, dtype=np.uint8)
        crop = crop_from(pixels, how)
        wanted.append((crop, batch_from_crops([crop], how, mode)))
        dtype = "uint8" if mode == "uint8" else "float32"
        jobs.append(
            {
                "kind": "input",
                "picture": picture_job(tmp_path, str(number), pixels),
                "model": {
                    "image": encode(how),
                    "preprocess": mode,
                    "input": {"dtype": dtype, "shape": ["batch"]},
                },
                "to": str(tmp_path / f"{number}.made"),
            }
        )
    for job, answer, (crop, batch) in zip(jobs, in_node(*jobs), wanted, strict=True):
        assert Path(f"{job['to']}.crop").read_bytes() == crop.tobytes(), job
        assert tuple(answer["dims"]) == batch.shape
        found = np.frombuffer(Path(f"{job['to']}.input").read_bytes(), batch.dtype)
        assert found.tobytes() == batch.tobytes(), job


def test_a_fixed_batch_is_filled_with_the_picture(in_node: InNode, tmp_path: Path) -> None:
    how = ImagePreparation(4, 5, 3, crop_ratio=1.0)
    pixels = np.random.default_rng(8).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    job = {
        "kind": "input",
        "picture": picture_job(tmp_path, "it", pixels),
        "model": {
            "image": encode(how),
            "preprocess": "none",
            "input": {"dtype": "float32", "shape": [3, 3, 4, 5]},
        },
        "to": str(tmp_path / "it.made"),
    }
    (answer,) = in_node(job)
    assert answer["dims"] == [3, 3, 4, 5]
    found = np.fromfile(f"{job['to']}.input", np.float32).reshape(answer["dims"])
    assert (found == batch_from_crops([pixels] * 3, how, "none")).all()


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs Vim-Ti")
def test_vim_tiny_gives_the_official_output(in_node: InNode, tmp_path: Path) -> None:
    case = reference.load_case(reference.FULL_SIZE)
    request = ModelRequest(str(case.checkpoint), config=encode(config_of(case)))
    options = ExportOptions(standalone=True, check=False)
    path = export(request, tmp_path / "tiny.onnx", options).path
    job = infer_job(tmp_path, "tiny", path, case.image)
    (found,) = outputs_of(job, in_node(job)[0]).values()
    assert np.abs(found - case.output).max() <= BOUND


def test_halves_are_those_of_numpy(in_node: InNode) -> None:
    generator = np.random.default_rng(5)
    values = np.concatenate(
        [
            generator.standard_normal(2000) * 10.0 ** generator.integers(-9, 6, 2000),
            np.arange(40) * 2.0**-26,
            [0.0, -0.0, 65504, 65519.99, 65520, -65520, 2**-14, 2**-14 - 2**-26, 1 + 2**-11],
        ]
    ).astype(np.float32)
    bits = np.arange(0, 1 << 16, 7, dtype=np.uint16)
    bits = bits[np.isfinite(bits.view(np.float16))]
    job = {"kind": "halves", "values": [float(v) for v in values], "bits": bits.tolist()}
    (answer,) = in_node(job)
    with np.errstate(over="ignore"):
        assert answer["bits"] == values.astype(np.float16).view(np.uint16).tolist()
    assert answer["values"] == bits.view(np.float16).astype(float).tolist()


@pytest.mark.parametrize("kind", ["RGBA", "LA"])
def test_transparency_is_dropped_and_colours_stay(
    kind: str, in_node: InNode, tmp_path: Path
) -> None:
    generator = np.random.default_rng(1)
    channels = len(kind)
    jobs, wanted = [], []
    for number, size in enumerate([(1, 1), (13, 7), (40, 61)]):
        # Smooth parts, so that Pillow chooses every filter; colours that nobody sees.
        ramp = np.add.outer(np.arange(size[0]) * 3, np.arange(size[1]) * 5)[..., None]
        noise = generator.integers(0, 40, (*size, channels))
        pixels = ((ramp + noise) % 256).astype(np.uint8)
        pixels[..., -1] = generator.integers(0, 3, size) * 100
        path = tmp_path / f"{number}.png"
        PIL.Image.fromarray(pixels, kind).save(path)
        how = "RGB" if kind == "RGBA" else "L"
        wanted.append(np.asarray(PIL.Image.open(io.BytesIO(path.read_bytes())).convert(how)))
        jobs.append({"kind": "alpha", "file": str(path), "to": str(tmp_path / f"{number}.raw")})
    for job, answer, pixels in zip(jobs, in_node(*jobs), wanted, strict=True):
        assert Path(job["to"]).read_bytes() == pixels.tobytes()
        assert (answer["height"], answer["width"]) == pixels.shape[:2]


def scores(head: str, classes: int) -> dict[str, Array]:
    """Outputs of a classifier's head for one picture, with equals among them."""
    values = np.random.default_rng(classes).standard_normal((1, classes)).astype(np.float32)
    values[0, -1] = values[0, 0]
    if head == "logits":
        return {"logits": values}
    shares = (np.exp(values) / np.exp(values).sum()).astype(np.float32)
    if head == "softmax":
        return {"probabilities": shares}
    order = np.argsort(-shares, axis=-1, kind="stable")[:, :3]
    return {"probabilities": np.take_along_axis(shares, order, -1), "classes": order}


@pytest.mark.parametrize(
    ("head", "classes", "labels"),
    [
        ("logits", 10, [f"class {number} <b>" for number in range(10)]),
        ("logits", 1, ["only"]),
        ("logits", 2, []),
        ("softmax", 7, ["a", "b"]),
        ("topk:3", 10, [str(number) for number in range(10)]),
    ],
)
def test_best_classes_are_those_of_run(
    head: str, classes: int, labels: list[str], in_node: InNode
) -> None:
    found = heads.find(head, dense=False)
    outputs = scores(found.name, classes)
    model = {
        "labels": labels,
        "outputs": [{"name": item.name, "holds": item.holds} for item in found.gives],
    }
    rows = {name: [float(value) for value in values[0]] for name, values in outputs.items()}
    (answer,) = in_node({"kind": "best", "outputs": rows, "model": model})
    (wanted,) = top_predictions(found, outputs, labels, None)
    assert [(item["index"], item["label"]) for item in answer] == [
        (item.index, item.label) for item in wanted
    ]
    # Sums of float64 in another order.
    shares = [item["share"] for item in answer]
    assert shares == pytest.approx([item.probability for item in wanted], rel=1e-12)


@pytest.mark.parametrize(
    ("head", "mode", "size"),
    [
        ("logits", "slide", (64, 64)),
        ("logits", "slide", (70, 111)),
        ("logits", "whole", (37, 90)),
        ("upsampled", "slide", (96, 64)),
        ("labels", "whole", (50, 41)),
    ],
)
def test_class_maps_are_those_of_run(
    head: str, mode: str, size: tuple[int, int], page: Path, in_node: InNode, tmp_path: Path
) -> None:
    file = export_e01(tmp_path, "e01", head=head, standalone=True)
    facts = facts_of(file, page, tmp_path)
    artifact = Artifact.open(file)
    info = artifact.require_info()
    assert info.dense is not None
    model = SceneModel.of(info, info.dense, info.model_config.patch_hw)
    pixels = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    scene = Scene("it", pixels, scene_settings(info.dense, info.image, mode=mode), model)
    (wanted,) = run_scenes(OrtRunner(file), [scene], model, 1)
    assert wanted.failure is None
    job = {
        "kind": "segment",
        "model": str(file),
        "facts": facts,
        "mode": mode,
        "picture": picture_job(tmp_path, "it", pixels),
        "to": str(tmp_path / "labels"),
    }
    (answer,) = in_node(job)
    assert answer["windows"] == len(scene.windows)
    found = np.frombuffer(Path(job["to"]).read_bytes(), np.uint16).reshape(size)
    # The network is not trained: two classes may be a rounding apart.
    assert (found == wanted.labels).mean() >= 0.999
    assert sum(area["pixels"] for area in answer["areas"]) == found.size


def facts_of(file: Path, page: Path, folder: Path) -> dict[str, Any]:
    """What the page of ``file`` knows of it."""
    options = PackageOptions(target="web", web_runtime=page / "runtime")
    made = package(file, folder / "made", options).folder
    facts: dict[str, Any] = json.loads((made / "model.json").read_text("utf-8"))
    return facts


def test_a_page_says_why_a_picture_has_no_map(page: Path, tmp_path: Path) -> None:
    file = export_e01(tmp_path, "e01", head="labels")
    facts = facts_of(file, page, tmp_path)
    base = {"kind": "segment", "model": str(file), "facts": facts, "to": str(tmp_path / "labels")}
    small = picture_job(tmp_path, "small", np.zeros((40, 80, 3), np.uint8))
    large = picture_job(tmp_path, "large", np.zeros((64, 200, 3), np.uint8))
    dot = picture_job(tmp_path, "dot", np.zeros((1, 1, 3), np.uint8))
    jobs = [
        {**base, "mode": "slide", "picture": small},
        {**base, "mode": "slide", "picture": large},
        {**base, "mode": "whole", "picture": dot},
    ]
    said = [item["error"] for item in web.in_node(page, jobs, tmp_path)]
    for sentence, part in zip(
        said, ("larger than the picture", "cannot be averaged", "smaller than a patch"), strict=True
    ):
        assert part in sentence


def test_the_runtime_is_the_one_that_was_tested(page: Path) -> None:
    assert {path.name for path in (page / "runtime").iterdir()} == set(FILES)
