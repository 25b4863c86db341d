"""What of a release can be checked without keys: ``make release-check`` (docs/releasing.md).

    python .ci/release_check.py --before         the checkout: clean, named, and told of
    python .ci/release_check.py --dist dist      the files: all of them, whole, and summed

``make wheels`` has looked into the files when it made them.

Everything that is wrong is printed, a line each, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUMS = "SHA256SUMS"
_HEADING = re.compile(r"^## (.+?)\s*$", re.MULTILINE)
_RELEASE = re.compile(r"(\S+) - (\d{4}-\d{2}-\d{2})")


def first(pattern: str, path: Path) -> str:
    """What the first group of a pattern finds in a file; empty when it finds nothing."""
    found = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def version_of(root: Path) -> str:
    """The version in pyproject.toml, which is the one that everything else is held to."""
    return first(r'^version = "([^"]+)"', root / "pyproject.toml")


def git(root: Path, *words: str) -> str:
    """What git answers; CalledProcessError where it does not."""
    command = ["git", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def of_the_checkout(root: Path) -> Iterator[str]:
    """Changes that no commit has, and a tag of this version on another commit."""
    changed = git(root, "status", "--porcelain").splitlines()
    if changed:
        yield f"{len(changed)} files differ from the last commit, {changed[0][3:]} the first"
    tag = f"v{version_of(root)}"
    tagged = git(root, "for-each-ref", f"refs/tags/{tag}", "--format=%(objectname)")
    if tagged and git(root, "rev-parse", f"{tag}^{{commit}}") != git(root, "rev-parse", "HEAD"):
        yield f"the tag {tag} stands on another commit: raise the version"


def of_the_changelog(root: Path) -> Iterator[str]:
    """No section of this version, no date that can be one, nothing in it, or changes left above."""
    version, path = version_of(root), root / "CHANGELOG.md"
    parts = _HEADING.split(path.read_text(encoding="utf-8"))
    sections = list(zip(parts[1::2], parts[2::2], strict=True))
    named = {heading: text.strip() for heading, text in sections}
    if named.get("Unreleased"):
        yield f"CHANGELOG.md: what stands under Unreleased belongs to {version}"
    for heading, text in named.items():
        release = _RELEASE.fullmatch(heading)
        if release is None or release[1] != version:
            continue
        try:
            datetime.date.fromisoformat(release[2])
        except ValueError:
            yield f"CHANGELOG.md: {release[2]} is no date"
        if not text:
            yield f"CHANGELOG.md: nothing stands under {heading}"
        return
    yield f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD'"


def of_other_versions(root: Path) -> Iterator[str]:
    """Places that repeat the version and have another."""
    version = version_of(root)
    repeated = {
        "vim_deploy/__init__.py": r'^__version__ = "([^"]+)"',
        "CITATION.cff": r"^version: (\S+)",
    }
    for name, pattern in repeated.items():
        found = first(pattern, root / name)
        if found != version:
            yield f"{name} says {found or 'no version'}, pyproject.toml {version}"


def files_of(folder: Path) -> list[Path]:
    """Wheels and source archives, sorted."""
    return sorted(path for path in folder.glob("*") if path.name.endswith((".whl", ".tar.gz")))


def of_the_files(folder: Path, version: str) -> Iterator[str]:
    """Files of other versions, archives that are damaged, and kinds that are not there."""
    found = files_of(folder)
    for path in found:
        if f"-{version}-" not in path.name and not path.name.endswith(f"-{version}.tar.gz"):
            yield f"{path.name} is of another version than {version}: make clean"
        try:
            if path.suffix == ".whl":
                with zipfile.ZipFile(path) as archive:
                    damaged = archive.testzip()
            else:
                with tarfile.open(path) as archive:
                    damaged = None if archive.getmembers() else "nothing in it"
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
            damaged = str(error)
        if damaged:
            yield f"{path.name} is damaged: {damaged}"
    for kind, what in (("-none-any.whl", "pure wheel"), (".tar.gz", "source archive")):
        if not any(path.name.endswith(kind) for path in found):
            yield f"{folder} has no {what}"


def write_sums(folder: Path) -> Path:
    """``SHA256SUMS`` beside the files, as ``sha256sum --check`` reads it."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in files_of(folder)
    ]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    return folder / SUMS


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Check what was asked for; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", action="store_true", help="check the checkout")
    parser.add_argument("--dist", type=Path, help="check the files in this folder")
    options = parser.parse_args(arguments)
    if not options.before and options.dist is None:
        parser.error("say what to check: --before, --dist FOLDER, or both")
    wrong: list[str] = []
    if options.before:
        for check in (of_the_checkout, of_the_changelog, of_other_versions):
            wrong += check(root)
    if options.dist is not None:
        wrong += of_the_files(options.dist, version_of(root))
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    if not wrong:
        print(f"vim-deploy {version_of(root)}: nothing is wrong with what was checked")
        if options.dist is not None:
            print(f"sums in {write_sums(options.dist)}; sign, tag and publish: docs/releasing.md")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
