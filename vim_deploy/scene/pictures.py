"""Which pictures a run takes, and where what it makes of them goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import PIL.Image

from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_writable_place
from vim_deploy.images import Pixels, Source, find_images, require_pixels
from vim_deploy.paths import StrPath, as_path, several

#: A file or a folder of them; uint8 pixels [height, width], [height, width, 1] or
#: [height, width, 3]; an image of Pillow.
Picture: TypeAlias = StrPath | Pixels | PIL.Image.Image
#: One of them, or several: a list, an iterator, uint8 pixels [pictures, height, width, channels].
Pictures: TypeAlias = Picture | Iterable[Picture]

#: Bytes of a picture's name that an output's name takes over; file systems end at 255.
_LONGEST = 150


def pictures(images: Pictures, folders: Sequence[Path]) -> tuple[dict[str, Source], int]:
    """Every picture by its name, in the order given, and how many were passed over.

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
    passed_over = 0
    for index, picture in enumerate(given):
        if not isinstance(picture, str | os.PathLike):
            found[_name(index)] = _decoded(picture, index)
            continue
        path = as_path(picture, f"picture {index}")
        files = find_images(path)
        if path.is_dir():
            _require_apart(path, made)
            own = [file for file in files if not any(f in file.resolve().parents for f in made)]
            passed_over += len(files) - len(own)
            files = tuple(own)
        found.update({str(file): file for file in files})
    return found, passed_over


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
        f"picture {index} is none",
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


def require_free(path: Path | None, suffix: str, *, force: bool) -> None:
    """Refuse an output of another suffix (VIM-202), or that is there already (VIM-204)."""
    if path is None:
        return
    if path.suffix != suffix:
        raise VimDeployError("VIM-202", f"{path} is not an {suffix} file", fix=f"-o NAME{suffix}")
    require_writable_place(path)
    if path.exists() and not force:
        raise _exists(path, 1)


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
