"""JSON and TOML of others: what is taken, what is refused, and that it is refused in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vim_deploy import untrusted
from vim_deploy.errors import VimDeployError


def bad(why: str) -> VimDeployError:
    return VimDeployError("VIM-416", "bad", why=why)


def nested(depth: int, opening: str, closing: str) -> str:
    return opening * depth + closing * depth


def test_what_is_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text('{"a": [1, -2.5e-3, "é", "\\ud83d\\ude00", null, true]}', encoding="utf-8")
    assert untrusted.read_json(path, bad) == {"a": [1, -2.5e-3, "é", "😀", None, True]}
    assert untrusted.parse_json(nested(untrusted.MAX_DEPTH, "[", "]")) is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[NaN]", "invalid"),
        (b"[Infinity]", "invalid"),
        (b"[1e999]", "out of range"),
        (b"1" * 5000, "out of range"),
        (b"[123456789012345678901234567890]", "64 bits"),
        (b'["\\ud800"]', "truncated|surrogate"),
        (b'{"\\udfff": 1}', "truncated|surrogate|malformed"),
        (b"\xff\xfe", "utf-8|malformed"),
        (b'"\xff"', "utf-8"),
        (nested(65, "[", "]").encode(), "levels deep"),
        (nested(100_000, "[", "]").encode(), "levels deep"),
        (nested(500, '{"a":', "}").encode(), "levels deep|malformed"),
    ],
)
def test_what_is_no_plain_json_is_refused_in_words(tmp_path: Path, text: bytes, why: str) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(text)
    with pytest.raises(VimDeployError) as caught:
        untrusted.read_json(path, bad)
    assert caught.value.code == "VIM-416"
    with pytest.raises(ValueError, match=f"(?i){why}"):
        untrusted.parse_json(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = ", "Invalid value"),
        ("a = nan", "no number"),
        ("a = [inf]", "'a' holds inf, which is no number"),
        ("a = {b = 2026-01-01}", "'b' holds 2026-01-01, a date"),
        ("a = " + nested(65, "[", "]"), "levels deep"),
        ("a = " + nested(5000, "[", "]"), "levels deep"),
        ("a = " + "1" * 5000, "(?i)digits|64 bits"),
        ("[a" + ".a" * 3000 + "]\nb = 1", "levels deep"),
        ("a = 99999999999999999999", "64 bits"),
    ],
)
def test_what_is_no_plain_toml_is_refused_in_words(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "value.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(VimDeployError) as caught:
        untrusted.read_toml(path, bad)
    assert caught.value.why
    with pytest.raises(ValueError, match=why):
        untrusted.parse_toml(text)


def test_texts_inside_other_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MAX_BYTES", 10)
    for parse in (untrusted.parse_json, untrusted.parse_toml):
        with pytest.raises(ValueError, match="more than 10 bytes"):
            parse('"' + "x" * 10 + '"')


def test_toml_is_utf8(tmp_path: Path) -> None:
    path = tmp_path / "value.toml"
    path.write_bytes(b'a = "\xff"')
    with pytest.raises(VimDeployError, match="utf-8"):
        untrusted.read_toml(path, bad)


def test_only_regular_files_of_a_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text("[" + "1," * 100 + "1]")
    with pytest.raises(VimDeployError, match="more than 20 bytes"):
        untrusted.read_json(path, bad, max_bytes=20)
    for place, why in ((tmp_path, "regular|directory"), (tmp_path / "absent", "No such file")):
        with pytest.raises(VimDeployError, match=why):
            untrusted.read_json(place, bad)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(VimDeployError, match="not a regular file"):
        untrusted.read_json(tmp_path / "pipe", bad)


def test_small_texts_that_become_much_are_not_parsed() -> None:
    """A list takes two bytes in a text and a hundred in memory."""
    lists = b"[" + b"[]," * untrusted.MAX_VALUES + b"[]]"
    with pytest.raises(ValueError, match="values, which no such text has"):
        untrusted.parse_json(lists)
    lines = "\n" * untrusted.MAX_VALUES + "a = 1\n\n"
    with pytest.raises(ValueError, match="values, which no such text has"):
        untrusted.parse_toml(lines)


@pytest.mark.parametrize("text", ["{} = 1", "[{}]", "a = {{ {} = 1 }}", "a = [{{ {} = 1 }}]"])
@pytest.mark.timeout(20)
def test_long_dotted_keys_are_deep(text: str) -> None:
    """Parsers walk to each part from the top: ten kilobytes would take many seconds."""
    with pytest.raises(ValueError, match="levels deep"):
        untrusted.parse_toml(text.format(".".join(["a"] * 100_000)))
    assert untrusted.parse_toml("a.b = 0.5\n[c.d]\ne = [0.25, 1.5]") == {
        "a": {"b": 0.5}, "c": {"d": {"e": [0.25, 1.5]}}
    }  # fmt: skip
