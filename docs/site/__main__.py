"""Builds and shows the documentation site: ``python -m docs.site build`` and ``serve``.

Pages are written for GitHub's view of the repository. ``pages`` makes the site's own of them, with
a copy of the configuration; the generator makes HTML of these, and ``check`` looks at what came of
it. Everything is written into the site's folder and one beside it, and nothing is fetched.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from docs.site import check, pages

ROOT = Path(__file__).resolve().parents[2]
#: Of ``serve``.
ADDRESS = "127.0.0.1:8000"


def source_of(site: Path) -> Path:
    """The folder of pages and configuration that a site is built of."""
    return site.with_name(f"{site.name}-source")


def generator(command: str, source: Path, *words: str) -> list[str]:
    """The generator's command line for what lies in ``source``."""
    return [sys.executable, "-m", "zensical", command, "-f", str(source / pages.CONFIG), *words]


def build(site: Path) -> list[str]:
    """Build the site strictly into a folder; what is wrong with it.

    Raises:
        BrokenLinkError, ValueError: a page cannot be made.
    """
    source = source_of(site)
    for folder in (source, site):
        shutil.rmtree(folder, ignore_errors=True)
    pages.make(ROOT, source)
    words = generator("build", source, "--strict", "--clean")
    done = subprocess.run(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout, end="")
    if done.returncode:
        return [f"the generator ends with exit code {done.returncode}"]
    (source / "html").rename(site)
    # The generator is strict about Markdown; what the reader of docstrings says is no fault to it.
    said = [line for line in done.stdout.splitlines() if line.startswith("griffe:")]
    return [*said, *check.faults(site, pages.addresses(ROOT)["Documentation"])]


def changed() -> Iterator[tuple[str, float]]:
    """What the pages are made of, with the time of its latest change."""
    for pattern in (
        "*.md",
        "docs/**/*",
        "export/*.md",
        "benchmarks/results/**/*",
        "cpp/include/**/*",
    ):
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path), path.stat().st_mtime


def serve(source: Path, address: str) -> None:
    """Show the site, and make the pages again when one of them changes, until an interrupt."""
    pages.make(ROOT, source)
    words = generator("serve", source, "--dev-addr", address)
    seen = list(changed())
    place = urllib.parse.urlsplit(pages.addresses(ROOT)["Documentation"]).path
    print(f"look at http://{address}{place}", flush=True)
    with subprocess.Popen(words, cwd=ROOT) as server:
        try:
            while server.poll() is None:
                time.sleep(1)
                now = list(changed())
                if now != seen:
                    seen = now
                    try:
                        pages.make(ROOT, source)
                    except (pages.BrokenLinkError, ValueError) as error:
                        print(error, file=sys.stderr)
        except KeyboardInterrupt:
            server.terminate()


def main() -> int:
    """Run one command; the exit code is 1 where something is wrong with the site."""
    parser = argparse.ArgumentParser(prog="python -m docs.site", description=__doc__)
    parser.add_argument("command", choices=("build", "serve"))
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--address", default=ADDRESS, help="of serve, HOST:PORT")
    options = parser.parse_args()
    site = options.folder.absolute()
    if options.command == "serve":
        serve(source_of(site), options.address)
        return 0
    try:
        faults = build(site)
    except (pages.BrokenLinkError, ValueError) as error:
        faults = [str(error)]
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"built {site}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
