"""What the site is made of: which file of the repository becomes which page, and where links lead.

A link to a file that is a page here leads to that page, a picture comes along, and every other file
of the repository is looked at in the repository's own web view.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from docs.site.markdown import error_anchor, headings, slug, split_fences

#: Pages beside those of docs, by what they are made of.
OTHERS = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting-faults.md",
    "benchmarks/results/README.md": "results/index.md",
    "benchmarks/results/cpu-2-core/scaling/scaling.md": "results/scaling.md",
    "export/README.md": "recipes.md",
}
README = "README.md"
#: The page with an entry for each error.
ERRORS = "errors.md"
#: The sections of the README by their page; "" is what stands before the first.
README_PAGES = {
    "install.md": ("", "Install"),
    "tour.md": ("Tour", "Python"),
    "commands.md": ("Commands",),
    "models.md": ("What can be exported",),
    "tested.md": ("What is tested where",),
    "scaling.md": ("How cost grows with the image",),
}
#: Sections that point to other pages, which the site's menu does.
README_LEFT_OUT = ("Reading on",)
#: Where a link to the README as a whole leads.
README_HOME = "tour.md"
PICTURES = (".svg", ".png", ".jpg", ".gif", ".webp")


class BrokenLinkError(Exception):
    """A link of a page that leads nowhere."""


def readme_sections(text: str) -> dict[str, str]:
    """The parts of the README by their heading of level 2; "" is the part before the first.

    The heading of level 1 is left out, and headings of sections stay as they are.
    """
    found = {"": ""}
    name = ""
    for fenced, lines in split_fences(text):
        for line in lines:
            match = None if fenced else re.match(r"^## +(.*?) *$", line)
            if match:
                name = match[1]
                found[name] = ""
            if not (line.startswith("# ") and not fenced and not name):
                found[name] += line + "\n"
    return found


@dataclass
class Sources:
    """The repository's pages.

    Attributes:
        root: of the repository.
        repository: address of its web view.
        pages: of files of the repository (README apart), the page of the site.
        pictures: those that pages show, by their place in the site; filled by ``target``.
    """

    root: Path
    repository: str
    pages: dict[str, str]
    pictures: dict[str, Path] = field(default_factory=dict)
    _anchors: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, repository: str) -> Sources:
        """Those of the repository at ``root``."""
        docs = root / "docs"
        pages = {f"docs/{name}": name for name in _names(docs)}
        return cls(root, repository.rstrip("/"), pages | OTHERS)

    def readme(self) -> Iterator[tuple[str, str]]:
        """Page and text of each part of the README.

        Raises:
            ValueError: a section is on no page, or on one and not in the README.
        """
        sections = readme_sections((self.root / README).read_text(encoding="utf-8"))
        placed = [name for names in README_PAGES.values() for name in names]
        if sorted([*placed, *README_LEFT_OUT]) != sorted(sections):
            raise ValueError(
                f"the README has the sections {sorted(sections)}; "
                f"docs/site/sources.py has {sorted([*placed, *README_LEFT_OUT])}"
            )
        for page, names in README_PAGES.items():
            yield page, _joined([(name, sections[name]) for name in names])

    def target(self, source: str, page: str, link: str) -> str:
        """Where a link leads on the site.

        Args:
            source: file of the repository that has it.
            page: the site's page that it comes to stand on.
            link: as it is written.

        Raises:
            BrokenLinkError: file or anchor do not exist.
        """
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            return link
        file, anchor = _place(source, link)
        if file.startswith("..") or not (self.root / file).exists():
            raise BrokenLinkError(f"{source}: {link} leads to nothing")
        if file == README or file in self.pages:
            found, anchor = self._on_site(file, anchor, f"{source}: {link}")
            relative = posixpath.relpath(found, posixpath.dirname(page) or ".")
            if found == page and anchor:
                relative = ""
            return f"{relative}#{anchor}" if anchor else relative
        if file.endswith(PICTURES):
            self.pictures[f"pictures/{file}"] = self.root / file
            return posixpath.relpath(f"pictures/{file}", posixpath.dirname(page) or ".")
        kind = "tree" if (self.root / file).is_dir() else "blob"
        return f"{self.repository}/{kind}/main/{file}" + (f"#{anchor}" if anchor else "")

    def error(self, page: str, code: str) -> str:
        """Where an error's code leads from a page of the site."""
        start = "" if page == ERRORS else posixpath.relpath(ERRORS, posixpath.dirname(page) or ".")
        return f"{start}#{code.lower()}"

    def title(self, source: str, link: str) -> str | None:
        """The first heading of the page that a link of ``source`` leads to; None for no page."""
        file, _ = _place(source, link)
        if file not in self.pages:
            return None
        return next(headings((self.root / file).read_text(encoding="utf-8")))[1]

    def _on_site(self, file: str, anchor: str, link: str) -> tuple[str, str]:
        """Page and anchor of a place in a file that is shown."""
        if file == README and not anchor:
            return README_HOME, ""
        if not anchor:
            return self.pages[file], ""
        if file not in self._anchors:
            self._anchors[file] = dict(self._named(file))
        if anchor not in self._anchors[file]:
            raise BrokenLinkError(f"{link} leads to no heading of {file}")
        page, _, own = self._anchors[file][anchor].partition("#")
        return page, own

    def _named(self, file: str) -> Iterator[tuple[str, str]]:
        """Anchors that GitHub makes for a file, and page and anchor of the same place here."""
        parts = (
            list(self.readme())
            if file == README
            else [(self.pages[file], (self.root / file).read_text(encoding="utf-8"))]
        )
        for page, text in parts:
            for _, heading in headings(text):
                yield slug(heading), f"{page}#{error_anchor(heading) or slug(heading)}"


def _place(source: str, link: str) -> tuple[str, str]:
    """File of the repository and anchor that a link of ``source`` means."""
    name, _, anchor = link.partition("#")
    if not name:
        return source, anchor
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), name)), anchor


def _names(folder: Path) -> Iterator[str]:
    """Names of the pages below ``folder``."""
    for path in sorted(folder.rglob("*.md")):
        yield path.relative_to(folder).as_posix()


def _joined(parts: list[tuple[str, str]]) -> str:
    """Sections as one page, under the heading of the first that has one."""
    title = next(name for name, _ in parts if name)
    done = [f"# {title}"]
    for name, text in parts:
        body = text.partition(f"## {name}\n")[2] if name else text
        done += [_raised(body).strip()] if name in ("", title) else [text.strip()]
    return "\n\n".join(done) + "\n"


def _raised(text: str) -> str:
    """Headings below a section one level up."""
    return "\n".join(
        line if fenced else re.sub(r"^#(#+ )", r"\1", line)
        for fenced, lines in split_fences(text)
        for line in lines
    )
