"""What a page computes around the model, under node: preparation, transparency, heads, maps."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.support import web
from tests.support.scenes import export_e01
from vim_deploy import heads
from vim_deploy.artifact import Artifact
from vim_deploy.codec import encode
from vim_deploy.images import INTERPOLATIONS, batch_from_crops, crop_from
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.scene.classifying import top_predictions
from vim_deploy.scene.segment import Scene, SceneModel, run_scenes
from vim_deploy.scene.windows import scene_settings
from vim_deploy.specs import ImagePreparation
from vim_deploy.stages import package
from vim_deploy.stages.packaging import PackageOptions

Array = np.ndarray[Any, np.dtype[Any]]
InNode = Callable[..., list[Any]]

LONG = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A package, whose page is the same for every model."""
    return web.made_page(tmp_path_factory.mktemp("page"), pytestconfig)


@pytest.fixture
def in_node(page: Path, tmp_path: Path) -> InNode:
    """Runs jobs against the page; what went wrong is an error of the test."""
    return lambda *jobs: web.answers(page, jobs, tmp_path)


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
        pytest.param("upsampled", "slide", (96, 64), marks=LONG),
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
