"""The report of a run as files: ``NAME.html`` and ``NAME.md`` beside ``NAME.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vim_deploy.files import write_bytes
from vim_deploy.report.accuracy_page import accuracy_document
from vim_deploy.report.bench_page import bench_document
from vim_deploy.report.bisect_page import bisect_document
from vim_deploy.report.deploy_page import deploy_document
from vim_deploy.report.document import Document
from vim_deploy.report.html import html
from vim_deploy.report.markdown import markdown
from vim_deploy.report.parity_page import parity_document

#: Name of a run's files -> how its JSON becomes a document.
DOCUMENTS: dict[str, Callable[[Mapping[str, Any]], Document]] = {
    "parity": parity_document,
    "accuracy": accuracy_document,
    "bisect": bisect_document,
    "bench": bench_document,
    "deploy": deploy_document,
}


def write_pages(
    kind: str, value: Mapping[str, Any], folder: Path, *, with_html: bool
) -> tuple[Path, ...]:
    """Write the Markdown twin of a run's JSON, and its page.

    Args:
        kind: a key of ``DOCUMENTS``; names the files.
        value: the run's JSON-able record.
        folder: that exists.
        with_html: whether to write the page too, which needs jinja2.

    Returns:
        What was written.

    Raises:
        VimDeployError: VIM-301 (jinja2 missing), VIM-304, VIM-305 (output).
    """
    document = DOCUMENTS[kind](value)
    pages = {".md": markdown(document)}
    if with_html:
        pages[".html"] = html(document)
    written = []
    for suffix, text in pages.items():
        path = folder / f"{kind}{suffix}"
        write_bytes(path, text.encode())
        written.append(path)
    return tuple(written)
