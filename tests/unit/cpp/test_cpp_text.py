"""Text of others that the C++ library and its programs show, compared with vim_deploy.text."""

from __future__ import annotations

import unicodedata

import pytest

from tests.support import cpp_builds
from vim_deploy.text import printable

pytestmark = pytest.mark.slow

#: General categories that no terminal gets. Python writes out unassigned characters, too, which
#: depend on the version of Unicode.
WRITTEN_OUT = ("Cc", "Cf", "Co", "Zl", "Zp", "Zs")


def answers(texts: list[bytes]) -> list[str]:
    """The printable lines that C++ makes of these texts, which a second pass must not change."""
    stdin = b"".join(b"%d\n%s" % (len(text), text) for text in texts)
    done = cpp_builds.run(cpp_builds.need_program("units"), "printable", stdin=stdin)
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == len(texts)
    assert all(line.startswith("stays ") for line in lines)
    return [line.removeprefix("stays ") for line in lines]


def test_every_character_as_in_python() -> None:
    # Characters of a later Unicode than this Python's are not compared.
    codes = [
        code
        for code in range(0x110000)
        if unicodedata.category(chr(code)) not in ("Cn", "Cs") and code != 0x0A
    ]
    chars = [chr(code) for code in codes]
    found = answers([char.encode() for char in chars])
    different = {
        char: line for char, line in zip(chars, found, strict=True) if line != printable(char)
    }
    # U+13439 to U+1343F are formats since Unicode 15, which is that of Python 3.12.
    assert set(different) <= {chr(code) for code in range(0x13439, 0x13440)}
    written = [char for char, line in zip(chars, found, strict=True) if line != char]
    assert {unicodedata.category(char) for char in written} == set(WRITTEN_OUT)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"\x1b]0;title\x07 \x1b[31mred", r"\x1b\x5d0;title\x07 \x1b\x5b31mred"),
        (b"two\nlines\r\t", r"two\nlines\r\t"),
        (b"\xff\xc0\x80\xed\xa0\x80\xf5", r"\xff\xc0\x80\xed\xa0\x80\xf5"),
        (b"\xc2\x9b31m", r"\x9b31m"),
        (b"\x9b31m", r"\x9b31m"),
        ("a\u202eb\u2066c\u200fd\u2028e".encode(), r"a\u202eb\u2066c\u200fd\u2028e"),
        ("\U000e0041".encode(), r"\U000e0041"),
        ("Käse 猫 \U0001f408".encode(), "Käse 猫 \U0001f408"),
        (b"cut \xe7\x8c", r"cut \xe7\x8c"),
        (b"", ""),
    ],
)
def test_what_is_shown(text: bytes, line: str) -> None:
    assert answers([text]) == [line]


def test_escape_sequences_as_in_python() -> None:
    texts = [
        "\x1b[2J",
        "a\x1b]0;title\x07b",
        "\x1b",
        "\x1b\x1b[H",
        "\x1b ",
        "\x1bé",
        "\x1b\x7f",
        "\x9b2J",
    ]
    assert answers([text.encode() for text in texts]) == [printable(text) for text in texts]
