"""What is sent to a machine with a GPU: its size, and a working tree without large test data.

    python benchmarks/gpu/travel.py size [FOLDER...] [--limit MIB]
    python benchmarks/gpu/travel.py light
    python benchmarks/gpu/travel.py restore

``size`` counts the working tree (tracked files, and others that git does not ignore) and each
FOLDER, an ignored one that is sent with it; every sum has to stay below the limit, or the exit code
is 1. ``light`` moves the data that no step of a call reads from the working tree to the ignored
folder ``.travel``; ``restore`` moves it back, byte for byte. Where git sees a change below what
it would move, ``light`` touches nothing. Either may be interrupted and called again: a list of
all files is written before the first is moved, and goes after the last is back.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
#: Below these nothing is read by a step of a call, but what ``KEPT`` names.
HEAVY = (
    "benchmarks/results",
    "docs",
    "examples",
    "tests/data",
    "tests/fuzz",
    "tests/integration",
    "tests/unit",
)
#: What stays: the trained model of digits and its reference outputs.
KEPT = (
    "benchmarks/results/README.md",
    "tests/data/reference/vim_digits.npz",
    "tests/data/reference/vim_digits.pth",
)
#: The ignored folder of what was taken out, and the list of it.
AWAY = ".travel"
_LIST = "files.json"
#: What a machine takes with a call, in MiB.
LIMIT = 64.0
_MIB = 1 << 20


class TravelError(Exception):
    """What cannot be done, for the person who asked."""


def git(repository: Path, verb: str, *arguments: str) -> list[str]:
    """The NUL-separated names that a git command prints."""
    command = ["git", "-C", str(repository), verb, "-z", *arguments]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise TravelError(f"git {verb} failed in {repository}: {said}")
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def size_of(root: Path, names: Iterable[str]) -> int:
    """Bytes of files below ``root``; those that are not there count nothing."""
    paths = (root / name for name in names)
    return sum(path.lstat().st_size for path in paths if os.path.lexists(path))


def tree_bytes(repository: Path) -> int:
    """Bytes of the working tree as it would be sent."""
    return size_of(repository, set(git(repository, "ls-files", "-c", "-o", "--exclude-standard")))


def folder_bytes(folder: Path) -> int:
    """Bytes of everything in a folder."""
    if not folder.is_dir():
        raise TravelError(f"{folder} is no folder: prepare.py fills what a call carries")
    found = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sum(path.lstat().st_size for path in found)


def tell_sizes(repository: Path, folders: Sequence[Path], limit: float) -> bool:
    """Print the sizes; whether the tree stays below ``limit`` MiB with each folder."""
    tree = tree_bytes(repository)
    print(f"working tree: {tree / _MIB:.1f} MiB")
    fits = tree <= limit * _MIB
    for folder in folders:
        carried = folder_bytes(folder)
        total = (tree + carried) / _MIB
        fits &= total <= limit
        word = "fits" if total <= limit else "TOO LARGE"
        print(f"{folder}: {carried / _MIB:.1f} MiB, with the tree {total:.1f} of {limit:g}: {word}")
    if not fits and not (repository / AWAY / _LIST).exists():
        print("large test data is still in the tree: travel.py light", file=sys.stderr)
    return fits


def digest(path: Path) -> str:
    """SHA-256 of a file, or of where a link points."""
    data = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
    return hashlib.sha256(data).hexdigest()


def light(repository: Path) -> int:
    """Move the heavy data away; the number of files that are away then.

    Raises:
        TravelError: git sees a change below ``HEAVY``, or there is something else at ``AWAY``.
    """
    away = repository / AWAY
    if (away / _LIST).exists():  # an interrupted call, or one that was done: finish it
        return len(_move(repository, outward=True))
    if away.exists():
        raise TravelError(f"{away} is there without a list of files: look at it, then remove it")
    present = [name for name in HEAVY if (repository / name).exists()]
    if changed := git(repository, "status", "--porcelain", "--", *present) if present else []:
        shown = ", ".join(changed[:5])
        raise TravelError(f"{len(changed)} uncommitted changes below what would move: {shown}")
    names = git(repository, "ls-files", "-c", "--", *present) if present else []
    listed = {name: digest(repository / name) for name in names if name not in KEPT}
    away.mkdir()
    part = away / f"{_LIST}.part"
    with part.open("w", encoding="utf-8") as file:
        json.dump(listed, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(away / _LIST)
    return len(_move(repository, outward=True))


def restore(repository: Path) -> int:
    """Move everything back and compare it; the number of files that were on the list.

    Raises:
        TravelError: a file is missing, or is not what it was; the list stays then.
    """
    away = repository / AWAY
    if not (away / _LIST).exists():
        if (away / f"{_LIST}.part").exists():  # interrupted before anything was moved
            shutil.rmtree(away)
        return 0
    listed = _move(repository, outward=False)
    wrong = [
        name
        for name, expected in listed.items()
        if not os.path.lexists(repository / name) or digest(repository / name) != expected
    ]
    if wrong:
        shown = ", ".join(wrong[:5])
        raise TravelError(
            f"{len(wrong)} files are not what was taken out: {shown}; what git has of them: "
            f"git checkout -- PATH, then restore again"
        )
    shutil.rmtree(away)
    return len(listed)


def _move(repository: Path, *, outward: bool) -> dict[str, str]:
    """Move each file of the list that is not yet where it belongs; the list.

    A file that stands at both ends, as after a checkout, stays at both: ``restore`` compares the
    one in the tree.
    """
    away = repository / AWAY
    listed: dict[str, str] = json.loads((away / _LIST).read_text(encoding="utf-8"))
    for name in listed:
        ends = (repository / name, away / "files" / name)
        source, target = ends if outward else ends[::-1]
        if os.path.lexists(source) and not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
    return listed


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="the working tree")
    commands = parser.add_subparsers(dest="command", required=True)
    sizes = commands.add_parser("size", help="print what would be sent")
    sizes.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    sizes.add_argument("--limit", type=float, default=LIMIT, help="MiB that a call may carry")
    commands.add_parser("light", help="take large test data out")
    commands.add_parser("restore", help="put it back")
    options = parser.parse_args(argv)
    try:
        if options.command == "size":
            return 0 if tell_sizes(options.repository, options.folders, options.limit) else 1
        if options.command == "light":
            print(
                f"{light(options.repository)} files are in {AWAY}; travel.py restore puts them back"
            )
        else:
            print(f"{restore(options.repository)} files are back")
    except TravelError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
