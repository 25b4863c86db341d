"""The TensorRT runner on the stand-in module: results, profiles, graphs, threads, nothing left."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.engines import images, record_of, use_fake_gpu, write_engine, write_record
from tests.support.fake_cudart import FakeCudart
from tests.support.fake_tensorrt import VERSIONS
from tests.support.fake_tensorrt.runtime import expected, runtime_module
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import run_in_batches
from vim_deploy.runtimes.tensorrt.runner import TrtRunner

EVERY_RELEASE = pytest.mark.parametrize("version", list(VERSIONS))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCudart]:
    """A pretended GPU on which nothing may be left."""
    fake = use_fake_gpu(monkeypatch)
    yield fake
    gc.collect()
    assert fake.leaks() == {}


@pytest.fixture
def module(gpu: FakeCudart) -> ModuleType:
    return runtime_module("10.14", gpu)


def refused(path: Path, module: ModuleType, **options: Any) -> VimDeployError:
    """The error of a runner that cannot be opened."""
    with pytest.raises(VimDeployError) as caught:
        TrtRunner(path, module=module, **options)
    error = caught.value
    # Whatever was loaded is held by the traceback alone.
    error.__traceback__ = None
    error.__context__ = error.__cause__ = None
    del caught
    gc.collect()
    assert not any(module.state.alive.values())
    return error


@EVERY_RELEASE
def test_results_in_every_release(gpu: FakeCudart, tmp_path: Path, version: str) -> None:
    module = runtime_module(version, gpu)
    path = write_engine(tmp_path, version, outputs=["logits", "features"])
    with TrtRunner(path, module=module) as runner:
        assert runner.outputs == ("logits", "features")
        assert runner.input.shape == ("batch", 1, 2, 3)
        for batch in (1, 4, 2, 3):
            image = images(batch, seed=batch)
            found = runner.run(image)
            np.testing.assert_array_equal(found["logits"], expected(image))
            np.testing.assert_array_equal(found["features"], 2 * expected(image))
    assert not any(module.state.alive.values())
    assert module.state.released == ["context", "engine", "runtime"]


def test_results_belong_to_the_caller(module: ModuleType, tmp_path: Path) -> None:
    with TrtRunner(write_engine(tmp_path), module=module) as runner:
        first = runner.run(images(2, seed=1))["logits"]
        kept = first.copy()
        runner.run(images(2, seed=2))
        np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(first, kept)


def test_profile_is_chosen_by_batch(module: ModuleType, tmp_path: Path) -> None:
    path = write_engine(tmp_path, profiles=((1, 8, 32), (1, 1, 1), (2, 4, 8)))
    with TrtRunner(path, module=module) as runner:
        assert runner.batches == ((1, 8, 32), (1, 1, 1), (2, 4, 8))
        for batch, profile in ((1, 1), (4, 2), (8, 0), (3, 2), (20, 0)):
            image = images(batch)
            np.testing.assert_array_equal(runner.run(image)["logits"], expected(image))
            switches = [call for call in module.state.calls if call.startswith("profile")]
            assert switches[-1] == f"profile {profile}", batch


def test_batch_outside_every_profile(module: ModuleType, tmp_path: Path) -> None:
    path = write_engine(tmp_path, profiles=((2, 2, 4), (8, 8, 8)))
    with TrtRunner(path, module=module) as runner:
        for batch in (1, 5, 9):
            with pytest.raises(VimDeployError, match="was not built for the shape") as caught:
                runner.run(images(batch))
            assert caught.value.code == "VIM-905"
            assert "2x1x2x3 to 4x1x2x3" in caught.value.why
        image = images(3)
        np.testing.assert_array_equal(runner.run(image)["logits"], expected(image))


def test_remainder_of_a_batch_is_filled_up(module: ModuleType, tmp_path: Path) -> None:
    path = write_engine(tmp_path, profiles=((2, 2, 4),))
    with TrtRunner(path, module=module) as runner:
        image = images(5)
        found = run_in_batches(runner, image, 2)
        np.testing.assert_array_equal(found["logits"], expected(image))


def test_gaps_between_profiles_are_filled_up(module: ModuleType, tmp_path: Path) -> None:
    path = write_engine(tmp_path, profiles=((1, 1, 1), (8, 8, 8)))
    with TrtRunner(path, module=module) as runner:
        assert [runner.batch_for(count) for count in (1, 2, 8, 9)] == [1, 8, 8, 9]
        assert runner.most == 8
        image = images(11)
        np.testing.assert_array_equal(run_in_batches(runner, image, 8)["logits"], expected(image))


def test_fixed_batch(module: ModuleType, tmp_path: Path) -> None:
    path = write_engine(tmp_path, profiles=((3, 3, 3),))
    with TrtRunner(path, module=module) as runner:
        assert runner.input.shape == (3, 1, 2, 3)
        image = images(4)
        np.testing.assert_array_equal(run_in_batches(runner, image, 3)["logits"], expected(image))
        with pytest.raises(VimDeployError) as caught:
            runner.run(images(2))
        assert caught.value.code == "VIM-415"


def test_wrong_array_is_refused_before_the_gpu(
    gpu: FakeCudart, module: ModuleType, tmp_path: Path
) -> None:
    with TrtRunner(write_engine(tmp_path), module=module) as runner:
        before = len(gpu.calls)
        for image in (images(1).astype(np.float64), images(1)[0], np.zeros((0, 1, 2, 3), "f4")):
            with pytest.raises(VimDeployError) as caught:
                runner.run(image)
            assert caught.value.code == "VIM-415"
        assert gpu.calls[before:] == []


def test_graph_is_captured_on_the_second_call_and_replayed(
    gpu: FakeCudart, module: ModuleType, tmp_path: Path
) -> None:
    with TrtRunner(write_engine(tmp_path), module=module, cuda_graph=True) as runner:
        for seed in range(5):
            image = images(2, seed=seed)
            np.testing.assert_array_equal(runner.run(image)["logits"], expected(image))
        assert gpu.calls.count("cudaStreamBeginCapture") == 1
        assert gpu.calls.count("cudaGraphLaunch") == 4
        assert module.state.calls.count("execute") == 2
        # Another shape: its own warm run and its own graph; the old one is gone.
        for batch in (4, 4, 2, 2):
            image = images(batch, seed=batch)
            np.testing.assert_array_equal(runner.run(image)["logits"], expected(image))
        assert gpu.calls.count("cudaStreamBeginCapture") == 3


def test_engine_that_cannot_be_captured(module: ModuleType, tmp_path: Path) -> None:
    path = write_engine(tmp_path, uncapturable=True)
    with TrtRunner(path, module=module, cuda_graph=True) as runner:
        runner.run(images(1))
        with pytest.raises(VimDeployError) as caught:
            runner.run(images(1))
        assert caught.value.code == "VIM-904"
    with TrtRunner(path, module=module) as runner:
        runner.run(images(1))
        runner.run(images(1))


def test_threads_share_a_runner(gpu: FakeCudart, module: ModuleType, tmp_path: Path) -> None:
    failures: list[str] = []

    def work(runner: TrtRunner, seed: int) -> None:
        for step in range(10):
            image = images(1 + (seed + step) % 4, seed=seed)
            if not np.array_equal(runner.run(image)["logits"], expected(image)):
                failures.append(f"thread {seed}, step {step}")

    path = write_engine(tmp_path)
    with TrtRunner(path, module=module, contexts=2, cuda_graph=True) as runner:
        threads = [threading.Thread(target=work, args=(runner, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert runner.memory().contexts == 2
    assert failures == []


def test_a_lane_that_has_the_shape_is_preferred(module: ModuleType, tmp_path: Path) -> None:
    path = write_engine(tmp_path)
    with TrtRunner(path, module=module, contexts=2, cuda_graph=True) as runner:
        for batch in (1, 2, 1, 2, 1, 2, 1, 2):
            runner.run(images(batch))
        # One warm run and one capture for each shape: nothing was captured twice.
        assert module.state.calls.count("execute") == 4


def test_several_contexts_are_refused_in_8_6(gpu: FakeCudart, tmp_path: Path) -> None:
    module = runtime_module("8.6", gpu)
    assert refused(write_engine(tmp_path, "8.6"), module, contexts=2).code == "VIM-202"


@EVERY_RELEASE
def test_memory_report(gpu: FakeCudart, tmp_path: Path, version: str) -> None:
    path = write_engine(tmp_path, version, context_bytes=12345)
    with TrtRunner(path, module=runtime_module(version, gpu)) as runner:
        assert runner.memory().buffers == 0
        runner.run(images(4))
        memory = runner.memory()
    assert memory.context == 12345
    assert memory.contexts == 1
    assert memory.buffers == 4 * (6 + 4) * 4
    assert memory.total - memory.free == memory.buffers


def test_out_of_memory_for_the_context(gpu: FakeCudart, tmp_path: Path) -> None:
    error = refused(
        write_engine(tmp_path, context_bytes=gpu.total + 1), runtime_module("10.14", gpu)
    )
    assert error.code == "VIM-906"
    assert "Requested amount of GPU memory" in error.why


def test_out_of_memory_for_buffers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpu = use_fake_gpu(monkeypatch, total=2000)
    path = write_engine(tmp_path, profiles=((1, 1, 100),))
    with TrtRunner(path, module=runtime_module("10.14", gpu)) as runner:
        with pytest.raises(VimDeployError) as caught:
            runner.run(images(90))
        assert caught.value.code == "VIM-906"
        # A smaller batch still runs, on the same runner.
        image = images(3)
        np.testing.assert_array_equal(runner.run(image)["logits"], expected(image))
    assert gpu.leaks() == {}


@pytest.mark.parametrize(
    ("call", "code"),
    [("execute", "VIM-904"), ("shape", "VIM-905"), ("address", "VIM-904"), ("profile", "VIM-904")],
)
def test_a_refusal_of_tensorrt_is_told_and_nothing_leaks(
    module: ModuleType, tmp_path: Path, call: str, code: str
) -> None:
    path = write_engine(tmp_path, profiles=((4, 4, 4), (1, 1, 2)))
    with TrtRunner(path, module=module) as runner:
        module.state.fail.add(call)
        with pytest.raises(VimDeployError) as caught:
            runner.run(images(1))
        assert caught.value.code == code
        assert "TensorRT" in caught.value.why
        module.state.fail.clear()
        image = images(1)
        np.testing.assert_array_equal(runner.run(image)["logits"], expected(image))


@pytest.mark.parametrize(
    "call", ["cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync", "cudaStreamSynchronize"]
)
def test_a_refusal_of_cuda_is_told_and_the_rest_is_given_back(
    gpu: FakeCudart, module: ModuleType, tmp_path: Path, call: str
) -> None:
    with TrtRunner(write_engine(tmp_path), module=module) as runner:
        gpu.failing[call] = 700
        with pytest.raises(VimDeployError) as caught:
            runner.run(images(1))
        assert caught.value.code == "VIM-904"
        assert "700" in caught.value.why
        gpu.failing.clear()
        gpu.cudaDeviceSynchronize()
    assert not any(module.state.alive.values())


def test_no_gpu(gpu: FakeCudart, module: ModuleType, tmp_path: Path) -> None:
    gpu.failing["cudaGetDeviceCount"] = 35
    assert refused(write_engine(tmp_path), module).code == "VIM-302"


def test_output_whose_shape_depends_on_values(module: ModuleType, tmp_path: Path) -> None:
    path = write_engine(tmp_path, data_dependent=True)
    with TrtRunner(path, module=module) as runner:
        with pytest.raises(VimDeployError) as caught:
            runner.run(images(1))
        assert caught.value.code == "VIM-415"


@pytest.mark.parametrize("plan", [{"inputs": ["image", "mask"]}, {"dtype": "bfloat16"}])
def test_engine_that_is_no_image_model(
    module: ModuleType, tmp_path: Path, plan: dict[str, Any]
) -> None:
    assert refused(write_engine(tmp_path, **plan), module).code == "VIM-415"


def test_uint8_input(module: ModuleType, tmp_path: Path) -> None:
    with TrtRunner(write_engine(tmp_path, dtype="uint8"), module=module) as runner:
        assert runner.input.dtype == "uint8"
        image = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
        np.testing.assert_array_equal(runner.run(image)["logits"], expected(image))


def test_closed_runner(module: ModuleType, tmp_path: Path) -> None:
    runner = TrtRunner(write_engine(tmp_path), module=module)
    runner.close()
    runner.close()
    for use in (lambda: runner.run(images(1)), lambda: runner.run_device(images(1)), runner.memory):
        with pytest.raises(VimDeployError, match="closed"):
            use()


def test_an_error_inside_the_block_is_the_one_raised(
    gpu: FakeCudart, module: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError), TrtRunner(write_engine(tmp_path), module=module):
        raise ZeroDivisionError


def test_record_is_read_and_named(gpu: FakeCudart, module: ModuleType, tmp_path: Path) -> None:
    path = write_engine(tmp_path)
    with TrtRunner(path, module=module) as runner:
        assert runner.info is None
        assert any("has no record" in note for note in runner.notes)
    write_record(path, record_of(path))
    with TrtRunner(path, module=module) as runner:
        assert runner.info is not None
        assert runner.info.labels[0] == "north"
        assert runner.notes == ()
        assert runner.name == "TensorRT 10.14.1.48 Fake H200"
