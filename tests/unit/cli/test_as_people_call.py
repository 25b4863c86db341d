"""The command line as people call it: what is asked for where, misspelt, or with another file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tests.support.packages import classifier
from vim_deploy.cli import streams
from vim_deploy.cli.main import COMMANDS, run
from vim_deploy.errors import VimDeployError
from vim_deploy.progress import stage_log
from vim_deploy.stages import diagnosis

Captured = pytest.CaptureFixture[str]
VERIFY = ("verify", "a.onnx", "--random", "1", "--batches", "1", "--against")


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classifiers of one form, a picture, and what is none of them."""
    monkeypatch.chdir(tmp_path)
    classifier(Path("a.onnx"))
    classifier(Path("b.onnx"), seed=1)
    PIL.Image.new("L", (3, 2)).save("p.png")
    Path("c.pth").write_bytes(b"\x80\x02")


def one_object(capsys: Captured, status: int, *words: str) -> dict[str, Any]:
    """The JSON object that is all of standard output."""
    found = run(list(words))
    captured = capsys.readouterr()
    assert found == status, captured.err
    value: dict[str, Any] = json.loads(captured.out)
    return value


@pytest.mark.parametrize("words", [(), ("help",), ("--help",), ("-h",)])
def test_the_bare_command_explains_itself(capsys: Captured, words: tuple[str, ...]) -> None:
    assert run(list(words)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name in COMMANDS:
        assert f"  {name} " in out


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("help", "export"), "export"),
        (("help", "plugin", "build"), "plugin build"),
        (("recipes",), "recipes"),
        (("plugin",), "plugin"),
        (("-q", "help", "run"), "run"),
    ],
)
def test_help_of_a_command(capsys: Captured, words: tuple[str, ...], path: str) -> None:
    assert run(list(words)) == 0
    assert capsys.readouterr().out.startswith(f"Usage: vim-deploy {path} ")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("exprot", "m.pth"), "VIM-201", "did you mean 'export'?"),
        (("build_engine", "m.onnx"), "VIM-201", "did you mean 'build-engine'?"),
        (("plugin", "bild"), "VIM-201", "did you mean 'build'?"),
        (("recipes", "shwo", "x"), "VIM-201", "did you mean 'show'?"),
        (("help", "exprot"), "VIM-201", "did you mean 'export'?"),
        (("quantize",), "VIM-201", "valid names: bench, build-engine"),
        (("export", "m.pth", "--batc", "3"), "VIM-201", "did you mean --batch?"),
        (("export", "m.pth", "--zzz"), "VIM-201", "vim-deploy export --help lists them"),
        (("--quite", "doctor"), "VIM-201", "did you mean --quiet?"),
        (("verify",), "VIM-202", "Usage: vim-deploy verify [OPTIONS]"),
        (("export", "m.pth", "--opset", "x"), "VIM-202", "--opset"),
        (("inspect", "a.onnx", "--gpu", "h200"), "VIM-203", "add --graph"),
        (("export", "a.onnx"), "VIM-203", "a.onnx is an exported file"),
        (("export", "vim-digit"), "VIM-401", "did you mean the recipe 'vim-digits'?"),
    ],
)
def test_what_is_misspelt_is_told(
    capsys: Captured, words: tuple[str, ...], code: str, says: str
) -> None:
    assert run(list(words)) in (2, 4)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"error {code}: " in err
    assert says in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "p.png", "a.onnx"), "p.png is a picture, no ONNX model"),
        (("build-engine", "c.pth"), "c.pth is a checkpoint, no ONNX model"),
        (("package", "c.pth"), "c.pth is a checkpoint, no ONNX model"),
        (("inspect", "p.png"), "p.png is a picture"),
        (("export", "p.png"), "it is a picture"),
        (("run", "vim-digits", "p.png"), "it is a recipe"),
        (("build-engine", "vim-digits"), "it is a recipe"),
        (("inspect", "vim-digits"), "vim-deploy recipes show vim-digits"),
    ],
    ids=" ".join,
)
def test_a_file_of_another_kind_is_named(
    capsys: Captured, words: tuple[str, ...], says: str
) -> None:
    if words[0] == "build-engine":
        pytest.importorskip("tensorrt_rtx")
    assert run(list(words)) == 4
    assert says in capsys.readouterr().err


def test_a_recipe_is_its_checkpoint(capsys: Captured) -> None:
    assert run(["export", "vim-digits", "-o", "d.onnx", "--no-check"]) == 0
    out, err = capsys.readouterr()
    assert out == "d.onnx\n"
    assert err.splitlines()[-1] == (
        "next: vim-deploy verify d.onnx --against vim-digits; vim-deploy build-engine d.onnx; "
        "vim-deploy run d.onnx PICTURES"
    )
    words = ("verify", "d.onnx", "--against", "vim-digits", "--random", "1", "--batches", "1")
    value = one_object(capsys, 0, *words, "--json")
    assert value["passed"] is True
    assert len(value["against"]["sha256"]) == 64


def test_a_package_says_what_to_do_next(capsys: Captured) -> None:
    words = ["package", "a.onnx", "--runtime", "python", "--ops", "function", "-o", "two words"]
    assert run(words) == 0
    said = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert said[:4] == ["next:", "vim-deploy", "package", "--check"]
    assert said[4].endswith("/two words;")
    assert said[5].endswith("/two words/run.sh")
    assert Path(said[5]).is_file()


def test_a_failed_comparison_names_what_to_try(capsys: Captured) -> None:
    assert run([*VERIFY, "b.onnx"]) == 7
    out, err = capsys.readouterr()
    assert "a.onnx does not agree with ONNX Runtime" in out
    assert "--per-block" in err
    assert run([*VERIFY, "a.onnx"]) == 0
    out, err = capsys.readouterr()
    assert "a.onnx agrees with ONNX Runtime" in out
    assert "--per-block" not in err
    # The classifier has no inner places: what was asked for is refused, not advised.
    assert run([*VERIFY, "b.onnx", "--per-block"]) != 0
    assert "--per-block names" not in capsys.readouterr().err


def test_failures_are_one_object(capsys: Captured) -> None:
    value = one_object(capsys, 7, *VERIFY, "b.onnx", "--json")
    assert value["passed"] is False
    assert value["error"]["code"] == "VIM-701"
    assert one_object(capsys, 2, "verify", "--json", "--bogus")["error"]["code"] == "VIM-201"
    assert one_object(capsys, 2, "--json", "exprot")["error"]["code"] == "VIM-201"
    assert one_object(capsys, 2, "verify", "--json")["error"]["code"] == "VIM-202"
    assert one_object(capsys, 4, "--json", "inspect", "no")["error"]["code"] == "VIM-401"


@pytest.mark.parametrize(
    ("raised", "status"), [(TypeError("a defect"), 1), (KeyboardInterrupt(), 130)]
)
def test_ends_without_a_code_are_one_object(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int
) -> None:
    def fail() -> list[object]:
        raise raised

    monkeypatch.setattr(diagnosis, "diagnose", fail)
    error = one_object(capsys, status, "doctor", "--json")["error"]
    assert (error["code"], error["exit_code"]) == ("", status)


@pytest.mark.parametrize(
    "words",
    [
        ("recipes", "list"),
        ("recipes", "show", "vim-tiny"),
        ("inspect", "a.onnx"),
        ("doctor",),
        ("run", "a.onnx", "p.png"),
        ("package", "a.onnx", "--runtime", "python"),
        (*VERIFY, "a.onnx"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_quiet_keeps_the_result_alone(capsys: Captured, words: tuple[str, ...]) -> None:
    for line in (("-q", *words), (*words, "-q")):
        assert run(list(line)) == 0
        out, err = capsys.readouterr()
        assert out.strip()
        assert err == ""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ((*VERIFY, "a.onnx"), 0),
        ((*VERIFY, "b.onnx"), 7),
        (("inspect", "a.onnx", "--json"), 0),
        (("run", "a.onnx", "p.png", "a.onnx"), 4),
        (("inspect", "absent"), 4),
        (("run", "--bogus"), 2),
    ],
)
def test_a_log_in_json_is_nothing_else(
    capsys: Captured, words: tuple[str, ...], status: int
) -> None:
    for line in (("--log-format", "json", *words), (*words, "--log-format=json")):
        assert run(list(line)) == status
        lines = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
        assert all({"time", "level", "logger", "message"} <= each.keys() for each in lines)
        if status:
            assert lines[-1]["error"]["exit_code"] == status


def test_warnings_of_libraries_are_lines_of_the_log(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.form, "log_json", True)
    streams._show_warning("old\x1b[2J", DeprecationWarning, "library.py", 7)
    line = json.loads(capsys.readouterr().err)
    assert line["level"] == "warning"
    assert "old\\x1b" in line["message"]


class Terminal:
    """Standard error that says it is a terminal."""

    def __init__(self) -> None:
        self.sent = ""

    def write(self, text: str) -> None:
        self.sent += text

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_stages_are_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    streams.begin()
    streams.configure_log()
    stage_log.info("tracing")
    stage_log.info("reading %s", "x" * 90)
    streams.note("wrote it")
    # No line is longer than the terminal, and nothing is left of either in front of the note.
    shown = "reading " + "x" * 11
    assert terminal.sent == (f"tracing ...\r{' ' * 11}\r{shown}\r{' ' * len(shown)}\rwrote it\n")


def test_elsewhere_a_stage_has_one_line(capsys: Captured) -> None:
    streams.begin()
    streams.configure_log()
    for text in ("tracing", "fusing", "tracing"):
        stage_log.info(text)
    assert capsys.readouterr().err == "tracing\nfusing\n"


def test_without_a_writable_folder_the_verdict_is_enough(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, option: str) -> None:
        raise VimDeployError("VIM-304", f"cannot write {folder}", fix=option)

    monkeypatch.setattr("vim_deploy.stages.reporting.prepare_folder", refuse)
    assert run([*VERIFY, "a.onnx"]) == 0
    out, err = capsys.readouterr()
    assert "agrees" in out
    assert "note: the report is not stored: . cannot be written; --report FOLDER" in err
    assert not Path("parity.json").exists()
    assert run(["bench", "a.onnx", "--warmup", "0.01", "--duration", "0.01"]) == 0
    assert not Path("bench.json").exists()
