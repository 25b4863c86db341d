"""The recipe of ``make wheels``: what is in a wheel, what its name says, and what is refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from tests.support import wheels
from tests.support.cpu_replay import failures
from tests.support.packages import names_of
from tests.support.source import REPOSITORY

pytestmark = wheels.needs_setuptools
STAND_IN = b"\x7fELF stands for a compiled library"
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


@pytest.fixture(scope="module")
def recipe() -> object:
    return wheels.recipe()


@pytest.fixture(scope="module")
def pure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel without a library."""
    return wheels.pure_wheel(tmp_path_factory)


@pytest.fixture(scope="module")
def carrying(recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel for aarch64, with a stand-in."""
    folder = tmp_path_factory.mktemp("carrying")
    library = folder / "compiled.so"
    library.write_bytes(STAND_IN)
    return recipe.build_wheel(folder, library, recipe.TARGETS[1].tag)


def test_the_pure_wheel_carries_no_library(recipe, pure: Path) -> None:
    recipe.check_wheel(pure, None)
    assert pure.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(pure) as wheel:
        assert recipe.INSIDE not in wheel.namelist()


def test_the_wheel_of_a_platform_carries_its_library(recipe, pure: Path, carrying: Path) -> None:
    recipe.check_wheel(carrying, recipe.TARGETS[1])
    assert carrying.name.endswith("-py3-none-manylinux_2_17_aarch64.whl")
    with zipfile.ZipFile(carrying) as wheel, zipfile.ZipFile(pure) as other:
        assert wheel.read(recipe.INSIDE) == STAND_IN
        assert set(wheel.namelist()) - set(other.namelist()) == {recipe.INSIDE}


def test_equal_sources_give_equal_bytes(recipe, carrying: Path, tmp_path: Path) -> None:
    library = tmp_path / "another name.so"
    library.write_bytes(STAND_IN)
    again = recipe.build_wheel(tmp_path, library, recipe.TARGETS[1].tag)
    assert again.read_bytes() == carrying.read_bytes()


def test_the_sources_in_a_wheel_are_complete(recipe, pure: Path) -> None:
    """Each file that a source includes by name is beside it or in the folder ``include``."""
    with zipfile.ZipFile(pure) as wheel:
        sources = {
            name.removeprefix(f"{recipe.SHIPPED}plugins/"): wheel.read(name).decode()
            for name in wheel.namelist()
            if name.startswith(f"{recipe.SHIPPED}plugins/")
        }
    assert {"CMakeLists.txt", "cpu/CMakeLists.txt", "cmake/FindTensorRT.cmake"} <= sources.keys()
    left_out = {"tests", "wheel", "bench"}
    assert not [name for name in sources if left_out & set(PurePosixPath(name).parts)]
    missing = [
        (name, wanted)
        for name, text in sources.items()
        if name.endswith((".h", ".cuh", ".cpp", ".cu"))
        for wanted in INCLUDE.findall(text)
        if not any(f"/{other}".endswith(f"/{wanted}") for other in sources)
    ]
    assert missing == []


def test_a_wheel_carries_what_the_repository_has_for_commands(recipe, pure: Path) -> None:
    """Every recipe, page, picture of a page, and source; and nothing that is not in git."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    words += ["docs", "export", "cpp", "plugins"]
    listed = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("git, which lists the repository's files, does not answer here")
    kinds = {"docs": (".md", ".png", ".svg"), "export": (".toml", ".txt")}
    wanted = {
        name
        for name in listed.stdout.splitlines()
        if not {"tests", "wheel", "bench"} & set(PurePosixPath(name).parts)
        and name.endswith(kinds.get(name.partition("/")[0], ""))
    }
    with zipfile.ZipFile(pure) as wheel:
        shipped = {
            name.removeprefix(recipe.SHIPPED)
            for name in wheel.namelist()
            if name.startswith(recipe.SHIPPED)
        }
    assert shipped - {"tests/data/reference/vim_digits.pth"} == wanted


def test_the_description_leads_to_the_repository(pure: Path) -> None:
    """On an index's page, no link and no picture of the README is relative."""
    with zipfile.ZipFile(pure) as wheel:
        (about,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        text = wheel.read(about).decode()
    head, _, body = text.partition("\n\n")
    (repository,) = re.findall(r"^Project-URL: Repository, (\S+)$", head, re.MULTILINE)
    outside = re.sub(r"```.*?```", "", body, flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", outside)
    assert all(target.startswith(("https://", "#")) for target in targets)
    ours = {target for target in targets if target.startswith(repository)}
    assert f"{repository}/blob/main/docs/plugin.md" in ours
    pictures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", outside)
    assert pictures
    assert all(picture.startswith(f"{repository}/raw/main/") for picture in pictures)
    for target in ours:
        path = re.sub(r"^/(blob|raw)/main/|#.*$", "", target.removeprefix(repository))
        assert path.startswith("/") or (REPOSITORY / path).exists(), target


# setuptools brings its own distutils, and which of the two is there first depends on other tests.
@pytest.mark.filterwarnings("ignore:.*distutils")
def test_links_are_made_absolute() -> None:
    absolute = names_of(REPOSITORY / "setup.py").absolute
    text = "[a](docs/plugin.md#b) ![p](x/y.svg) [s](#here) [o](https://x.org) [m](mailto:a@b.c)"
    assert absolute(text, "R") == (
        "[a](R/blob/main/docs/plugin.md#b) ![p](R/raw/main/x/y.svg) [s](#here) [o](https://x.org) "
        "[m](mailto:a@b.c)"
    )


def test_the_archive_of_the_sources_makes_the_same_wheel(
    recipe, pure: Path, tmp_path: Path
) -> None:
    sources = recipe.build_sdist(tmp_path)
    recipe.check_sdist(sources, pure)
    (tmp_path / "other").mkdir()
    other = rewritten(pure, "vim_deploy/py.typed", b"changed", tmp_path / "other")
    with pytest.raises(recipe.WheelError, match=r"makes another .*: vim_deploy/py\.typed"):
        recipe.check_sdist(sources, other)


def test_what_an_index_refuses_is_noticed(recipe, pure: Path, tmp_path: Path, monkeypatch) -> None:
    """twine and check-wheel-contents, where the environment of ``make wheels`` is."""
    tools = REPOSITORY / "build" / "wheel-tools" / "bin" / "python"
    if not tools.is_file():
        pytest.skip("needs make wheels before it")
    monkeypatch.setattr(sys, "executable", str(tools))
    recipe.check_for_index([pure, recipe.build_sdist(tmp_path)])
    with zipfile.ZipFile(pure) as wheel:
        (about,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        (record,) = [name for name in wheel.namelist() if name.endswith(".dist-info/RECORD")]
        text = wheel.read(about)
        rows = wheel.read(record)
    undescribed = rewritten(pure, about, text.partition(b"\n\n")[0] + b"\n", tmp_path)
    with pytest.raises(recipe.WheelError, match="twine"):
        recipe.check_for_index([undescribed])
    compiled = rewritten(pure, record, rows.replace(b"/py.typed,", b"/other.pyc,"), tmp_path)
    with pytest.raises(recipe.WheelError, match=r"contains \.pyc"):
        recipe.check_for_index([compiled])


def renamed(path: Path, tag: str, folder: Path) -> Path:
    return Path(shutil.copy(path, folder / f"vim_deploy-0.1.0-py3-none-{tag}.whl"))


def rewritten(path: Path, name: str, content: bytes, folder: Path) -> Path:
    """A copy in ``folder`` in which the file ``name`` is another one."""
    with zipfile.ZipFile(path) as wheel, zipfile.ZipFile(folder / path.name, "w") as copy:
        for item in wheel.infolist():
            copy.writestr(item, content if item.filename == name else wheel.read(item))
    return folder / path.name


def test_a_wheel_that_is_not_what_it_says_is_refused(
    recipe, pure: Path, carrying: Path, tmp_path: Path
) -> None:
    x86, arm = recipe.TARGETS
    for name in ("changed", "pure", "carrying"):
        (tmp_path / name).mkdir()
    changed = rewritten(carrying, recipe.INSIDE, STAND_IN[::-1], tmp_path / "changed")
    for wheel, target, why in (
        (pure, x86, "should be named"),
        (carrying, x86, "should be named"),
        (renamed(pure, x86.tag, tmp_path / "pure"), x86, "does not say"),
        (renamed(carrying, x86.tag, tmp_path / "carrying"), x86, "does not say"),
        (changed, arm, "not as its RECORD says"),
    ):
        with pytest.raises(recipe.WheelError, match=why):
            recipe.check_wheel(wheel, target)


def test_flags_of_whoever_makes_a_wheel_are_not_in_it(
    recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXXFLAGS", "-O0")
    monkeypatch.setenv("LDFLAGS", "-lnothing")
    tool = tmp_path / "cmake"
    tool.write_text('#!/bin/sh\necho "<$CXXFLAGS$LDFLAGS>" >> "$0.log"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    recipe.compile_library(recipe.TARGETS[0], tmp_path)
    assert (tmp_path / "cmake.log").read_text() == "<>\n<>\n"


def test_a_library_and_its_platform_go_together(tmp_path: Path) -> None:
    for name in ("VIM_DEPLOY_WHEEL_LIBRARY", "VIM_DEPLOY_WHEEL_PLATFORM"):
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", str(tmp_path)],
            cwd=prepared(tmp_path / name),
            env={**os.environ, name: "x"},
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        assert "go together" in done.stderr


def prepared(folder: Path) -> Path:
    folder.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


def test_the_processor_is_read_as_the_library_reads_it(recipe) -> None:
    from tests.support.ort_ops import built_library

    if not Path("/proc/cpuinfo").is_file() or os.uname().machine != "x86_64":
        pytest.skip("the flags in /proc/cpuinfo are those of x86-64")
    info = recipe.described(built_library())
    assert info["instruction_set"] == recipe.best_here()


#: What takes minutes, and packages of its own.
whole = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 compiles")


@whole
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_wheel_is_made() -> None:
    """The cross compilers' wheels, made and checked by ``make wheels``."""
    if shutil.which("make") is None:
        pytest.skip("make is not here")
    words = ["make", "wheels", f"PYTHON={sys.executable}"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it runs " in done.stdout


@whole
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_kernels_for_aarch64_compute_the_same(recipe, tmp_path: Path) -> None:
    """Every case of ``plugin test``, in an emulator, against float64."""
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    tools = REPOSITORY / "build" / "wheel-tools" / "bin" / "python"
    if emulator is None or not tools.is_file():
        pytest.skip("needs qemu-aarch64 (Debian: qemu-user-static), and make wheels before it")
    cpu = REPOSITORY / "plugins" / "cpu"
    kernels = [path for path in (cpu / "kernels").glob("*.cpp") if "_avx" not in path.name]
    program = tmp_path / "replay"
    words = [str(tools), "-m", "ziglang", "c++", "-target", "aarch64-linux-musl", "-static", "-O3"]
    words += ["-std=c++17", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
    words += [f"-I{cpu.parent}", f"-I{cpu.parent / 'include'}", "-o", str(program)]
    done = subprocess.run(
        [*words, str(cpu / "tests" / "replay.cpp"), *map(str, kernels)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for threads in ("1", "2"):
        ran, wrong = failures([emulator, str(program), threads])
        assert ran == recipe.TARGETS[1].instruction_sets[0]
        assert wrong == []
