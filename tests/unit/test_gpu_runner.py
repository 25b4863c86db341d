"""``trt86_run`` on fakes of TensorRT and CUDA, and the second call where there is neither."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import cpp_builds, plugins
from tests.support.source import REPOSITORY

GPU = REPOSITORY / "benchmarks" / "gpu"
whole = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]
#: TensorRT 10, whose headers can be had, declares what 8.6 asks for as deprecated.
FLAGS += ["-Wno-deprecated-declarations"]
#: What is used of the parser, whose header is not among those that can be had.
PARSER = """
#pragma once
#include <NvInfer.h>
namespace nvonnxparser {
class IParserError {
  public:
    virtual ~IParserError() = default;
    virtual char const* desc() const noexcept = 0;
};
class IParser {
  public:
    virtual ~IParser() = default;
    virtual bool parseFromFile(char const* path, int verbosity) noexcept = 0;
    virtual int getNbErrors() const noexcept = 0;
    virtual IParserError const* getError(int index) const noexcept = 0;
};
inline IParser* createParser(nvinfer1::INetworkDefinition&, nvinfer1::ILogger&) { return nullptr; }
}  // namespace nvonnxparser
"""
#: What the fakes of ``cpp/tests`` lack, which do not build engines and know no time.
LACKING = """
#include <cuda_runtime_api.h>
#include <cstdint>
extern "C" void* createInferBuilder_INTERNAL(void*, std::int32_t) noexcept { return nullptr; }
extern "C" cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
    static int calls = 0;
    *ms = static_cast<float>(++calls);
    return cudaSuccess;
}
extern "C" cudaError_t cudaMemGetInfo(std::size_t* left, std::size_t* total) {
    static std::size_t free_bytes = 1U << 20U;
    *left = free_bytes;
    *total = 1U << 20U;
    free_bytes /= 2;
    return cudaSuccess;
}
"""
PLAN = """input image float32 -1x1x2x2
output logits float32 -1x3
output a/map float32 -1x2x2
profile 1x1x2x2 2x1x2x2 4x1x2x2
scratch 4096
"""


def compiler(folder: Path) -> list[str]:
    """g++ with everything that the program includes; skips where that cannot be had."""
    plugins.need_tool("g++")
    cuda = cpp_builds.cuda_include()
    if isinstance(cuda, str):
        pytest.skip(cuda)
    (folder / "NvOnnxParser.h").write_text(PARSER)
    systems = (plugins.need_headers(), folder, cuda)
    return ["g++", *FLAGS, *(word for system in systems for word in ("-isystem", str(system)))]


def test_it_compiles(tmp_path: Path) -> None:
    command = [*compiler(tmp_path), "-fsyntax-only", str(GPU / "trt86_run.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@functools.cache
def _program() -> Path:
    folder = plugins.working_folder() / "trt86"
    folder.mkdir(exist_ok=True)
    fakes = cpp_builds.need_fakes()
    (folder / "lacking.cpp").write_text(LACKING)
    libraries = [str(fakes.nvinfer), str(fakes.cudart), f"-Wl,-rpath,{fakes.folder}", "-ldl"]
    sources = [str(GPU / "trt86_run.cpp"), str(folder / "lacking.cpp")]
    command = [*compiler(folder), "-g1", *sources, *libraries, "-o", str(folder / "trt86_run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "trt86_run"


def ran(*arguments: str | Path, **variables: str) -> tuple[int, Any, str]:
    """Exit code, what it printed as JSON, and standard error."""
    done = subprocess.run(
        [str(_program()), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **variables},
    )
    assert "fake:" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def plan(folder: Path, text: str = PLAN) -> Path:
    path = folder / 'the "plan"'
    path.write_bytes(bytes(36) + text.encode())
    return path


@whole
def test_an_engine_runs(tmp_path: Path) -> None:
    given = np.arange(8, dtype=np.float32)
    given.tofile(tmp_path / "in")
    words = ["run", plan(tmp_path), "--shape", "1,2,2", "--batch", "2", "--seconds", "0"]
    status, found, _ = ran(*words, "--in", tmp_path / "in", "--out", tmp_path / "result")
    assert status == 0
    assert found["plan"] == str(tmp_path / 'the "plan"')
    assert (found["batch"], found["scratch_bytes"], found["trt_errors"]) == (2, 4096, 0)
    assert found["taken_bytes"] == 1 << 19
    assert found["outputs"]["logits"]["shape"] == [2, 3]
    assert found["outputs"]["a/map"]["shape"] == [2, 2, 2]
    for how, first in (("enqueue", 1), ("graph", 11)):
        assert found[how]["calls"] == 10
        assert found[how]["p50_ms"] == first + 4
        assert found[how]["p90_ms"] == first + 8
    # As fakes.h says what a fake engine computes.
    weights = (np.arange(4)[:, None] * 5 + np.arange(3) * 3) % 11 - 5
    logits = np.fromfile(tmp_path / "result-logits.raw", np.float32).reshape(2, 3)
    assert np.array_equal(logits, given.reshape(2, 4) @ weights)
    assert (tmp_path / "result-a_map.raw").stat().st_size == 2 * 4 * 4


@whole
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["run", "PLAN", "--shape", "1,2,2", "--batch", "8"], 1, "does not take this shape"),
        (["run", "PLAN", "--shape", "1,2,2", "--batch", "2", "--in", "SHORT"], 1, "holds 4 bytes"),
        (["run", "SHORT", "--shape", "1,2,2", "--batch", "2"], 1, "is cut off"),
        (["run", "NONE", "--shape", "1,2,2", "--batch", "2"], 1, "cannot read"),
        (["run", "PLAN", "--shape", "1,2,2", "--batch", "2", "--plugin", "NONE"], 1, "cannot open"),
        (["run", "PLAN", "--shape", "1,2,2", "--batch", "0"], 2, "--batch 0"),
        (["run", "PLAN", "--shape", "1,2", "--batch", "1"], 2, "--shape takes three numbers"),
        (["run", "PLAN", "--bach", "1"], 2, "--bach is no option here"),
        (["run", "PLAN", "--batch"], 2, "--batch wants a value"),
        (["build", "M", "P", "--shape", "1,2,2", "--batches", "1,2,4", "--level", "x"], 2, "level"),
        (["build", "M", "P", "--shape", "1,2,2", "--batches", "1,2,4"], 1, "made no builder"),
        ([], 2, "usage:"),
    ],
)
def test_what_it_refuses(tmp_path: Path, words: list[str], status: int, said: str) -> None:
    (tmp_path / "short").write_bytes(bytes(4))
    places = {"PLAN": plan(tmp_path), "SHORT": tmp_path / "short", "NONE": tmp_path / "none"}
    code, found, error = ran(*(places.get(word, word) for word in words))
    assert code == status
    assert said in (found["error"] if status == 1 else error)


@whole
def test_an_engine_that_does_not_load_or_run(tmp_path: Path) -> None:
    words = ("--shape", "1,2,2", "--batch", "2", "--seconds", "0")
    for step, said in (("deserialise", "does not load: bad"), ("enqueue", "not run the engine: ")):
        path = plan(tmp_path, PLAN + f"fail {step} bad \\ magic\n")
        status, found, _ = ran("run", path, *words)
        assert status == 1
        assert said in found["error"]
        assert found["trt_errors"] >= 1
    # Without a graph there are times all the same.
    status, found, _ = ran("run", plan(tmp_path, PLAN + "fail capture no graph\n"), *words)
    assert status == 0
    assert found["graph"]["error"] == "not captured: no graph"
    assert found["enqueue"]["calls"] == 10


ENGINES = {"vim-224-fp16", "vim-224-fp32", "deit-224-fp16", "vim-1248-fp16", "deit-1248-fp16"}


def test_the_second_call_where_nothing_is(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "benchmarks/gpu/call2.sh", str(tmp_path / "nothing")],
        cwd=REPOSITORY,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "OUT": str(tmp_path / "out"),
            "PYTHON": sys.executable,
            "DEADLINE": "60",
            "LONGEST": "15",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("call 2: ")
    lines = (tmp_path / "out" / "steps.tsv").read_text().splitlines()
    steps = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
    assert {name.removeprefix("build-") for name in steps if name.startswith("build-")} == ENGINES
    assert {name.removeprefix("parity-") for name in steps if "parity" in name} == ENGINES
    assert {name.removeprefix("layers-") for name in steps if "layers" in name} == {
        name for name in ENGINES if name.startswith("vim")
    }
    assert sum(name.startswith("run-") for name in steps) == 12
    for name in ("unpack", "tensorrt", *(f"build-{engine}" for engine in ENGINES)):
        code, _, why = steps[name]
        assert code not in ("0", "left-out")
        assert why, name
    for name, (code, _, why) in steps.items():
        if name.startswith(("run-", "parity-", "layers-")):
            assert (code, bool(why)) == ("left-out", True)
    assert not (tmp_path / "out" / "trt.jsonl").read_text()
