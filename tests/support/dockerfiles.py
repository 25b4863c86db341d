"""Dockerfiles as tests read them: instructions by stage, and what .dockerignore leaves out."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word, and all that follows on one line."""

    word: str
    text: str


@dataclass(frozen=True)
class Stage:
    """What a FROM begins: the image, the stage's name, its instructions in order."""

    image: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, word: str) -> list[str]:
        """Texts of its instructions of one kind."""
        return [item.text for item in self.instructions if item.word == word]


def instructions(path: Path) -> Iterator[Instruction]:
    """Instructions of a Dockerfile, without comments, continued lines joined."""
    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield Instruction(word, rest.strip())


def stages(path: Path) -> tuple[dict[str, str], list[Stage]]:
    """Defaults of the ARGs before the first FROM, and the stages."""
    before: dict[str, str] = {}
    found: list[Stage] = []
    for item in instructions(path):
        if item.word == "FROM":
            named = re.fullmatch(r"(\S+)(?:\s+(?i:as)\s+(\S+))?", item.text)
            assert named is not None, item.text
            found.append(Stage(named[1], named[2] or "", ()))
        elif not found:
            name, _, default = item.text.partition("=")
            before[name] = default
        else:
            last = found.pop()
            found.append(Stage(last.image, last.name, (*last.instructions, item)))
    return before, found


class Ignored:
    """The rules of a .dockerignore: the last one that fits a file or a folder above it decides."""

    def __init__(self, path: Path) -> None:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        self.rules = [line for line in lines if line and not line.startswith("#")]

    def __call__(self, name: str) -> bool:
        """Whether the file ``name``, a path from the root, is left out."""
        path = PurePosixPath(name)
        places = [path, *path.parents][:-1]
        left_out = False
        for rule in self.rules:
            kept, pattern = rule.startswith("!"), rule.lstrip("!").strip("/")
            anywhere = pattern.startswith("**/")
            pattern = pattern.removeprefix("**/")
            for place in places:
                text = place.name if anywhere else place.as_posix()
                same_depth = anywhere or text.count("/") == pattern.count("/")
                if same_depth and fnmatch.fnmatchcase(text, pattern):
                    left_out = not kept
        return left_out
