"""Makes the site's pages and its configuration from the repository."""

from __future__ import annotations

import json
import posixpath
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.site import commands, headers
from docs.site.markdown import for_python_markdown, headings, with_links
from docs.site.sources import README, BrokenLinkError, Sources

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["CONFIG", "BrokenLinkError", "addresses", "make", "menu"]

CONFIG = "zensical.toml"
_HERE = Path(__file__).parent
#: Folder of the pages beside the configuration.
_PAGES = "pages"
#: Files that are copied as they are, beside the configuration.
_OWN = ("pages/site.css", "overrides/partials/source.html")


def addresses(root: Path) -> dict[str, str]:
    """The project's addresses by name, as pyproject.toml has them."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = project["urls"]
    return found


def make(root: Path, folder: Path) -> None:
    """Write pages and configuration.

    Args:
        root: of the repository.
        folder: to write into; pages of before that are no longer made are removed.

    Raises:
        BrokenLinkError: a link of a page leads nowhere.
        ValueError: a page is not in the menu, the menu has one that is not made, or a section of
            the README has no page.
    """
    named = addresses(root)
    sources = Sources.of(root, named["Repository"])
    made = dict(_pages(sources))
    config = (_HERE / CONFIG).read_text(encoding="utf-8")
    facts = {
        "site_url": named["Documentation"],
        "repo_url": named["Repository"],
        "repo_name": named["Repository"].split("/", 3)[-1],
        "nav": menu(made),
    }
    lines = "\n".join(f"{name} = {_toml(value)}" for name, value in facts.items())
    config = config.replace("[project]\n", f"[project]\n{lines}\n", 1)
    _write(folder / CONFIG, config.replace("@ROOT@", str(root)))
    for name, text in made.items():
        _write(folder / _PAGES / name, text)
    copies = {f"{_PAGES}/{name}": path for name, path in sources.pictures.items()}
    copies |= {name: _HERE / name.removeprefix(f"{_PAGES}/") for name in _OWN}
    for name, path in copies.items():
        _write(folder / name, path.read_bytes())
    wanted = {*copies, *(f"{_PAGES}/{name}" for name in made)}
    for path in (folder / _PAGES).rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()


def menu(made: dict[str, str]) -> list[dict[str, list[str] | str]]:
    """The site's menu: groups by title, with their pages.

    Args:
        made: text of every page by its name.

    Raises:
        ValueError: menu and pages do not have the same names.
    """
    groups = tomllib.loads((_HERE / "nav.toml").read_text(encoding="utf-8"))["group"]
    listed = [name for group in groups for name in group["pages"] if not name.endswith("/")]
    if unknown := sorted(set(listed) - set(made)):
        raise ValueError(f"docs/site/nav.toml names pages that are not made: {unknown}")
    left = [name for name in sorted(made) if name not in listed]
    found: list[dict[str, list[str] | str]] = []
    shown: list[str] = []
    for group in groups:
        names: list[str] = []
        for name in group["pages"]:
            if name.endswith("/"):
                folder = name.rstrip("/").removeprefix(".")
                names += [page for page in left if posixpath.dirname(page) == folder]
            else:
                names.append(name)
        if names:
            # A group of one page is that page.
            found.append({group["title"]: names if len(names) > 1 else names[0]})
        shown += names
    if sorted(shown) != sorted(made):
        raise ValueError(f"not in docs/site/nav.toml, or twice: {sorted(set(made) ^ set(shown))}")
    return found


def _pages(sources: Sources) -> Iterator[tuple[str, str]]:
    """Name and text of every page."""
    for page, text in sources.readme():
        yield page, _own(sources, README, page, text)
    for source, page in sources.pages.items():
        yield page, _own(sources, source, page, (sources.root / source).read_text(encoding="utf-8"))
    for name, text in commands.reference():
        yield f"commands/{name}.md", text
    yield headers.PAGE, headers.page(sources.root)


def _own(sources: Sources, source: str, page: str, text: str) -> str:
    """The page of a file: its links as they are on the site, its text in the site's dialect."""
    if next(headings(text), (0, ""))[0] != 1:
        raise ValueError(f"{source} does not begin with a heading of level 1")
    text = with_links(
        text,
        lambda link: sources.target(source, page, link),
        lambda link: sources.title(source, link),
        lambda code: sources.error(page, code),
    )
    return for_python_markdown(commands.linked(text) if page == commands.OVERVIEW else text)


def _toml(value: Any) -> str:  # noqa: ANN401 - texts, lists and objects of one key
    """A value of the configuration on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(k)} = {_toml(v)}' for k, v in value.items())} }}"
    return json.dumps(value)


def _write(path: Path, content: str | bytes) -> None:
    """Write what has changed, so that a watcher sees no other."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)
