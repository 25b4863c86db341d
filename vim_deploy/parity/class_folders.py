"""The model's class of each folder of a data set: by its name, by its number, or by its place.

The order of sorted folders says something only of a model that knows no class names: it is the
order of the outputs when torchvision's ``ImageFolder`` gave the classes their numbers in training.
The classes of ImageNet are in the order of their WordNet numbers, so folders with these names are
in the model's order, whatever it calls its classes.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vim_deploy.errors import VimDeployError

_WORDNET = re.compile(r"n\d{8}(?!\d)")
#: What stands for a space in the name of a folder; no folder has a slash.
_SPACES = re.compile(r"[\s_/-]+")
#: Names of folders that an error message lists.
_NAMED = 5


def class_numbers(
    names: Sequence[str], labels: Sequence[str], classes: int, path: Path
) -> tuple[dict[str, int], str]:
    """The model's class of each folder, and how that was decided.

    Args:
        names: of the folders, sorted as text.
        labels: class names of the model, in the order of its outputs; may be empty.
        classes: how many the model has.
        path: of the data set, for messages.

    Raises:
        VimDeployError: VIM-419 when some folders are class names and others are not, when a folder
            stands for two classes or two for one, or when nothing says which classes they are.
    """
    found = _called(names, labels)
    if any(found.values()):
        numbers = _by_name(found, labels, path)
        other = [name for name in names if labels[numbers[name]] != name]
        how = "folders are class names"
        if other:
            how += (
                f", {len(other)} of {len(names)} written in another way, such as {other[0]!r} for "
                f"{labels[numbers[other[0]]]!r}"
            )
    elif all(name.isdecimal() and int(name) < classes for name in names):
        numbers, how = {name: int(name) for name in names}, "folder names are class numbers"
        if len(names) == classes and list(numbers.values()) != sorted(numbers.values()):
            how += "; torchvision's ImageFolder numbers them in the order of text, which is another"
    else:
        return _by_place(names, labels, classes, path)
    _require_apart(numbers, path)
    return numbers, how


def misfit(path: Path, why: str, fix: str = "") -> VimDeployError:
    """VIM-419: the data set's classes are not the model's."""
    return VimDeployError(
        "VIM-419",
        f"data set {path} does not fit the model",
        why=why,
        fix=fix
        or "one folder of images for each class, named like the model's labels or numbered from 0; "
        "of a model without labels sorted in the order of its outputs",
    )


def _key(name: str) -> str:
    """What is the same in two spellings of a class name: a WordNet number says all by itself."""
    plain = unicodedata.normalize("NFKC", name).strip().casefold()
    if number := _WORDNET.match(plain):
        return number[0]
    if plain.isdecimal():
        return plain.lstrip("0") or "0"
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", plain))


def _called(names: Iterable[str], labels: Sequence[str]) -> dict[str, list[int]]:
    """The classes that each name may mean: those of that very name, else of its other spellings."""
    exact, spelt = defaultdict(list), defaultdict(list)
    for number, label in enumerate(labels):
        exact[label].append(number)
        spelt[_key(label)].append(number)
    return {name: exact.get(name) or spelt.get(_key(name), []) for name in names}


def _by_name(
    found: Mapping[str, Sequence[int]], labels: Sequence[str], path: Path
) -> dict[str, int]:
    unknown = [name for name, numbers in found.items() if not numbers]
    if unknown:
        raise misfit(
            path,
            f"{len(found) - len(unknown)} folders are class names of the model and {len(unknown)} "
            f"are not: {_with_nearest(unknown, labels)}",
        )
    for name, numbers in found.items():
        if len(numbers) > 1:
            raise misfit(
                path,
                f"folder {name!r} stands for more than one class: "
                + ", ".join(f"{number} {labels[number]!r}" for number in numbers[:_NAMED]),
                "name the folders by the numbers of their classes, from 0",
            )
    return {name: numbers[0] for name, numbers in found.items()}


def _by_place(
    names: Sequence[str], labels: Sequence[str], classes: int, path: Path
) -> tuple[dict[str, int], str]:
    wordnet = all(_WORDNET.fullmatch(name) for name in names)
    if labels and not wordnet:
        raise misfit(
            path,
            f"none of its {len(names)} folders has the name of one of the model's {classes} "
            f"classes: {_with_nearest(names, labels)}",
            "name the folders like the model's labels, or by the numbers of their classes, from 0; "
            "or export the model again with --labels and the names of the folders",
        )
    if len(names) != classes:
        raise misfit(path, f"it has {len(names)} class folders, the model {classes} classes")
    how = "folders in sorted order, as torchvision's ImageFolder"
    if wordnet and labels:
        how += "; they are WordNet numbers, which the model's labels do not have"
    if all(name.isdecimal() for name in names) and names != sorted(names, key=int):
        how += "; their names are numbers, and sorted as text they are not in numeric order"
    return {name: number for number, name in enumerate(names)}, how


def _require_apart(numbers: Mapping[str, int], path: Path) -> None:
    folders: dict[int, str] = {}
    for name, number in numbers.items():
        if number in folders:
            raise misfit(
                path,
                f"folders {folders[number]!r} and {name!r} are both class {number}",
                "put their pictures into one folder, or take one out",
            )
        folders[number] = name


def _with_nearest(names: Sequence[str], labels: Sequence[str]) -> str:
    spelt = {_key(label): label for label in labels}
    shown = []
    for name in names[:_NAMED]:
        close = difflib.get_close_matches(_key(name), spelt, n=1)
        shown.append(f"{name!r} (did you mean {spelt[close[0]]!r}?)" if close else repr(name))
    return ", ".join(shown) + (", ..." if names[_NAMED:] else "")
