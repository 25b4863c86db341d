"""Tables at the width there is, and the form of errors, whoever asked for it."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from vim_deploy.cli import main, output
from vim_deploy.cli.cmd_inspect import _print_sections
from vim_deploy.cli.tables import table_text
from vim_deploy.errors import VimDeployError

COLUMNS = ("runner", "mean, ms", "pictures/s", "share", "note")
ROWS = [
    ("a runner with a long name", "1234.567", "9,876.54", "12.5%", "word " * 40),
    ("[red]x[/]", "-1.5e-05", "10.2x", "(0.25)", "[/]"),
]


def table(width: int, terminal: bool = True) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)
    return table_text(console, "title", COLUMNS, ROWS)


@pytest.mark.parametrize("width", [10, 30, 40, 60, 80, 200])
def test_no_number_is_broken_on_a_terminal(width: int) -> None:
    text = table(width)
    for number in ("1234.567", "9,876.54", "12.5%", "-1.5e-05", "10.2x", "(0.25)"):
        assert number in text
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width


def test_a_pipe_gets_a_line_for_each_row() -> None:
    lines = table(60, terminal=False).splitlines()
    assert len(lines) == 1 + 3 + len(ROWS) + 1
    assert ("word " * 40).strip() in lines[4]


def test_the_widest_columns_share_the_folding() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    lines = table_text(console, "t", ("a", "b"), [("x" * 60, "y" * 61)]).splitlines()
    first, second = lines[4].split("│")[1:3]
    assert len(first) == len(second)


@pytest.mark.parametrize(("width", "whole"), [(80, True), (48, False)])
def test_names_of_rows_are_folded_last(width: int, whole: bool) -> None:
    name = "export.model_config.flip_img_sequences_ratio"
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    text = table_text(console, "t", ("what", "value"), [(name, "word " * 30), ("b", "-1.0")])
    assert (name in text) is whole
    assert max(map(len, text.splitlines())) <= width


def test_names_are_no_markup_and_forge_no_rows() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    text = table_text(console, "a\nb", ("[red]h[/]", "[/]"), [("[bold]\n│ forged", "\x1b[2J")])
    assert "[red]h[/]" in text
    assert "[bold]\\n│ forged" in text
    assert "\x1b" not in text
    assert text.splitlines()[0] == "a\\nb"


def test_long_descriptions_have_a_table_for_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    part = {f"key{number}": number for number in range(20)}
    _print_sections("x: onnx", {"kind": "onnx", "model": part, "metadata": part})
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and line[0] not in "┏┃┡│└"] == [
        "x: onnx", "model", "metadata",
    ]  # fmt: skip
    assert any("model.key19 " in line for line in lines)


def test_further_lines_of_a_reason_are_set_in(capsys: pytest.CaptureFixture[str]) -> None:
    error = VimDeployError("VIM-401", "m", why="a\nerror VIM-402: forged", fix="f")
    output.print_error(error)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error")] == ["error VIM-401: m"]
    assert "       error VIM-402: forged" in lines


def test_the_environment_can_ask_for_json_errors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIM_DEPLOY_INSPECT_AS_JSON", "1")
    assert main.run(["inspect", "absent.onnx"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "VIM-401"


def test_json_as_a_name_is_not_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["inspect", "--", "--json"]) == 4
    assert capsys.readouterr().out == ""


def test_the_environment_can_ask_for_traces(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIM_DEPLOY_VERBOSE", "2")
    assert main.run(["inspect", "absent.onnx"]) == 4
    assert "Traceback" in capsys.readouterr().err
