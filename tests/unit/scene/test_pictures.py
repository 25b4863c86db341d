"""Names of outputs, and which pictures a run takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from vim_deploy.errors import VimDeployError
from vim_deploy.scene.pictures import output_names, output_paths, pictures


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
    files, passed_over = pictures([folder], [folder / "out"])
    assert [file.name for file in files.values()] == ["a.png", "b.png"]
    assert passed_over == 1
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
