"""Exported files in the C++ runtime with the real ONNX Runtime, in a program without TensorRT.

The measure is Python on the same pictures. Everything runs under the address sanitizer.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests.support import cpp, cpp_builds, cpp_onnx, detectors, plugins
from tests.support.cpp_onnx import RUNTIME_VARIABLE, checks, outputs
from tests.support.detector_cases import detector_case
from tests.support.ort_c_api import shared_library
from tests.support.ort_ops import built_library
from tests.support.quantized import quantized_file
from tests.support.reference import DIGITS, load_case
from vim_deploy import RunOptions, images, run
from vim_deploy.plugin.ort_library import LIBRARY_VARIABLE
from vim_deploy.precisions import Precision
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.base import RunnerOptions
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages import export
from vim_deploy.stages.export_options import ExportOptions

pytestmark = pytest.mark.slow

#: The same library computes on both sides, with threads that cut sums in other places.
LOGITS = 1e-4
LONG = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "vim-digits.onnx"
    return export("vim-digits", path, ExportOptions(check=False)).path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The 360 pictures of the digits' test split."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.rint((load_case(DIGITS).image * 0.5 + 0.5) * 255).astype(np.uint8)
    paths = []
    for number, image in enumerate(pixels):
        paths.append(folder / f"{number:03d}.pgm")
        Image.fromarray(image[0]).save(paths[-1])
    return paths


def of_python(model: Path, paths: list[Path], *, as_stored: bool = False) -> np.ndarray:
    """The logits that Python computes."""
    with OrtRunner(model, as_stored=as_stored) as runner:
        from vim_deploy.artifact import Artifact

        info = Artifact.open(model).require_info()
        return runner.run(images.load_batch(paths, info.image, info.preprocess))["logits"]


def test_every_digit_is_read_as_in_python(
    digits: Path, pictures: list[Path], tmp_path: Path
) -> None:
    expected = of_python(digits, pictures)
    # The functions take four times as long, and are the same library's as in Python.
    whole = len(pictures) if os.environ.get("VIM_TEST_ALL") else 60
    for ops, count, batch, said in (
        ("", whole, whole, ""),
        (built_library(), len(pictures), 50, ", native ops ("),
    ):
        title, found = outputs(digits, tmp_path, pictures[:count], batch=batch, ops=ops)
        assert title.startswith("ONNX Runtime ")
        assert title.partition(" CPU")[2].startswith(said)
        np.testing.assert_allclose(found["logits"], expected[:count], rtol=0, atol=LOGITS)
        np.testing.assert_array_equal(found["logits"].argmax(1), expected[:count].argmax(1))


def uneven(folder: Path) -> list[Path]:
    """Pictures of other shapes than the model's, in grey and colour."""
    rng = np.random.default_rng(1)
    shapes = {"wide.ppm": (37, 90, 3), "high.ppm": (101, 33, 3), "grey.pgm": (55, 41)}
    for name, shape in shapes.items():
        rows = np.sin(np.arange(shape[0]) / 5)[(slice(None), *[None] * (len(shape) - 1))]
        pixels = 127 + 80 * rows + rng.integers(-40, 40, shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
    return [folder / name for name in shapes]


def test_pictures_of_any_shape(digits: Path, tmp_path: Path) -> None:
    paths = uneven(tmp_path)
    _, found = outputs(digits, tmp_path, paths)
    np.testing.assert_allclose(found["logits"], of_python(digits, paths), rtol=0, atol=LOGITS)


def test_quantized_files(pictures: list[Path], tmp_path: Path) -> None:
    """float32 in and out, whatever products are in between."""
    wide = export("vim-digits", tmp_path / "wide.onnx", ExportOptions(check=False, opset=19)).path
    precisions: tuple[Precision, ...] = ("int8", "fp8")
    for precision in precisions:
        model = quantized_file(wide, tmp_path / f"{precision}.onnx", precision)
        _, found = outputs(model, tmp_path, pictures[:4])
        expected = of_python(model, pictures[:4])
        np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=LOGITS)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            ExportOptions(check=False, preprocess="uint8", head="softmax", batch=2),
            id="uint8",
            marks=LONG,
        ),
        pytest.param(ExportOptions(check=False, precision="fp16", io_precision="fp16"), id="fp16"),
    ],
)
def test_other_inputs(options: ExportOptions, pictures: list[Path], tmp_path: Path) -> None:
    model = export("vim-digits", tmp_path / "other.onnx", options).path
    program = cpp_builds.need_program("classify")
    words = ["--top-k", "1", "--verbose", model, *pictures[:5]]
    done = cpp_builds.run(program, *words, **variables())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert done.stderr.startswith("ONNX Runtime ")
    expected = run(
        model,
        [str(path) for path in pictures[:5]],
        RunOptions(top=1, runner=RunnerOptions(as_stored=True)),
    )
    best = [image.top[0] for image in expected.images]
    assert [line.split()[1] for line in lines[1::2]] == [item.label for item in best]
    # Six digits are printed, and in half precision sums are rounded where they are cut.
    atol = 1e-5 if options.precision == "fp32" else 5e-3
    for line, item in zip(lines[1::2], best, strict=True):
        assert float(line.split()[0]) == pytest.approx(item.probability, abs=atol)


def variables(**others: str) -> dict[str, str]:
    """What names the runtime for a program of the tests, and no native ops."""
    known = {RUNTIME_VARIABLE: str(shared_library()), LIBRARY_VARIABLE: ""}
    return {**known, "ASAN_OPTIONS": "detect_leaks=0", **others}


def assert_same_detections(model: Path, paths: list[Path], folder: Path) -> int:
    """What C++ and Python find is the same; how many there are."""
    done = checks("detect", model, *paths)
    assert done.returncode == 0, done.stderr
    run(model, [str(path) for path in paths], RunOptions(output=folder / "found.npz"))
    rows = [part.split("\n")[:-1] for part in done.stdout.split("picture\n")[1:]]
    with np.load(folder / "found.npz") as stored:
        for number, lines in enumerate(rows):
            own = slice(*stored["offsets"][number : number + 2])
            found = np.array([line.split() for line in lines], np.float64).reshape(-1, 6)
            np.testing.assert_array_equal(found[:, 0], stored["classes"][own])
            np.testing.assert_allclose(found[:, 1], stored["scores"][own], rtol=0, atol=1e-4)
            # Six digits of pixels are printed.
            np.testing.assert_allclose(found[:, 2:], stored["boxes"][own], rtol=1e-5, atol=1e-3)
    return sum(map(len, rows))


def test_a_detector_finds_what_it_finds_in_python(tmp_path: Path) -> None:
    model = detectors.stand_in(tmp_path / "detector.onnx")
    paths = uneven(tmp_path)
    assert assert_same_detections(model, paths, tmp_path) == 4 * len(paths)
    (tmp_path / "out").mkdir()
    program = cpp_builds.need_program("detect")
    words = ["--overlay", tmp_path / "out", "--batch", "2", model, *paths]
    done = cpp_builds.run(program, *words, **variables())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("thing ") == 4 * len(paths)
    assert len(list((tmp_path / "out").iterdir())) == len(paths)


@LONG
def test_the_reference_detector(tmp_path: Path) -> None:
    case = detector_case("F01")
    request = ModelRequest(str(case.checkpoint), config=dict(case.config))
    model = export(request, tmp_path / "F01.onnx", ExportOptions(check=False)).path
    paths = []
    for number, picture in enumerate(case.pictures):
        paths.append(tmp_path / f"{number}.ppm")
        Image.fromarray(picture.picture).save(paths[-1])
    assert assert_same_detections(model, paths, tmp_path) == 22


@pytest.mark.parametrize("name", ["calls", "threads"])
def test_sessions(name: str, digits: Path) -> None:
    done = checks(name, digits)
    assert done.returncode == 0, done.stderr


def refused(code: int, *arguments: str | Path, ops: str = "", **others: str) -> str:
    """The words of a refusal by the checks' program."""
    done = cpp_builds.run(cpp_builds.need_program("onnx_checks"), *arguments, **variables(**others))
    assert done.returncode == code // 100, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.startswith(f"error VIM-{code}: "), done.stderr
    assert "\nfix: " in done.stderr
    return done.stderr


def compiled(folder: Path, name: str, source: str) -> Path:
    """A shared library made of a few lines."""
    path = folder / name
    words = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(path)]
    subprocess.run(words, input=source, text=True, check=True)
    return path


#: An ONNX Runtime of another time.
OLD = """
namespace { void const* get_api(unsigned) { return nullptr; }
char const* version() { return "1.16.3"; }
struct { void const* (*api)(unsigned); char const* (*said)(); } base{get_api, version}; }
extern "C" void const* OrtGetApiBase() { return &base; }
"""


def test_runtimes_that_are_none(digits: Path, tmp_path: Path) -> None:
    plugins.need_tool("g++")

    def said(code: int, runtime: Path | str) -> str:
        return refused(code, "threads", digits, **{RUNTIME_VARIABLE: str(runtime)})

    assert "the loader finds none" in said(301, "")
    assert "no such file" in said(401, tmp_path / "missing.so")
    assert "no libonnxruntime.so" in said(401, tmp_path)
    text = tmp_path / "libonnxruntime.so.9"
    text.write_text("no library")
    assert str(text) in said(301, tmp_path)
    other = compiled(tmp_path, "other.so", "int nothing;")
    assert "is no ONNX Runtime" in said(301, other)
    old = compiled(tmp_path, "old.so", OLD)
    assert "is ONNX Runtime 1.16.3, and 1.17 or later is needed" in said(301, old)


def test_the_runtime_is_found_in_a_folder_and_beside_the_program(
    digits: Path, tmp_path: Path
) -> None:
    wheel = tmp_path / "installed" / "onnxruntime"
    wheel.parent.mkdir()
    wheel.symlink_to(shared_library().parent.parent)
    program = tmp_path / "installed" / "classify"
    shutil.copy(cpp_builds.need_program("classify"), program)
    place = tmp_path / "one.pgm"
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(place)
    for named in (wheel, wheel.parent, wheel / "capi", ""):
        words = ["--onnxruntime", str(named)] if named else []
        done = cpp_builds.run(program, *words, digits, place, **variables(**{RUNTIME_VARIABLE: ""}))
        assert done.returncode == 0, done.stderr


def test_native_ops_that_do_not_fit(digits: Path, pictures: list[Path], tmp_path: Path) -> None:
    plugins.need_tool("g++")
    text = tmp_path / "libvim_ort_cpu.so"
    text.write_text("no library")
    contract = 'extern "C" { int vim_plugins_contract_version() { return 2; }\n'
    contract += "void RegisterCustomOps() {}\n"
    contract += 'char const* vim_plugins_build_info() { return "{\\"provider\\": \\"cpu\\"}"; } }'
    later = compiled(tmp_path, "later.so", contract)
    program = cpp_builds.need_program("classify")
    for library, code in ((text, 417), (later, 903), (tmp_path / "none.so", 401)):
        found = variables(**{LIBRARY_VARIABLE: str(library)})
        done = cpp_builds.run(program, "--verbose", digits, pictures[0], **found)
        assert done.returncode == 0, done.stderr
        note, title = done.stderr.splitlines()
        assert note.startswith("note: native ops not used, the functions in the file are: ")
        assert title.endswith(" CPU")
        done = cpp_builds.run(program, "--ops", library, digits, pictures[0], **found)
        assert f"error VIM-{code}: " in done.stderr
        done = cpp_builds.run(program, "--ops", "none", digits, pictures[0], **found)
        assert (done.returncode, done.stderr) == (0, "")


def test_weights_beside_the_file(digits: Path, pictures: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    onnx.save(onnx.load(digits), path, save_as_external_data=True, location="large.onnx.data")
    _, found = outputs(path, tmp_path, pictures[:3])
    expected = of_python(digits, pictures[:3])
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=LOGITS)
    data = tmp_path / "large.onnx.data"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    assert "do not hold the tensor" in refused(409, "threads", path)
    data.rename(tmp_path / "elsewhere")
    assert "large.onnx.data" in refused(409, "threads", path)
    data.symlink_to(tmp_path / "elsewhere")
    assert "it is a link" in refused(409, "threads", path)
    data.unlink()
    data.mkdir()
    assert "not a regular file" in refused(409, "threads", path)


def test_damaged_files_end_with_a_code(digits: Path, tmp_path: Path) -> None:
    whole = digits.read_bytes()
    rng = random.Random(5)
    paths = []
    for number in range(24):
        data = bytearray(whole)
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if number % 4 == 0:
            del data[rng.randrange(len(data)) :]
        paths.append(tmp_path / f"{number}.onnx")
        paths[-1].write_bytes(data)
    lines = checks("judge", *paths).stdout.splitlines()
    assert len(lines) == len(paths)
    for path, line in zip(paths, lines, strict=True):
        found, wanted = line.split()[0], cpp_onnx.verdict_of_python(path)
        assert found in ("ok", "VIM-409", "VIM-410"), line
        # Python may refuse more, and ONNX Runtime what neither has looked at.
        assert found == wanted or wanted != "ok" or line.startswith("VIM-409 ONNX Runtime"), line


def test_files_for_other_programs(digits: Path, tmp_path: Path) -> None:
    assert "built without it" in refused(301, "threads", cpp.FakeEngine().write(tmp_path))
    refused(401, "threads", tmp_path / "missing.onnx")
    refused(401, "threads", tmp_path)
    model = onnx.load(digits)
    node = next(node for node in model.graph.node if node.op_type == "MatMul")
    node.op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "op.onnx")
    assert "NoSuchOperator" in refused(409, "threads", tmp_path / "op.onnx")


def test_nothing_is_sent_home(digits: Path) -> None:
    """ONNX Runtime reads the variable when it is loaded; who has set it has the last word."""
    source = (cpp_builds.CPP / "src" / "ort_library.cpp").read_text("utf-8")
    from vim_deploy.runtimes.onnxruntime.capability import NO_TELEMETRY

    assert f"::setenv({json.dumps(NO_TELEMETRY[0])}, {json.dumps(NO_TELEMETRY[1])}, 0);" in source
    # Before the library is opened, and the entry is called as well.
    assert source.index("::setenv") < source.index("::dlopen(file")
    assert "DisableTelemetryEvents" in source
