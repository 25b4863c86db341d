"""Names of outputs, and which pictures a run takes."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from vim_deploy.errors import VimDeployError
from vim_deploy.scene.pictures import (
    find_images,
    in_words,
    output_names,
    output_paths,
    pictures,
    search_images,
)


def names(*files: str) -> list[str]:
    return list(output_names([Path(file) for file in files]).values())


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a/x.jpg", "b/y.jpg"], ["x", "y"]),
        (["a/x.jpg", "b/x.jpg"], ["a__x", "b__x"]),
        (["p/a/x.jpg", "p/b/c/x.jpg", "p/y.png"], ["a__x", "b__c__x", "y"]),
        (["x.jpg", "x.png"], ["x.jpg", "x.png"]),
        (["x.jpg", "sub/X.png"], ["x", "sub__X"]),
        (["a/x.jpg", "a/x.png", "b/x.jpg"], ["a__x.jpg", "a__x.png", "b__x"]),
        (["a__x.jpg", "a/x.jpg", "b/x.jpg"], ["a__x", "a__x-2", "b__x"]),
    ],
)
def test_every_picture_has_a_name_of_its_own(files, expected):
    assert names(*files) == expected


def test_long_names_fit_into_file_systems():
    found = names("a" * 240 + ".jpg", "ü" * 120 + "1.jpg", "ü" * 120 + "2.jpg")
    assert len({*found}) == 3
    assert all(len(name.encode()) < 160 for name in found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/a.png", "in/sub/b.png", "in/out/a_overlay.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return tmp_path / "in"


def test_outputs_are_not_taken_for_pictures(folder):
    files, notes = pictures([folder], [folder / "out"])
    assert [file.name for file in files.values()] == ["a.png", "b.png"]
    assert notes == ["1 pictures in the folders of the outputs were passed over"]
    made = folder / "out" / "a_overlay.png"
    assert [*pictures([folder, made], [folder / "out"])[0]] == [*files, str(made)]
    assert len(pictures([folder, folder], [])[0]) == 3


@pytest.mark.parametrize("output", [".", "..", "sub/.."])
def test_outputs_among_the_pictures_are_refused(folder, output):
    with pytest.raises(VimDeployError) as caught:
        pictures([folder], [folder / output])
    assert caught.value.code == "VIM-203"


def test_outputs_do_not_replace_pictures(folder):
    files = [folder / "a.png", folder / "out" / "a_overlay.png"]
    with pytest.raises(VimDeployError, match="one of the pictures"):
        output_paths(files, folder / "out", "_overlay.png", force=True)


def test_existing_outputs_need_force(folder):
    with pytest.raises(VimDeployError, match=r"a_overlay.png exists") as caught:
        output_paths([folder / "a.png"], folder / "out", "_overlay.png", force=False)
    assert caught.value.code == "VIM-204"
    found = output_paths([folder / "a.png"], folder / "out", "_overlay.png", force=True)
    assert found == {folder / "a.png": folder / "out" / "a_overlay.png"}
    with pytest.raises(VimDeployError) as caught:
        output_paths([folder / "a.png"], folder / "sub" / "b.png", "_overlay.png", force=True)
    assert caught.value.code == "VIM-304"


def test_nothing_to_run():
    with pytest.raises(VimDeployError, match="no pictures given"):
        pictures([], [])


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_folder_is_searched_in_a_stable_order(tmp_path):
    names = ("b/2.JPEG", "b/10.pgm", "a.jpg", ".hidden.png", ".git/x.png", "notes.txt", "LICENSE")
    touch(*(tmp_path / name for name in names))
    left_out = Counter()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path, left_out)]
    assert found == ["a.jpg", "b/10.pgm", "b/2.JPEG"]
    assert in_words(left_out) == [
        "left out as hidden: 2",
        "left out for another suffix (.txt, none): 2",
    ]
    assert pictures([tmp_path], [])[1] == in_words(left_out)
    assert find_images(tmp_path / "a.jpg") == (tmp_path / "a.jpg",)


@pytest.mark.parametrize(
    "suffix", [".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"]
)
def test_what_torchvision_reads_is_found(tmp_path, suffix):
    """IMG_EXTENSIONS of torchvision.datasets.folder, in any case."""
    touch(tmp_path / f"a{suffix}", tmp_path / f"b{suffix.upper()}")
    assert len(find_images(tmp_path)) == 2


def test_links_are_followed_and_circles_end(tmp_path):
    touch(
        tmp_path / "far" / "sub" / "1.png", tmp_path / "far" / "2.png", tmp_path / "set" / "3.png"
    )
    (tmp_path / "set" / "more").symlink_to(tmp_path / "far")
    (tmp_path / "set" / "up").symlink_to(tmp_path)
    (tmp_path / "far" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "4.png").symlink_to(tmp_path / "far" / "2.png")
    left_out = Counter()
    found = search_images(tmp_path / "set", left_out)
    names = [path.relative_to(tmp_path / "set").as_posix() for path in found]
    assert names == ["3.png", "4.png", "more/2.png", "more/sub/1.png"]
    assert in_words(left_out) == [
        "left out as links in a circle, or to folders that were searched already: 2"
    ]


def test_a_folder_by_another_way_is_the_same(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "sub" / "far").symlink_to(folder / "out")
    # Behind the link the way up leads to the folder, as the system goes it.
    for way in (".", "sub/..", "out/../sub/..", "sub/far/.."):
        assert find_images(Path(way))[0].name == "a.png"


def test_missing_or_empty_folder_is_named(tmp_path):
    touch(tmp_path / "in" / "only.txt")
    for path in (tmp_path / "in", tmp_path / "absent"):
        with pytest.raises(VimDeployError, match=str(path)) as caught:
            find_images(path)
        assert caught.value.code == "VIM-401"
    with pytest.raises(VimDeployError, match=r"another suffix \(\.txt\): 1"):
        find_images(tmp_path / "in")


def test_a_folder_that_may_not_be_entered_is_not_empty(tmp_path, monkeypatch):
    touch(tmp_path / "a.png", tmp_path / "shut" / "b.png")
    scandir = os.scandir

    def guarded(place):
        if Path(place).name == "shut":
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(VimDeployError, match="shut") as caught:
        find_images(tmp_path)
    assert caught.value.code == "VIM-401"
