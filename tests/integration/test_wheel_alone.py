"""The wheel alone does what the checkout does: installed elsewhere, used in an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import wheels
from tests.support.builds import RTX_IS_INSTALLED
from tests.support.source import REPOSITORY, files
from tests.support.web import runtime_of
from vim_deploy.packaging.cpp import cpp_sources, sources_folder
from vim_deploy.plugin.ort_library import sources_key
from vim_deploy.recipe.catalog import recipe_names
from vim_deploy.stages.documents import pages

pytestmark = [wheels.needs_setuptools, pytest.mark.slow]
whole = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
#: Runs command lines one after the other, as so many calls of the program, and tells what they did.
CALLS = """
import contextlib, io, json, sys
from vim_deploy.cli.main import run
done = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out, \\
            contextlib.redirect_stderr(io.StringIO()) as err:
        status = run(words)
    done.append((status, out.getvalue(), err.getvalue()))
json.dump(done, sys.stdout)
"""
#: Asks the copy at hand where it is, what it has, and how it would be added to.
ASK = """
import json, sys, vim_deploy
from vim_deploy.installation import extra_command, is_checkout
from vim_deploy.packaging.cpp import cpp_sources, sources_folder
from vim_deploy.plugin.build import hash_sources
from vim_deploy.plugin.ort_library import sources_key
from vim_deploy.plugin.sources import plugin_sources
from vim_deploy.recipe.catalog import recipe_names
from vim_deploy.stages.documents import pages
json.dump({
    "file": vim_deploy.__file__, "checkout": is_checkout(), "fix": extra_command("coco"),
    "recipes": recipe_names(), "pages": list(pages()), "cpp": list(cpp_sources(sources_folder())),
    "cpu": sources_key("cpu"), "cuda": sources_key("cuda"),
    "plugin": hash_sources(plugin_sources()),
}, sys.stdout)
"""


@dataclass(frozen=True)
class Copy:
    """An installed wheel: its interpreter, and an empty folder to work in."""

    python: Path
    folder: Path

    def start(self, words: list[str], given: object = "") -> str:
        """What a process of it prints; the test fails when the process does."""
        done = subprocess.run(
            [str(self.python), *words],
            cwd=self.folder,
            env=wheels.bare_variables(),
            input=json.dumps(given),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *lines: str) -> list[tuple[str, str]]:
        """Standard output and error of command lines, all of which succeed."""
        found: list[Any] = json.loads(self.start(["-c", CALLS], [line.split() for line in lines]))
        for line, (status, out, err) in zip(lines, found, strict=True):
            assert status == 0, f"vim-deploy {line}\n{out}{err}"
        return [(out, err) for _, out, err in found]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    place = tmp_path_factory.mktemp("alone")
    python = wheels.make_environment(
        place / "environment", str(wheels.pure_wheel(tmp_path_factory))
    )
    (place / "work").mkdir()
    return Copy(python, place / "work")


@pytest.fixture(scope="module")
def exported(copy: Copy) -> list[tuple[str, str]]:
    """What the commands of the tour answer; digits.onnx is made by them."""
    shutil.copy(REPOSITORY / "tests" / "data" / "digits" / "7.png", copy.folder)
    return copy.run(
        "recipes list",
        "export vim-digits -o digits.onnx",
        "verify digits.onnx --against vim-digits",
        "run digits.onnx 7.png --json",
        "inspect digits.onnx",
        "package digits.onnx --target triton --runtime python -o served",
        "package --check served",
        "doctor",
        "docs",
        "docs docs/plugin.md",
        "docs VIM-301",
    )


def test_it_has_what_the_checkout_has(copy: Copy) -> None:
    said = json.loads(copy.start(["-c", ASK]))
    assert Path(said["file"]).is_relative_to(copy.python.parents[1])
    assert not said["checkout"]
    assert said["recipes"] == list(recipe_names())
    assert set(said["pages"]) == set(pages())
    assert said["cpp"] == list(cpp_sources(sources_folder()))
    # Equal hashes, so what was compiled for one is taken by the other.
    for provider in ("cpu", "cuda"):
        assert said[provider] == sources_key(provider)
    from vim_deploy.plugin.build import hash_sources
    from vim_deploy.plugin.sources import plugin_sources

    assert said["plugin"] == hash_sources(plugin_sources())
    assert "pip install" in said["fix"]
    assert said["fix"].endswith(".whl[coco]'")


def test_every_file_of_the_package_is_in_it(copy: Copy) -> None:
    """Styles, templates, programs, pages: whatever a module may read beside itself."""
    package = next(copy.python.parents[1].glob("lib/python*/site-packages/vim_deploy"))
    listed = subprocess.run(
        ["git", "ls-files", "vim_deploy"], cwd=REPOSITORY, capture_output=True, text=True
    )
    names = listed.stdout.split() or [
        path.relative_to(REPOSITORY).as_posix()
        for path in files(".py", ".toml", ".css", ".j2", ".txt", ".mjs", ".html")
        if path.is_relative_to(REPOSITORY / "vim_deploy")
    ]
    missing = [name for name in names if not (package.parent / name).is_file()]
    assert missing == []


def test_the_commands_of_the_tour(copy: Copy, exported: list[tuple[str, str]]) -> None:
    listed, wrote, verified, ran, inspected, _, checked, doctor, *_ = exported
    assert "vim-digits" in listed[0]
    assert "digits.onnx" in wrote[1] + wrote[0]
    assert "agrees with PyTorch" in verified[0] + verified[1]
    assert json.loads(ran[0])["images"][0]["top"][0]["label"] == "seven"
    assert "logits" in inspected[0]
    assert "reproduced by ONNX Runtime" in checked[0]
    assert "vim-deploy" in doctor[0]


def test_its_documents(exported: list[tuple[str, str]]) -> None:
    listed, page, entry = (out for out, _ in exported[-3:])
    assert all(name in listed for name in ("plugin", "errors", "decisions/001-recipes-in-toml"))
    assert page.rstrip("\n") == (REPOSITORY / "docs/plugin.md").read_text("utf-8").rstrip("\n")
    assert entry.startswith("### VIM-301: ")
    assert "### VIM-302" not in entry


def test_the_program_itself(copy: Copy) -> None:
    program = copy.python.with_name("vim-deploy")
    done = subprocess.run(
        [str(program), "docs", "plugni"],
        cwd=copy.folder,
        env=wheels.bare_variables(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "did you mean 'plugin'?" in done.stderr


def test_native_ops_are_compiled(copy: Copy) -> None:
    """Or taken from the cache: the sources are those of the checkout."""
    if not (shutil.which("cmake") and shutil.which("g++")):
        pytest.skip("cmake or g++ is not on PATH")
    ((out, _),) = copy.run("plugin build --target onnxruntime")
    library = Path(out.strip())
    assert library.is_file()


@pytest.mark.rtx
@pytest.mark.skipif(not RTX_IS_INSTALLED, reason="tensorrt-rtx-cu13 is not installed")
def test_an_engine(copy: Copy, exported: list[tuple[str, str]]) -> None:
    copy.run("build-engine digits.onnx --max-batch 2 --opt-batch 1", "inspect digits.plan")
    assert (copy.folder / "digits.plan").is_file()


@whole
def test_a_page_for_browsers(
    copy: Copy, exported: list[tuple[str, str]], request: pytest.FixtureRequest
) -> None:
    runtime = runtime_of(request.config)
    copy.run(
        "export digits.onnx --standalone -o alone.onnx",
        f"package alone.onnx --target web --web-runtime {runtime} -o page",
    )
    assert (copy.folder / "page" / "index.html").is_file()


@whole
@pytest.mark.timeout(1800)
def test_the_plugin_library(copy: Copy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compiled from the wheel's sources, with nothing in the cache."""
    from tests.support import plugins

    plugins.need_toolkit()
    headers = plugins.need_headers()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    copy.run(f"plugin build --arch 80 --tensorrt-root {headers} -o libvim_plugins.so")
    ((out, _),) = copy.run("plugin info libvim_plugins.so --json")
    assert json.loads(out)["architectures"]
