"""Dockerfiles, compose file, .dockerignore: what they name is there, and nothing is left open."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.support.commands import parse
from tests.support.dockerfiles import Ignored, Stage, stages
from tests.support.markdown import PROGRAM
from tests.support.source import REPOSITORY

FOLDER = REPOSITORY / "containers"
DOCKERFILES = sorted(FOLDER.glob("*.Dockerfile"))
PAGE = REPOSITORY / "docs" / "containers.md"
LISTS = REPOSITORY / "requirements" / "names"
IGNORED = Ignored(REPOSITORY / ".dockerignore")

each_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)


def steps(stage: Stage) -> list[str]:
    """Single commands of a stage's RUN instructions, in order."""
    return [part.strip() for text in stage.all("RUN") for part in text.split("&&")]


def tracked() -> list[str]:
    """Files that git has or would take; skips where this is no checkout."""
    try:
        words = ["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others"]
        done = subprocess.run(
            [*words, "--exclude-standard"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git does not tell which files there are: {error}")
    return done.stdout.splitlines()


def test_there_are_two() -> None:
    assert [path.stem for path in DOCKERFILES] == ["cpu", "cuda"]


@each_dockerfile
def test_what_is_copied_is_there_and_reaches_the_build(path: Path) -> None:
    _, found = stages(path)
    names: set[str] = set()
    for stage in found:
        for text in stage.all("COPY"):
            *sources, _ = shlex.split(text)
            if sources[0].startswith("--from="):
                assert sources[0].removeprefix("--from=") in names
                continue
            for source in sources:
                assert (REPOSITORY / source).exists(), source
                assert source == "." or not IGNORED(source.rstrip("/")), source
        names.add(stage.name)


@each_dockerfile
def test_what_is_installed_is_pinned_and_nothing_is_kept_for_a_second_time(path: Path) -> None:
    _, found = stages(path)
    build = found[0]
    variables = " ".join(build.all("ENV"))
    assert "PIP_NO_CACHE_DIR=1" in variables
    assert "PIP_NO_DEPS=1" in variables
    installs = [words for step in steps(build) if " install " in step and "pip" in step
                for words in [shlex.split(step)]]  # fmt: skip
    assert len(installs) >= 3
    for words in installs:
        assert words[-1] == "." or "--require-hashes" in words, words
        for name in words:
            if name.endswith(".lock") and not name.startswith("/tmp/"):
                assert (REPOSITORY / name).is_file(), name
    for step in steps(build):
        if "select.sh" in step:
            lists = step.partition(">")[0].split()[2:]
            assert all((LISTS / f"{name}.txt").is_file() for name in lists)
            assert "tool" in lists
    updates = [text for text in build.all("RUN") if "apt-get update" in text]
    assert all(text.endswith("rm -rf /var/lib/apt/lists/*") for text in updates)


@each_dockerfile
def test_the_image_runs_the_tool_as_nobody_in_particular(path: Path) -> None:
    defaults, found = stages(path)
    last = found[-1]
    assert last.image == found[0].image == "${" + next(iter(defaults)) + "}"
    assert re.fullmatch(r"[\w./-]+:[\w.-]+", next(iter(defaults.values())))
    assert not last.image.endswith(":latest")
    assert last.all("ENTRYPOINT") == [f'["{PROGRAM}"]']
    assert last.all("USER") == ["10001"]
    # Compilers stay behind: the last stage installs nothing.
    assert not [step for step in steps(last) if "install" in step]
    files = re.findall(r"VIM_DEPLOY_\w+=(\S+)", " ".join(last.all("ENV")))
    assert files
    for file in files:
        assert any(step.endswith(f"-o {file}") for step in steps(found[0])), file
        # A command makes no folder for what it writes.
        assert f"mkdir {Path(file).parent}" in steps(found[0])


@each_dockerfile
def test_its_commands_can_be_read(path: Path) -> None:
    _, found = stages(path)
    commands = 0
    for stage in found:
        for step in steps(stage):
            words = shlex.split(step)
            while words and re.fullmatch(r"\w+=\S*", words[0]):
                words = words[1:]
            if Path(words[0]).name == PROGRAM:
                parse(words[1:])
                commands += 1
    assert commands


def loaded(path: Path) -> ModuleType:
    """A program beside the package, as a module."""
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# setuptools brings its own distutils, and which of the two is there first depends on other tests.
@pytest.mark.filterwarnings("ignore:.*distutils")
def test_what_the_package_is_built_of_reaches_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    import setuptools

    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    wanted = [path.as_posix() for path in loaded(REPOSITORY / "setup.py").shipped()]
    assert "tests/data/reference/vim_digits.pth" in wanted
    names = tracked()
    wanted += [name for name in names if name.startswith(("vim_deploy/", "requirements/"))]
    wanted += ["pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"]
    assert [name for name in wanted if IGNORED(name)] == []
    left_out = [name for name in names if IGNORED(name)]
    assert {"tests/rules/test_containers.py", ".github/workflows/ci.yml"} <= set(left_out)


def test_what_git_ignores_reaches_no_build() -> None:
    rules = (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    for rule in rules:
        name = rule.strip("/").replace("*", "some")
        assert IGNORED(name) or IGNORED(f"{name}/file"), rule


def test_the_page_names_the_images_and_the_release() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for path in DOCKERFILES:
        defaults, found = stages(path)
        assert (
            f"[{path.name}](../containers/{path.name}) | `{next(iter(defaults.values()))}`" in page
        )
        for text in found[0].all("ARG"):
            name, _, default = text.partition("=")
            assert f"`{name}`" in page, name
            if name == "TENSORRT":
                assert f"full TensorRT {default} " in page


def test_compose() -> None:
    found = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    assert set(found["services"]) == {"tool", "cuda"}
    for service in found["services"].values():
        assert (FOLDER / service["build"]["context"]).resolve() == REPOSITORY
        assert (REPOSITORY / service["build"]["dockerfile"]).is_file()
        assert service["image"] in PAGE.read_text(encoding="utf-8")
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "ports" not in service
        assert "privileged" not in service


def test_the_release_of_an_image_is_read_from_its_library() -> None:
    module = loaded(FOLDER / "tensorrt_release.py")
    assert module.named(101401) == "10.14.1"
    assert module.named(8601) == "8.6.1"
    assert module.is_of("10.14.1", "10.14")
    assert module.is_of("10.14.1", "10.14.1")
    assert not module.is_of("10.1.4", "10.14")
    assert not module.is_of("10.14.1", "10.1")
