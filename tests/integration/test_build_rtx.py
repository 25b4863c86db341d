"""Real engine builds with TensorRT-RTX, which needs no GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.support import tiny_onnx
from tests.support.builds import build_engine_rtx, job_for, needs_rtx
from tests.support.source import REPOSITORY
from vim_deploy.artifact.engine_file import read_header
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.artifact.record import read_record
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import sha256_of
from vim_deploy.runtimes.building import process as build_process
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx
from vim_deploy.runtimes.tensorrt_rtx.build import BUILDER
from vim_deploy.stages.inspecting import inspect

pytestmark = [
    pytest.mark.rtx,
    needs_rtx,
]

#: The phase in which the compiler works, nearly all of a build's time, without taking a step.
COMPILING = "Determining refit engines"


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(tiny_onnx.scan_blocks(layers=2), path)
    return path


@pytest.fixture
def slow_model(tmp_path) -> Path:
    """Long enough in the compiler (a few seconds) to be stopped there."""
    path = tmp_path / "model.onnx"
    onnx.save(tiny_onnx.scan_blocks(layers=16, length=64, width=128, state=16), path)
    return path


def save(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def error_of(*args, **kwargs) -> VimDeployError:
    with pytest.raises(VimDeployError) as caught:
        build_engine_rtx(*args, **kwargs)
    assert caught.value.fix
    return caught.value


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def workers() -> set[int]:
    """Build processes that this process started and that still run."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        worker = BUILDER.worker.encode()
        if worker in command and parent == os.getpid():
            found.add(int(entry.name))
    return found


def test_scan_function_becomes_an_engine(model, tmp_path):
    phases = []
    plan = tmp_path / "model.plan"
    record = build_engine_rtx(model, plan, progress=lambda p: phases.append(p.phase))
    assert names(tmp_path) == {"model.onnx", "model.plan", "model.plan.json"}
    assert {"Parsing the ONNX model", "Building engine", COMPILING} <= set(phases)
    header = read_header(plan)
    assert header.version == record.runtime_version == trt_rtx.capabilities().version
    assert record.later_gpus
    assert record.inputs[0].shape == ("batch", 6, 8)
    assert record.outputs[0].name == "features"
    # Each block's scan must have been parsed, not only the nodes around it.
    assert record.layers > 2 * 20
    assert record.build_seconds > 0
    assert record.peak_memory_bytes > 50 << 20
    assert inspect(plan)["record"] == encode(record)
    again = build_engine_rtx(model, plan)
    assert again.up_to_date
    assert again == record == read_record(plan)


def test_same_settings_same_bytes(model, tmp_path):
    first = build_engine_rtx(model, tmp_path / "a.plan")
    second = build_engine_rtx(model, tmp_path / "b.plan")
    assert sha256_of(tmp_path / "a.plan") == sha256_of(tmp_path / "b.plan")
    assert first.settings_hash == second.settings_hash


def test_the_header_names_the_gpus_that_were_asked_for(tmp_path):
    model = save(tiny_onnx.elementwise({"image": ("batch", 4)}), tmp_path)
    capabilities = trt_rtx.capabilities()
    for named in (*[(cc,) for cc in capabilities.compute_capabilities], ("7.5", "8.6")):
        record = build_engine_rtx(
            model, tmp_path / "m.plan", compute_capabilities=named, force=True
        )
        assert record.compute_capabilities == named
        assert read_header(tmp_path / "m.plan").compute_capabilities in (named, ())
    default = build_engine_rtx(model, tmp_path / "m.plan", force=True)
    assert "7.5" not in default.compute_capabilities


def test_several_profiles_and_a_fixed_batch(tmp_path):
    model = save(tiny_onnx.perceptron(), tmp_path)
    options = ProfileOptions(
        min_shapes=("image:1x8", "image:5x8"),
        opt_shapes=("image:1x8", "image:8x8"),
        max_shapes=("image:4x8", "image:16x8"),
    )
    record = build_engine_rtx(model, tmp_path / "a.plan", profiles=options)
    assert [profile.shapes["image"].max[0] for profile in record.profiles] == [4, 16]
    fixed = save(tiny_onnx.perceptron(batch=3), tmp_path)
    record = build_engine_rtx(fixed, tmp_path / "b.plan")
    assert record.profiles[0].shapes["image"].min == (3, 8)
    assert record.outputs[0].shape == (3, 8)


def test_turing_without_fp16_gets_a_reason_and_a_remedy(tmp_path):
    model = save(tiny_onnx.perceptron(), tmp_path)
    error = error_of(model, tmp_path / "m.plan", compute_capabilities=["7.5"])
    assert error.code == "VIM-603"
    assert "in_proj" in error.why
    assert "fp16" in error.fix
    assert names(tmp_path) == {"model.onnx"}


@pytest.mark.parametrize(
    ("op", "domain", "words"),
    [
        ("Bernoulli", "", ("'image_node' (Bernoulli)", "not supported")),
        ("VimLaterScan", "vim_deploy", ("'image_node'", "no local function")),
    ],
)
def test_refused_nodes_are_named(tmp_path, op, domain, words):
    model = save(tiny_onnx.elementwise({"image": ("batch", 4)}, op, domain=domain), tmp_path)
    error = error_of(model, tmp_path / "m.plan")
    assert error.code == "VIM-601"
    assert all(word in error.why for word in words)


def test_a_type_that_the_parser_would_change_is_refused(tmp_path):
    model = save(
        tiny_onnx.elementwise({"image": ("batch", 4)}, element=TensorProto.DOUBLE), tmp_path
    )
    error = error_of(model, tmp_path / "m.plan")
    assert error.code == "VIM-601"
    assert "float64" in error.why


@pytest.mark.parametrize("content", [b"", b"hello world, this is plain text\n"])
def test_the_worker_itself_refuses_what_parses_to_nothing(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    job = job_for(
        worker=BUILDER.worker,
        model=path,
        output=tmp_path / "out.plan",
        inputs={"image": "float32"},
        outputs={"logits": "float32"},
    )
    with pytest.raises(VimDeployError) as caught:
        build_process.run_worker(job)
    assert caught.value.code == "VIM-602"


def test_interrupt_while_compiling_leaves_nothing(slow_model, tmp_path):
    reached = []

    def interrupt(progress):
        if progress.phase == COMPILING and not reached:
            reached.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine_rtx(slow_model, tmp_path / "m.plan", progress=interrupt)
    assert time.monotonic() - reached[0] < 10
    assert names(tmp_path) == {"model.onnx"}
    assert not workers()


def test_ctrl_c_keeps_the_engine_that_was_there(slow_model, tmp_path, tmp_path_factory):
    """A real SIGINT to a real process, while the compiler works."""
    small = save(tiny_onnx.perceptron(), tmp_path_factory.mktemp("small"))
    old = build_engine_rtx(small, tmp_path / "m.plan")
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.support.builds import build_engine_rtx\n"
        "def show(progress):\n"
        "    print(progress.phase, flush=True)\n"
        "try:\n"
        "    build_engine_rtx(Path(sys.argv[1]), Path(sys.argv[2]), progress=show, force=True)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    arguments = [sys.executable, "-c", script, str(slow_model), str(tmp_path / "m.plan")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == COMPILING:
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
        assert process.wait(20) == 130
    assert names(tmp_path) == {"model.onnx", "m.plan", "m.plan.json"}
    assert inspect(tmp_path / "m.plan")["record"] == encode(old)


def test_a_killed_worker_is_reported(slow_model, tmp_path):
    def kill(progress):
        if progress.phase == COMPILING:
            for pid in workers():
                os.kill(pid, signal.SIGKILL)

    error = error_of(slow_model, tmp_path / "m.plan", progress=kill)
    assert error.code == "VIM-604"
    assert "SIGKILL" in error.why
    assert names(tmp_path) == {"model.onnx"}


def test_two_builds_to_one_path(model, tmp_path):
    plan = tmp_path / "m.plan"
    second = []

    def build_again(progress):
        if not second:
            second.append(error_of(model, plan).code)

    record = build_engine_rtx(model, plan, progress=build_again)
    assert second == ["VIM-306"]
    assert inspect(plan)["sha256"] == record.plan.sha256


def test_a_plan_that_does_not_fit_the_disk(model, tmp_path, monkeypatch):
    """A limit on file size in the build process stands in for a full disk."""
    limited = (
        # Python keeps what this cuts off of its compiled modules, and reads it later.
        "import resource, runpy, sys; sys.dont_write_bytecode = True\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        f"runpy.run_module({BUILDER.worker!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(build_process, "worker_command", lambda _: [sys.executable, "-c", limited])
    error = error_of(model, tmp_path / "m.plan")
    assert error.code == "VIM-305"
    assert names(tmp_path) == {"model.onnx"}


def test_uint8_images_in(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT)],
        "cast",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ("batch", 4, 4, 3))],
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ("batch", 4, 4, 3))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    record = build_engine_rtx(save(model, tmp_path), tmp_path / "m.plan")
    assert record.inputs[0].dtype == "uint8"
