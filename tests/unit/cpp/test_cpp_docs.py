"""The commands and files of docs/cpp.md, run in order against fakes of TensorRT and CUDA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import cpp, cpp_builds, plugins
from tests.support.markdown import Block, blocks, console_commands
from tests.support.source import REPOSITORY

GUIDE = REPOSITORY / "docs" / "cpp.md"
#: Programs that the guide's commands may start: CMake, and what they have made by then.
PROGRAMS = ("cmake", "installed/bin/classify", "build-first/first")


def of_language(language: str) -> list[Block]:
    """The guide's blocks of a language, in order."""
    return [block for block in blocks(GUIDE) if block.language == language]


@pytest.mark.slow
def test_guide(tmp_path: Path) -> None:
    plugins.need_tool("cmake")
    fakes = cpp_builds.need_fakes()
    variables = cpp_builds.fake_installations(tmp_path, fakes)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "cpp").symlink_to(REPOSITORY / "cpp")
    (listing,) = of_language("cmake")
    (source,) = of_language("cpp")
    (folder / "CMakeLists.txt").write_text("\n".join(listing.lines), "utf-8")
    (folder / "main.cpp").write_text("\n".join(source.lines), "utf-8")
    cpp.FakeEngine().write(folder)
    pixels = np.random.default_rng(2).integers(0, 256, (48, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "photo.ppm")
    answers = {}
    for block in of_language("console"):
        for words in console_commands(block):
            assert words[0] in PROGRAMS, words
            answers[words[0]] = cpp_builds.run_in_project(words, folder, variables)
    assert set(answers) == set(PROGRAMS)
    lines = answers["installed/bin/classify"].splitlines()
    assert lines[0] == "photo.ppm"
    assert len(lines) == 4
    assert all(line.split(maxsplit=1)[1].startswith("label ") for line in lines[1:])
    assert answers["build-first/first"].split() == ["logits", "[2,", "10]"]
