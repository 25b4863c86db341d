"""``docs``: the list of pages, a page by its names, an error's entry, and what is none of them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.source import REPOSITORY
from vim_deploy import installation
from vim_deploy.cli.main import run
from vim_deploy.errors import CATALOG
from vim_deploy.stages import documents


def test_every_page_is_listed(capsys: Any) -> None:
    assert run(["docs", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["pages"]
    names = [item["name"] for item in listed]
    folder = REPOSITORY / "docs"
    assert {path.stem for path in folder.glob("*.md")} <= set(names)
    assert "decisions/001-recipes-in-toml" in names
    # Pages that people look for stand before those that say why.
    assert names.index("web") < names.index("decisions/001-recipes-in-toml")
    assert dict(item.values() for item in listed)["plugin"] == "The plugin library"


@pytest.mark.parametrize("name", ["plugin", "plugin.md", "docs/plugin.md"])
def test_a_page_in_a_pipe_is_as_it_stands(capsys: Any, name: str) -> None:
    assert run(["docs", name]) == 0
    page = (REPOSITORY / "docs" / "plugin.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == page.strip()


def test_a_page_on_a_terminal_is_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(["docs", "plugin"]) == 0
    said = stream.getvalue()
    assert "# The plugin library" not in said
    assert "The plugin library" in said
    assert "```" not in said


@pytest.mark.parametrize("code", ["VIM-301", "vim-1002"])
def test_the_entry_of_an_error(capsys: Any, code: str) -> None:
    assert run(["docs", code, "--json"]) == 0
    text = json.loads(capsys.readouterr().out)["text"]
    assert text.startswith(f"### {code.upper()}: {CATALOG[code.upper()]}\n")
    assert text.count("### ") == 1
    assert "**Fix:**" in text


def test_every_error_has_its_entry() -> None:
    for code in CATALOG:
        assert "**Meaning:**" in documents.page_text(code)


@pytest.mark.parametrize(
    "name", ["plugni", "../README", "docs/", "/etc/passwd", "VIM-9" + "99", ""]
)
def test_other_names_are_told_the_nearest(capsys: Any, name: str) -> None:
    assert run(["docs", name]) == 2
    said = capsys.readouterr().err
    assert "error VIM-201" in said
    assert "did you mean 'plugin'?" in said or name != "plugni"


def test_a_heading_in_a_block_ends_no_entry() -> None:
    text = "### VIM-301: a\n\n```\n# a comment\n```\nrest\n\n### VIM-302: b\n"
    assert documents._section(text, "VIM-301").endswith("rest\n")


def test_an_installation_without_its_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(installation, "SHIPPED", tmp_path)
    assert run(["docs"]) == 4
    assert "error VIM-401: no documents in" in capsys.readouterr().err
