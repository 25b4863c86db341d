"""Which class of the model a folder of a data set is."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from vim_deploy.errors import VimDeployError
from vim_deploy.parity.class_folders import class_numbers

SET = Path("set")
ANIMALS = ("zebra", "ant", "cat")


def numbers_of(names: list[str], labels: tuple[str, ...], classes: int = 0) -> list[int]:
    numbers, _ = class_numbers(sorted(names), labels, classes or len(labels), SET)
    return [numbers[name] for name in names]


def refused(names: list[str], labels: tuple[str, ...], classes: int = 0) -> str:
    with pytest.raises(VimDeployError) as caught:
        class_numbers(sorted(names), labels, classes or len(labels), SET)
    assert caught.value.code == "VIM-419"
    assert caught.value.fix
    return caught.value.why


def test_folders_named_like_labels_are_taken_by_name() -> None:
    numbers, how = class_numbers(["ant", "zebra"], ANIMALS, 3, SET)
    assert numbers == {"ant": 1, "zebra": 0}
    assert how == "folders are class names"


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("ZEBRA", "Zebra"),
        ("STRASSE", "Straße"),
        ("fire_engine", "fire engine"),
        ("Fire-Engine", "fire engine"),
        ("fire engine ", "fire_engine"),
        ("fire  engine", "fire engine"),
        ("sport-utility_vehicle", "sport utility vehicle"),
        ("and or", "and/or"),
        (unicodedata.normalize("NFD", "Löwe"), unicodedata.normalize("NFC", "löwe")),
        (unicodedata.normalize("NFC", "LÖWE"), unicodedata.normalize("NFD", "löwe")),
        ("007", "7"),
        ("0", "00"),
        ("n01440764", "n01440764 tench, Tinca tinca"),
        ("n01440764_tench", "n01440764"),
        ("n01440764 tench", "N01440764: Tinca tinca"),
    ],
)
def test_another_spelling_is_the_same_class(folder: str, label: str) -> None:
    labels = ("aardvark", label, "Zulu")
    numbers, how = class_numbers([folder, "zulu"], labels, 3, SET)
    assert numbers == {folder: 1, "zulu": 2}
    assert how.startswith("folders are class names, 2 of 2 written in another way")


@pytest.mark.parametrize(
    ("folder", "label"),
    [("-1", "1"), ("n014407640", "n01440764"), ("icecream", "ice cream"), ("dog_", "dog")],
)
def test_what_is_no_spelling_of_a_label(folder: str, label: str) -> None:
    assert repr(folder) in refused([folder], (label, "other"))


def test_the_very_name_comes_before_another_spelling() -> None:
    """ImageNet has a crane that flies and a crane that lifts."""
    assert numbers_of(["Crane", "crane"], ("crane", "cat", "Crane")) == [2, 0]
    assert "more than one class: 0 'crane', 2 'Crane'" in refused(
        ["CRANE"], ("crane", "cat", "Crane")
    )
    assert "more than one class" in refused(["crane"], ("crane", "cat", "crane"))


@pytest.mark.parametrize("names", [["zebra", "Zebra"], ["fire_ant", "fire-ant"]])
def test_two_folders_of_one_class_are_refused(names: list[str]) -> None:
    assert "are both class" in refused(names, ("zebra", "fire ant"))


def test_numbers_are_class_numbers() -> None:
    assert numbers_of(["0", "2", "10"], (), 11) == [0, 2, 10]
    assert numbers_of(["000", "007"], ANIMALS, 8) == [0, 7]
    assert "are both class 1" in refused(["1", "01"], (), 3)
    names = sorted(str(number) for number in range(11))
    numbers, how = class_numbers(names, (), 11, SET)
    assert numbers["10"] == 10
    assert "ImageFolder numbers them in the order of text" in how
    assert class_numbers(["0", "1"], (), 2, SET)[1] == "folder names are class numbers"


def test_labels_that_are_numbers_are_names() -> None:
    assert numbers_of(["1", "03"], ("3", "2", "1")) == [2, 0]


def test_without_labels_folders_are_taken_in_sorted_order() -> None:
    numbers, how = class_numbers(["Zebra", "ant", "bee"], (), 3, SET)
    assert numbers == {"Zebra": 0, "ant": 1, "bee": 2}
    assert how == "folders in sorted order, as torchvision's ImageFolder"
    assert "2 class folders, the model 3" in refused(["a", "b"], (), 3)
    # From 1 on they are no class numbers, and ImageFolder takes them so.
    names = sorted(str(number) for number in range(1, 12))
    numbers, how = class_numbers(names, (), 11, SET)
    assert numbers["10"] == 1
    assert "not in numeric order" in how


def test_wordnet_numbers_are_in_the_order_of_imagenet() -> None:
    numbers, how = class_numbers(["n01440764", "n01443537"], ("tench", "goldfish"), 2, SET)
    assert numbers == {"n01440764": 0, "n01443537": 1}
    assert "WordNet numbers, which the model's labels do not have" in how
    assert "1 class folders, the model 2" in refused(["n01440764"], ("tench", "goldfish"))


def test_folders_that_are_no_classes_are_named_with_the_nearest() -> None:
    why = refused(["zebras", "ants", "kitten"], ANIMALS)
    assert "none of its 3 folders" in why
    assert "'zebras' (did you mean 'zebra'?)" in why
    assert "'kitten'" in why
    some = refused(["ant", "cats", "dog"], ANIMALS)
    assert "1 folders are class names of the model and 2 are not" in some
    assert "'cats' (did you mean 'cat'?), 'dog'" in some
    assert refused([f"x{number}" for number in range(9)], ANIMALS).endswith("...")
