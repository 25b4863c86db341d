"""Text that comes from elsewhere, made fit to be shown.

Names of files, classes, tensors, models and devices come from files that somebody else wrote.
Whatever shows such text, on a terminal, in a log or in a report, sends it through ``printable``:
no reader ever gets control characters (a terminal obeys them), half surrogates of undecodable file
names, or marks that turn the direction of the text around them. Escaping for HTML and Markdown is
the business of their renderers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

#: An escape and the character that says what it begins: shown together, since the second alone
#: would still read as the beginning of a command wherever the escape is added or decoded again.
_ESCAPE = re.compile(r"\x1b([\x21-\x7e])")


def printable(text: object) -> str:
    """``text`` with every character that does not print written out, as ``\\x07`` for example.

    Of an escape sequence the introducer is written out as well: ``\\x1b\\x5b2J``. Line ends stay; a
    caller that shows one line replaces them itself.
    """
    text = str(text)
    if text.isprintable():
        return text
    shown = _ESCAPE.sub(lambda found: f"\x1b\\x{ord(found[1]):02x}", text)
    return "".join(
        char if char == "\n" or char.isprintable() else ascii(char)[1:-1] for char in shown
    )


def storable(text: str) -> str:
    """``text`` with half surrogates written out, as ``\\udcff`` for example.

    Python makes them of bytes in file names and arguments that are no UTF-8. JSON of ours does not
    hold them (``untrusted``), so what is recorded of such a name goes through here.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_text(value: Any, *, compact: bool = False) -> str:  # noqa: ANN401 - JSON
    """``value`` as JSON that every reader takes back: no NaN, and texts ``storable``.

    Args:
        value: mappings, lists, texts and numbers.
        compact: one line with sorted keys, to be hashed; else indented.
    """
    form: dict[str, Any] = {"sort_keys": True, "separators": (",", ":")}
    return json.dumps(_storable(value), allow_nan=False, **(form if compact else {"indent": 2}))


def _storable(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list | tuple) else value
