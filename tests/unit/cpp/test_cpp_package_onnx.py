"""Packages for C++ around ONNX files: contents, checks, and the commands of their README.md."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.support import cpp_builds, cpp_onnx, detectors, ort_ops, plugins, tiny_onnx
from tests.support.markdown import blocks, console_commands
from tests.unit.cpp.test_cpp_onnx_files import described, small
from tests.unit.cpp.test_cpp_package import tree
from vim_deploy.artifact import metadata
from vim_deploy.cli.main import cli
from vim_deploy.errors import VimDeployError
from vim_deploy.files import sha256_of
from vim_deploy.packaging.cpp import TARGET
from vim_deploy.packaging.manifest import MANIFEST_NAME, read_manifest, write_manifest
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.plugin.ort_library import LIBRARY_VARIABLE
from vim_deploy.stages import check_package, inspect, package
from vim_deploy.stages.packaging import PackageOptions

WITHOUT_OPS = ServingOptions(ops="function")
OPTIONS = PackageOptions(target=TARGET, serving=WITHOUT_OPS)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small file that says what it is, in a folder of its own."""
    path = tmp_path / "made" / "small.onnx"
    path.parent.mkdir()
    path.write_bytes(small().SerializeToString())
    return path


def refused(code: str, artifact: Path, options: PackageOptions = OPTIONS) -> VimDeployError:
    """Packaging fails with this code, and leaves no folder behind."""
    output = artifact.parent.parent / "refused"
    with pytest.raises(VimDeployError) as caught:
        package(artifact, output, options)
    assert caught.value.code == code, caught.value
    assert not output.exists()
    return caught.value


def test_contents_and_manifest(model: Path) -> None:
    result = package(model, None, OPTIONS)
    assert result.folder == model.parent / "small-cpp"
    assert result.runtime == "onnxruntime"
    assert result.notes == ("runs with ONNX Runtime 1.17 or later, which does not go along",)
    found = tree(result.folder)
    assert found["model/small.onnx"] == model.read_bytes()
    assert found["labels.txt"].decode().splitlines()[0] == "a"
    assert {"vim_deploy/src/ort_api.h", "vim_deploy/src/ort_engine.cpp", "main.cpp"} < set(found)
    assert not any(name.startswith("native/") for name in found)
    about = read_manifest(result.folder).about
    assert about["ops"] is None
    assert [spec["name"] for spec in about["inputs"]] == ["image"]
    assert inspect(result.folder)["target"] == TARGET
    checks = {item.name: item for item in check_package(result.folder).checks}
    assert [name for name, item in checks.items() if not item.checked] == ["program"]
    assert checks["native ops"].detail == "none went along"
    # Equal input, equal bytes.
    again = package(model, model.parent / "again", OPTIONS).folder
    assert tree(again) == found
    assert package(model, again, OPTIONS).up_to_date


def test_weights_beside_the_file_go_along(model: Path, tmp_path: Path) -> None:
    path = model.parent / "large.onnx"
    loaded = onnx.load(model)
    onnx.save(loaded, path, save_as_external_data=True, location="large.data", size_threshold=0)
    folder = package(path, tmp_path / "whole", OPTIONS).folder
    beside = folder / "model" / "large.data"
    assert beside.read_bytes() == (model.parent / "large.data").read_bytes()
    assert len(check_package(folder).checks) == 4


def test_a_detectors_package_is_about_detections(tmp_path: Path) -> None:
    path = detectors.stand_in(tmp_path / "detector.onnx")
    folder = package(path, tmp_path / "made", OPTIONS).folder
    assert "find_detections" in (folder / "main.cpp").read_text()
    assert "build/detect --score 50" in (folder / "README.md").read_text()
    assert [spec["name"] for spec in read_manifest(folder).about["inputs"]] == ["image", "size"]


def test_native_ops_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = ort_ops.built_library()
    monkeypatch.setenv(LIBRARY_VARIABLE, str(library))
    scans = tiny_onnx.scan_blocks(1)
    metadata.attach(scans, described())
    path = tmp_path / "scans.onnx"
    onnx.save(scans, path)
    made = package(path, None, replace(OPTIONS, serving=ServingOptions()))
    assert any("native ops go along" in note for note in made.notes)
    packed = made.folder / "native" / "libvim_ort_cpu.so"
    assert packed.read_bytes() == library.read_bytes()
    assert "several times as fast" in (made.folder / "README.md").read_text("utf-8")
    checks = {item.name: item for item in check_package(made.folder).checks}
    assert "is a shared library for" in checks["native ops"].detail
    about = read_manifest(made.folder).about
    packed.write_bytes(b"no library")
    (made.folder / MANIFEST_NAME).unlink()
    write_manifest(made.folder, TARGET, about, tool_version="0", settings="")
    with pytest.raises(VimDeployError) as caught:
        check_package(made.folder)
    assert caught.value.code == "VIM-417"


def test_what_no_package_is_made_of(model: Path, tmp_path: Path) -> None:
    refused("VIM-203", model, replace(OPTIONS, plugin=model))
    refused("VIM-203", model, replace(OPTIONS, serving=ServingOptions(instances=2)))
    foreign = onnx.load(model)
    del foreign.metadata_props[:]
    foreign.graph.doc_string = ""
    onnx.save(foreign, model)
    refused("VIM-410", model)
    model.write_bytes(b"no model")
    refused("VIM-409", model)


def test_packages_that_are_not_whole(model: Path) -> None:
    folder = package(model, None, OPTIONS).folder
    whole = read_manifest(folder)
    packed = folder / "model" / "small.onnx"
    other = onnx.load(packed)
    other.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    packed.write_bytes(other.SerializeToString())
    with pytest.raises(VimDeployError) as caught:
        check_package(folder)
    assert caught.value.code == "VIM-425"
    for about, code in ((whole.about, "VIM-428"), ({}, "VIM-427")):
        (folder / MANIFEST_NAME).unlink()
        write_manifest(folder, TARGET, about, tool_version="0", settings="")
        with pytest.raises(VimDeployError) as caught:
            check_package(folder)
        assert caught.value.code == code


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
def test_from_the_folder_to_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the package's own README, with the real ONNX Runtime and native ops."""
    pytest.importorskip("torch")
    plugins.need_tool("cmake")
    library = ort_ops.built_library()
    runtime = cpp_onnx.need_runtime()
    monkeypatch.setenv(LIBRARY_VARIABLE, str(library))
    digits = tmp_path / "digits.onnx"
    folder = tmp_path / "handed over"
    for words in (
        ["export", "vim-digits", "-o", str(digits)],
        ["package", str(digits), "--target", "cpp", "--ops", "native", "-o", str(folder)],
    ):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, done.output
    assert sha256_of(folder / "native" / library.name) == sha256_of(library)
    assert check_package(folder).checks[2].detail.startswith(f"{library.name} is a shared library")
    monkeypatch.delenv(LIBRARY_VARIABLE)
    pixels = np.random.default_rng(3).integers(0, 256, (48, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "photo.ppm")
    (readme,) = [block for block in blocks(folder / "README.md") if block.language == "console"]
    answers = []
    for words in console_commands(readme):
        if words[0] == "python3":
            assert words[-3:] == ["--target", "build", "onnxruntime"]
            shutil.copytree(runtime / "capi", folder / "build" / "onnxruntime" / "capi")
        else:
            answers.append(cpp_builds.run_in_project(words, folder, {}))
    example, program = (text.splitlines() for text in answers[2:])
    assert len(example) == 5
    assert program[0] == "photo.ppm"
    assert [line.split()[1] for line in example[:3]] == [line.split()[1] for line in program[1:]]
    words = ["build/classify", "--verbose", "model/digits.onnx", "photo.ppm"]
    assert "native ops (" in cpp_builds.run_in_project(words, folder, {})
