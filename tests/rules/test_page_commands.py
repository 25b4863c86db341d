"""The pages' commands run as they stand there, in the order of the page, in a fresh clone.

Commands stand in ``console`` blocks on lines that begin with ``$``; other lines are what a command
answers, ``...`` where machines differ. A block that not every machine can run begins with
``# needs``, and its commands are read by the command line, no more. Programs in ``python`` blocks
run as well. What is made goes to the folder ``work``, so that a reader can delete it.
"""

from __future__ import annotations

import itertools
import os
import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.builds import RTX_IS_INSTALLED
from tests.support.commands import parse
from tests.support.markdown import PROGRAM, Block, Command, commands, markdown_files
from tests.support.pages import WORK, code_of, install, not_answered, run, shown_files, steps
from tests.support.source import REPOSITORY

#: What commands of the pages read of the repository.
READ = ("export", "tests/data", "docs/tutorials")
#: Programs that every machine has.
PROGRAMS = (PROGRAM, "mkdir", "python")
#: Commands and functions that need TensorRT-RTX, an optional package.
NEED_RTX = re.compile(rf"{PROGRAM} (build-engine|deploy)\b|\bbuild_engine\(|\.plan\b")
#: Options that name what is written.
WRITE = (
    "-B",
    "-o",
    "--output",
    "--coco",
    "--dump-passes",
    "--export-dir",
    "--overlay",
    "--plot",
    "--prefix",
    "--report",
    "--save-labels",
)
#: Pages whose commands take long together and do what the README's do, with other options. They run
#: with VIM_TEST_ALL=1; their commands are read by the command line in any case.
LONG_PAGES = (
    "docs/bench.md",
    "docs/compare.md",
    "docs/engines.md",
    "docs/mambavision.md",
    "docs/precision.md",
    "docs/quantization.md",
    "docs/reports.md",
    "docs/resolutions.md",
    "docs/scan-op.md",
    "docs/segmentation.md",
    "docs/tools.md",
    "docs/triton.md",
    "docs/tutorials/cpp.md",
    "docs/tutorials/finetuned.md",
    "docs/tutorials/precision.md",
    "docs/tutorials/segmentation.md",
    "docs/tutorials/serve.md",
    "docs/verify.md",
    "export/README.md",
)


def relative(page: Path) -> str:
    """A page's name in the repository."""
    return page.relative_to(REPOSITORY).as_posix()


#: The README first, as people read. docs/python.md is one program, which a test of its own runs.
PAGES = [
    page
    for page in sorted(markdown_files(), key=lambda page: (page.parent != REPOSITORY, page))
    if code_of(page) and page.name != "python.md"
]


def console() -> Iterator[tuple[str, Block, Command]]:
    """Where it stands, block and command of every command of every page."""
    for page in PAGES:
        for block in code_of(page):
            for command in commands(block) if block.language == "console" else ():
                yield f"{relative(page)}:{block.first_line}: {command.text}", block, command


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What commands read of a fresh clone, and a folder of programs as an installation makes it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in READ:
        shutil.copytree(REPOSITORY / name, folder / name)
    install(folder)
    return folder


@pytest.mark.slow
@pytest.mark.rtx
@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_runs(page: Path, clone: Path, folder_of_traces: Path) -> None:
    if relative(page) in LONG_PAGES and not os.environ.get("VIM_TEST_ALL"):
        pytest.skip("VIM_TEST_ALL=1 runs the commands of this page")
    before = set(clone.rglob("*"))
    left_out = []
    for block in code_of(page):
        for step, command in steps(block) if not block.needs else ():
            line = f"{relative(page)}:{block.first_line}: {command.text}"
            if NEED_RTX.search(command.text) and not RTX_IS_INSTALLED:
                left_out.append(line)
                continue
            done = run(step, clone, folder_of_traces)
            assert (done.returncode != 0) == command.fails, f"{line}\n{done.stdout}"
            missing = not_answered(command.said, done.stdout)
            assert not missing, f"{line}\n{done.stdout}\ndoes not answer {missing}"
    made = {path.relative_to(clone).parts[0] for path in set(clone.rglob("*")) - before}
    assert made <= {WORK}
    if left_out:
        pytest.skip("not run, tensorrt-rtx-cu13 is not installed: " + "; ".join(left_out))


def test_what_pages_make_is_ignored_by_git() -> None:
    assert f"/{WORK}/" in (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_a_block_that_needs_nothing_runs_programs_that_every_machine_has() -> None:
    for where, block, command in console():
        assert block.needs or command.words[0] in PROGRAMS, f"{where}: say what it '# needs'"


def test_every_command_can_be_read() -> None:
    for where, _, command in console():
        if command.words[0] != PROGRAM:
            continue
        try:
            parse(command.words[1:])
        except (click.ClickException, KeyError) as error:
            pytest.fail(f"{where}: {error!r}")


def test_no_block_is_without_commands_and_no_command_without_a_block() -> None:
    for page in PAGES:
        for block in code_of(page):
            assert block.language == "python" or commands(block), f"{page}:{block.first_line}"
    for page in markdown_files():
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            assert not re.match(rf" {{4,}}({PROGRAM}|pip|python|make|\$) ", line), (
                f"{page}:{number}"
            )


def test_a_page_reads_what_it_has_made_and_two_never_make_the_same_otherwise() -> None:
    """So one page works without the others, and after them."""
    makers: dict[str, str] = {}
    for page in PAGES:
        made = {name for file in shown_files(page) for name in (file, posixpath.dirname(file))}
        for block in code_of(page):
            if block.language == "python":
                made.update(re.findall(rf'"({WORK}/[^"]+)"', "\n".join(block.lines)))
                continue
            for command in commands(block):
                words = [word for word in command.words if word != "&"]
                if words[0] == "python" and words[1].startswith("docs/"):
                    text = (REPOSITORY / words[1]).read_text(encoding="utf-8")
                    made.update(re.findall(rf'"({WORK}/[^"]+)"', text))
                for before, word in itertools.pairwise(words):
                    where = f"{relative(page)}: {command.text}"
                    if before in WRITE and not (block.needs or command.fails):
                        assert makers.setdefault(word, command.text) == command.text, where
                    if before in WRITE:
                        made.add(word)
                    elif word.startswith(f"{WORK}/"):
                        known = any(word == item or word.startswith(f"{item}/") for item in made)
                        assert known, f"{where}: {word} is not made on this page"


def test_a_wrong_page_is_noticed(clone: Path, folder_of_traces: Path) -> None:
    words = ["bash", "-c", f"{PROGRAM} export missing.pth -o m.onnx"]
    done = run(words, clone, folder_of_traces)
    assert done.returncode == 4
    assert "VIM-401" in done.stdout
    answer = "a  1 s\nb: 2\nc"
    assert not_answered(["a ... s", "...", "c"], answer) == []
    assert not_answered(["b: 3", "c"], answer) == ["b: 3", "c"]
    with pytest.raises(click.ClickException):
        parse(["export", "x.pth", "--opset", "fifteen"])
    with pytest.raises(click.ClickException):
        parse(["export", "x.pth", "--opzet", "18"])
