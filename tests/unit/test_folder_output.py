"""A folder takes the place of another, and nothing that somebody else put there is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from vim_deploy import folder_output
from vim_deploy.errors import VimDeployError
from vim_deploy.files import settings_hash
from vim_deploy.folder_output import atomic_folder
from vim_deploy.packaging.manifest import MANIFEST_NAME, own_files

OWN = ("a.txt", "deep/b.txt")


def filled(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old")
    return folder


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                  if path.is_file())  # fmt: skip


def own(folder: Path) -> Collection[str]:
    if set(files_of(folder)) - set(OWN):
        raise VimDeployError("VIM-304", "it holds something else")
    return OWN


def replaced(path: Path, meanwhile: Callable[[], object] = int) -> None:
    with atomic_folder(path, own) as place:
        (place / "new.txt").write_text("new")
        meanwhile()


def test_a_folder_of_own_files_is_replaced(tmp_path: Path) -> None:
    path = filled(tmp_path / "out", *OWN)
    replaced(path)
    assert files_of(tmp_path) == ["out/new.txt"]
    assert os.listdir(tmp_path) == ["out"]


def test_an_empty_folder_is_filled_and_a_full_one_stays_without_an_owner(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with atomic_folder(tmp_path / "out") as place:
        (place / "new.txt").write_text("new")
    with pytest.raises(VimDeployError) as caught, atomic_folder(tmp_path / "out"):
        pass
    assert caught.value.code == "VIM-304"
    assert files_of(tmp_path) == ["out/new.txt"]


def test_a_foreign_file_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    path = filled(tmp_path / "out", *OWN, "notes.txt")
    with pytest.raises(VimDeployError), atomic_folder(path, own):
        pytest.fail("the block has begun")
    assert files_of(path) == sorted([*OWN, "notes.txt"])
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_appears_meanwhile_keeps_the_old_folder(tmp_path: Path) -> None:
    path = filled(tmp_path / "out", *OWN)
    with pytest.raises(VimDeployError):
        replaced(path, meanwhile=lambda: filled(path, "notes.txt"))
    assert files_of(path) == sorted([*OWN, "notes.txt"])
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_appears_at_the_last_moment_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "out", *OWN)
    discard = folder_output._discard

    def late(aside: Path, names: Collection[str]) -> None:
        filled(aside / "old", "deep/notes.txt")
        discard(aside, names)

    monkeypatch.setattr(folder_output, "_discard", late)
    replaced(path)
    assert files_of(path) == ["new.txt"]
    (kept,) = tmp_path.rglob("notes.txt")
    monkeypatch.undo()
    replaced_again = filled(tmp_path / "out2", *OWN)
    replaced(replaced_again)
    assert kept.read_text() == "old"


def test_a_run_killed_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    filled(tmp_path / ".out.abcdefgh.part" / "old", *OWN)
    filled(tmp_path / ".out.ijklmnop.part", "half.txt")
    seen = []
    with atomic_folder(tmp_path / "out", own) as place:
        seen = files_of(tmp_path / "out")
        (place / "new.txt").write_text("new")
    assert seen == sorted(OWN)
    assert files_of(tmp_path) == ["out/new.txt"]


@pytest.mark.parametrize("foreign", [False, True])
def test_what_a_killed_removal_left_goes_unless_it_is_somebodys(
    tmp_path: Path, foreign: bool
) -> None:
    filled(tmp_path / ".out.abcdefgh.part" / "old", "a.txt", *(["x.txt"] if foreign else []))
    filled(tmp_path / "out", *OWN)
    replaced(tmp_path / "out")
    assert files_of(tmp_path / "out") == ["new.txt"]
    assert (tmp_path / ".out.abcdefgh.part" / "old" / "x.txt").exists() == foreign
    assert (tmp_path / ".out.abcdefgh.part").exists() == foreign


def listing(folder: Path, *names: str) -> None:
    """A manifest of ours, its own hash right, that names these files."""
    entry = {"sha256": "0", "bytes": 0}
    value = {
        "format": 1, "kind": "package", "target": "triton", "tool_version": "x",
        "settings_hash": "x", "about": {}, "files": dict.fromkeys(names, entry),
    }  # fmt: skip
    value["manifest_sha256"] = settings_hash(value)
    (folder / MANIFEST_NAME).write_text(json.dumps(value))


def test_a_link_in_a_package_leads_to_nothing_that_is_removed(tmp_path: Path) -> None:
    """A manifest that names a file of another folder by way of a link."""
    other = filled(tmp_path / "other", "notes.txt")
    package = filled(tmp_path / "w" / "p")
    package.mkdir(parents=True)
    (package / "link").symlink_to(other)
    listing(package, "link", "link/notes.txt")
    with atomic_folder(package, own_files) as place:
        (place / "a.txt").write_text("new")
    assert files_of(package) == ["a.txt"]
    assert files_of(other) == ["notes.txt"]
    assert [path.name for path in package.parent.iterdir()] == ["p"]


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_who_owns_a_folder_may_not_remove_through_a_link(tmp_path: Path) -> None:
    other = filled(tmp_path / "other", "b.txt")
    folder = filled(tmp_path / "w" / "p", "a.txt")
    (folder / "deep").symlink_to(other)
    with atomic_folder(folder, lambda _: OWN) as place:
        (place / "new.txt").write_text("new")
    assert files_of(other) == ["b.txt"]
    assert files_of(folder) == ["new.txt"]


@pytest.mark.parametrize("name", ["a\0b", "", ".", "../a", "/a"])
def test_names_that_no_package_has(tmp_path: Path, name: str) -> None:
    package = tmp_path / "w" / "p"
    package.mkdir(parents=True)
    listing(package, name)
    with pytest.raises(VimDeployError) as caught, atomic_folder(package, own_files):
        pass
    assert caught.value.code == "VIM-304"
    assert [path.name for path in package.parent.iterdir()] == ["p"]
    assert [path.name for path in package.iterdir()] == [MANIFEST_NAME]
