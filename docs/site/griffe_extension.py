"""What the reader of docstrings runs on each object before it is shown."""

from __future__ import annotations

from typing import Any

import griffe

from docs.site.docstrings import one_name_each
from docs.site.markdown import with_links


class Rewritten(griffe.Extension):
    """Items of several names become one of each, and an error's code leads to its entry."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:  # noqa: ANN401
        """Change the docstring of an object; its loader is of no interest."""
        if obj.docstring is not None:
            text = one_name_each(obj.docstring.value)
            obj.docstring.value = with_links(text, str, error=_entry).rstrip("\n")


def _entry(code: str) -> str:
    """An error's entry, from a page of ``api``."""
    return f"../errors.md#{code.lower()}"
