"""Packages of ONNX files and engines: contents, reproducibility, refusals, checks."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.engines import EXPORT, use_fake_gpu, write_engine
from tests.support.fake_tensorrt.runtime import runtime_module
from tests.support.packages import bytes_classifier, classifier, engine
from tests.support.tiny_onnx import perceptron
from tests.support.trt_builds import save
from vim_deploy.artifact.record import FileIdentity
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import sha256_of
from vim_deploy.installation import extra_command
from vim_deploy.packaging.golden import read_golden, write_golden
from vim_deploy.packaging.manifest import MANIFEST_NAME, paths_in, read_manifest
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.packaging.scripts import check_image, tensorrt_of
from vim_deploy.packaging.servable import read_servable
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.stages import check_package, inspect, package
from vim_deploy.stages.packaging import PackageOptions

pytest.importorskip("onnxruntime")
PYTHON = PackageOptions(ServingOptions(runtime="python"))


def hashes(folder: Path) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in (*paths_in(folder), MANIFEST_NAME)}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return classifier(tmp_path / "toy.onnx")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of a plugin library, found by its variable."""
    path = tmp_path / "libvim_plugins.so"
    path.write_bytes(b"\x7fELF stand-in")
    monkeypatch.setenv("VIM_DEPLOY_PLUGIN", str(path))
    return path


def test_contents_of_a_python_package(toy: Path, tmp_path: Path) -> None:
    result = package(toy, tmp_path / "made", PYTHON)
    assert set(result.files) == {
        "Dockerfile",
        "client.py",
        "client_answers.py",
        "client_detections.py",
        "client_pictures.py",
        "compose.yaml",
        "golden.npz",
        "models/toy/1/__pycache__",
        "models/toy/1/model.onnx",
        "models/toy/1/model.py",
        "models/toy/config.pbtxt",
        "models/toy/labels.txt",
        "requirements-model.txt",
        "requirements-server.txt",
        "run.sh",
        "server.py",
        "server_watch.py",
    }
    assert (result.name, result.runtime, result.notes) == ("toy", "python", ())
    made = result.folder
    assert (made / "models/toy/1/model.onnx").read_bytes() == toy.read_bytes()
    labels = (made / "models/toy/labels.txt").read_text().split()
    assert labels == ["north", "east", "south", "west"]
    for name in ("run.sh", "client.py"):
        assert (made / name).stat().st_mode & 0o111 == 0o111
    assert inspect(made)["kind"] == "package"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_same_input_same_bytes(toy: Path, tmp_path: Path) -> None:
    first = package(toy, tmp_path / "one", PYTHON).folder
    second = package(toy, tmp_path / "two", PYTHON).folder
    assert hashes(first) == hashes(second)


def test_stored_answers_are_those_of_the_artifact(toy: Path, tmp_path: Path) -> None:
    made = package(toy, tmp_path / "made").folder
    given, outputs = read_golden(made / "golden.npz")
    assert given.images.shape == (3, 1, 2, 3)
    from vim_deploy.runtimes.onnxruntime.runner import OrtRunner

    np.testing.assert_array_equal(outputs["logits"], OrtRunner(toy).run(given.images)["logits"])


def test_up_to_date_and_other_settings(toy: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    package(toy, made, PYTHON)
    before = hashes(made)
    assert package(toy, made, PYTHON).up_to_date
    with pytest.raises(VimDeployError, match="not the package") as caught:
        package(toy, made, PackageOptions(ServingOptions(runtime="python", max_batch=2)))
    assert caught.value.code == "VIM-204"
    assert hashes(made) == before
    options = PackageOptions(ServingOptions(runtime="python", max_batch=2), force=True)
    assert not package(toy, made, options).up_to_date
    assert "max_batch_size: 2" in (made / "models/toy/config.pbtxt").read_text()


def test_a_damaged_package_is_not_up_to_date(toy: Path, tmp_path: Path) -> None:
    made = package(toy, tmp_path / "made", PYTHON).folder
    (made / "run.sh").write_text("echo gone\n")
    for action in (lambda: package(toy, made, PYTHON), lambda: check_package(made)):
        with pytest.raises(VimDeployError) as caught:
            action()
        assert "damaged: run.sh" in caught.value.why
    with pytest.raises(VimDeployError, match="is not as it was made") as caught:
        inspect(made)
    assert caught.value.code == "VIM-425"


def test_somebody_elses_folder_is_never_replaced(toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(VimDeployError) as caught:
            package(toy, folder, dataclasses.replace(PYTHON, force=force))
        assert caught.value.code == "VIM-304"
    assert (folder / "thesis.txt").read_text() == "years of work"
    with pytest.raises(VimDeployError) as caught:
        package(toy, toy, PYTHON)
    assert caught.value.code == "VIM-304"


def test_nothing_appears_when_it_fails(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vim_deploy.stages.packaging.write_golden", interrupted)
    with pytest.raises(KeyboardInterrupt):
        package(toy, tmp_path / "made", PYTHON)
    assert [path.name for path in tmp_path.iterdir()] == ["toy.onnx"]


def test_engine_with_its_plugin(tmp_path: Path, library: Path) -> None:
    plan = engine(tmp_path, plugin=library)
    result = package(plan, tmp_path / "made", PackageOptions(image="x/tritonserver:25.03-py3"))
    made = result.folder
    assert (made / "plugins" / library.name).read_bytes() == library.read_bytes()
    assert {"models/model/1/model.plan", "models/model/1/model.plan.json"} <= set(result.files)
    assert any("not in the published table" in note for note in result.notes)
    assert any("no stored outputs" in note for note in result.notes)
    options = "--backend-config=tensorrt,plugins=/package/plugins/libvim_plugins.so"
    for name in ("run.sh", "compose.yaml"):
        assert options in (made / name).read_text()
    about = read_manifest(made).about
    assert about["tensorrt"].startswith("10.14")
    assert about["golden"]["outputs"] == []


def test_engine_where_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = runtime_module("10.14", use_fake_gpu(monkeypatch))
    monkeypatch.setattr(trt, "load", lambda: module)
    made = package(engine(tmp_path), tmp_path / "made").folder
    about = read_manifest(made).about
    assert about["golden"]["outputs"] == ["logits"]
    checks = {item.name: item for item in check_package(made).checks}
    assert checks["golden output"].checked
    assert checks["passport"].checked


def test_answers_from_the_file_the_engine_was_built_from(tmp_path: Path) -> None:
    source = classifier(tmp_path / "source.onnx")
    plan = engine(tmp_path, source=FileIdentity.of(source))
    made = package(plan, tmp_path / "made", PackageOptions(golden_from=source)).folder
    golden = read_manifest(made).about["golden"]
    assert (golden["made_from"], golden["outputs"], golden["why"]) == (
        "source.onnx",
        ["logits"],
        "",
    )
    other = classifier(tmp_path / "other.onnx", seed=1)
    with pytest.raises(VimDeployError, match="is not the ONNX file") as caught:
        package(plan, tmp_path / "more", PackageOptions(golden_from=other))
    assert caught.value.code == "VIM-203"


def test_a_damaged_engine_folder_names_the_file(tmp_path: Path, library: Path) -> None:
    plan = engine(tmp_path, plugin=library)
    good = plan.read_bytes()
    for data, said in ((good[:-1], "truncated"), (good[:-1] + b"?", "SHA-256")):
        plan.write_bytes(data)
        with pytest.raises(VimDeployError, match=plan.name) as caught:
            package(plan, tmp_path / "made")
        assert caught.value.code in ("VIM-902", "VIM-413")
        assert said in caught.value.why
    plan.write_bytes(good)
    record = plan.with_name("model.plan.json")
    text = record.read_text()
    record.write_text(text[: len(text) // 2])
    with pytest.raises(VimDeployError, match=r"model\.plan\.json") as caught:
        package(plan, tmp_path / "made")
    assert caught.value.code == "VIM-413"
    record.write_text(text)
    library.write_bytes(b"\x7fELF another")
    with pytest.raises(VimDeployError, match=library.name) as caught:
        package(plan, tmp_path / "made")
    assert caught.value.code == "VIM-903"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("kind", ["no-record", "stripped", "rtx", "bare-onnx", "two-inputs"])
def test_refused(tmp_path: Path, kind: str) -> None:
    code, said = "VIM-426", "has no record"
    if kind == "no-record":
        path = write_engine(tmp_path)
    elif kind == "stripped":
        path, said = engine(tmp_path, stripped=True), "holds no weights"
    elif kind == "rtx":
        path, said = tmp_path / "m.plan", "cannot be served by Triton"
        head = b"vtrt" + bytes(12) + (64).to_bytes(8, "little") + bytes([1, 7, 1, 116])
        path.write_bytes(head.ljust(64, b"\0"))
    elif kind == "bare-onnx":
        path, code, said = save(perceptron(), tmp_path / "m.onnx"), "VIM-410", "does not say"
    else:
        import onnx

        path, said = classifier(tmp_path / "m.onnx"), "has 2 inputs"
        model = onnx.load(path)
        model.graph.input.append(onnx.helper.make_tensor_value_info("more", 1, [1]))
        onnx.save(model, path)
    with pytest.raises(VimDeployError, match=said) as caught:
        package(path, tmp_path / "made")
    assert caught.value.code == code


def test_images_of_the_published_table(tmp_path: Path) -> None:
    name = "nvcr.io/nvidia/tritonserver:{}-trtllm-python-py3"
    assert tensorrt_of(name.format("24.06")) == "10.0.1"
    assert tensorrt_of(name.format("26.07")) == "10.14.1"
    assert tensorrt_of(name.format("24.03")) is None
    assert tensorrt_of(name.format("26.08")) is None
    assert tensorrt_of("nvcr.io/nvidia/tritonserver:25.03-py3") is None
    assert tensorrt_of("tritonserver") is None
    record = read_servable(engine(tmp_path)).file.record
    assert record is not None
    assert "holds TensorRT 10.14.1" in check_image(name.format("26.05"), record)
    with pytest.raises(VimDeployError, match=r"holds TensorRT 10\.8") as caught:
        check_image(name.format("25.01"), record)
    assert caught.value.code == "VIM-907"
    later = dataclasses.replace(record, runtime_version="10.3.0", flags=("VERSION_COMPATIBLE",))
    assert "10.8" in check_image(name.format("25.01"), later)


def test_other_answers_are_noticed(toy: Path, tmp_path: Path) -> None:
    from vim_deploy import __version__
    from vim_deploy.packaging.manifest import write_manifest

    made = package(toy, tmp_path / "made", PYTHON).folder
    assert {item.name for item in check_package(made).checks if item.checked} >= {"golden output"}
    given, outputs = read_golden(made / "golden.npz")
    write_golden(made / "golden.npz", given, {"logits": outputs["logits"] + 1e-3})
    manifest = read_manifest(made)
    (made / MANIFEST_NAME).unlink()
    write_manifest(made, "triton", manifest.about, tool_version=__version__, settings="00")
    with pytest.raises(VimDeployError, match="other outputs") as caught:
        check_package(made)
    assert caught.value.code == "VIM-701"


def test_a_configuration_that_does_not_fit_is_noticed(toy: Path, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc", reason="needs pip install 'vim-deploy[triton]'")
    from vim_deploy import __version__
    from vim_deploy.packaging.manifest import write_manifest

    made = package(toy, tmp_path / "made", PYTHON).folder
    config = made / "models/toy/config.pbtxt"
    manifest, text = read_manifest(made), config.read_text()
    for old, new, said in (
        ("TYPE_FP32", "TYPE_FP16", "tensors"),
        ("max_batch_size: 32", "max_batch_size: 33", "max_batch_size 33"),
        ('name: "toy"', 'name: "other"', "name 'other'"),
        ("input {", "imput {", "imput"),
    ):
        config.write_text(text.replace(old, new))
        write_manifest(made, "triton", manifest.about, tool_version=__version__, settings="00")
        with pytest.raises(VimDeployError) as caught:
            check_package(made)
        assert caught.value.code == "VIM-428"
        assert said in caught.value.why


def test_what_is_not_checked_is_said(toy: Path, tmp_path: Path) -> None:
    made = package(toy, tmp_path / "made", PYTHON).folder
    report = check_package(made)
    assert [item.name for item in report.checks if not item.checked] == ["server"]
    assert encode(report)["checks"][0]["name"] == "manifest"


def test_without_the_schema_the_configuration_is_not_checked(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = package(toy, tmp_path / "made", PYTHON).folder
    monkeypatch.setattr("vim_deploy.packaging.check.has_schema", lambda: False)
    unchecked = {item.name: item.detail for item in check_package(made).checks if not item.checked}
    assert extra_command("triton") in unchecked["configuration"]


def test_a_moved_package_is_the_same(toy: Path, tmp_path: Path) -> None:
    made = package(toy, tmp_path / "made", PYTHON).folder
    moved = Path(shutil.move(made, tmp_path / "elsewhere"))
    assert check_package(moved).name == "toy"


def test_bytes_are_stored_as_bytes(tmp_path: Path) -> None:
    made = package(bytes_classifier(tmp_path / "m.onnx"), tmp_path / "made", PYTHON).folder
    given, _ = read_golden(made / "golden.npz")
    assert given.images.dtype == np.uint8
    assert read_manifest(made).about["preprocess"] == "uint8" != EXPORT.preprocess


@pytest.mark.parametrize("version", ["10.14.1$(touch x)", "ten", "10", "10.14.1; ls"])
def test_a_version_cannot_smuggle_a_command(tmp_path: Path, version: str) -> None:
    with pytest.raises(VimDeployError, match="no version of TensorRT") as caught:
        package(engine(tmp_path, runtime_version=version), tmp_path / "made")
    assert caught.value.code == "VIM-426"


def test_a_library_cannot_smuggle_another(tmp_path: Path) -> None:
    library = tmp_path / "a;b.so"
    library.write_bytes(b"x")
    plan = engine(tmp_path, plugin=library)
    with pytest.raises(VimDeployError, match="cannot be handed") as caught:
        package(plan, tmp_path / "made", PackageOptions(plugin=library))
    assert caught.value.code == "VIM-903"


def test_labels_stay_one_a_line(tmp_path: Path) -> None:
    info = dataclasses.replace(EXPORT, labels=("a\nb", "c", " d ", "e"))
    made = package(classifier(tmp_path / "m.onnx", info=info), tmp_path / "made", PYTHON).folder
    assert (made / "models/m/labels.txt").read_text().splitlines() == ["a b", "c", "d", "e"]
