"""The manifest of a package: SHA-256 and size of every file, and what the package is.

``manifest.json`` names every other file of the folder, and holds a hash of its own contents, so
that a change of the manifest itself is noticed as well. That finds damage and mistakes; it is no
signature: whoever may write the folder may write a manifest that fits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vim_deploy.artifact.file import MANIFEST_NAME
from vim_deploy.codec import decode, encode, stored
from vim_deploy.errors import VimDeployError
from vim_deploy.files import settings_hash, sha256_of, write_json
from vim_deploy.untrusted import read_json

#: Raised when a key changes its meaning.
MANIFEST_FORMAT = 1
#: A manifest is a few kilobytes; long label lists make it some hundred.
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class FileEntry:
    """SHA-256 and size in bytes of one file."""

    sha256: str
    bytes: int


@stored(head={"format": MANIFEST_FORMAT, "kind": "package"})
@dataclass(frozen=True)
class Manifest:
    """What a package says of itself.

    Attributes:
        target: what it was made for, such as ``triton``.
        tool_version: of vim-deploy.
        settings_hash: of the artifact and the options; equal hash, equal package.
        about: what the target's reader needs, JSON-able.
        files: by path, relative to the folder, with forward slashes.
    """

    target: str
    tool_version: str
    settings_hash: str
    about: Mapping[str, Any]
    files: Mapping[str, FileEntry]


def sealed(manifest: Manifest) -> dict[str, Any]:
    """The stored form, with the hash of itself."""
    value = encode(manifest)
    return {**value, "manifest_sha256": settings_hash(value)}


@dataclass(frozen=True)
class Findings:
    """What differs between a folder and its manifest: paths of files, sorted."""

    damaged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def intact(self) -> bool:
        """Whether nothing differs."""
        return not (self.damaged or self.missing or self.extra)

    def sentences(self) -> list[str]:
        """One line for each kind of difference that was found."""
        pairs = (("damaged", self.damaged), ("missing", self.missing), ("extra", self.extra))
        return [f"{kind}: {', '.join(names)}" for kind, names in pairs if names]


def paths_in(folder: Path) -> Iterator[str]:
    """Every file of a folder but the manifest, relative, with forward slashes, sorted.

    A link counts as a file and is not followed.
    """
    found = []
    for place, folders, files in os.walk(folder, onerror=_raise):
        linked = [name for name in folders if Path(place, name).is_symlink()]
        for name in (*files, *linked):
            found.append(Path(place, name).relative_to(folder).as_posix())
    yield from sorted(name for name in found if name != MANIFEST_NAME)


def _raise(error: OSError) -> None:
    """What a folder that may not be entered holds is not nothing."""
    raise error


def write_manifest(
    folder: Path, target: str, about: Mapping[str, Any], *, tool_version: str, settings: str
) -> Manifest:
    """Hash every file of ``folder`` and write its manifest; the last step of making a package."""
    files = {
        name: FileEntry(sha256_of(folder / name), (folder / name).stat().st_size)
        for name in paths_in(folder)
    }
    manifest = Manifest(target, tool_version, settings, about, files)
    write_json(folder / MANIFEST_NAME, sealed(manifest))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a package.

    Raises:
        VimDeployError: VIM-427 when there is none, or it cannot be read or was changed.
    """
    path = folder / MANIFEST_NAME

    def unreadable(why: str) -> VimDeployError:
        return VimDeployError(
            "VIM-427",
            f"{folder} is not a package of vim-deploy",
            why=why,
            fix="name a folder made by vim-deploy package, or make it again",
        )

    # Neither of these raises where a folder above may not be entered.
    if not os.path.isdir(folder):
        there = os.path.exists(folder)
        raise unreadable("it is not a folder" if there else "there is no such folder to be seen")
    if not os.path.isfile(path) or os.path.islink(path):
        raise unreadable(f"it holds no {MANIFEST_NAME}")
    value = read_json(path, unreadable, max_bytes=_MAX_BYTES)
    manifest = decode(value, Manifest, unreadable)
    known = {key: item for key, item in value.items() if key != "manifest_sha256"}
    if settings_hash(known) != value.get("manifest_sha256"):
        raise unreadable("it was changed after it was written: its contents have another hash")
    outside = [name for name in manifest.files if not _is_inside(name)]
    if outside:
        raise unreadable(f"it names files outside the folder: {', '.join(outside)}")
    return manifest


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and not {"..", "\0"} & {*path.parts, *name}


def compare(folder: Path, manifest: Manifest) -> Findings:
    """Every file of ``folder`` against the manifest; a link is damaged, whatever it points to."""
    present = set(paths_in(folder))
    damaged = [
        name
        for name in sorted(present & set(manifest.files))
        if not _is_intact(folder / name, manifest.files[name])
    ]
    return Findings(
        damaged=tuple(damaged),
        missing=tuple(sorted(set(manifest.files) - present)),
        extra=tuple(sorted(present - set(manifest.files))),
    )


def _is_intact(path: Path, entry: FileEntry) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.bytes:
        return False
    return sha256_of(path) == entry.sha256


def own_files(folder: Path) -> tuple[str, ...]:
    """Files of a folder that is nothing but a package, so that another may take its place.

    Files that were changed or are missing do not matter: they are the package's own. An empty
    folder has none.

    Raises:
        VimDeployError: VIM-304 when it is no package of vim-deploy, or holds anything else too.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return ()
    try:
        manifest = read_manifest(folder)
    except VimDeployError as error:
        raise VimDeployError(
            "VIM-304",
            f"cannot write {folder}",
            why=f"there is something that is not a package of vim-deploy: {error.why}",
            fix="choose another folder with -o; nothing but packages is replaced, --force or not",
        ) from error
    present = set(paths_in(folder))
    extra = sorted(present - set(manifest.files))
    if extra:
        raise VimDeployError(
            "VIM-304",
            f"cannot write {folder}",
            why=f"it holds files that are not the package's: {', '.join(extra)}",
            fix="take them out of it, or choose another folder with -o; they are not removed, "
            "--force or not",
        )
    # Not what a link leads to: a manifest may name files of another folder by way of one.
    return (*sorted(present), MANIFEST_NAME)


def require_intact(folder: Path, manifest: Manifest) -> None:
    """VIM-425 that names every damaged, missing and extra file."""
    found = compare(folder, manifest)
    if found.intact:
        return
    raise VimDeployError(
        "VIM-425",
        f"the package {folder} is not as it was made",
        why="\n".join(found.sentences()),
        fix="copy the folder again from where it was made, or make it again with vim-deploy "
        "package; take files that do not belong there out of it",
    )
