"""Folders: whole or not at all, one writer, nothing left behind."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from vim_deploy import files
from vim_deploy.errors import VimDeployError


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with files.atomic_folder(target) as place:
        (place / "sub").mkdir()
        (place / "sub" / "a").write_text("1")
        assert not target.exists()
    assert (target / "sub" / "a").read_text() == "1"
    assert target.stat().st_mode & 0o500 == 0o500
    assert hidden(tmp_path) == []


def test_an_old_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "old").write_text("0")
    with files.atomic_folder(target) as place:
        (place / "new").write_text("1")
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("no")])
def test_a_failure_leaves_the_old_one(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "old").write_text("0")

    def fails(place: Path) -> None:
        (place / "new").write_text("1")
        raise failure

    with pytest.raises(type(failure)), files.atomic_folder(target) as place:
        fails(place)
    assert [path.name for path in target.iterdir()] == ["old"]
    assert hidden(tmp_path) == []


def test_a_full_disk_is_a_coded_error(tmp_path: Path) -> None:
    with pytest.raises(VimDeployError) as caught, files.atomic_folder(tmp_path / "made"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.code == "VIM-305"
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".made.abcd_123.part"
    left.mkdir()
    (left / "half").write_text("x")
    other = tmp_path / ".made.part"
    other.mkdir()
    with files.atomic_folder(tmp_path / "made"):
        assert not left.exists()
    assert other.exists()


def test_one_writer(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with (
        files.atomic_folder(target),
        pytest.raises(VimDeployError) as caught,
        files.atomic_folder(target),
    ):
        pass
    assert caught.value.code == "VIM-306"
    assert target.is_dir()


@pytest.mark.parametrize("kind", ["file", "link", "no-parent"])
def test_no_place_for_a_folder(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "made"
    if kind == "file":
        target.write_text("mine")
    elif kind == "link":
        target.symlink_to(tmp_path)
    else:
        target = tmp_path / "no" / "made"
    with pytest.raises(VimDeployError) as caught, files.atomic_folder(target):
        pass
    assert caught.value.code == "VIM-304"
    assert target.is_symlink() == (kind == "link")
