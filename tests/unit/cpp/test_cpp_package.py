"""Packages for C++: an engine with the program around it, from the command line to the answer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.support import cpp, cpp_builds, fake_rtx, plugins
from tests.support.markdown import blocks, console_commands
from vim_deploy.artifact.record import PluginIdentity, read_record, record_path
from vim_deploy.cli.inspect_summary import summary
from vim_deploy.cli.main import cli
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import settings_hash, sha256_of, write_json
from vim_deploy.ops import contract
from vim_deploy.packaging.cpp import TARGET
from vim_deploy.packaging.manifest import MANIFEST_NAME, read_manifest, sealed
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.stages import check_package, inspect, package
from vim_deploy.stages.packaging import PackageOptions

OPTIONS = PackageOptions(target=TARGET)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def with_plugin(plan: Path, library: Path, **changes: Any) -> Path:
    """Record ``library`` as the engine's, as its builder would."""
    record = read_record(plan)
    assert record is not None
    wanted = PluginIdentity(
        name=library.name,
        sha256=sha256_of(library),
        version="0.1.0",
        contract_version=contract.CONTRACT_VERSION,
        interface="V3",
        ops=("VimSelectiveScan",),
    )
    record = replace(record, plugin=replace(wanted, **changes))
    record = replace(record, settings_hash=settings_hash(record.settings()))
    write_json(record_path(plan), encode(record))
    return plan


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine and its plugin library, in a folder of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VIM_DEPLOY_PLUGIN", raising=False)
    folder = tmp_path / "built"
    folder.mkdir()
    (folder / "libvim_plugins.so").write_bytes(b"a library")
    plan = cpp.FakeEngine(lines=("plugins",)).write(folder)
    return with_plugin(plan, folder / "libvim_plugins.so")


def refused(code: str, artifact: Path, options: PackageOptions = OPTIONS) -> VimDeployError:
    """Packaging fails with this code, and leaves no folder behind."""
    output = artifact.parent.parent / "refused"
    with pytest.raises(VimDeployError) as caught:
        package(artifact, output, options)
    assert caught.value.code == code, caught.value
    assert not list(artifact.parent.parent.glob("*refused*"))
    return caught.value


def test_contents_and_manifest(engine: Path) -> None:
    result = package(engine, None, OPTIONS)
    assert result.folder == engine.parent / "digits-cpp"
    assert "10.14.1.48" in result.notes[0]
    found = tree(result.folder)
    manifest = json.loads(found["manifest.json"])
    assert set(manifest["files"]) == set(found) - {"manifest.json"}
    for name in ("digits.plan", "digits.plan.json", "libvim_plugins.so"):
        assert found[f"engine/{name}"] == (engine.parent / name).read_bytes()
        assert manifest["files"][f"engine/{name}"]["sha256"] == sha256_of(engine.parent / name)
    names = {name.removeprefix("vim_deploy/") for name in found if name.startswith("vim_deploy/")}
    shared = {path.name for path in (cpp_builds.CPP / "src").glob("*")}
    assert {f"src/{name}" for name in shared} < names
    assert {"CMakeLists.txt", "classify.cpp", "detect.cpp", "cmake/FindTensorRT.cmake"} < names
    # One declaration of ONNX Runtime's interface, which the native ops have as well.
    declared = cpp_builds.plugins.PLUGINS / "onnxruntime" / "ort_api.h"
    assert found["vim_deploy/src/ort_api.h"] == declared.read_bytes()
    assert not any("test" in name for name in names)
    assert found["labels.txt"].decode().splitlines() == [f"label {i}" for i in range(10)]
    assert manifest["about"]["plugin"] == "engine/libvim_plugins.so"
    description = inspect(result.folder)
    assert description["target"] == TARGET
    assert dict(summary(description))["input"].startswith("image: ")
    report = check_package(result.folder)
    assert [item.name for item in report.checks if not item.checked] == ["program"]


def test_a_detectors_package_is_about_detections(tmp_path: Path) -> None:
    plan = cpp.detector().write(tmp_path)
    folder = package(plan, tmp_path / "made", OPTIONS).folder
    assert "find_detections" in (folder / "main.cpp").read_text()
    readme = (folder / "README.md").read_text()
    assert "detect --score 50" in readme
    assert "classify" not in readme
    about = read_manifest(folder).about
    assert [spec["name"] for spec in about["inputs"]] == ["image", "size"]
    assert about["fit"]["longer_side"] == 32
    assert about["detector"]["score_threshold"] == 0.05
    assert len(check_package(folder).checks) == 4


def test_same_input_same_bytes(engine: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    shutil.copytree(engine.parent, other)
    first = package(engine, tmp_path / "a", OPTIONS)
    second = package(other / engine.name, tmp_path / "b", OPTIONS)
    assert tree(first.folder) == tree(second.folder)
    assert package(engine, first.folder, OPTIONS).up_to_date
    changed = cpp.FakeEngine(lines=("plugins", "scratch 8")).write(engine.parent)
    with_plugin(changed, engine.parent / "libvim_plugins.so")
    with pytest.raises(VimDeployError) as caught:
        package(changed, first.folder, OPTIONS)
    assert caught.value.code == "VIM-204"
    package(changed, first.folder, replace(OPTIONS, force=True))
    assert tree(first.folder) != tree(second.folder)


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "engine": ("VIM-902", lambda p: p.write_bytes(p.read_bytes()[:-1] + b"?"), "digits.plan"),
    "short engine": ("VIM-902", lambda p: p.write_bytes(p.read_bytes()[:-1]), "truncated"),
    "no engine": ("VIM-401", Path.unlink, "digits.plan"),
    "other file": ("VIM-413", lambda p: p.write_bytes(b"text" * 20), "digits.plan"),
    "record": (
        "VIM-413",
        lambda p: record_path(p).write_bytes(record_path(p).read_bytes()[:99]),
        "digits.plan.json",
    ),
    "edited record": (
        "VIM-902",
        lambda p: record_path(p).write_text(record_path(p).read_text().replace('"8.6"', '"9.0"')),
        "digits.plan.json",
    ),
    "no record": ("VIM-426", lambda p: record_path(p).unlink(), "digits.plan.json"),
    "library": ("VIM-903", lambda p: p.with_name("libvim_plugins.so").write_text("x"), "libvim"),
    "no library": ("VIM-903", lambda p: p.with_name("libvim_plugins.so").unlink(), "libvim"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_engine_folders_are_named(name: str, engine: Path) -> None:
    code, damage, said = DAMAGE[name]
    damage(engine)
    error = refused(code, engine)
    assert said in f"{error.message} {error.why}"
    assert error.fix


def test_engines_that_do_not_fit(engine: Path, tmp_path: Path) -> None:
    folder = engine.parent
    library = folder / "libvim_plugins.so"
    other = tmp_path / "libvim_plugins.so"
    other.write_text("another library")
    assert "SHA-256" in refused("VIM-903", engine, replace(OPTIONS, plugin=other)).why
    with_plugin(engine, library, embedded=True)
    refused("VIM-203", engine, replace(OPTIONS, plugin=library))
    result = package(engine, tmp_path / "embedded", OPTIONS)
    assert "allow_embedded_code" in result.notes[1]
    assert not (result.folder / "engine" / "libvim_plugins.so").exists()
    engine.write_bytes(fake_rtx.plan_bytes())
    assert "TensorRT-RTX" in refused("VIM-426", engine).why
    refused("VIM-410", cpp.FakeEngine(exported=False).write(folder))
    plain = cpp.FakeEngine().write(folder)
    refused("VIM-203", plain, replace(OPTIONS, plugin=library))
    record = read_record(plain)
    assert record is not None
    write_json(record_path(plain), encode(replace(record, stripped=True)))
    assert "no weights" in refused("VIM-426", plain).why
    refused("VIM-413", with_plugin(plain, library, name="../libvim_plugins.so"))


def test_options_for_triton_are_refused(engine: Path) -> None:
    refused("VIM-203", engine, replace(OPTIONS, serving=ServingOptions(instances=2)))
    refused("VIM-203", engine, replace(OPTIONS, image="nvcr.io/nvidia/tritonserver:24.10-py3"))
    refused("VIM-202", engine, PackageOptions(target="java"))
    done = CliRunner().invoke(cli, ["package", str(engine), "--target", "cpp", "--max-batch", "2"])
    assert isinstance(done.exception, VimDeployError)
    assert done.exception.code == "VIM-203"


def test_damaged_packages_are_named(engine: Path) -> None:
    folder = package(engine, None, OPTIONS).folder
    damaged = folder / "vim_deploy" / "src" / "engine.cpp"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole + b"\n")
    for look in (inspect, check_package):
        with pytest.raises(VimDeployError) as caught:
            look(folder)
        assert caught.value.code == "VIM-425"
        assert "vim_deploy/src/engine.cpp" in caught.value.why
    damaged.write_bytes(whole)
    (folder / "engine" / "digits.plan").unlink()
    with pytest.raises(VimDeployError) as caught:
        inspect(folder)
    assert "missing: engine/digits.plan" in caught.value.why


def test_manifests_that_describe_no_engine(engine: Path) -> None:
    folder = package(engine, None, OPTIONS).folder
    whole = read_manifest(folder)
    artifact = {"path": "engine/other.plan"}
    for about in ({}, {**whole.about, "artifact": artifact}, {**whole.about, "plugin": "/x.so"}):
        write_json(folder / MANIFEST_NAME, sealed(replace(whole, about=about)))
        with pytest.raises(VimDeployError) as caught:
            check_package(folder)
        assert caught.value.code == "VIM-427"


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
def test_from_engine_to_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the package's own README, against fakes of TensorRT and CUDA."""
    plugins.need_tool("cmake")
    fakes = cpp_builds.need_fakes()
    built = tmp_path / "built"
    built.mkdir()
    shutil.copy(fakes.plugin("good"), built / "libvim_plugins.so")
    plan = cpp.FakeEngine(lines=("plugins",)).write(built)
    with_plugin(plan, built / "libvim_plugins.so")
    folder = tmp_path / "handed over"
    done = CliRunner().invoke(
        cli, ["package", str(plan), "--target", "cpp", "-o", str(folder), "--json"]
    )
    assert done.exit_code == 0, done.output
    pixels = np.random.default_rng(3).integers(0, 256, (48, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "photo.ppm")
    variables = cpp_builds.fake_installations(tmp_path, fakes)
    (readme,) = [block for block in blocks(folder / "README.md") if block.language == "console"]
    answers = [
        cpp_builds.run_in_project(words, folder, variables) for words in console_commands(readme)
    ]
    example = [line.split(maxsplit=1) for line in answers[2].splitlines()]
    program = [line.split(maxsplit=1) for line in answers[3].splitlines()[1:]]
    assert len(example) == 5
    assert len(program) == 3
    assert [label for _, label in example[:3]] == [label for _, label in program]
    assert 0 < sum(float(probability) for probability, _ in example) <= 1.001
