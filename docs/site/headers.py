"""The reference of the C++ library: its public headers, each with what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

HEADERS = Path("cpp", "include", "vim_deploy")
PAGE = "api/cpp.md"
_TOP = """# C++ library

What the headers of `cpp/include/vim_deploy` declare and say of it. [The page on C++](../cpp.md)
shows how they are used together. Failures come back as an `Error` in a `Result`; nothing throws.
"""


def page(root: Path) -> str:
    """All headers on one page, in the order of their names."""
    return "\n".join([_TOP, *_sections(root)])


def _sections(root: Path) -> Iterator[str]:
    for path in sorted((root / HEADERS).glob("*.h")):
        lines = path.read_text(encoding="utf-8").splitlines()
        about = []
        while lines and lines[0].startswith("//!"):
            text = lines.pop(0).removeprefix("//!").strip()
            about += [] if text.startswith("\\file") else [text]
        code = "\n".join(line for line in lines if not re.match(r"#(pragma|include)\b", line))
        yield f"## {path.name}\n"
        yield re.sub(r"([<>*_])", r"\\\1", " ".join(about)) + "\n"
        yield f"```cpp\n{code.strip()}\n```\n"
