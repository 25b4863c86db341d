"""What a built site must be: links lead somewhere, and no page asks another machine for anything.

The generator looks at Markdown alone; this looks at the pages that readers get.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

#: Elements that a browser fetches something for, and the attribute that says what.
_FETCHED = {
    ("script", "src"), ("img", "src"), ("img", "srcset"), ("source", "src"), ("source", "srcset"),
    ("iframe", "src"), ("embed", "src"), ("object", "data"), ("video", "src"), ("video", "poster"),
    ("audio", "src"), ("track", "src"), ("input", "src"), ("image", "href"), ("use", "href"),
}  # fmt: skip
#: Relations of ``link`` that name a place without fetching it.
_NAMED = {"canonical", "prev", "next", "edit", "license", "author", "alternate", "up"}
_ABROAD = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_IN_STYLE = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


@dataclass
class Page:
    """What is in a page's HTML: names to point to, links, what is fetched, title."""

    names: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    title: str = ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.page.names |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        for name, value in values.items():
            if (tag, name) in _FETCHED:
                self.page.fetched += [part.split()[0] for part in value.split(",") if part.strip()]
        if tag == "link" and not _NAMED & set(values.get("rel", "").split()):
            self.page.fetched.append(values.get("href", ""))
        if values.get("style"):
            self.page.fetched += in_style(values["style"])
        self._within = tag if tag in ("title", "style") else self._within

    def handle_endtag(self, tag: str) -> None:
        self._within = "" if tag == self._within else self._within

    def handle_data(self, data: str) -> None:
        if self._within == "title":
            self.page.title += data
        elif self._within == "style":
            self.page.fetched += in_style(data)


def in_style(text: str) -> list[str]:
    """What a style sheet fetches."""
    return [first or second for first, second in _IN_STYLE.findall(text)]


def read(path: Path) -> Page:
    """The page of a file."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def faults(site: Path, address: str) -> Iterator[str]:
    """What is wrong with a site, one sentence each.

    Args:
        site: folder of the built site.
        address: where it will be published; a link that begins with it stays on the site.
    """
    site = site.resolve()
    pages = {path: read(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        if not page.title.strip():
            yield f"{name} has no title"
        for link in page.links:
            if fault := _broken(site, path, pages, link, address):
                yield f"{name}: {link} {fault}"
        for link in page.fetched:
            if _ABROAD.match(link) and not link.startswith(address):
                yield f"{name} fetches {link}"
            elif not link.startswith("data:") and _file(site, path, link, address) is None:
                yield f"{name} fetches {link}, which is not there"
    for path in sorted(site.rglob("*.css")):
        for link in in_style(path.read_text(encoding="utf-8")):
            if _ABROAD.match(link):
                yield f"{path.relative_to(site).as_posix()} fetches {link}"


def _file(site: Path, path: Path, link: str, address: str) -> Path | None:
    """The file of the site that a link means, or None."""
    name = urllib.parse.unquote(urllib.parse.urlsplit(link).path)
    if link.startswith(address):
        found = site / urllib.parse.unquote(urllib.parse.urlsplit(link[len(address) :]).path)
    elif name.startswith("/"):
        # Only the page for what is not found, which is shown at any address, has such links.
        prefix = urllib.parse.urlsplit(address).path
        found = site / name.removeprefix(prefix)
    else:
        found = path if not name else path.parent / name
    found = found / "index.html" if found.is_dir() else found
    return found.resolve() if found.is_file() else None


def _broken(site: Path, path: Path, pages: dict[Path, Page], link: str, address: str) -> str:
    """Why a link leads nowhere; empty when it leads somewhere, or to another site."""
    outside = re.match(r"[a-z][a-z0-9+.-]*:|//", link, re.IGNORECASE)
    if outside and not link.startswith(address):
        return ""
    found = _file(site, path, link, address)
    if found is None:
        return "leads to nothing"
    anchor = urllib.parse.unquote(urllib.parse.urlsplit(link).fragment)
    if anchor and found in pages and anchor not in pages[found].names:
        return f"leads to no place of {found.relative_to(site).as_posix()}"
    return ""
