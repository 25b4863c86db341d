"""``benchmarks/gpu/travel.py`` on a small repository: sizes, taking out, putting back."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.source import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "gpu" / "travel.py"
FILES = {
    "package/code.py": b"x = 1\n",
    "tests/data/reference/vim_digits.npz": b"kept",
    "tests/data/reference/large.bin": bytes(range(256)) * 300,
    "tests/data/reference/name with \xe4 and space": b"\r\n\0 odd",
    "docs/figure.svg": b"<svg/>" * 100,
}


@pytest.fixture(scope="module")
def travel() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_travel", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", *who, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("committed")
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "docs/figure.svg").chmod(0o755)
    (folder / "docs/link").symlink_to("figure.svg")
    (folder / ".gitignore").write_text("/.travel/\n/.gpu/\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    return folder


@pytest.fixture
def tree(committed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(committed, tmp_path / "tree", symlinks=True))


def is_as_it_was(tree: Path) -> bool:
    same = all((tree / name).read_bytes() == data for name, data in FILES.items())
    clean = git(tree, "status", "--porcelain") == ""
    mode = (tree / "docs/figure.svg").stat().st_mode & 0o777
    return same and clean and mode == 0o755 and not (tree / ".travel").exists()


def test_out_and_back(travel: ModuleType, tree: Path) -> None:
    before = travel.tree_bytes(tree)
    assert travel.light(tree) == 4
    assert (tree / "tests/data/reference/vim_digits.npz").exists()
    assert not (tree / "tests/data/reference/large.bin").exists()
    assert not os.path.lexists(tree / "docs/link")
    assert before - travel.tree_bytes(tree) > 76800
    assert travel.light(tree) == 4
    assert travel.restore(tree) == 4
    assert is_as_it_was(tree)
    assert os.readlink(tree / "docs/link") == "figure.svg"
    assert travel.restore(tree) == 0


@pytest.mark.parametrize("moves", [0, 1, 3])
def test_interrupted(
    travel: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    done: list[Path] = []
    rename = Path.rename

    def stopping(self: Path, target: Path) -> Path:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(self)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stopping)
        with pytest.raises(KeyboardInterrupt):
            travel.light(tree)
    if moves == 1:  # finished by a second call, and interrupted on the way back
        assert travel.light(tree) == 4
        done.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", stopping)
            with pytest.raises(KeyboardInterrupt):
                travel.restore(tree)
    assert travel.restore(tree) == 4
    assert is_as_it_was(tree)


def test_interrupted_before_the_list(travel: ModuleType, tree: Path) -> None:
    (tree / ".travel").mkdir()
    (tree / ".travel/files.json.part").write_text('{"docs/fig')
    with pytest.raises(travel.TravelError, match="without a list"):
        travel.light(tree)
    assert travel.restore(tree) == 0
    assert is_as_it_was(tree)


@pytest.mark.parametrize("how", ["changed", "staged", "new", "deleted"])
def test_uncommitted_changes_stay(travel: ModuleType, tree: Path, how: str) -> None:
    if how == "new":
        (tree / "docs/new.svg").write_text("new")
    elif how == "deleted":
        (tree / "docs/figure.svg").unlink()
    else:
        (tree / "docs/figure.svg").write_text("mine")
    if how == "staged":
        git(tree, "add", "-A")
    with pytest.raises(travel.TravelError, match="1 uncommitted change"):
        travel.light(tree)
    assert not (tree / ".travel").exists()
    assert (tree / "tests/data/reference/large.bin").exists()


def test_changes_elsewhere_do_not_matter(travel: ModuleType, tree: Path) -> None:
    (tree / "package/code.py").write_text("x = 2\n")
    assert travel.light(tree) == 4
    assert travel.restore(tree) == 4
    assert (tree / "package/code.py").read_text() == "x = 2\n"


def test_a_file_that_was_damaged_away_is_named(
    travel: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    travel.light(tree)
    (tree / ".travel/files/docs/figure.svg").write_text("other")
    assert travel.main(["--repository", str(tree), "restore"]) == 2
    assert "docs/figure.svg; what git has of them" in capsys.readouterr().err
    git(tree, "checkout", "--", "docs/figure.svg")
    assert travel.restore(tree) == 4
    assert is_as_it_was(tree)


def test_sizes(travel: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / ".gpu").mkdir()
    (tree / ".gpu/part").write_bytes(bytes(1 << 20))
    size = ["--repository", str(tree), "size", str(tree / ".gpu"), "--limit"]
    assert travel.main([*size, "2"]) == 0
    assert "1.0 MiB, with the tree 1.1 of 2: fits" in capsys.readouterr().out
    assert travel.main([*size, "1.05"]) == 1
    said = capsys.readouterr()
    assert "TOO LARGE" in said.out
    assert "travel.py light" in said.err
    travel.light(tree)
    assert travel.main([*size, "1.05"]) == 0
    assert travel.main(["--repository", str(tree), "size", str(tree / "none")]) == 2


def test_what_calls_need_stays(travel: ModuleType) -> None:
    for name in travel.KEPT:
        assert (REPOSITORY / name).is_file()
    heavy = [f"{name}/" for name in travel.HEAVY]
    for needed in ("vim_deploy/", "plugins/", "export/", "benchmarks/gpu/", "cpp/"):
        assert not any(needed.startswith(name) or name.startswith(needed) for name in heavy)
    assert (REPOSITORY / ".gitignore").read_text().count(f"/{travel.AWAY}/\n") == 1
