"""The commands and files of docs/cpp.md, run in order against fakes of TensorRT and CUDA."""

from __future__ import annotations

import json
import os
import subprocess
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


def fake_installations(folder: Path, fakes: cpp_builds.Fakes) -> dict[str, str]:
    """A TensorRT and a CUDA toolkit made of headers and fakes; the variables that name them."""
    cuda, tensorrt = folder / "cuda", folder / "tensorrt"
    for root, headers, library in (
        (cuda, fakes.cuda, fakes.cudart),
        (tensorrt, fakes.headers, fakes.nvinfer),
    ):
        (root / "lib64").mkdir(parents=True)
        (root / "bin").mkdir()
        (root / "include").symlink_to(headers)
        (root / "lib64" / library.name).symlink_to(library)
    # Where a toolkit has no compiler, CMake takes the version from here.
    (cuda / "version.json").write_text(json.dumps({"cuda": {"version": "13.0.0"}}))
    return {"CUDAToolkit_ROOT": str(cuda), "TensorRT_ROOT": str(tensorrt)}


def run(words: list[str], folder: Path, variables: dict[str, str]) -> str:
    """Run one command of the guide in ``folder``; its output."""
    assert words[0] in PROGRAMS, words
    words = [word.replace("$PWD", str(folder)) for word in words]
    program = words[0] if words[0] == "cmake" else str(folder / words[0])
    environment = {
        **os.environ,
        # Quick to compile; the guide's reader gets an optimised library.
        "CMAKE_BUILD_TYPE": "Debug",
        "CXXFLAGS": "-O0",
        **variables,
    }
    done = subprocess.run(
        [program, *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    assert "warning:" not in done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_guide(tmp_path: Path) -> None:
    plugins.need_tool("cmake")
    fakes = cpp_builds.need_fakes()
    variables = fake_installations(tmp_path, fakes)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "examples").symlink_to(REPOSITORY / "examples")
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
            answers[words[0]] = run(words, folder, variables)
    assert set(answers) == set(PROGRAMS)
    lines = answers["installed/bin/classify"].splitlines()
    assert lines[0] == "photo.ppm"
    assert len(lines) == 4
    assert all(line.split(maxsplit=1)[1].startswith("label ") for line in lines[1:])
    assert answers["build-first/first"].split() == ["logits", "[2,", "10]"]
