"""The site's pages as they are made of the repository, before anything is built of them."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import vim_deploy
from docs.site import __main__ as site
from docs.site import commands, docstrings, markdown, pages
from docs.site.sources import README_PAGES, BrokenLinkError, Sources
from tests.rules.test_commands import ALL
from tests.support.source import REPOSITORY
from vim_deploy.cli.main import cli
from vim_deploy.errors import CATALOG


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pages; that they can be made says that menu and links are complete."""
    folder = tmp_path_factory.mktemp("site")
    pages.make(REPOSITORY, folder)
    return folder / "pages"


def test_every_page_of_docs_is_there(made: Path) -> None:
    for path in (REPOSITORY / "docs").rglob("*.md"):
        assert (made / path.relative_to(REPOSITORY / "docs")).is_file()
    for name, sections in README_PAGES.items():
        text = (made / name).read_text(encoding="utf-8")
        found = [heading for _, heading in markdown.headings(text)]
        assert [section for section in sections if section] == [
            heading for heading in found if heading in sections
        ]


def test_a_page_made_anew_leaves_the_others_alone(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    (made / "old.md").write_text("# Old\n", encoding="utf-8")
    (made / "index.md").write_text("# Other\n", encoding="utf-8")
    pages.make(REPOSITORY, made.parent)
    after = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    assert {path for path, time in after.items() if before[path] != time} == {made / "index.md"}


def test_every_error_has_an_anchor_of_its_code(made: Path) -> None:
    text = (made / "errors.md").read_text(encoding="utf-8")
    found = re.findall(r"^### (VIM-\d+): .* \{ #(vim-\d+) \}$", text, re.MULTILINE)
    assert found == [(code, code.lower()) for code in CATALOG]


def test_the_reference_of_python_is_complete() -> None:
    text = "".join(path.read_text("utf-8") for path in (REPOSITORY / "docs/api").glob("*.md"))
    named = re.findall(r"^::: vim_deploy\.(\w+)$", text, re.MULTILINE)
    assert sorted(named) == sorted(set(vim_deploy.__all__) - {"__version__"})


def words(text: str) -> str:
    """Letters of a text without its form: line ends, and what Markdown adds."""
    text = re.sub(r"\[(docs/[^\]]+)\]\([^)]+\)", r"\1", text)
    return "".join(html.unescape(text).replace("\\", "").split())


def test_commands_are_those_of_help(made: Path) -> None:
    text = {path.stem: path.read_text("utf-8") for path in (made / "commands").glob("*.md")}
    assert set(text) == {name.split()[0] for name in ALL} | {commands.PROGRAM}
    for name, command in {"": cli, **ALL}.items():
        page = text[(name.split() or [commands.PROGRAM])[0]]
        path = f"{commands.PROGRAM} {name}".strip()
        section = re.split(rf"^#+ {re.escape(path)}$", page, flags=re.MULTILINE)[1]
        section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
        said = CliRunner().invoke(
            cli, [*name.split(), "--help"], prog_name=commands.PROGRAM, max_content_width=10_000,
            terminal_width=10_000,
        ).output  # fmt: skip
        said, _, listed = said.partition("\nOptions:\n")
        usage, _, about = said.partition("\n\n")
        assert words(usage) == words("Usage:" + section.split("```")[1].removeprefix("text"))
        assert words(about) == words(section.split("```")[2].partition("<div")[0])
        # Names that are long stand on a line of their own.
        rows = re.split(r"^  (?=-)", listed.partition("\n\n")[0], flags=re.MULTILINE)[1:]
        wanted = [tuple(map(words, re.split(r"\s{2,}", row, maxsplit=1))) for row in rows]
        found = re.findall(r"^`(.+)`\n:   (.*)$", section, re.MULTILINE)
        assert [(words(option), words(about)) for option, about in found] == wanted, path
        assert len(wanted) == sum(isinstance(item, click.Option) for item in command.params) + 1


def sources() -> Sources:
    """Of the repository, with another address."""
    return Sources.of(REPOSITORY, "https://example.org/r/")


@pytest.mark.parametrize(
    ("source", "page", "link", "target"),
    [
        ("docs/verify.md", "verify.md", "bench.md", "bench.md"),
        ("docs/verify.md", "verify.md", "https://a.b/c", "https://a.b/c"),
        ("docs/verify.md", "verify.md", "bench.md#engines", "bench.md#engines"),
        ("docs/verify.md", "verify.md", "#dense-models", "#dense-models"),
        ("docs/verify.md", "verify.md", "../README.md", "tour.md"),
        ("docs/verify.md", "verify.md", "../README.md#install", "install.md#install"),
        ("docs/verify.md", "verify.md", "../README.md#a-server", "tour.md#a-server"),
        ("docs/api/options.md", "api/options.md", "../python.md", "../python.md"),
        ("docs/verify.md", "verify.md", "../CHANGELOG.md", "changelog.md"),
        ("README.md", "tour.md", "docs/verify.md", "verify.md"),
        ("README.md", "tour.md", "#tour", "#tour"),
        ("README.md", "tour.md", "#commands", "commands.md#commands"),
        (
            "docs/errors.md", "errors.md", "#vim-201-unknown-option-name", "#vim-201"
        ),
        (
            "docs/verify.md", "verify.md", "../vim_deploy/errors.py",
            "https://example.org/r/blob/main/vim_deploy/errors.py",
        ),
        ("docs/verify.md", "verify.md", "../cpp", "https://example.org/r/tree/main/cpp"),
        (
            "README.md", "scaling.md", "benchmarks/results/cpu-2-core/scaling/scaling.svg",
            "pictures/benchmarks/results/cpu-2-core/scaling/scaling.svg",
        ),
    ],
)  # fmt: skip
def test_links_lead_where_they_should(source: str, page: str, link: str, target: str) -> None:
    assert sources().target(source, page, link) == target


@pytest.mark.parametrize(
    "link", ["absent.md", "bench.md#absent", "../../other.md", "#absent", "../README.md#absent"]
)
def test_a_link_to_nothing_is_refused(link: str) -> None:
    with pytest.raises(BrokenLinkError):
        sources().target("docs/verify.md", "verify.md", link)


def test_the_menu_has_every_page_once() -> None:
    known = _some()
    names = [group for groups in pages.menu(known) for group in groups.values()]
    listed = [name for group in names for name in ([group] if isinstance(group, str) else group)]
    assert sorted(listed) == sorted(known)
    with pytest.raises(ValueError, match=r"other/page\.md"):
        pages.menu({**known, "other/page.md": ""})
    with pytest.raises(ValueError, match=r"tour\.md"):
        pages.menu({name: "" for name in known if name != "tour.md"})


def _some() -> dict[str, str]:
    found = sources()
    return dict.fromkeys([*found.pages.values(), *(page for page, _ in found.readme())], "") | {
        "api/cpp.md": "", "commands/vim-deploy.md": "",
    }  # fmt: skip


def test_targets_change_and_code_stays() -> None:
    text = "[a](x) `[b](x)` [c\nd](x 'title') ![e](x)\n\n```text\n[f](x)\n```\n``[`g`](x)``\n"
    assert markdown.with_links(text, str.upper) == (
        "[a](X) `[b](x)` [c\nd](X 'title') ![e](X)\n\n```text\n[f](x)\n```\n``[`g`](x)``\n"
    )


def test_a_link_called_like_a_file_is_called_like_the_page() -> None:
    text = "[d/a.md](d/a.md#b), [a.md](d/a.md), [b.md](d/a.md), [c.md](c.md)\n"
    titles = {"d/a.md": "A", "d/a.md#b": "A"}
    assert markdown.with_links(text, str, titles.get) == (
        "[A](d/a.md#b), [A](d/a.md), [b.md](d/a.md), [c.md](c.md)\n"
    )
    assert sources().title("docs/verify.md", "bench.md") == ("Measuring speed, memory and accuracy")
    assert sources().title("docs/verify.md", "../README.md") is None


def test_codes_of_errors_lead_to_their_entries() -> None:
    text = "### VIM-401: x\n\nVIM-401, (`VIM-402`) `a VIM-403` [VIM-404](x) `VIM-405 x` XVIM-407\n"
    assert markdown.with_links(text, str, error=lambda code: sources().error("a/b.md", code)) == (
        "### VIM-401: x\n\n[VIM-401](../errors.md#vim-401), ([`VIM-402`](../errors.md#vim-402)) "
        "`a VIM-403` [VIM-404](x) `VIM-405 x` XVIM-407\n"
    )
    assert sources().error("errors.md", "VIM-401") == "#vim-401"


def test_lists_are_those_of_python_markdown() -> None:
    text = (
        "Some:\n- one\n  more\n  - inner\n\n    with a paragraph\n- two\n\n  ```console\n"
        "  # needs a GPU\n  $ run\n    far\n  ```\n\nEnd\n| a | b |\n|---|---|\n| `x \\| y` | z |\n"
        "1. first\n   - deep\n2. second\n"
    )
    assert markdown.for_python_markdown(text) == (
        "Some:\n\n- one\n    more\n    - inner\n\n        with a paragraph\n- two\n\n"
        '    ```console title="needs a GPU"\n    $ run\n      far\n    ```\n\nEnd\n\n'
        "| a | b |\n|---|---|\n| `x | y` | z |\n\n1. first\n    - deep\n2. second\n"
    )


def test_anchors_are_those_of_the_repository() -> None:
    assert markdown.slug("Which architecture: `--model auto`") == (
        "which-architecture---model-auto"
    )
    assert markdown.error_anchor("VIM-401: input not found") == "vim-401"
    assert markdown.error_anchor("2: how the command was called") is None


def test_items_of_several_names_become_one_of_each() -> None:
    text = (
        "Sum, with a, b: nothing.\n\nArgs:\n    a, b: one\n        and more.\n    c: two.\n"
        "    d, e: three.\n\nReturns:\n    x, y: the sum."
    )
    assert docstrings.one_name_each(text) == (
        "Sum, with a, b: nothing.\n\nArgs:\n    a: one\n        and more.\n    b: one\n"
        "        and more.\n    c: two.\n    d: three.\n    e: three.\n\nReturns:\n"
        "    x, y: the sum."
    )


@pytest.mark.parametrize(
    ("said", "code", "fault"),
    [
        ("No issues found\n", 0, ""),
        ("griffe: a.py:1: No type for parameter 'x'\n", 0, "griffe: a.py:1: No type"),
        ("Warning: unresolved link\n", 1, "the generator ends with exit code 1"),
    ],
)
def test_what_the_generator_complains_of_fails_the_build(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    said: str,
    code: int,
    fault: str,
) -> None:
    def generate(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert words[-2:] == ["--strict", "--clean"]
        (tmp_path / "site-source/html").mkdir(parents=True)
        return subprocess.CompletedProcess(words, code, said)

    monkeypatch.setattr(subprocess, "run", generate)
    monkeypatch.setattr(sys, "argv", ["site", "build", "--folder", str(tmp_path / "site")])
    assert site.main() == (1 if fault else 0)
    assert capsys.readouterr().err.startswith(fault)
    assert (tmp_path / "site").exists() == (code == 0)


def test_a_page_that_cannot_be_made_fails_the_build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(*_: Any) -> None:
        raise BrokenLinkError("docs/a: b leads to nothing")

    monkeypatch.setattr(pages, "make", broken)
    monkeypatch.setattr(sys, "argv", ["site", "build", "--folder", str(tmp_path / "site")])
    assert site.main() == 1
    assert capsys.readouterr().err == "docs/a: b leads to nothing\n"
