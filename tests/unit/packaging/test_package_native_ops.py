"""Packages with native ops: which of them carry the library, and what is checked of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.support.packages import classifier, engine, own_op_classifier
from vim_deploy.artifact.file import MANIFEST_NAME
from vim_deploy.errors import VimDeployError
from vim_deploy.packaging import native_ops
from vim_deploy.packaging.check import has_schema
from vim_deploy.packaging.manifest import read_manifest, write_manifest
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.packaging.scripts import glibc_of
from vim_deploy.plugin.ort_library import OrtLibraryInfo, describe_ort_library
from vim_deploy.runtimes.onnxruntime import native_ops as session_ops
from vim_deploy.stages import package
from vim_deploy.stages.packaging import PackageOptions, PackageResult, check_package

pytest.importorskip("onnxruntime")
SERVER = "nvcr.io/nvidia/tritonserver"
#: Of the image below.
GLIBC, IMAGE, LATER = "2.35", f"{SERVER}:24.10-py3", f"{SERVER}:25.01-py3"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return own_op_classifier(tmp_path / "toy.onnx")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> OrtLibraryInfo:
    """The library of this machine, which is said to need glibc 2.36."""
    from tests.support.ort_ops import built_library

    path = built_library()
    monkeypatch.setenv("VIM_DEPLOY_ORT_OPS", str(path))
    info = dataclasses.replace(describe_ort_library(path), glibc="2.36")
    here = session_ops.NativeOps(info)
    monkeypatch.setattr(session_ops, "choose_ops", lambda choice, provider, ops: here)
    return info


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIM_DEPLOY_ORT_OPS", "")


def made(path: Path, output: Path, image: str | None = None, **serving: Any) -> PackageResult:
    return package(path, output, PackageOptions(ServingOptions(**serving), image=image))


def carried(result: PackageResult) -> bool:
    name = f"models/{result.name}/1/{native_ops.OPS_LIBRARY}"
    assert (name in result.files) == (result.folder / name).is_file()
    return name in result.files


def rewritten(folder: Path, **about: Any) -> None:
    """A manifest that fits the folder as it is now."""
    whole = read_manifest(folder)
    (folder / MANIFEST_NAME).unlink()
    about = {**whole.about, **about}
    write_manifest(folder, "triton", about, tool_version="0", settings=whole.settings_hash)


def test_the_python_backend_gets_them(toy: Path, tmp_path: Path, library: OrtLibraryInfo) -> None:
    result = made(toy, tmp_path / "made", runtime="python")
    assert carried(result)
    assert any("native ops go along" in note and "2.36" in note for note in result.notes)
    about = read_manifest(result.folder).about
    assert about["ops"]["glibc"] == "2.36"
    assert "native ops" in about["golden"]["made_by"]
    copied = result.folder / about["ops"]["library"]
    assert copied.read_bytes() == Path(library.path).read_bytes()
    config = (result.folder / "models/toy/config.pbtxt").read_text()
    assert native_ops.OPS_LIBRARY in config
    assert "model_operations" not in config
    checks = {item.name: item for item in check_package(result.folder).checks}
    assert "was not loaded" in checks["native ops"].detail
    assert checks["golden output"].checked
    # The same again is the same, byte for byte.
    again = made(toy, tmp_path / "again", runtime="python")
    for name in (*result.files, MANIFEST_NAME):
        assert (again.folder / name).read_bytes() == (result.folder / name).read_bytes()
    assert made(toy, result.folder, runtime="python").up_to_date
    with pytest.raises(VimDeployError) as caught:
        made(toy, result.folder, runtime="python", ops="function")
    assert caught.value.code == "VIM-204"


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("image", "why"),
    [
        (LATER, ""),
        (IMAGE, f"need glibc 2.36, and {IMAGE} has {GLIBC}"),
        ("registry/own:1", "the glibc of registry/own:1 is not known"),
        (None, "no --image was named"),
    ],
)
def test_a_container_gets_what_it_loads(
    toy: Path, tmp_path: Path, image: str | None, why: str
) -> None:
    result = made(toy, tmp_path / "made", image, runtime="onnxruntime")
    assert carried(result) == (not why)
    assert any((why or "go along") in note for note in result.notes)
    config = (result.folder / "models/toy/config.pbtxt").read_text()
    path = f"/package/models/toy/1/{native_ops.OPS_LIBRARY}"
    assert (f'op_library_filename: [ "{path}" ]' in config) == (not why)
    checks = {item.name: item for item in check_package(result.folder).checks}
    assert checks["configuration"].checked == has_schema()
    assert ("native ops" in checks) == (not why)


@pytest.mark.usefixtures("library")
def test_asked_for_they_go_where_nothing_is_known_against_it(toy: Path, tmp_path: Path) -> None:
    assert carried(made(toy, tmp_path / "made", runtime="onnxruntime", ops="native"))
    with pytest.raises(VimDeployError) as caught:
        made(toy, tmp_path / "other", IMAGE, runtime="onnxruntime", ops="native")
    assert caught.value.code == "VIM-907"
    assert GLIBC in caught.value.why
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("library")
def test_who_gets_none(toy: Path, tmp_path: Path) -> None:
    assert not carried(made(toy, tmp_path / "1", runtime="python", ops="function"))
    # A file without our ops has no use for them.
    plain = classifier(tmp_path / "plain.onnx")
    assert not carried(made(plain, tmp_path / "2", runtime="python", ops="native"))
    (tmp_path / "engine").mkdir()
    plan = engine(tmp_path / "engine")
    assert not carried(made(plan, tmp_path / "3"))
    with pytest.raises(VimDeployError) as caught:
        made(plan, tmp_path / "4", ops="native")
    assert caught.value.code == "VIM-203"


@pytest.mark.usefixtures("no_library")
def test_where_there_is_none(toy: Path, tmp_path: Path) -> None:
    result = made(toy, tmp_path / "made", runtime="python")
    assert not carried(result)
    assert any("plugin build --target onnxruntime" in note for note in result.notes)
    assert "native" not in read_manifest(result.folder).about["golden"]["made_by"]


def test_a_library_that_does_not_fit_is_said_once(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.so").write_text("text")
    monkeypatch.setenv("VIM_DEPLOY_ORT_OPS", str(tmp_path / "text.so"))
    result = made(toy, tmp_path / "made", runtime="python")
    assert not carried(result)
    (note,) = [note for note in result.notes if "native ops" in note]
    assert note.startswith("no native ops go along: not a plugin library")
    assert str(tmp_path / "text.so") in note
    assert "not used" not in note


@pytest.mark.usefixtures("library")
def test_the_library_of_a_package_is_never_loaded(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(toy, tmp_path / "made", runtime="python").folder
    monkeypatch.setenv("VIM_DEPLOY_ORT_OPS", "")
    library = folder / "models/toy/1" / native_ops.OPS_LIBRARY
    # What begins as a library and is none: no loader would take it.
    library.write_bytes(library.read_bytes()[:64] + b"nothing")
    with pytest.raises(VimDeployError) as caught:
        check_package(folder)
    assert caught.value.code == "VIM-425"
    rewritten(folder)
    checks = {item.name: item for item in check_package(folder).checks}
    assert checks["native ops"].checked
    assert checks["golden output"].checked


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("at", "value", "why"),
    [(0, b"PK", "no shared library"), (16, b"\2", "no shared"), (18, b"\xf7", "for")],
)
def test_a_library_that_is_none(toy: Path, tmp_path: Path, at: int, value: bytes, why: str) -> None:
    folder = made(toy, tmp_path / "made", runtime="python").folder
    library = folder / "models/toy/1" / native_ops.OPS_LIBRARY
    whole = library.read_bytes()
    library.write_bytes(whole[:at] + value + whole[at + len(value) :])
    rewritten(folder)
    with pytest.raises(VimDeployError) as caught:
        check_package(folder)
    assert caught.value.code == "VIM-417"
    assert why in caught.value.why


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("runtime", ["python", "onnxruntime"])
def test_a_configuration_that_names_another_library(
    toy: Path, tmp_path: Path, runtime: str
) -> None:
    pytest.importorskip("tritonclient.grpc", reason="needs pip install 'vim-deploy[triton]'")
    folder = made(toy, tmp_path / "made", LATER, runtime=runtime).folder
    config = folder / "models/toy/config.pbtxt"
    config.write_text(config.read_text().replace(native_ops.OPS_LIBRARY, "other.so"))
    rewritten(folder)
    with pytest.raises(VimDeployError) as caught:
        check_package(folder)
    assert caught.value.code == "VIM-428"
    assert "other.so" in caught.value.why


def test_images_whose_libraries_are_known() -> None:
    assert glibc_of(f"{SERVER}:22.12-py3") == "2.31"
    assert glibc_of(f"{SERVER}:23.05-py3") == "2.35"
    assert glibc_of(f"{SERVER}:24.11-trtllm-python-py3") == "2.35"
    assert glibc_of("own.registry:5000/copies/tritonserver:24.12") == "2.39"
    for image in ("", SERVER, f"{SERVER}@sha256:00", f"{SERVER}:99.01-py3", "other:24.12-py3"):
        assert glibc_of(image) is None
