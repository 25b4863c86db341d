"""The pages that help texts and errors name, as this copy of vim-deploy has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vim_deploy import installation
from vim_deploy.errors import CATALOG, VimDeployError, nearest

#: What pages are made with, and what is there for the site alone.
_SUFFIX, _OF_THE_SITE = ".md", ("api", "site")
#: The page that explains error codes, each below a heading of its own.
_ERRORS = "errors"
_FENCE = re.compile(r"^(`{3,}|~{3,})")


@dataclass(frozen=True)
class Page:
    """A page: its name, ``plugin`` of ``docs/plugin.md``, its title, and its file."""

    name: str
    title: str
    path: Path

    @property
    def text(self) -> str:
        """The whole page, as Markdown."""
        return self.path.read_text(encoding="utf-8")


def pages() -> Mapping[str, Page]:
    """Every page by its name; those in folders come last.

    Raises:
        VimDeployError: VIM-401 when there are none: an installation may be damaged.
    """
    folder = installation.SHIPPED / "docs"
    found = {}
    for path in sorted(folder.rglob(f"*{_SUFFIX}")):
        inside = path.relative_to(folder).with_suffix("")
        if inside.parts[0] not in _OF_THE_SITE:
            name = inside.as_posix()
            found[name] = Page(name, _title(path), path)
    if not found:
        raise VimDeployError(
            "VIM-401",
            f"no documents in {folder}",
            why="this installation of vim-deploy is not complete",
            fix="install vim-deploy again",
        )
    return dict(sorted(found.items(), key=lambda item: ("/" in item[0], item[0])))


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        heads = (line.strip("# \n") for line in lines if line.startswith("# "))
        return next(heads, path.stem)


def page_text(asked: str) -> str:
    """A page as Markdown, or of the page about errors what belongs to one code.

    Args:
        asked: ``plugin``, ``docs/plugin.md``, ``decisions/001-recipes-in-toml`` or ``VIM-301``.

    Raises:
        VimDeployError: VIM-201 for an unknown name, with the nearest one; VIM-401.
    """
    known = pages()
    code = asked.upper()
    if code in CATALOG and _ERRORS in known:
        return _section(known[_ERRORS].text, code)
    name = asked.removeprefix("docs/").removesuffix(_SUFFIX)
    if name not in known:
        raise VimDeployError("VIM-201", f"no page {asked!r}", fix=nearest(name, known))
    return known[name].text


def _section(text: str, code: str) -> str:
    """The heading of a code and what follows it, up to the next heading."""
    found: list[str] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= _FENCE.match(line) is not None
        heading = line.startswith("#") and not fenced
        if heading and found:
            break
        if found or (heading and line.lstrip("# ").startswith(f"{code}:")):
            found.append(line)
    return "\n".join(found).strip() + "\n"
