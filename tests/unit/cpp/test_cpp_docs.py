"""The commands and files of docs/cpp.md, run in order: for ONNX files with the real ONNX Runtime.

The section about engines runs against fakes of TensorRT and CUDA.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import cpp, cpp_builds, cpp_onnx, plugins, traces
from tests.support.markdown import Block, blocks, commands, console_commands
from tests.support.source import REPOSITORY
from vim_deploy.plugin.ort_library import LIBRARY_VARIABLE

GUIDE = REPOSITORY / "docs" / "cpp.md"
#: Programs that the guide's commands about engines may start: CMake, and what they have made.
PROGRAMS = ("cmake", "build-trt/classify")
PIP = "python3 -m pip install "


def of_language(language: str) -> list[Block]:
    """The guide's blocks of a language, in order."""
    return [block for block in blocks(GUIDE) if block.language == language]


def workplace(folder: Path) -> Path:
    """A folder as the guide's reader has it: the checkout's ``cpp``, a picture, two files."""
    place = folder / "work"
    place.mkdir()
    # The library takes the declaration of ONNX Runtime's API from beside itself.
    for name in ("cpp", "plugins"):
        (place / name).symlink_to(REPOSITORY / name)
    (listing,) = of_language("cmake")
    (source,) = of_language("cpp")
    (place / "CMakeLists.txt").write_text("\n".join(listing.lines), "utf-8")
    (place / "main.cpp").write_text("\n".join(source.lines), "utf-8")
    pixels = np.random.default_rng(2).integers(0, 256, (48, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(place / "photo.ppm")
    return place


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("VIM_TEST_ALL"),
    reason="VIM_TEST_ALL=1 runs this page",
)
def test_from_an_exported_file_to_a_program(tmp_path: Path, folder_of_traces: Path) -> None:
    pytest.importorskip("torch")
    plugins.need_tool("cmake")
    plugins.need_tool("g++")
    runtime = cpp_onnx.need_runtime()
    place = workplace(tmp_path)
    program = tmp_path / "vim-deploy"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vim_deploy "$@"\n', "utf-8")
    program.chmod(0o755)
    variables = {
        **traces.variables(folder_of_traces),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        LIBRARY_VARIABLE: "",
    }
    answers: dict[str, list[str]] = {}
    for block in of_language("console"):
        for command in commands(block) if "TensorRT" not in block.needs else ():
            if command.text.startswith(PIP) and not os.environ.get("VIM_TEST_ALL"):
                # What pip would fetch is installed already.
                (place / "runtime").mkdir()
                (place / "runtime" / "onnxruntime").symlink_to(runtime)
                continue
            words = ["bash", "-c", command.text]
            said = cpp_builds.run_in_project(words, place, variables)
            answers[command.text] = said.splitlines()
            for line in command.said:
                start = line.partition("...")[0]
                assert any(found.startswith(start) for found in answers[command.text]), said
    classified = next(said for text, said in answers.items() if "bin/classify" in text)
    assert len(classified) == 5
    own = next(said for text, said in answers.items() if "build-first/first" in text)
    assert own == ["logits [2, 10]"]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
def test_engines(tmp_path: Path) -> None:
    plugins.need_tool("cmake")
    fakes = cpp_builds.need_fakes()
    variables = cpp_builds.fake_installations(tmp_path, fakes)
    place = workplace(tmp_path)
    cpp.FakeEngine().write(place, "digits.plan")
    answers = {}
    for block in of_language("console"):
        for words in console_commands(block) if "TensorRT" in block.needs else ():
            assert words[0] in PROGRAMS, words
            answers[words[0]] = cpp_builds.run_in_project(words, place, variables)
    assert set(answers) == set(PROGRAMS)
    lines = answers["build-trt/classify"].splitlines()
    assert lines[0] == "photo.ppm"
    assert len(lines) == 4
    assert all(line.split(maxsplit=1)[1].startswith("label ") for line in lines[1:])
