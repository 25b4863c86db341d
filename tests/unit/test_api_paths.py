"""Paths as callers of Python give them: text and path-like objects, in calls and in options."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

import vim_deploy
from vim_deploy.errors import InputNotFoundError, VimDeployError
from vim_deploy.paths import OptionalPath, as_path
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.runtimes.tensorrt.runner import TrtRunner
from vim_deploy.stages.reporting import write_run

#: Each call with a path in one place; the others are right, or are not looked at before it.
CALLS: dict[str, Any] = {
    "benchmark": lambda path: vim_deploy.benchmark([path]),
    "benchmark, one": lambda path: vim_deploy.benchmark(path),
    "bisect_precision": lambda path: vim_deploy.bisect_precision(path),
    "build_engine": lambda path: vim_deploy.build_engine(path, runtime="tensorrt-rtx"),
    "check_package": lambda path: vim_deploy.check_package(path),
    "deploy": lambda path: vim_deploy.deploy(path, engine=False),
    "export": lambda path: vim_deploy.export(path),
    "inspect": lambda path: vim_deploy.inspect(path),
    "package": lambda path: vim_deploy.package(path),
    "refit": lambda path: vim_deploy.refit(path, __file__),
    "refit, source": lambda path: vim_deploy.refit("x.plan", path),
    "run": lambda path: vim_deploy.run(path, __file__),
    "run, picture": lambda path: vim_deploy.run("x.onnx", path),
    "run, pictures": lambda path: vim_deploy.run("x.onnx", [path]),
    "verify": lambda path: vim_deploy.verify(path, "checkpoint.pth"),
    "verify_dataset": lambda path: vim_deploy.verify_dataset(path, "checkpoint.pth", "."),
    "verify_ladder": lambda path: vim_deploy.verify_ladder(path),
}
#: Places that are looked at once the first is right.
FURTHER: dict[str, Any] = {
    "build_engine, output": lambda path: vim_deploy.build_engine("x.onnx", path),
    "deploy, work": lambda path: vim_deploy.deploy("x.pth", path),
    "export, output": lambda path: vim_deploy.export("x.pth", path),
    "package, output": lambda path: vim_deploy.package("x.onnx", path),
    "refit, output": lambda path: vim_deploy.refit("x.plan", __file__, path),
    "verify, against": lambda path: vim_deploy.verify("x.onnx", path),
    "verify_dataset, against": lambda path: vim_deploy.verify_dataset("x.onnx", path, "."),
    "verify_dataset, dataset": lambda path: vim_deploy.verify_dataset("x.onnx", "x.pth", path),
    "verify_ladder, against": lambda path: vim_deploy.verify_ladder("x.onnx", path),
}
RECORDS = [
    getattr(vim_deploy, name)
    for name in vim_deploy.__all__
    if dataclasses.is_dataclass(getattr(vim_deploy, name))
]
FIELDS = [
    (record, entry.name)
    for record in RECORDS
    for entry in dataclasses.fields(record)
    if "Path" in str(entry.type)
]


class Elsewhere:
    """A path of another library."""

    def __fspath__(self) -> str:
        return "absent/model.file"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", ["absent/model.file", Path("absent/model.file"), Elsewhere()])
@pytest.mark.parametrize("call", CALLS)
def test_what_is_not_there_is_not_found(call: str, path: str | os.PathLike[str]) -> None:
    with pytest.raises(VimDeployError, match=r"absent.model\.file") as caught:
        CALLS[call](path)
    # A package has its own words.
    assert caught.value.code in ("VIM-401", "VIM-427")


#: What is right in some of them: no output, and a list of models or pictures.
RIGHT = {
    None: ("output", "verify_ladder, against"),
    "list": ("benchmark, one", "run, picture"),
}
WRONG = [
    (call, path)
    for path in (b"model.onnx", 7, None, ["x"], object())
    for call in (*CALLS, *FURTHER)
    if not any(call.endswith(end) for end in RIGHT.get(path and type(path).__name__, ()))
]


@pytest.mark.parametrize(("call", "path"), WRONG)
def test_what_is_no_path_is_refused(call: str, path: Any) -> None:
    with pytest.raises(VimDeployError) as caught:
        {**CALLS, **FURTHER}[call](path)
    assert caught.value.code == "VIM-202"
    assert type(path).__name__ in caught.value.why or "list" in caught.value.why
    assert not [*Path().iterdir()]


@pytest.mark.parametrize(
    ("record", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part)
)
def test_options_hold_paths(record: Any, name: str) -> None:
    assert getattr(record(), name) is None
    for given in ("a/b", Path("a/b")):
        made = record(**{name: given})
        assert getattr(made, name) == Path("a/b")
        assert isinstance(getattr(made, name), Path)
        assert made == record(**{name: Path("a/b")})
        for again in (
            pickle.loads(pickle.dumps(made)),
            copy.deepcopy(made),
            dataclasses.replace(made),
        ):
            assert again == made
            assert hash(again) == hash(made) if record.__hash__ and name != "images" else True
    with pytest.raises(VimDeployError, match=name) as caught:
        record(**{name: b"a/b"})
    assert caught.value.code == "VIM-202"
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, None)


def test_there_are_paths_in_options() -> None:
    assert len(FIELDS) >= 14


def test_paths_that_may_be_words() -> None:
    options = vim_deploy.TrtOptions(plugin=Path("lib.so"), timing_cache=Path("cache"))  # type: ignore[arg-type]
    assert (options.plugin, options.timing_cache) == ("lib.so", "cache")
    request = vim_deploy.ModelRequest(Path("a/b.pth"))  # type: ignore[arg-type]
    assert request == vim_deploy.ModelRequest("a/b.pth")
    with pytest.raises(VimDeployError, match="source"):
        vim_deploy.ModelRequest(None)  # type: ignore[arg-type]


def test_addresses_stay_as_they_are() -> None:
    assert vim_deploy.ModelRequest.of("hf://owner/name").source == "hf://owner/name"


def test_a_descriptor_serves_one_field() -> None:
    @dataclasses.dataclass(frozen=True)
    class Two:
        a: OptionalPath = OptionalPath()
        b: OptionalPath = OptionalPath()

    assert (Two("x").a, Two("x").b) == (Path("x"), None)


def test_a_path_that_makes_bytes() -> None:
    class Bytes:
        def __fspath__(self) -> bytes:
            return b"x"

    with pytest.raises(VimDeployError, match="here is no path") as caught:
        as_path(Bytes(), "here")
    assert not isinstance(caught.value, InputNotFoundError)


def test_runners_and_reports_take_text(tmp_path: Path) -> None:
    for runner in (OrtRunner, TrtRunner):
        with pytest.raises(InputNotFoundError, match=r"absent\.file"):
            runner("absent.file")
        with pytest.raises(VimDeployError, match="is no path"):
            runner(b"absent.file")  # type: ignore[arg-type]
    (path, *_) = write_run("deploy", {"a": 1}, str(tmp_path), pages=False)
    assert path == tmp_path / "deploy.json"


def test_an_empty_path_is_not_this_folder() -> None:
    for call in (vim_deploy.load, vim_deploy.inspect):
        with pytest.raises(VimDeployError, match="is empty"):
            call("")
