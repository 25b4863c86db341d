"""What the reader of docstrings runs on each object before it is shown."""

from __future__ import annotations

from typing import Any

import griffe

from docs.site.docstrings import one_name_each


class OneNameEach(griffe.Extension):
    """Items of several names become one of each."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:  # noqa: ANN401
        """Change the docstring of an object; its loader is of no interest."""
        if obj.docstring is not None:
            obj.docstring.value = one_name_each(obj.docstring.value)
