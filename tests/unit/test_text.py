"""Foreign text, made fit to be shown."""

from __future__ import annotations

import pytest

from vim_deploy.text import printable, storable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Vim-Ti, größer ≥ 2\nlines 漢字", "Vim-Ti, größer ≥ 2\nlines 漢字"),
        ("a\x1b]0;title\x07\x1b[2Jb", "a\\x1b\\x5d0;title\\x07\\x1b\\x5b2Jb"),
        ("\x1b[31m\x00‮gnp.exe\udcff", "\\x1b\\x5b31m\\x00\\u202egnp.exe\\udcff"),
        ("csi \x9b2J, tab\t, return\r, bell\a", "csi \\x9b2J, tab\\t, return\\r, bell\\x07"),
        ("line\u2028paragraph\u2029", "line\\u2028paragraph\\u2029"),
        ("\x1b\x1b[H\x1b", "\\x1b\\x1b\\x5bH\\x1b"),
        (12, "12"),
    ],
)
def test_what_does_not_print_is_written_out(text: object, shown: str) -> None:
    assert printable(text) == shown


def test_what_is_stored_is_utf8() -> None:
    assert storable("a-\udcff é \x1b") == "a-\\udcff é \x1b"
