"""The Markdown reader that other tests rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import markdown

TEXT = """# Title: a `b` & c

See [one](other.md#part-two), ![two](pic.png "text") and `[no](link.md)`; `vim-deploy inspect
x.onnx --json` too.

```console
# needs a network
$ vim-deploy export a.pth \\
    -o 'b c.onnx'  # why
said by the program
```

    vim-deploy doctor

```text
[not](a-link.md)
$ vim-deploy nothing
```

## Part two
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_blocks_and_needs(page: Path) -> None:
    first, second = markdown.blocks(page)
    assert (first.language, first.needs, first.first_line) == ("console", "a network", 6)
    assert (second.language, second.needs) == ("text", "")
    (command,) = markdown.commands(first)
    assert command.words == ["vim-deploy", "export", "a.pth", "-o", "b c.onnx"]
    assert command.said == ("said by the program",)
    assert not command.fails


def test_links_and_anchors(page: Path) -> None:
    assert list(markdown.links(page)) == [(3, "other.md#part-two"), (3, "pic.png")]
    assert markdown.anchors(page) == {"title-a-b--c", "part-two"}


def test_quoted_commands(page: Path) -> None:
    found = [words for _, words in markdown.quoted_commands(page)]
    assert ["inspect", "x.onnx", "--json"] in found
    assert ["doctor"] in found
    assert any(words[:2] == ["export", "a.pth"] for words in found)


def test_unclosed_block_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "open.md"
    path.write_text("```text\nno end\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="not closed"):
        markdown.blocks(path)
