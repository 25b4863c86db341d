"""Which pictures a folder holds, which of them a run takes, and where its outputs go."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import PIL.Image

from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file, require_writable_folder, require_writable_place
from vim_deploy.images import SUFFIXES, Pixels, Source, require_pixels
from vim_deploy.paths import StrPath, as_path, several

#: A file or a folder of them; uint8 pixels [height, width], [height, width, 1] or
#: [height, width, 3]; an image of Pillow.
Picture: TypeAlias = StrPath | Pixels | PIL.Image.Image
#: One of them, or several: a list, an iterator, uint8 pixels [pictures, height, width, channels].
Pictures: TypeAlias = Picture | Iterable[Picture]

#: Bytes of a picture's name that an output's name takes over; file systems end at 255.
_LONGEST = 150
#: What a folder holds beside files of other suffixes, and how many of these a sentence names.
_HIDDEN, _BESIDE = "as hidden", "as files beside the class folders"
_TWICE = "as links in a circle, or to folders that were searched already"
_SUFFIXES_NAMED = 5


def find_images(path: Path, left_out: Counter[str] | None = None) -> tuple[Path, ...]:
    """Image files under ``path``, as ``search_images`` finds them; itself when it is a file.

    Raises:
        VimDeployError: VIM-401 when ``path`` does not exist or the folder holds no image.
    """
    if not os.path.isdir(path):
        return (require_file(path, "image"),)
    passed_over: Counter[str] = Counter()
    found = search_images(path, passed_over)
    if not found:
        looked_for = f"looked for files ending in {', '.join(SUFFIXES)}"
        raise VimDeployError(
            "VIM-401",
            f"no images in {path}",
            why="; ".join((looked_for, *in_words(passed_over))),
            fix="name a folder that holds images, or one image file",
        )
    if left_out is not None:
        left_out.update(passed_over)
    return found


def search_images(folder: Path, left_out: Counter[str]) -> tuple[Path, ...]:
    """Image files under ``folder``, sorted by relative path; none is no error.

    Sub-folders are searched, links to folders as well, hidden entries not. Every folder is searched
    once and none above this one, so that links in a circle end.

    Args:
        folder: one that is there.
        left_out: takes up what else lies there: how many of each suffix or kind.

    Raises:
        VimDeployError: VIM-401 for a folder that may not be entered: it is not an empty one.
    """
    found: list[Path] = []
    above = {*folder.absolute().parents, *folder.resolve().parents}
    # "sub/.." is above itself as it is written.
    searched = {_identity(place) for place in above} - {_identity(folder)}
    for place, subfolders, files in os.walk(folder, onerror=_not_searched, followlinks=True):
        if (identity := _identity(place)) in searched:
            left_out[_TWICE] += 1
            subfolders.clear()
            continue
        searched.add(identity)
        left_out[_HIDDEN] += sum(name.startswith(".") for name in (*subfolders, *files))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if suffix in SUFFIXES:
                found.append(Path(place, name))
            else:
                left_out[suffix] += 1
    return tuple(sorted(found, key=lambda file: file.relative_to(folder).as_posix()))


def class_folders(folder: Path, left_out: Counter[str]) -> list[str]:
    """Names of the sub-folders of a data set, sorted as text, hidden ones apart.

    Args and errors as of ``search_images``.
    """
    _, names, files = next(os.walk(folder, onerror=_not_searched))
    left_out[_BESIDE] += sum(not name.startswith(".") for name in files)
    left_out[_HIDDEN] += sum(name.startswith(".") for name in (*names, *files))
    return sorted(name for name in names if not name.startswith("."))


def in_words(left_out: Counter[str]) -> list[str]:
    """What was left out of folders of pictures, a sentence for each kind."""
    counts = {kind: left_out[kind] for kind in (_HIDDEN, _BESIDE, _TWICE)}
    suffixes = sorted(kind or "none" for kind in left_out if kind not in counts)
    shown = ", ".join(suffixes[:_SUFFIXES_NAMED]) + (", ..." if suffixes[_SUFFIXES_NAMED:] else "")
    counts[f"for another suffix ({shown})"] = left_out.total() - sum(counts.values())
    return [f"left out {reason}: {count}" for reason, count in counts.items() if count]


def _identity(folder: str | Path) -> tuple[int, int]:
    """What is the same of a folder and of links to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _not_searched(error: OSError) -> None:
    raise VimDeployError(
        "VIM-401",
        f"cannot search the folder {error.filename}",
        why=error.strerror or str(error),
        fix="check its rights, or take it out",
    ) from error


def pictures(images: Pictures, folders: Sequence[Path]) -> tuple[dict[str, Source], list[str]]:
    """Every picture by its name, in the order given, and notes on what was passed over.

    A file is named by its path, and taken once; what is no file is ``picture-N``, with its place
    among what was given, from 0.

    Args:
        images: one or several; iterators are gone through before anything is run.
        folders: where outputs go. What lies there is not found in a folder that is searched,
            unless it is named itself: it would be what an earlier run made.

    Raises:
        VimDeployError: VIM-202 (none given, or something else), VIM-203 (outputs would be mixed
            with the pictures), VIM-401, VIM-415 (an array of another dtype or shape).
    """
    one = isinstance(images, np.ndarray) and images.ndim < 4
    given = [images] if one else several(images)
    if not given:
        raise VimDeployError("VIM-202", "no pictures given", fix="name files or folders")
    made = [folder.resolve() for folder in folders]
    found: dict[str, Source] = {}
    passed_over = twice = 0
    left_out: Counter[str] = Counter()
    for index, picture in enumerate(given):
        if not isinstance(picture, str | os.PathLike):
            found[_name(index)] = _decoded(picture, index)
            continue
        path = as_path(picture, f"picture {index}")
        files = find_images(path, left_out)
        if path.is_dir():
            _require_apart(path, made)
            own = [file for file in files if not any(f in file.resolve().parents for f in made)]
            passed_over += len(files) - len(own)
            files = tuple(own)
        twice += sum(str(file) in found for file in files)
        found.update({str(file): file for file in files})
    notes = in_words(left_out)
    if twice:
        notes.append(f"{twice} pictures were given more than once, and are run once")
    if passed_over:
        notes.append(f"{passed_over} pictures in the folders of the outputs were passed over")
    return found, notes


def _name(index: int) -> str:
    name = f"picture-{index}"
    while os.path.lexists(name):
        # A file that may be among the pictures.
        name += "_"
    return name


def _decoded(picture: object, index: int) -> Source:
    """``picture`` if it is decoded already; VIM-202, VIM-415."""
    if isinstance(picture, np.ndarray):
        require_pixels(picture, f"picture {index}")
        return picture
    if isinstance(picture, PIL.Image.Image):
        return picture
    raise VimDeployError(
        "VIM-202",
        f"picture {index} is no picture",
        why=f"found {type(picture).__name__}",
        fix="give a path, an image of Pillow, or uint8 pixels [height, width, 3] as a NumPy array",
    )


def _require_apart(path: Path, made: Sequence[Path]) -> None:
    if any(folder == path.resolve() or folder in path.resolve().parents for folder in made):
        raise VimDeployError(
            "VIM-203",
            f"outputs would stand among the pictures of {path}",
            why="the next run would take them for pictures",
            fix="name another folder for them",
        )


def require_free(path: Path | None, suffix: str, *, force: bool, option: str = "-o") -> None:
    """Refuse an output of another suffix (VIM-202), that is there already (VIM-204), or that cannot
    be written (VIM-304, VIM-305); ``option`` named it."""
    if path is None:
        return
    if path.suffix != suffix:
        raise VimDeployError("VIM-202", f"{path} is no {suffix} file", fix=f"{option} NAME{suffix}")
    require_writable_place(path)
    if path.exists() and not force:
        raise _exists(path, 1)
    require_writable_folder(path.parent)


def output_paths(
    files: Sequence[Path], folder: Path, ending: str, *, force: bool
) -> dict[Path, Path]:
    """A path of its own in ``folder`` for each picture: ``NAME`` + ``ending``.

    Pictures of the same name have the folders that tell them apart before it.

    Raises:
        VimDeployError: VIM-203 (it would replace a picture), VIM-204 (there is one), VIM-304.
    """
    if folder.exists() and not folder.is_dir():
        raise VimDeployError(
            "VIM-304", f"cannot write into {folder}", why="it is not a folder", fix="name a folder"
        )
    # What is not there yet is made in the nearest folder that is.
    require_writable_folder(next(place for place in (folder, *folder.parents) if place.exists()))
    paths = {file: folder / f"{name}{ending}" for file, name in output_names(files).items()}
    inputs = {file.resolve() for file in files}
    for path in paths.values():
        require_writable_place(path)
        if path.resolve() in inputs:
            raise VimDeployError(
                "VIM-203",
                f"{path} would be replaced, which is one of the pictures",
                fix="name another folder for outputs",
            )
    existing = [path for path in paths.values() if path.exists()]
    if existing and not force:
        raise _exists(existing[0], len(existing))
    return paths


def output_names(files: Sequence[Path]) -> dict[Path, str]:
    """A name for each file that no other has, also where upper and lower case are the same."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(file.stem.casefold(), []).append(file)
    names: dict[Path, str] = {}
    used: set[str] = set()
    for same in groups.values():
        for file, name in zip(same, _told_apart(same), strict=True):
            name = name.encode("utf-8", "surrogateescape")[:_LONGEST].decode("utf-8", "ignore")
            unique, number = name, 2
            while unique.casefold() in used:
                unique, number = f"{name}-{number}", number + 1
            used.add(unique.casefold())
            names[file] = unique
    return names


def _told_apart(files: Sequence[Path]) -> list[str]:
    """Names of files whose stem is the same: with folders below the one they share, or suffixes."""
    if len(files) == 1:
        return [files[0].stem]
    absolute = [Path(os.path.abspath(file)) for file in files]
    top = os.path.commonpath([file.parent for file in absolute])
    parts = [file.relative_to(top) for file in absolute]
    plain = ["__".join(part.with_suffix("").parts) for part in parts]
    counts = Counter(name.casefold() for name in plain)
    return [
        name if counts[name.casefold()] == 1 else "__".join(part.parts)
        for name, part in zip(plain, parts, strict=True)
    ]


def _exists(path: Path, count: int) -> VimDeployError:
    more = "" if count == 1 else f", and {count - 1} more outputs,"
    return VimDeployError(
        "VIM-204",
        f"{path}{more} exists" if count == 1 else f"{path}{more} exist",
        why="outputs of a run are not compared with earlier ones",
        fix="add --force to replace it, or choose another output"
        if count == 1
        else "add --force to replace them, or choose another folder",
    )
