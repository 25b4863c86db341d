"""``--report`` of verify, bench and deploy through the command line, on models of milliseconds."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.support.models import save_tiny
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.installation import extra_command
from vim_deploy.stages import deploying

QUICK = ("--warmup", "0", "--duration", "0.02", "--threads", "1")
VERIFY = ("verify", "tiny.onnx", "--against", "tiny.pth")
CHECKPOINT = ("verify", "tiny.pth", "--config", "tiny.json", "--precision", "fp16")
CHECKPOINT += ("--relative-l2", "1e-4", "--random", "1")
DEPLOY = ("deploy", "tiny.pth", "--config", "tiny.json", "--work", "w")

needs_jinja2 = pytest.mark.skipif(
    importlib.util.find_spec("jinja2") is None,
    reason="jinja2 is not installed: pip install 'vim-deploy[report]'",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint, exported, and labelled inputs for it."""
    place = tmp_path_factory.mktemp("reports")
    save_tiny(place)
    exported = ["--config", str(place / "tiny.json"), "-o", str(place / "tiny.onnx")]
    assert run(["-q", "export", str(place / "tiny.pth"), *exported]) == 0
    pixels = np.random.default_rng(0).standard_normal((9, 3, 16, 16), dtype=np.float32)
    np.savez(place / "set.npz", image=pixels, labels=np.arange(9) % 7)
    return place


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has the base packages only."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "jinja2" else find(name, *a)
    )


def page_of(folder: str, kind: str) -> str:
    """The words of a page, which has to be well-formed, beside its twins."""
    names = sorted(path.name for path in Path(folder).iterdir())
    assert names == [f"{kind}.{suffix}" for suffix in ("html", "json", "md")]
    root = ElementTree.fromstring(Path(folder, f"{kind}.html").read_text("utf-8"))
    return "\n".join(root.itertext())


@needs_jinja2
@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (VERIFY, "parity", "are within tolerance"),
        ((*VERIFY, "--per-block"), "parity", "Error of every part of every block"),
        ((*VERIFY, "--ladder"), "parity", "Each rung against the one it must equal"),
        ((*CHECKPOINT, "--bisect", "-o", "keep.toml"), "bisect", "models were run"),
        ((*VERIFY, "--dataset", "set.npz"), "accuracy", "no detectable loss of top-1 accuracy"),
        (("bench", "tiny.onnx", *QUICK), "bench", "1 of 1 measurements made."),
        ((*DEPLOY, "--no-engine"), "deploy", "Deployment of tiny.pth"),
    ],
)
def test_report(capsys: Any, arguments: tuple[str, ...], kind: str, said: str) -> None:
    assert run([*arguments, "--report", "new/out", "--json"]) == 0
    text = page_of("new/out", kind)
    assert said in text
    assert "ONNX Runtime" in text
    value = json.loads(Path("new/out", f"{kind}.json").read_text())
    printed = json.loads(capsys.readouterr().out)
    assert printed.items() <= value.items() or kind == "deploy"
    assert (kind == "bisect") == Path("keep.toml").exists()
    about = value.get("environment", value)
    assert about["state"]["versions"]["numpy"] in text
    if "--against" in arguments:
        assert value["against"]["name"] == "tiny.pth"
        assert value["against"]["sha256"] in text


@needs_jinja2
def test_a_run_beyond_its_tolerance_is_reported() -> None:
    assert run(["-q", *VERIFY, "--atol", "0", "--rtol", "0", "--report", "out"]) == 7
    assert "exceed what is allowed" in page_of("out", "parity")


@needs_jinja2
def test_a_deployment_that_stops_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise VimDeployError("VIM-603", "the builder refused <this>", why="w", fix="f")

    monkeypatch.setattr(deploying, "builder_for", lambda *_: None)
    monkeypatch.setattr(deploying, "build", refuse)
    assert run(["-q", *DEPLOY, "--report", "out"]) == 6
    text = page_of("out", "deploy")
    assert "Stopped by VIM-603: the builder refused <this>." in text
    assert "are within tolerance" in text
    assert json.loads(Path("w/001-tiny/deploy.json").read_text())["failure"]["code"] == "VIM-603"


@pytest.mark.usefixtures("_without_jinja2")
@pytest.mark.parametrize(
    "arguments",
    [
        # Nothing else is looked at before: the artifact is not even there.
        ("verify", "missing.onnx", "--against", "missing.pth"),
        ("verify", "missing.onnx", "--against", "missing.pth", "--dataset", "missing"),
        ("bench", "missing.onnx"),
        ("deploy", "missing.pth"),
    ],
)
def test_without_jinja2_it_is_said_before_the_work(capsys: Any, arguments: tuple[str, ...]) -> None:
    assert run([*arguments, "--report", "out"]) == 3
    said = capsys.readouterr().err
    assert "error VIM-301" in said
    assert extra_command("report") in said
    assert not Path("vim-deploy-work").exists()


@pytest.mark.usefixtures("_without_jinja2")
def test_plain_runs_do_without_jinja2() -> None:
    assert run(["-q", *VERIFY]) == 0
    assert run(["-q", "bench", "tiny.onnx", *QUICK]) == 0
    assert Path("parity.json").exists()
    assert Path("bench.md").exists()
    assert not Path("bench.html").exists()


def test_a_folder_that_cannot_be_made_is_said_before_the_work(capsys: Any) -> None:
    arguments = ("verify", "missing.onnx", "--against", "missing.pth")
    Path("taken").write_text("")
    assert run([*arguments, "--report", "taken/out"]) == 3
    assert "error VIM-304" in capsys.readouterr().err
    assert run([*arguments, "--report", "taken"]) == 2
