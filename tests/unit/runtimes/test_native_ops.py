"""Native ops in runners: when they are used, what is said, and what happens when they cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from tests.support.c_library import native_ops, saying
from tests.support.ort_ops import built_library, relative_l2
from tests.support.tiny_onnx import perceptron, scan_blocks
from vim_deploy.artifact import Artifact
from vim_deploy.errors import VimDeployError
from vim_deploy.ops import OPS, SELECTIVE_SCAN, SORTED_NMS
from vim_deploy.ops.functions import AskedOps
from vim_deploy.plugin.ort_library import LIBRARY_VARIABLE, describe_ort_library
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.onnxruntime import capability as ort
from vim_deploy.runtimes.onnxruntime import native_ops as choosing
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.specs import OpsChoice

SHAPE = (2, 6, 8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(scan_blocks(), path)
    return path


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(LIBRARY_VARIABLE, str(built_library()))
    choosing._say_once.cache_clear()
    return built_library()


def opened(path: Path, ops: OpsChoice, provider: str | None = None) -> OrtRunner:
    options = RunnerOptions(provider=provider, ops=ops, threads=1)
    runner = open_runner(Artifact.open(path), options)
    assert isinstance(runner, OrtRunner)
    return runner


def code_of(path: Path, ops: OpsChoice, provider: str | None = None) -> str:
    with pytest.raises(VimDeployError) as caught:
        opened(path, ops, provider)
    return caught.value.code


def test_native_ops_are_used_and_said(
    file: Path, library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = file.read_bytes()
    with caplog.at_level("INFO"):
        runner, again = opened(file, "auto"), opened(file, "native")
    plain = opened(file, "function")
    assert runner.library is not None
    assert runner.library.path == str(library)
    assert f", native ops ({runner.library.instruction_set})" in runner.name
    assert again.name == runner.name
    assert caplog.text.count(str(library)) == 1
    assert runner.kernels
    assert (plain.library, plain.kernels, "native" in plain.name) == (None, "", False)
    image = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)
    name = runner.outputs[0]
    native, function = runner.run(image)[name], plain.run(image)[name]
    assert relative_l2(native, function) <= 1e-6
    # Other kernels compute: not one bit of difference would mean the same ones.
    assert not np.array_equal(native, function)
    assert file.read_bytes() == before


def test_nothing_is_loaded_for_a_model_without_our_ops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, str(tmp_path / "gone.so"))
    path = tmp_path / "m.onnx"
    onnx.save(perceptron(), path)
    for ops in ("auto", "native"):
        runner = opened(path, ops)
        assert (runner.library, runner.notes) == (None, ())


def test_none_is_wanted(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    # The empty setting is that of every test.
    with caplog.at_level("INFO"):
        assert opened(file, "auto").library is None
    assert not caplog.text
    assert code_of(file, "native") == "VIM-401"


def test_how_they_are_had_is_said_once(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(LIBRARY_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    choosing._say_once.cache_clear()
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert opened(file, "auto").notes == ()
    assert caplog.text.count("plugin build --target onnxruntime") == 1


def test_native_builds_what_is_not_there(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LIBRARY_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        choosing,
        "build_ort_library",
        lambda settings, say: SimpleNamespace(library=built_library()),
    )
    assert opened(file, "native").library is not None


def test_native_without_a_compiler(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LIBRARY_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_of(file, "native") == "VIM-301"
    assert opened(file, "auto").library is None


def test_a_library_that_does_not_fit_is_noted_or_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {
        "VIM-417": tmp_path / "text.so",
        "VIM-401": tmp_path / "gone.so",
        "VIM-903": saying(tmp_path, "{}", contract=3),
    }
    bad["VIM-417"].write_text("text")
    for code, path in bad.items():
        monkeypatch.setenv(LIBRARY_VARIABLE, str(path))
        assert code_of(file, "native") == code
        runner = opened(file, "auto")
        assert runner.library is None
        assert "native ops not used" in runner.notes[0]
        assert str(path) in runner.notes[0]


@pytest.mark.parametrize(
    "other",
    [
        {"provider": "cuda", "name": "vim_ort_cuda"},
        {"ops": ["VimOther"]},
        {"ops": ["VimBiSelectiveScan"]},
        {"ort_api": 999},
    ],
)
def test_libraries_for_something_else(
    other: dict[str, object], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, str(native_ops(tmp_path, **other)))
    assert code_of(file, "native") == ("VIM-301" if "ort_api" in other else "VIM-903")
    assert "native ops not used" in opened(file, "auto").notes[0]


#: What a detector asks for.
DETECTOR = AskedOps(frozenset(OPS))


def test_a_library_of_before_the_ops_of_detectors(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves files without them, and is asked for no other."""
    monkeypatch.setenv(LIBRARY_VARIABLE, str(native_ops(tmp_path)))
    assert opened(file, "native").library is not None
    chosen = choosing.choose_ops("auto", "cpu", DETECTOR)
    assert chosen.library is None
    assert "native ops not used" in chosen.note
    assert "does not fit" in chosen.note
    with pytest.raises(VimDeployError) as caught:
        choosing.choose_ops("native", "cpu", DETECTOR)
    assert caught.value.code == "VIM-903"
    assert "VimPyramidRoiAlign" in caught.value.why
    assert "plugin build --target onnxruntime" in caught.value.fix


def test_a_library_with_all_ops(library: Path) -> None:
    for choice in ("auto", "native"):
        assert choosing.choose_ops(choice, "cpu", DETECTOR).library is not None


def test_a_file_that_means_a_later_domain_runs_as_functions(file: Path, library: Path) -> None:
    later = onnx.load(file)
    (entry,) = [item for item in later.opset_import if item.domain == "vim_deploy"]
    entry.version = 2
    path = file.with_name("later.onnx")
    onnx.save(later, path)
    with pytest.raises(VimDeployError) as caught:
        opened(path, "native")
    assert caught.value.code == "VIM-903"
    assert str(library) in caught.value.message
    assert "version 2 of the domain vim_deploy" in caught.value.why
    runner, plain = opened(path, "auto"), opened(file, "function")
    assert (runner.library, runner.kernels) == (None, "")
    assert "native ops not used" in runner.notes[0]
    assert "version 2 of the domain vim_deploy" in runner.notes[0]
    image = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)
    name = plain.outputs[0]
    np.testing.assert_array_equal(runner.run(image)[name], plain.run(image)[name])


def test_nothing_is_compiled_for_a_file_that_no_library_fits(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = onnx.load(file)
    later.opset_import[-1].version = 2
    onnx.save(later, file)
    monkeypatch.delenv(LIBRARY_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(choosing, "build_ort_library", lambda *_, **__: pytest.fail("compiled"))
    assert code_of(file, "native") == "VIM-903"


def test_an_attribute_that_the_kernels_do_not_know(file: Path, library: Path) -> None:
    """Its function may read it; kernels would pass over it without a word."""
    other = onnx.load(file)
    node = next(node for node in other.graph.node if node.domain == "vim_deploy")
    node.attribute.append(onnx.helper.make_attribute("gain", 2.0))
    path = file.with_name("other.onnx")
    onnx.save(other, path)
    assert code_of(path, "native") == "VIM-903"
    assert "says 'gain'" in opened(path, "auto").notes[0]


def test_ops_without_kernels_for_gpus_are_asked_of_no_library_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "require_provider", lambda *_: None)
    monkeypatch.setattr(ort, "try_library", lambda _: None)
    info = describe_ort_library(native_ops(tmp_path))
    detector = AskedOps(frozenset({SELECTIVE_SCAN.name, SORTED_NMS.name}))
    choosing.require_fit(info, "cuda", detector)
    with pytest.raises(VimDeployError, match="does not fit") as caught:
        choosing.require_fit(info, "cpu", detector)
    assert SORTED_NMS.name in caught.value.why


def test_a_library_that_cannot_be_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_provider: object) -> Path:
        raise PermissionError(13, "Permission denied", "lib.so")

    monkeypatch.setattr(choosing, "find_ort_library", refused)
    assert code_of(file, "native") == "VIM-401"
    assert "Permission denied" in opened(file, "auto").notes[0]


def test_a_library_deleted_after_it_was_used(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "libvim_ort_cpu.so"
    shutil.copy(built_library(), copy)
    monkeypatch.setenv(LIBRARY_VARIABLE, str(copy))
    first = opened(file, "auto")
    copy.unlink()
    image = np.ones(SHAPE, np.float32)
    name = first.outputs[0]
    assert "there is no such file" in opened(file, "auto").notes[0]
    assert relative_l2(first.run(image)[name], opened(file, "function").run(image)[name]) <= 1e-6


def test_a_library_without_the_op_that_it_promises(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It registers nothing, so that the file's functions run; no more can be known of it."""
    monkeypatch.setenv(LIBRARY_VARIABLE, str(native_ops(tmp_path)))
    plain, other = opened(file, "function"), opened(file, "native")
    image = np.ones(SHAPE, np.float32)
    name = plain.outputs[0]
    np.testing.assert_array_equal(plain.run(image)[name], other.run(image)[name])


def test_kernels_that_refuse_the_model(
    file: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ort.create_session

    def refusing(model: object, settings: ort.SessionSettings, name: str) -> object:
        if settings.library is not None:
            raise VimDeployError("VIM-409", "does not load", why="states beyond 64")
        return real(model, settings, name)  # type: ignore[arg-type]

    monkeypatch.setattr(ort, "create_session", refusing)
    assert code_of(file, "native") == "VIM-409"
    runner = opened(file, "auto")
    assert runner.library is None
    assert "states beyond 64" in runner.notes[0]


def test_an_old_runtime_takes_none(
    file: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ort.Capabilities("1.16.3", ("CPUExecutionProvider",))
    monkeypatch.setattr(ort, "capabilities", lambda: old)
    assert code_of(file, "native") == "VIM-301"
    assert "1.16.3" in opened(file, "auto").notes[0]


@pytest.mark.parametrize(("version", "api"), [("1.17.3", 17), ("1.32.0", 32), ("dev", 0)])
def test_c_api_of_a_release(version: str, api: int) -> None:
    assert ort.api_of(version) == api


def test_tensorrt_takes_plugins_instead(file: Path) -> None:
    assert code_of(file, "native", "tensorrt") == "VIM-203"


def test_a_choice_that_is_none() -> None:
    with pytest.raises(VimDeployError) as caught:
        RunnerOptions(ops="fast")  # type: ignore[arg-type]
    assert caught.value.code == "VIM-202"
