"""The manifest: it names what was damaged, lost or added, and notices its own change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vim_deploy.errors import VimDeployError
from vim_deploy.files import settings_hash
from vim_deploy.packaging.manifest import (
    MANIFEST_NAME,
    compare,
    read_manifest,
    require_intact,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "made"
    (place / "deep" / "er").mkdir(parents=True)
    (place / "a.txt").write_text("a")
    (place / "deep" / "er" / "b.bin").write_bytes(b"\0" * 1000)
    write_manifest(place, "triton", {"name": "m"}, tool_version="1", settings="00")
    return place


def test_round_trip(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert sorted(manifest.files) == ["a.txt", "deep/er/b.bin"]
    assert manifest.about == {"name": "m"}
    assert compare(folder, manifest).intact
    require_intact(folder, manifest)


def test_same_files_same_bytes(folder: Path) -> None:
    before = (folder / MANIFEST_NAME).read_bytes()
    write_manifest(folder, "triton", {"name": "m"}, tool_version="1", settings="00")
    assert (folder / MANIFEST_NAME).read_bytes() == before


def test_every_difference_is_named(folder: Path) -> None:
    data = bytearray((folder / "deep" / "er" / "b.bin").read_bytes())
    data[500] ^= 1
    (folder / "deep" / "er" / "b.bin").write_bytes(data)
    (folder / "a.txt").unlink()
    (folder / "deep" / "new.txt").write_text("x")
    with pytest.raises(VimDeployError, match="is not as it was made") as caught:
        require_intact(folder, read_manifest(folder))
    assert caught.value.code == "VIM-425"
    assert caught.value.why.splitlines() == [
        "damaged: deep/er/b.bin",
        "missing: a.txt",
        "extra: deep/new.txt",
    ]


def test_a_link_is_no_file(folder: Path, tmp_path: Path) -> None:
    # Even one to the same bytes: what it points to can change without the folder.
    elsewhere = tmp_path / "elsewhere"
    (folder / "a.txt").rename(elsewhere)
    (folder / "a.txt").symlink_to(elsewhere)
    (folder / "more").symlink_to(tmp_path)
    found = compare(folder, read_manifest(folder))
    assert (found.damaged, found.missing, found.extra) == (("a.txt",), (), ("more",))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"about": {"name": "other"}}, "changed after it was written"),
        ({"files": {}}, "changed after it was written"),
        ({"format": 2}, "format is 2"),
        ({"kind": "engine"}, "kind is 'engine'"),
        ({"manifest_sha256": "00"}, "changed after it was written"),
    ],
)
def test_a_changed_manifest(folder: Path, change: dict[str, object], why: str) -> None:
    value = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps({**value, **change}))
    with pytest.raises(VimDeployError, match="not a package") as caught:
        read_manifest(folder)
    assert caught.value.code == "VIM-427"
    assert why in caught.value.why


@pytest.mark.parametrize("name", ["../out.txt", "/etc/passwd", "a/../../b", ""])
def test_a_path_that_leads_outside(folder: Path, name: str) -> None:
    value = json.loads((folder / MANIFEST_NAME).read_text())
    del value["manifest_sha256"]
    value["files"][name] = {"sha256": "00", "bytes": 1}
    value["manifest_sha256"] = settings_hash(value)
    (folder / MANIFEST_NAME).write_text(json.dumps(value))
    with pytest.raises(VimDeployError) as caught:
        read_manifest(folder)
    assert "outside the folder" in caught.value.why


@pytest.mark.parametrize(
    "change",
    [
        {"files": []},
        {"files": {"a.txt": {"sha256": "00"}}},
        {"files": {"a.txt": {"sha256": "00", "bytes": "1"}}},
        {"files": {"a.txt": {"sha256": None, "bytes": 1}}},
        {"about": "a model"},
        {"target": 3},
        {"settings_hash": None},
    ],
)
def test_values_of_another_type(folder: Path, change: dict[str, object]) -> None:
    value = json.loads((folder / MANIFEST_NAME).read_text()) | change
    del value["manifest_sha256"]
    value["manifest_sha256"] = settings_hash(value)
    (folder / MANIFEST_NAME).write_text(json.dumps(value))
    with pytest.raises(VimDeployError, match="not a package") as caught:
        read_manifest(folder)
    assert next(iter(change)) in caught.value.why


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"format": 1}', "\x80", '{"format": NaN}', "[" * 100_000]
)
def test_no_manifest_at_all(folder: Path, text: str) -> None:
    (folder / MANIFEST_NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(VimDeployError) as caught:
        read_manifest(folder)
    assert caught.value.code == "VIM-427"


def test_no_package(tmp_path: Path) -> None:
    for place, why in ((tmp_path, "holds no"), (tmp_path / "x", "no such folder")):
        with pytest.raises(VimDeployError) as caught:
            read_manifest(place)
        assert why in caught.value.why
