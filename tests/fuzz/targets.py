"""The foreign files that are fuzzed: valid ones, what is changed, and what reads them.

Valid inputs hold no time of their making, so that a number means the same input everywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import pickletools
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz.cases import Command, Files, Mutation, Mutator, Target
from tests.fuzz.mutate_bytes import lines, on_bytes
from tests.fuzz.mutate_onnx import on_graph, on_onnx
from tests.fuzz.mutate_structure import on_json, on_toml
from tests.fuzz.mutate_zip import on_zip
from vim_deploy.families.vim.config import read_config

MODEL, PICTURE = "model.onnx", "picture.png"


def _made(write: Callable[[Path], Any]) -> dict[str, bytes]:
    """Every file that ``write`` makes in a folder."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write(folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _picture(form: str) -> bytes:
    values = np.arange(60, dtype=np.uint8).reshape(6, 10) * 4
    file = io.BytesIO()
    Image.fromarray(values).save(file, form)
    return file.getvalue()


@functools.cache
def _classifier() -> bytes:
    from tests.support.engines import EXPORT
    from tests.support.packages import classifier

    config = EXPORT.model_config.replace(patch_size=1, stride=1, num_classes=4)
    info = dataclasses.replace(EXPORT, model_config=config)
    return _made(lambda folder: classifier(folder / MODEL, info=info))[MODEL]


@functools.cache
def _exports() -> tuple[Files, ...]:
    """Files as ``export`` makes them: with scans as custom ops, half-precision, the loops gone."""
    from vim_deploy.cli.main import run

    forms = (("--graph", "base"), ("--precision", "fp16"), ("--scan-body", "unrolled"))
    found = []
    for form in forms:
        with tempfile.TemporaryDirectory() as made:
            for name, data in _configs()[0].items():
                (Path(made) / name).write_bytes(data)
            paths = {name: f"{made}/{name}" for name in ("a.pth", "c.json", MODEL)}
            arguments = ["-q", "export", paths["a.pth"], "--config", paths["c.json"], *form]
            with contextlib.redirect_stdout(io.StringIO()):
                status = run([*arguments, "--no-check", "-o", paths[MODEL]])
            assert status == 0
            found.append({MODEL: Path(paths[MODEL]).read_bytes()})
    return tuple(found)


def _archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _images(count: int) -> Any:
    return np.random.default_rng(0).standard_normal((count, 1, 2, 3)).astype(np.float32)


def _recipes() -> tuple[Files, ...]:
    from vim_deploy.recipe.catalog import recipes_folder

    paths = sorted(recipes_folder().glob("*.toml"))
    return tuple({"vim-tiny.toml": path.read_bytes()} for path in paths if path.stem == "vim-tiny")


def _onnx() -> tuple[Files, ...]:
    return ({MODEL: _classifier(), PICTURE: _picture("PNG")},)


def _pictures() -> tuple[Files, ...]:
    forms = {"png": "PNG", "jpg": "JPEG", "ppm": "PPM", "gif": "GIF", "webp": "WEBP"}
    return tuple(
        {MODEL: _classifier(), f"pictures/a.{ending}": _picture(form)}
        for ending, form in forms.items()
    )


def _outputs() -> tuple[Files, ...]:
    import onnx
    from onnx import numpy_helper

    images = _images(2)
    weight = numpy_helper.to_array(onnx.load_from_string(_classifier()).graph.initializer[0])
    stored = _archive(image=images, logits=images.reshape(2, 6) @ weight)
    return ({MODEL: _classifier(), "stored.npz": stored},)


def _data_set() -> tuple[Files, ...]:
    stored = _archive(image=_images(8), labels=np.arange(8) % 4)
    return ({MODEL: _classifier(), "set.npz": stored},)


@functools.cache
def _model() -> Any:
    from tests.support.models import perturbed, tiny_config
    from vim_deploy.families.vim.network.vim import VisionMamba

    return perturbed(VisionMamba(tiny_config()))


def _checkpoints() -> tuple[Files, ...]:
    import torch

    found = []
    for new in (True, False):
        file = io.BytesIO()
        state = {"model": _model().state_dict(), "epoch": 1}
        torch.save(state, file, _use_new_zipfile_serialization=new)
        found.append({"a.pth": file.getvalue()})
    return tuple(found)


def _safetensors() -> tuple[Files, ...]:
    from safetensors.torch import save

    return ({"a.safetensors": save(_model().state_dict())},)


def _package() -> tuple[Files, ...]:
    def write(folder: Path) -> None:
        from tests.support.packages import classifier
        from vim_deploy.cli.main import run

        with tempfile.TemporaryDirectory() as other:
            path = classifier(Path(other) / MODEL)
            with contextlib.redirect_stdout(io.StringIO()):
                status = run(["-q", "package", str(path), "-o", str(folder / "p")])
            assert status == 0

    return (_made(write),)


def _engine() -> tuple[Files, ...]:
    from tests.support.packages import engine

    return (_made(engine),)


def _hashed(files: Files) -> Files:
    """With the manifest's hash of itself renewed, where it still is a manifest."""
    from vim_deploy.files import settings_hash

    name = "p/manifest.json"
    try:
        value = json.loads(files[name])
        value["manifest_sha256"] = settings_hash(
            {key: item for key, item in value.items() if key != "manifest_sha256"}
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return files
    return {**files, name: json.dumps(value).encode()}


def _relisted(files: Files) -> Files:
    """With the hashes of the package's files renewed."""
    value = json.loads(files["p/manifest.json"])
    for name in value["files"]:
        data = files[f"p/{name}"]
        value["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return _hashed({**files, "p/manifest.json": json.dumps(value).encode()})


def _zip(files: str) -> tuple[Mutation, ...]:
    return (*on_zip(files), *on_bytes(files))


def _opcodes(data: bytes, generator: Random) -> bytes:
    """A zip checkpoint with an opcode of its pickle dropped, doubled, moved or replaced."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = next(name for name in members if name.endswith("data.pkl"))
        starts = [place for _, _, place in pickletools.genops(members[name])]
    except Exception:  # an earlier change has made it something else
        return data
    bounds = [*starts, len(members[name])]
    parts = [members[name][a:b] for a, b in itertools.pairwise(bounds)]
    place = generator.randrange(len(parts))
    others = (b"", parts[place] * 2, generator.choice(parts), b"cposix\nsystem\n", b"0", b"(", b"R",
              b"\x8e" + b"\xff" * 7 + b"\x7f", b"r\xff\xff\xff\x7f", b"]" + b"a" * 9)  # fmt: skip
    parts[place] = generator.choice(others)
    members[name] = b"".join(parts)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for each, content in members.items():
            archive.writestr(zipfile.ZipInfo(each), content)
    return file.getvalue()


def _header(data: bytes, generator: Random) -> bytes:
    """A safetensors file with a change in its header's tree."""
    size = int.from_bytes(data[:8], "little")
    change: Mutator = generator.choice(on_json()).change
    header = change(data[8 : 8 + size], generator)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _labels(path: Path) -> object:
    from vim_deploy.cli.model_files import labels_in

    return labels_in(path)


def _config(path: Path) -> object:
    from vim_deploy.cli.model_files import config_in

    return read_config(config_in(path))


def _policy(path: Path) -> object:
    from vim_deploy.recipe.precision_policy import load_policy

    return load_policy(path)


def _policies() -> tuple[Files, ...]:
    import vim_deploy.recipe

    path = Path(vim_deploy.recipe.__file__).with_name("default-precision.toml")
    return ({"p.toml": path.read_bytes(), "a.pth": _checkpoints()[0]["a.pth"]},)


def _configs() -> tuple[Files, ...]:
    from tests.support.models import tiny_config

    config = dataclasses.asdict(tiny_config())
    return ({"c.json": json.dumps(config).encode(), "a.pth": _checkpoints()[0]["a.pth"]},)


def _baseline(path: Path) -> object:
    from vim_deploy.bench import environment
    from vim_deploy.bench.compare import read_baseline

    return read_baseline(path, environment.machine(), {"threads": 2})


def _baselines() -> tuple[Files, ...]:
    from tests.support.bench import bench_report, measured, written

    return (_made(lambda folder: written(bench_report(measured(), measured("deit")), folder)),)


def _calibrated() -> Any:
    from tests.support.detectors import described

    return dataclasses.replace(described(), precision="int8")


def _calibration(path: Path) -> object:
    from vim_deploy.calibration.stored import load
    from vim_deploy.recipe.quantization import QuantizeOptions

    return load(path, _calibrated(), QuantizeOptions())


def _calibrations() -> tuple[Files, ...]:
    from vim_deploy.calibration.stored import StoredCalibration, save
    from vim_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan
    from vim_deploy.recipe.quantization import CalibrationInfo

    layers = (LayerPlan("in_proj", 0.25, (0.5, 2.0), error=0.01), LayerPlan("head", 1.0))
    pictures = CalibrationInfo("minmax", 128, 0, 64 * "0")
    found = StoredCalibration.of(_calibrated(), "static", pictures, QuantizationPlan(layers))
    return (_made(lambda folder: save(folder / "c.json", found)),)


def _planned(files: Files) -> Files:
    """With the hash of the scales renewed, where the file still has any."""
    from vim_deploy.files import settings_hash

    try:
        value = json.loads(files["c.json"])
        value["plan_sha256"] = settings_hash(value["plan"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return files
    return {**files, "c.json": json.dumps(value).encode()}


_LABELS = b"north\neast\nsouth\nwest\n"
_ALL = (
    Target("recipe", _recipes, (*on_toml(), *on_bytes(), Mutation(lines)),
           (Command(("recipes", "show", "{}/vim-tiny.toml")),
            Command(("inspect", "{}/vim-tiny.toml")))),
    Target("labels", lambda: ({"l.txt": _LABELS},), (*on_bytes(), Mutation(lines)),
           (Command((_labels, "{}/l.txt")),)),
    Target("baseline", _baselines, (*on_json(), *on_bytes()),
           (Command((_baseline, "{}/bench.json")),)),
    Target("policy", _policies, (*on_toml("p.toml"), *on_bytes("p.toml"), Mutation(lines, "*l")),
           (Command((_policy, "{}/p.toml")),
            Command(("export", "{}/a.pth", "--precision", "fp16", "--precision-policy", "{}/p.toml",
                     "--no-check", "-o", "{}/o.onnx"), every=40)), free_bytes=800 << 20),
    Target("calibration", _calibrations, (*on_json(), *on_bytes()),
           (Command((_calibration, "{}/c.json")),), _planned),
    Target("config", _configs, (*on_json("c.json"), *on_bytes("c.json")),
           (Command((_config, "{}/c.json")),
            Command(("export", "{}/a.pth", "--config", "{}/c.json", "--no-check", "-o",
                     "{}/o.onnx"), every=20)), free_bytes=800 << 20),
    Target("onnx", _onnx, (*on_onnx(MODEL), *on_bytes(MODEL)),
           (Command(("inspect", "{}/model.onnx")),
            Command(("inspect", "--graph", "{}/model.onnx")),
            Command(("run", "{}/model.onnx", "{}/picture.png")),
            Command(("verify", "{}/model.onnx", "--against", "{}/model.onnx", "--random", "1",
                     "--batches", "1"), every=4),
            Command(("package", "{}/model.onnx", "-o", "{}/package"), every=4),
            Command(("build-engine", "{}/model.onnx", "--dry-run", "--runtime", "tensorrt-rtx"),
                    every=4))),
    Target("graph", _exports, (*on_onnx(MODEL), *on_graph(MODEL)),
           (Command(("inspect", "{}/model.onnx")),
            Command(("inspect", "--graph", "{}/model.onnx")),
            Command(("build-engine", "{}/model.onnx", "--dry-run", "--runtime", "tensorrt-rtx"),
                    every=3),
            Command(("verify", "{}/model.onnx", "--against", "{}/model.onnx", "--per-block",
                     "--random", "1", "--batches", "1"), every=5),
            Command(("package", "{}/model.onnx", "-o", "{}/package"), every=7))),
    Target("picture", _pictures, on_bytes("pictures/*"),
           (Command(("run", "{}/model.onnx", "{}/pictures")),)),
    Target("outputs", _outputs, _zip("stored.npz"),
           (Command(("verify", "{}/model.onnx", "--against", "{}/stored.npz")),)),
    Target("dataset", _data_set, _zip("set.npz"),
           (Command(("verify", "{}/model.onnx", "--against", "{}/model.onnx", "--dataset",
                     "{}/set.npz")),), valid_exits=(0, 7)),
    Target("checkpoint", _checkpoints,
           (*[Mutation(_opcodes)] * 4, *_zip("a.pth")), (Command(("inspect", "{}/a.pth")),)),
    Target("safetensors", _safetensors, (Mutation(_header), Mutation(_header), *on_bytes()),
           (Command(("inspect", "{}/a.safetensors")),)),
    Target("manifest", _package, on_json("p/manifest.json"),
           (Command(("inspect", "{}/p")), Command(("package", "--check", "{}/p"))), _hashed),
    Target("package", _package,
           (*on_bytes("p/[!m]*"), *on_zip("*.npz"), Mutation(lines, "*.pbtxt"),
            Mutation(lines, "*labels.txt"), *on_onnx("*.onnx")),
           (Command(("package", "--check", "{}/p")),), _relisted),
    Target("record", _engine, (*on_json("*.json"), *on_bytes("*.json")),
           (Command(("inspect", "{}/model.plan")),
            Command(("verify", "{}/model.plan", "--against", "{}/model.plan", "--random", "1"),
                    every=2),
            Command(("bench", "{}/model.plan"), every=4),
            Command(("refit", "{}/model.plan", "{}/model.plan", "-o", "{}/o.plan"), every=4),
            Command(("package", "{}/model.plan", "-o", "{}/package"), every=4)),
           valid_exits=(0, 3, 4, 6)),
)  # fmt: skip
#: Name -> target.
TARGETS = {target.name: target for target in _ALL}
