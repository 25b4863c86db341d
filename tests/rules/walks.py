"""Through how many files one command walks: those of the package whose functions run.

``python -m tests.rules.walks`` runs each command of ``LIMITS`` on the digits model under a profiler
and prints the table; ``-v`` names the files in the order in which they are entered. Functions that
run while a module is imported do not count, nor do helper processes, which have walks of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.support.source import PACKAGE, REPOSITORY

#: The most files a command may walk through: what it does today. A command that needs another file
#: has one fact in two rooms, or the limit is raised here by somebody who says why.
LIMITS = {
    "export": 86,
    "build-engine": 41,
    "verify": 69,
    "bench": 52,
    "run": 44,
    "package": 46,
}
_DIGITS = REPOSITORY / "tests" / "data"
#: What each command is given behind its name; ``{onnx}`` is what ``export`` wrote.
_ARGUMENTS = {
    "export": ["vim-digits", "-o", "{onnx}"],
    "build-engine": ["{onnx}", "-o", "digits.engine", "--runtime", "tensorrt-rtx"],
    "verify": ["{onnx}", "--against", str(_DIGITS / "reference" / "vim_digits.pth")],
    "bench": ["{onnx}", "--warmup", "0.1", "--duration", "0.2"],
    "run": ["{onnx}", str(_DIGITS / "digits")],
    "package": ["{onnx}", "-o", "digits"],
}
#: What Python calls the code of a module's body.
_IMPORT = "<module>"
Tracer = Callable[[FrameType, str, object], object]
_NEWLOCALS = 0x2  # a code object that is a function's, and no class body (inspect.CO_NEWLOCALS)


@dataclass(frozen=True)
class Walk:
    """One command's way.

    Attributes:
        files: of the package, in the order in which they are entered first.
        moves: from one file of the package to another.
    """

    files: tuple[str, ...]
    moves: int


class Profiler:
    """Notes the package's files whose functions run, in every thread, imports apart.

    A trace function of ``sys.settrace``: Python asks it once for each function that is entered, and
    not when one is left or is written in C, as it asks a profile function. A trace enters millions.
    """

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.moves = 0
        self._last = ""
        self._importing = threading.local()
        self._names: dict[CodeType, str] = {}

    def __call__(self, frame: FrameType, event: str, _: object) -> Tracer | None:
        """What is to be called for the lines of this function, if anything."""
        code = frame.f_code
        name = self._names.get(code)
        if name is None:
            name = self._names[code] = self._name_of(code)
        if name == _IMPORT:
            self._importing.depth = getattr(self._importing, "depth", 0) + 1
            frame.f_trace_lines = False
            return self._left
        if name and not getattr(self._importing, "depth", 0):
            self.files.setdefault(name)
            self.moves += name != self._last
            self._last = name
        return None

    def _left(self, frame: FrameType, event: str, _: object) -> Tracer:
        """Counts imports that end; a module's body has no other event but exceptions."""
        self._importing.depth -= event == "return"
        return self._left

    @staticmethod
    def _name_of(code: CodeType) -> str:
        """The file of a function of the package, ``_IMPORT`` for a module's body, else ""."""
        if code.co_name == _IMPORT:
            return _IMPORT
        path = Path(code.co_filename)
        inside = PACKAGE in path.parents and code.co_flags & _NEWLOCALS
        return path.relative_to(PACKAGE).as_posix() if inside else ""


def profile(arguments: Sequence[str]) -> tuple[Walk, object]:
    """Run one command in this process under the profiler; its walk and its exit status."""
    from vim_deploy.cli.main import main

    profiler = Profiler()
    status: object = 0
    threading.settrace(profiler)
    sys.settrace(profiler)
    try:
        main(list(arguments))
    except SystemExit as end:
        status = end.code
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]  # None ends it, says its documentation
    return Walk(tuple(profiler.files), profiler.moves), status


def walk(command: str, onnx: Path, folder: Path) -> Walk:
    """The walk of ``command``, run in ``folder`` by a process of its own.

    Raises:
        RuntimeError: the command failed, or could not be run here; the text is its own.
    """
    arguments = [command, *(word.format(onnx=onnx) for word in _ARGUMENTS[command])]
    written = folder / f"{command}.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.rules.walks", "--one", written, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {done.stderr}")
    stored: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return Walk(tuple(stored["files"]), stored["moves"])


def table(walks: dict[str, Walk]) -> str:
    """The walks as lines of text."""
    head = f"{'command':<14}{'files':>6}{'at most':>9}{'moves':>7}"
    rows = (
        f"{command:<14}{len(walk.files):>6}{LIMITS[command]:>9}{walk.moves:>7}"
        for command, walk in walks.items()
    )
    return "\n".join((head, *rows))


def main() -> int:
    """Print the table; 1 when a walk is longer than its limit."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.rules.walks")
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(LIMITS))
    parser.add_argument("-v", "--verbose", action="store_true", help="name the files")
    given = parser.parse_args()
    walks = {}
    with tempfile.TemporaryDirectory() as name:
        onnx = Path(name, "digits.onnx")
        for command in LIMITS:
            if command == "export" or not given.commands or command in given.commands:
                walks[command] = walk(command, onnx, Path(name))
    if given.verbose:
        for command, found in walks.items():
            print(f"{command}: {' '.join(found.files)}\n")
    print(table(walks))
    return int(any(len(found.files) > LIMITS[command] for command, found in walks.items()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _found, _status = profile(sys.argv[3:])
        Path(sys.argv[2]).write_text(
            json.dumps({"files": _found.files, "moves": _found.moves}), encoding="utf-8"
        )
        sys.exit(_status)  # type: ignore[arg-type]  # what the command ended with
    sys.exit(main())
