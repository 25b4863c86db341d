"""Leave in a lock the hashes of the files that an installation here can take.

    python requirements/linux_hashes.py LOCK PYLOCK

``uv pip compile --generate-hashes`` writes the hashes of every file of a release: wheels for other
systems and other Pythons, source archives. They are five sixths of a lock, and nothing here
installs them. ``PYLOCK`` is the same resolution as ``pylock.toml``, which names the files.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

#: What ``requires-python`` of pyproject.toml allows and the tests know.
PYTHONS = range(10, 15)
MACHINES = ("x86_64", "aarch64")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def fits(tag: Tag) -> bool:
    """Whether a wheel of this tag is for Linux with glibc and a supported CPython."""
    here = tag.platform == "any" or (
        "linux" in tag.platform
        and not tag.platform.startswith("musllinux")
        and tag.platform.endswith(MACHINES)
    )
    if not here or tag.abi.endswith("t"):
        return False
    if tag.interpreter in ("py3", "py2.py3"):
        return True
    number = re.fullmatch(r"(?:cp|py)3(\d+)", tag.interpreter)
    if number is None:
        return False
    minor = int(number[1])
    return minor in PYTHONS or (tag.abi in ("abi3", "none") and minor < PYTHONS.start)


def wanted(package: dict[str, Any]) -> set[str]:
    """The hashes of a package's wheels that fit; of one without any, of its source archive."""
    wheels = package.get("wheels", ())
    found = {
        wheel["hashes"]["sha256"]
        for wheel in wheels
        if any(fits(tag) for tag in parse_wheel_filename(wheel["url"].rpartition("/")[2])[3])
    }
    if not found and "sdist" in package:
        return {package["sdist"]["hashes"]["sha256"]}
    return found


def kept(lock: str, hashes: set[str]) -> str:
    """The lock with the lines of these hashes alone; a line before the last ends with ``\\``."""
    lines: list[str] = []
    for line in lock.splitlines():
        found = HASH.search(line)
        if found is None:
            # Of the line before, the mark that another hash follows.
            if lines and lines[-1].endswith(" \\") and not line.startswith(" "):
                lines[-1] = lines[-1].removesuffix(" \\")
            lines.append(line)
        elif found[1] in hashes:
            lines.append(line if line.endswith("\\") else f"{line} \\")
    if lines and lines[-1].endswith(" \\"):
        lines[-1] = lines[-1].removesuffix(" \\")
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> None:
    """Rewrite the lock in place; a requirement that would be left without a hash is an error."""
    path, resolved = map(Path, words)
    packages = tomllib.loads(resolved.read_text("utf-8"))["packages"]
    hashes = {item for package in packages for item in wanted(package)}
    text = kept(path.read_text("utf-8"), hashes)
    bare = [line for line in text.splitlines() if "==" in line and not line.endswith("\\")]
    if any(not line.startswith("#") for line in bare):
        raise SystemExit(f"no file for Linux: {', '.join(bare)}")
    path.write_text(text, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
