"""make release-check: what it lets pass, and what it names."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.source import REPOSITORY

SCRIPT = REPOSITORY / ".ci" / "release_check.py"
CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2027-01-31\n\n### Added\n\n- A thing.\n"


def load() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("release_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load()


def git(root: Path, *words: str) -> None:
    """git with an identity of its own, and no settings of this machine."""
    own = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *own, *words], check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout that is ready."""
    root = tmp_path / "checkout"
    (root / "vim_deploy").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
    (root / "vim_deploy/__init__.py").write_text('__version__ = "1.2.3"\n')
    (root / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.3\n")
    (root / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "--quiet", str(root))
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "ready")
    return root


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A wheel and a source archive of that version."""
    folder = tmp_path / "dist"
    folder.mkdir()
    with zipfile.ZipFile(folder / "vim_deploy-1.2.3-py3-none-any.whl", "w") as archive:
        archive.writestr("vim_deploy/__init__.py", "x" * 1000)
    with tarfile.open(folder / "vim_deploy-1.2.3.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("vim_deploy-1.2.3/PKG-INFO"), io.BytesIO())
    return folder


def test_a_checkout_that_is_ready_passes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--before"], root) == 0
    git(root, "tag", "v1.2.3")
    assert script.main(["--before"], root) == 0
    assert "1.2.3: nothing is wrong" in capsys.readouterr().out


def test_a_tree_that_differs_from_its_commit_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "new.py").touch()
    assert script.main(["--before"], root) == 1
    assert "1 files differ from the last commit, new.py the first" in capsys.readouterr().err


def test_a_tag_elsewhere_is_refused(root: Path) -> None:
    git(root, "tag", "v1.2.3")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "later")
    assert list(script.of_the_checkout(root)) == [
        "the tag v1.2.3 stands on another commit: raise the version"
    ]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (CHANGELOG.replace("1.2.3", "1.2.2"), "has no section '## 1.2.3 - YYYY-MM-DD'"),
        (CHANGELOG.replace("2027-01-31", "2027-02-31"), "2027-02-31 is no date"),
        (CHANGELOG.replace(" - 2027-01-31", ""), "has no section"),
        (CHANGELOG.partition("### Added")[0], "nothing stands under 1.2.3"),
        (CHANGELOG.replace("released\n", "released\n\n- Forgotten.\n"), "under Unreleased"),
    ],
)
def test_a_changelog_without_the_version_is_refused(root: Path, text: str, wrong: str) -> None:
    (root / "CHANGELOG.md").write_text(text)
    (found,) = script.of_the_changelog(root)
    assert wrong in found


def test_another_version_elsewhere_is_refused(root: Path) -> None:
    (root / "CITATION.cff").write_text("version: 1.2.2\n")
    (root / "vim_deploy/__init__.py").write_text("")
    assert list(script.of_other_versions(root)) == [
        "vim_deploy/__init__.py says no version, pyproject.toml 1.2.3",
        "CITATION.cff says 1.2.2, pyproject.toml 1.2.3",
    ]


def test_this_checkout_has_one_version() -> None:
    assert list(script.of_other_versions(REPOSITORY)) == []


def test_files_that_are_whole_pass_and_are_summed(root: Path, dist: Path) -> None:
    assert script.main(["--dist", str(dist)], root) == 0
    words = ["sha256sum", "--check", "--strict", script.SUMS]
    done = subprocess.run(words, cwd=dist, capture_output=True, text=True, check=True)
    assert done.stdout.count(": OK") == 2


def test_files_that_are_damaged_old_or_missing_are_named(dist: Path) -> None:
    wheel = dist / "vim_deploy-1.2.3-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:-30])
    (dist / "vim_deploy-1.2.3.tar.gz").rename(dist / "vim_deploy-1.2.2.tar.gz")
    found = "\n".join(script.of_the_files(dist, "1.2.3"))
    assert "none-any.whl is damaged" in found
    assert "1.2.2.tar.gz is of another version" in found
    for path in dist.iterdir():
        path.unlink()
    assert [line.rpartition(" no ")[2] for line in script.of_the_files(dist, "1.2.3")] == [
        "pure wheel",
        "source archive",
    ]
