"""Files of class names: the forms they come in, and what has no name for each class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vim_deploy.cli.model_files import labels_in
from vim_deploy.errors import VimDeployError
from vim_deploy.recipe.load import _MAX_LABELS_BYTES

ANIMALS = ("zebra", "red ant", "cat")


@pytest.mark.parametrize(
    "text",
    [
        "zebra\nred ant\ncat",
        "zebra\nred ant\ncat\n\n  \n\n",
        "\ufeffzebra\r\nred ant\r\ncat\r\n",
        "  zebra\t\n red ant \ncat\n",
        "zebra\rred ant\rcat\r",
        "0 zebra\n1 red ant\n2 cat\n",
        "2: cat\n0: zebra\n1: red ant\n",
        "0,zebra\n1, red ant\n2 , cat",
        "1\tzebra\n2\tred ant\n3\tcat",
        "1. zebra\n2. red ant\n3. cat",
        "000) zebra\n001) red ant\n002) cat",
        "cat 2\nzebra 0\nred ant 1",
        json.dumps(ANIMALS),
        json.dumps({"0": "zebra", "1": "red ant", "2": " cat "}, indent=1),
        json.dumps({"2": "cat", "1": "red ant", "0": "zebra"}),
        json.dumps({"cat": 2, "zebra": 0, "red ant": 1}),
        json.dumps({"0": ["zebra"], "1": ["red", "ant"], "2": ["cat"]}),
        json.dumps({"model_type": "vim", "id2label": dict(enumerate(ANIMALS)), "label2id": {}}),
        json.dumps({"class_to_idx": {"zebra": 0, "red ant": 1, "cat": 2}}),
        json.dumps({"num_classes": 3, "label_names": ANIMALS}),
        "\ufeff" + json.dumps(ANIMALS),
    ],
)
@pytest.mark.parametrize("name", ["labels.txt", "labels.json"])
def test_forms_of_the_same_names(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    assert labels_in(path) == ANIMALS


@pytest.mark.parametrize(
    "lines",
    [
        ("7 up", "cola"),
        ("1 year", "2 years", "3 years"),
        ("0 stars", "1 star", "2 stars", "3 stars"),
        ("1 euro", "2 euro"),
        ("class 0", "class 1", "class 2"),
        ("Boeing 707", "Boeing 737"),
        ("0.5 mm", "1.5 mm"),
        ("3 cats", "1 dog"),
        ("0", "1", "2"),
        ("[background]", "person"),
        ("n01440764 tench, Tinca tinca", "n01443537 goldfish"),
        ("a\u2028b", "c\x0bd"),
    ],
)
def test_numbers_that_are_part_of_the_names_stay(tmp_path: Path, lines: tuple[str, ...]) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert labels_in(path) == lines


def test_imagenets_two_cranes_are_numbered(tmp_path: Path) -> None:
    names = [f"name {number:02d}." for number in range(40)]
    names[7] = names[31] = "crane"
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(f"{number} {name}" for number, name in enumerate(names)))
    assert labels_in(path) == tuple(names)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no names"),
        (b" \r\n\n", "no names"),
        (b"cat\n\ndog\n", "an empty line follows 'cat'"),
        (b"\xff\xfec\x00a\x00t\x00", "UTF-8"),
        (b"[]", "no names"),
        (b"{}", "no names"),
        (b'{"0": "cat", "2": "dog"}', "of 2 names none has the number 1"),
        (b'{"cat": 0, "dog": 0}', "of 2 names none has the number 1"),
        (b'{"cat": 1, "dog": 2}', "none has the number 0"),
        (b'{"0": "cat", "1": ""}', "the name of class 1 is ''"),
        (b'{"0": "cat", "1": 7}', "the name of class 1 is 7"),
        (b'["cat", null]', "the name of class 1 is None"),
        (b"{0: 'tench',\n 1: 'goldfish'}", ""),
        (b"cat\n" * (_MAX_LABELS_BYTES // 4 + 1), "more than"),
    ],
)
def test_what_names_no_classes(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(VimDeployError) as caught:
        labels_in(path)
    assert caught.value.code == "VIM-416"
    assert why in caught.value.why
    assert caught.value.fix
