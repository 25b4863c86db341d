"""Text that comes from elsewhere, made fit to be shown.

Names of files, classes, tensors, models and devices come from files that somebody else wrote.
Whatever shows such text, on a terminal, in a log or in a report, sends it through ``printable``:
no reader ever gets control characters (a terminal obeys them), half surrogates of undecodable file
names, or marks that turn the direction of the text around them. Escaping for HTML and Markdown is
the business of their renderers.
"""

from __future__ import annotations


def printable(text: object) -> str:
    """``text`` with every character that does not print written out, as ``\\x1b`` for example.

    Line ends stay; a caller that shows one line replaces them itself.
    """
    return "".join(
        char if char == "\n" or char.isprintable() else ascii(char)[1:-1] for char in str(text)
    )


def storable(text: str) -> str:
    """``text`` with half surrogates written out, as ``\\udcff`` for example.

    Python makes them of bytes in file names and arguments that are no UTF-8. JSON of ours does not
    hold them (``untrusted``), so what is recorded of such a name goes through here.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
