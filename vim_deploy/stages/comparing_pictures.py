"""Pictures that two files are compared on, and their true classes where the folder tells them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import DataSetMisfitError
from vim_deploy.parity.agreement import Picture, kind_compared
from vim_deploy.parity.dataset import evenly, open_folder
from vim_deploy.scene.pictures import class_folders, find_images, in_words
from vim_deploy.text import storable


@dataclass(frozen=True)
class ChosenPictures:
    """What is compared on.

    Attributes:
        folder: its name.
        pictures: in the order of their names.
        labelled: whether their true classes are known.
        classes_by: how they were told, or why they are not known.
        left_out: what lies beside them, in words.
    """

    folder: str
    pictures: tuple[Picture, ...]
    labelled: bool
    classes_by: str
    left_out: tuple[str, ...]


def choose_pictures(
    folder: Path, infos: tuple[ExportInfo, ExportInfo], limit: int | None, *, need_classes: bool
) -> ChosenPictures:
    """The pictures below a folder; nothing is decoded.

    Args:
        folder: or one picture.
        infos: of both files.
        limit: at most so many, spread over all of them.
        need_classes: whether a demand cannot be judged without the true classes.

    Raises:
        VimDeployError: VIM-401 (no such folder, no picture in it), VIM-419 (classes are needed and
            not told).
    """
    left_out: Counter[str] = Counter()
    files = find_images(folder, left_out)
    name = storable(folder.name or str(folder.resolve()))
    why = ""
    named = next((info for info in infos if info.labels), infos[0])
    may_tell = kind_compared(named) == "classes" and os.path.isdir(folder)
    if may_tell and not class_folders(folder, Counter()):
        # What lies flat in a folder is compared all the same: nothing of it is left out.
        may_tell, why = False, "it holds no class folders"
    if may_tell:
        try:
            found = open_folder(folder, named, limit)
        except DataSetMisfitError as error:
            why = error.why
        else:
            pictures = tuple(
                Picture(_name(path, folder), path, label) for path, label in found.files
            )
            return ChosenPictures(name, pictures, True, found.classes_by, found.left_out)
    if need_classes:
        raise DataSetMisfitError(
            "VIM-419",
            f"--max-loss needs the true classes of the pictures, and {folder} does not tell them",
            why=why,
            fix="one folder of pictures for each class, named like the model's labels or numbered "
            "from 0; or --max-disagreement, which needs no classes",
        )
    root = folder if os.path.isdir(folder) else folder.parent
    pictures = tuple(Picture(_name(path, root), path) for path in evenly(list(files), limit))
    unknown = "the true classes are not known"
    return ChosenPictures(
        name, pictures, False, f"{unknown}: {why}" if why else unknown, tuple(in_words(left_out))
    )


def _name(path: Path, root: Path) -> str:
    return storable(path.relative_to(root).as_posix())
