"""Opening engines with the C++ runtime, through the example program, under fakes and sanitizers.

Every refusal must have its code, its exit code and a fix, and leave nothing behind.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import cpp, cpp_builds
from vim_deploy import images
from vim_deploy.artifact.record import record_path
from vim_deploy.errors import CATALOG, VimDeployError
from vim_deploy.files import sha256_of
from vim_deploy.ops import contract
from vim_deploy.runtimes.tensorrt.errors import explain
from vim_deploy.specs import TensorSpec

pytestmark = pytest.mark.slow


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    y, x, c = np.indices((40, 36, 3))
    path = tmp_path / "picture.ppm"
    Image.fromarray(((5 * y + 3 * x + 60 * c) % 256).astype(np.uint8)).save(path)
    return path


def classify(*arguments: str | Path, **variables: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the program."""
    done = cpp_builds.run(cpp_builds.need_program("classify"), *arguments, **variables)
    return done.returncode, done.stdout, done.stderr


def refused(code: int, *arguments: str | Path, **variables: str) -> str:
    """The message of a refusal, which must have this code, its exit code and a fix."""
    status, out, err = classify(*arguments, **variables)
    # What TensorRT logged stands before it.
    assert re.search(rf"^error VIM-{code}: ", err, re.MULTILINE), (status, out, err)
    assert status == code // 100
    assert "\nfix: " in err
    assert out == ""
    return err


def edit(plan: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Change the record of a plan."""
    path = record_path(plan)
    value = json.loads(path.read_text("utf-8"))
    change(value)
    path.write_text(json.dumps(value), "utf-8")
    return plan


def logits(engine: cpp.FakeEngine, picture: Path) -> np.ndarray:
    """What the fake engine answers, computed here."""
    crop = images.crop_from_file(picture, engine.image)
    values = images.batch_from_crops([crop], engine.image, engine.preprocess)  # type: ignore[arg-type]
    i, k = np.indices((values.size, 10))
    weights = (i * 5 + k * 3) % 11 - 5
    return values.astype(np.float32).ravel() @ weights.astype(np.float32)


@pytest.mark.parametrize("graph", [(), ("--cuda-graph",)])
@pytest.mark.parametrize("preprocess", ["none", "normalize", "uint8"])
def test_classify(graph: tuple[str, ...], preprocess: str, picture: Path) -> None:
    spec = cpp.INPUT
    if preprocess == "uint8":
        spec = TensorSpec("image", "uint8", ("batch", 32, 32, 1))
    engine = cpp.FakeEngine(input=spec, preprocess=preprocess, labels=("null", "eins", "zwei"))
    plan = engine.write(picture.parent)
    status, out, err = classify("--top-k", "3", *graph, plan, *[picture] * 5)
    assert status == 0, err
    scores = logits(engine, picture).astype(np.float64)
    exact = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    order = np.argsort(-exact, kind="stable")[:3]
    names = ["null", "eins", "zwei", *(f"class {i}" for i in range(3, 10))]
    lines = out.splitlines()
    assert lines[:4] * 5 == lines  # five pictures: a batch of four and one of one
    assert lines[0] == str(picture)
    for line, index in zip(lines[1:4], order, strict=True):
        probability, name = line.split(maxsplit=1)
        assert float(probability) == pytest.approx(exact[index], abs=2e-4)
        if exact[index] > 1e-3:
            assert name == names[index]


def test_heads(picture: Path) -> None:
    top = (
        TensorSpec("probabilities", "float32", ("batch", 3)),
        TensorSpec("classes", "int64", ("batch", 3)),
    )
    plan = cpp.FakeEngine(outputs=top, head="topk:3").write(picture.parent)
    status, out, err = classify("--top-k", "9", plan, picture)
    assert status == 0, err
    # The fake's classes are 0, 3, 6 for the first item; its probabilities are any numbers.
    assert sorted(line.split(maxsplit=1)[1] for line in out.splitlines()[1:]) == [
        "label 0",
        "label 3",
        "label 6",
    ]
    soft = (TensorSpec("probabilities", "float32", ("batch", 10)),)
    plan = cpp.FakeEngine(outputs=soft, head="softmax").write(picture.parent)
    assert classify(plan, picture)[0] == 0
    one = (TensorSpec("logits", "float32", ("batch", 1)),)
    status, out, err = classify(cpp.FakeEngine(outputs=one).write(picture.parent), picture)
    assert status == 0, err
    found = {line.split(maxsplit=1)[1] for line in out.splitlines()[1:]}
    assert found == {"label 0", "label 1"}
    features = (TensorSpec("features", "float32", ("batch", 192)),)
    plan = cpp.FakeEngine(outputs=features, head="features").write(picture.parent)
    refused(415, plan, picture)


def test_fixed_batch_is_filled(picture: Path) -> None:
    engine = cpp.FakeEngine(
        input=TensorSpec("image", "float32", (4, 1, 32, 32)),
        outputs=(TensorSpec("logits", "float32", (4, 10)),),
        profiles=((4, 4, 4),),
    )
    status, out, err = classify(engine.write(picture.parent), *[picture] * 6)
    assert status == 0, err
    assert out.count(str(picture)) == 6


def test_plugin_library(picture: Path) -> None:
    fakes = cpp_builds.need_fakes()
    plan = cpp.FakeEngine(lines=("plugins",)).write(picture.parent)
    assert "beside the engine" in refused(903, plan, picture)
    assert classify("--plugin", fakes.plugin("good"), plan, picture)[0] == 0
    assert "contract 2" in refused(903, "--plugin", fakes.plugin("contract_2"), plan, picture)
    assert "generation" in refused(903, "--plugin", fakes.plugin("refused"), plan, picture)
    refused(401, "--plugin", "/no/such/library.so", plan, picture)
    text = picture.parent / "text.so"
    text.write_text("no library")
    refused(417, "--plugin", text, plan, picture)
    refused(417, "--plugin", fakes.cudart, plan, picture)
    (picture.parent / "libvim_plugins.so").symlink_to(fakes.plugin("good"))
    assert classify(plan, picture)[0] == 0
    header = (cpp_builds.CPP / "include" / "vim_deploy" / "runtime.h").read_text("utf-8")
    assert f"kContractVersion = {contract.CONTRACT_VERSION};" in header


def test_recorded_plugin_library(picture: Path) -> None:
    fakes = cpp_builds.need_fakes()
    beside = picture.parent / "libother.so"
    wanted = {
        "name": beside.name,
        "sha256": sha256_of(fakes.plugin("good")),
        "version": "0.1.0",
        "contract_version": contract.CONTRACT_VERSION,
        "interface": "V3",
        "ops": ["VimSelectiveScan"],
        "embedded": False,
    }

    def plan(**changes: Any) -> Path:
        made = cpp.FakeEngine(lines=("plugins",)).write(picture.parent)
        return edit(made, lambda record: record.update(plugin={**wanted, **changes}))

    assert "there is no such file" in refused(903, plan(), picture)
    assert classify("--plugin", fakes.plugin("good"), plan(), picture)[0] == 0
    shutil.copy(fakes.plugin("refused"), beside)
    assert "SHA-256" in refused(903, plan(), picture)
    shutil.copy(fakes.plugin("good"), beside)
    assert classify(plan(), picture)[0] == 0
    assert "contract 2" in refused(903, plan(contract_version=2), picture)
    refused(903, plan(name="../libother.so"), picture)
    refused(413, plan(contract_version="1"), picture)


def test_engines_for_later_releases_and_without_weights(picture: Path) -> None:
    plan = cpp.FakeEngine(version=(10, 3, 0, 26)).write(picture.parent)
    edit(plan, lambda record: record.update(flags=["VERSION_COMPATIBLE"]))
    assert classify(plan, picture)[0] == 0
    refused(901, plan, picture, FAKE_TENSORRT_VERSION="100200")
    edit(plan, lambda record: record.update(stripped=True))
    assert "without weights" in refused(413, plan, picture)


def test_a_tensorrt_that_does_not_start(picture: Path) -> None:
    plan = cpp.FakeEngine().write(picture.parent)
    assert "does not start" in refused(901, plan, picture, FAKE_TENSORRT_NO_CUDA="1")


#: What TensorRT logs when it does not load an engine.
DESERIALISE = [
    "Serialization assertion plan.header.size == blobSize failed.",
    "The engine plan file is not compatible with this version of TensorRT, expecting library "
    "version 10.14.1.48 got 10.3.0.26, please rebuild.",
    "Version tag does not match. Note: Current Version: 232, Serialized Engine Version: 213",
    "Trying to load an engine created with incompatible serialization version (239 != 228).",
    "The engine plan file is generated on an incompatible device, expecting compute 8.6 got "
    "compute 9.0, please rebuild.",
    "The current device is not compatible with this hardware-compatible engine. Expected compute "
    "capability >= 8.0.",
    "Cannot deserialize plugin since corresponding IPluginCreator not found in Plugin Registry",
    "Cannot deserialize plugin since corresponding IPluginCreatorInterface not found in Plugin "
    "Registry",
    "3: getPluginCreator could not find plugin: VimBiSelectiveScan version: 1",
    "Cannot find plugin: VimBiCausalConv, version: 1, namespace:.",
    "since IRuntime::getEngineHostCodeAllowed() is false.",
    "CUDA driver version is insufficient for CUDA runtime version",
    "[pluginV3Runner.cpp] Error Code 2: OutOfMemory (Requested size was 1 bytes.)",
    "[defaultAllocator.cpp] Requested amount of GPU memory (1 bytes) could not be allocated.",
    "something else",
]


@pytest.mark.parametrize("message", DESERIALISE)
def test_deserialise_failure_is_explained_as_in_python(message: str, picture: Path) -> None:
    otherwise = VimDeployError("VIM-413", "not a readable engine", fix="build it again")
    code = int(explain([message], "digits.plan", otherwise).code.removeprefix("VIM-"))
    plan = cpp.FakeEngine(lines=(f"fail deserialise {message}",)).write(picture.parent)
    assert message in refused(code, plan, picture)


def test_other_version_and_gpu(picture: Path) -> None:
    folder = picture.parent
    old = cpp.FakeEngine(version=(10, 3, 0, 26)).write(folder)
    message = refused(901, old, picture)
    assert "10.3.0.26" in message
    assert "10.14.1" in message
    assert classify(old, picture, FAKE_TENSORRT_VERSION="100300")[0] == 0
    # A header that disagrees with its record.
    swapped = cpp.FakeEngine(version=(10, 3, 0, 26)).write(folder)
    refused(902, edit(swapped, lambda r: r.update(runtime_version="10.14.1.48")), picture)
    assert "TensorRT-RTX" in refused(901, cpp.FakeEngine(magic=b"vtrt").write(folder), picture)
    plan = cpp.FakeEngine().write(folder)
    assert "8.6, this GPU is 9.0" in refused(901, plan, picture, FAKE_CUDA_CAPABILITY="90")
    later = cpp.FakeEngine(later_gpus=True).write(folder)
    assert classify(later, picture, FAKE_CUDA_CAPABILITY="90")[0] == 0
    refused(901, later, picture, FAKE_CUDA_CAPABILITY="75")
    refused(302, later, picture, FAKE_CUDA_DEVICES="0")
    refused(302, "--device", "2", later, picture)
    assert classify("--device", "1", later, picture)[0] == 0


def test_damaged_plans(picture: Path) -> None:
    plan = cpp.FakeEngine().write(picture.parent)
    whole = plan.read_bytes()
    for size in range(len(whole)):
        if size in (0, 3, 4, 20, 35, 36, 50, len(whole) - 1):
            plan.write_bytes(whole[:size])
            refused(413 if size < 36 else 902, plan, picture)
    plan.write_bytes(whole[:-1] + b"?")
    assert "SHA-256" in refused(902, plan, picture)
    plan.write_bytes(b"ELF?" + whole[4:])
    refused(413, plan, picture)
    plan.unlink()
    refused(401, plan, picture)
    plan.mkdir()
    refused(401, plan, picture)


EDITS: dict[str, tuple[int, Callable[[dict[str, Any]], None]]] = {
    "hash": (902, lambda r: r["plan"].update(sha256="0" * 64)),
    "size": (902, lambda r: r["plan"].update(bytes=1)),
    "dtype": (902, lambda r: r["inputs"][0].update(dtype="float16")),
    "shape": (902, lambda r: r["inputs"][0].update(shape=["batch", 1, 32, 33])),
    "output": (902, lambda r: r["outputs"][0].update(name="scores")),
    "outputs": (902, lambda r: r["outputs"].append(r["outputs"][0])),
    "profile": (902, lambda r: r["profiles"][0]["image"].update(max=[64, 1, 32, 32])),
    "picture": (902, lambda r: r["export"]["image"].update(height=224)),
    "format": (413, lambda r: r.update(format=2)),
    "no format": (413, lambda r: r.pop("format")),
    "text size": (413, lambda r: r["plan"].update(bytes="12")),
    "negative size": (413, lambda r: r["plan"].update(bytes=-1)),
    "deviation": (413, lambda r: r["export"]["image"].update(std=[0])),
    "ratio": (413, lambda r: r["export"]["image"].update(crop_ratio=0)),
    "huge": (413, lambda r: r["export"]["image"].update(height=2**62)),
    "channels": (413, lambda r: r["export"]["image"].update(channels=2)),
    "tiny ratio": (202, lambda r: r["export"]["image"].update(crop_ratio=1e-300)),
    "filter": (202, lambda r: r["export"]["image"].update(interpolation="cubic")),
    "mode": (202, lambda r: r["export"].update(preprocess="scale")),
    "labels": (413, lambda r: r["export"].update(labels=[1])),
    "no export": (410, lambda r: r.update(export=None)),
}


@pytest.mark.parametrize("name", EDITS)
def test_edited_record(name: str, picture: Path) -> None:
    code, change = EDITS[name]
    refused(code, edit(cpp.FakeEngine().write(picture.parent), change), picture)


def test_damaged_record(picture: Path) -> None:
    plan = cpp.FakeEngine().write(picture.parent)
    path = record_path(plan)
    text = path.read_bytes()
    for damaged in (b"", text[: len(text) // 2], b"[" * 100_000, text + b"x", b"\xff" + text):
        path.write_bytes(damaged)
        assert "line 1" in refused(413, plan, picture) or damaged[:1] == b"{"
    path.unlink()
    assert "allow_missing_record" in refused(401, plan, picture)


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync"])
def test_out_of_memory(function: str, picture: Path) -> None:
    plan = cpp.FakeEngine().write(picture.parent)
    message = refused(906, plan, picture, FAKE_CUDA_FAIL=f"{function}:2")
    assert "cudaErrorMemoryAllocation (2)" in message


def test_refused_contexts_and_runs(picture: Path) -> None:
    for step, code in {"context": 906, "enqueue": 904}.items():
        plan = cpp.FakeEngine(lines=(f"fail {step} no way",)).write(picture.parent)
        assert "no way" in refused(code, plan, picture)


ESCAPE = "\x1b]0;title\x07\x9b31m\u202e"


def test_no_text_of_others_moves_the_terminal(picture: Path) -> None:
    folder = picture.parent
    labels = tuple(f"{ESCAPE}\nforged {i}" for i in range(10))
    plan = cpp.FakeEngine(labels=labels).write(folder)
    named = folder / f"a{ESCAPE}\nforged.ppm"
    shutil.copy(picture, named)
    said = [classify("--top-k", "2", plan, named)]
    assert said[0][0] == 0
    assert len(said[0][1].splitlines()) == 3
    said.append(classify(plan, folder / f"none{ESCAPE}"))
    said.append(classify(f"--{ESCAPE}", plan, picture))
    said.append(classify("--top-k", ESCAPE, plan, picture))
    said.append(classify("--plugin", folder / ESCAPE, plan, picture))
    edit(plan, lambda record: record["outputs"][0].update(name=ESCAPE))
    said.append(classify(plan, picture))
    edit(plan, lambda record: record.update({ESCAPE: 1, "runtime": ESCAPE}))
    said.append(classify(plan, picture))
    failing = cpp.FakeEngine(lines=(f"fail deserialise {ESCAPE}",)).write(folder)
    said.append(classify(failing, picture))
    assert [status for status, _, _ in said] == [0, 4, 2, 2, 4, 9, 9, 4]
    for _, out, err in said:
        assert not any(ord(char) < 32 and char != "\n" for char in out + err)
        assert not set(ESCAPE[-1] + "\x9b") & set(out + err)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("head", ["logits", "softmax", "topk:10"])
def test_nan_and_inf_have_no_class(value: str, head: str, picture: Path) -> None:
    outputs = [cpp.LOGITS]
    if head == "topk:10":
        outputs.append(TensorSpec("classes", "int64", ("batch", 10)))
    engine = cpp.FakeEngine(outputs=tuple(outputs), head=head)
    plan = engine.write(picture.parent)
    assert classify(plan, picture, picture)[0] == 0
    err = refused(430, plan, picture, picture, FAKE_TENSORRT_OUTPUT=value)
    assert "1 of 20 values" in err


@pytest.mark.parametrize("option", ["--top-k", "--device"])
@pytest.mark.parametrize(
    "value", ["-1", "1.5", "nan", "inf", "1e3", "+3", " 3", "3 ", "0x3", "", "9" * 40, "1000001"]
)
def test_absurd_numbers(option: str, value: str, picture: Path) -> None:
    plan = cpp.FakeEngine().write(picture.parent)
    refused(202, option, value, plan, picture)


def test_results_that_nobody_gets_are_no_success(picture: Path) -> None:
    plan = cpp.FakeEngine().write(picture.parent)
    program = cpp_builds.need_program("classify")
    command = 'exec "$0" "$@" > /dev/full'
    done = cpp_builds.run(Path("/bin/sh"), "-c", command, program, plan, picture)
    assert done.returncode == 3
    assert "error VIM-304: " in done.stderr


def test_usage(picture: Path) -> None:
    plan = cpp.FakeEngine().write(picture.parent)
    refused(201, "--topk", "3", plan, picture)
    refused(202, "--top-k", "0", plan, picture)
    refused(202, "--top-k", "x", plan, picture)
    refused(202, plan)
    refused(202, plan, picture, "--plugin")
    refused(401, plan, "missing.ppm")
    assert classify("--help")[1].startswith("usage: classify")


def test_codes_are_those_of_the_catalogue() -> None:
    named: set[int] = set()
    for path in [
        *cpp_builds.CPP.glob("src/*"),
        *cpp_builds.CPP.glob("include/*/*"),
        cpp_builds.CPP / "classify.cpp",
    ]:
        named |= {int(number) for number in re.findall(r"VIM-(\d+)", path.read_text("utf-8"))}
    assert 902 in named
    assert named <= {int(code.removeprefix("VIM-")) for code in CATALOG}
