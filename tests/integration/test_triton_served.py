"""The digits model, packaged for the python runtime and served by a real Triton server.

Where a C++ compiler is, it is served on native ops, whose answers are held to the same tolerance.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.ort_ops import built_library, missing_tools
from tests.support.reference import DIGITS, load_case
from tests.support.source import REPOSITORY
from tests.support.triton import Server, environment_of, listening, prepare, served
from vim_deploy.packaging.manifest import read_manifest, require_intact
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.parity.limits import FP32_ATOL, FP32_RTOL
from vim_deploy.runtimes.base import run_in_batches
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages import export, package
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.packaging import PackageOptions

pytestmark = [pytest.mark.triton, pytest.mark.slow]
CLIENTS = 64
#: Of the toy's 360 test pictures, those that the official code classifies right.
RIGHT = 346


@pytest.fixture(scope="module")
def digits_package(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Path, Path]:
    """The package, and the environment of its server."""
    place = tmp_path_factory.mktemp("triton")
    path = export("vim-digits", place / "digits.onnx", ExportOptions(check=False)).path
    serving = ServingOptions(runtime="python", queue_delay_us=2000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIM_DEPLOY_ORT_OPS", "" if missing_tools() else str(built_library()))
        folder = package(path, place / "served", PackageOptions(serving)).folder
    environment = environment_of(request.config)
    prepare(folder, environment)
    return folder, environment


@pytest.fixture(scope="module")
def served_digits(
    digits_package: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The package, served."""
    with served(*digits_package, tmp_path_factory.mktemp("log") / "server.log") as server:
        yield server


@pytest.fixture(scope="module")
def local(served_digits: Server) -> np.ndarray:
    """Logits of the 360 pictures from the same file, without a server."""
    artifact = served_digits.package / served_digits.facts["artifact"]["path"]
    return run_in_batches(OrtRunner(artifact), load_case(DIGITS).image, 120)["logits"]


def require_same(answers: list[np.ndarray], local: np.ndarray) -> None:
    """360 answers, each the local one: the same class and logits within float32 rounding."""
    found = np.concatenate(answers)
    assert found.shape == local.shape == (360, 10)
    # Other batches, other summation orders; the tolerance is that of every float32 comparison.
    np.testing.assert_allclose(found, local, atol=FP32_ATOL, rtol=FP32_RTOL)
    np.testing.assert_array_equal(found.argmax(axis=1), local.argmax(axis=1))
    labels = load_case(DIGITS).extras["labels"]
    assert int((found.argmax(axis=1) == labels).sum()) == RIGHT


def ask(model: Any, batch: int) -> list[np.ndarray]:
    images = load_case(DIGITS).image
    return [model.infer(np.array(images[at : at + batch]))["logits"] for at in range(0, 360, batch)]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_one_client(served_digits: Server, local: np.ndarray, protocol: str) -> None:
    model = getattr(served_digits, f"{protocol}_model")()
    require_same(ask(model, 24), local)
    # One after the other, alone in their batch: every sixth is enough, all of them follow below.
    for at in range(0, 360, 6):
        alone = model.infer(np.array(load_case(DIGITS).image[at : at + 1]))["logits"]
        np.testing.assert_allclose(alone[0], local[at], atol=FP32_ATOL, rtol=FP32_RTOL)
    model.close()


def settled(watcher: Any) -> dict[str, Any]:
    """The server's counters once they stand still: an answer may go out before it is counted.

    That holds for the last answers of the test before as well.
    """
    end = time.monotonic() + 10
    found: dict[str, Any] = watcher.statistics()
    since = time.monotonic()
    while time.monotonic() < min(since + 0.5, end):
        time.sleep(0.05)
        now = watcher.statistics()
        if now["inference_count"] != found["inference_count"]:
            found, since = now, time.monotonic()
    return found


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_64_clients_at_once(served_digits: Server, local: np.ndarray, protocol: str) -> None:
    images = load_case(DIGITS).image
    connect: Callable[[], Any] = getattr(served_digits, f"{protocol}_model")
    watcher = served_digits.http_model()
    before = settled(watcher)
    start = threading.Barrier(CLIENTS)

    def client(number: int) -> dict[int, np.ndarray]:
        model = connect()
        start.wait()
        mine = range(number, 360, CLIENTS)
        answers = {at: model.infer(np.array(images[at : at + 1]))["logits"] for at in mine}
        model.close()
        return answers

    with ThreadPoolExecutor(CLIENTS) as pool:
        parts = list(pool.map(client, range(CLIENTS)))
    answers = {at: row for part in parts for at, row in part.items()}
    assert sorted(answers) == list(range(360))
    require_same([answers[at] for at in range(360)], local)

    # Batching is proven by the server's own counters: every picture answered, in fewer executions.
    after = settled(watcher)
    watcher.close()
    pictures = after["inference_count"] - before["inference_count"]
    executions = after["execution_count"] - before["execution_count"]
    assert pictures == 360
    assert executions < 180
    assert any(entry["batch_size"] > 1 for entry in after["batch_stats"])
    assert after["inference_stats"]["fail"]["count"] == before["inference_stats"]["fail"]["count"]


def test_the_stored_answers(served_digits: Server, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [str(REPOSITORY / "tests" / "data" / "digits" / f"{name}.png") for name in "037"]
    for protocol, port in (("http", served_digits.http), ("grpc", served_digits.grpc)):
        url = ["--url", f"127.0.0.1:{port}", "--protocol", protocol]
        assert served_digits.client.main([*url, "--check", "--top", "1", *pictures]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split("\t")[1] for line in lines[:3]] == ["0 zero", "3 three", "7 seven"]


def test_the_log_says_what_runs(served_digits: Server) -> None:
    reason = missing_tools()
    if reason:
        pytest.skip(reason)
    log = served_digits.log.read_text("utf-8", "replace")
    assert "model.onnx runs on native ops (vim_ort_cpu 0.1.0, " in log
    assert "without native ops" not in log


def test_only_this_machine_is_listened_to(served_digits: Server) -> None:
    found = listening(served_digits.pid)
    assert {port for _, port in found} == {
        served_digits.http,
        served_digits.grpc,
        served_digits.metrics,
    }
    assert {address for address, _ in found} == {"127.0.0.1"}
    assert all(not listening(pid) for pid in served_digits.stubs())


def test_serving_leaves_the_package_as_it_was(served_digits: Server) -> None:
    require_intact(served_digits.package, read_manifest(served_digits.package))


def test_ctrl_c_answers_what_was_begun(digits_package: tuple[Path, Path], tmp_path: Path) -> None:
    rows, most = 32, 64
    images = np.array(load_case(DIGITS).image[:rows])
    with served(*digits_package, tmp_path / "server.log") as server:
        with contextlib.closing(server.http_model()) as model:
            model.infer(images)
            begun = time.monotonic()
            model.infer(images)
            # Work for more than a second, by kernels or by functions.
            clients = min(most, 8 + int(1.0 / (time.monotonic() - begun)))
        sent = threading.Barrier(clients + 1)
        answered: list[float] = []

        def client() -> None:
            connection = server.http_model()
            body, length = server.client.encode(server.facts, images)
            headers = {server.client.HEADER_LENGTH: str(length)}
            path = f"/v2/models/{server.facts['name']}/infer"
            connection.connection.request("POST", path, body, headers)
            sent.wait()
            answer = connection.connection.getresponse()
            found = server.client.decode(answer.headers, answer.read())
            assert answer.status == 200
            assert found["logits"].shape == (rows, 10)
            answered.append(time.monotonic())
            connection.close()

        with ThreadPoolExecutor(clients) as pool:
            waiting = [pool.submit(client) for _ in range(clients)]
            sent.wait()
            # The server reads a request a moment after it was sent.
            time.sleep(0.2)
            server.interrupt()
            interrupted = time.monotonic()
            for item in waiting:
                item.result(60)
        assert len(answered) == clients
        assert max(answered) > interrupted, "nothing was left to be finished"
        assert server.process.wait(30) == 0
