"""A served model that others of the machine attack, and one that stops answering."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.packages import SIZES, classifier
from tests.support.triton import Server, environment_of, prepare, served, start_alone
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.stages import package
from vim_deploy.stages.packaging import PackageOptions

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.triton, pytest.mark.slow]
#: Questions often enough, and patience short enough, for a test to wait for them.
QUICK = {"VIM_PROBE_SECONDS": "1", "VIM_HANG_SECONDS": "3"}
MEMORY_MB = 128
#: What takes its time because it waits for something not to happen.
waits = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 waits for it")
CLOSED = [
    ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/x/register"),
    ("POST", "/v2/systemsharedmemory/unregister"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/trace/setting"),
    ("POST", "/v2/models/toy/trace/setting"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/toy/load"),
    ("POST", "/v2/repository/models/toy/unload"),
]


@pytest.fixture(scope="module")
def toy(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Path, Path]:
    """A package, in a folder whose name a shell would read otherwise, and its environment."""
    place = tmp_path_factory.mktemp("toy") / "a b'c $d;e"
    place.mkdir()
    options = PackageOptions(ServingOptions(runtime="python", max_batch=8, threads=1))
    folder = package(classifier(place / "toy.onnx"), place / "served", options).folder
    environment = environment_of(request.config)
    prepare(folder, environment)
    return folder, environment


@pytest.fixture(scope="module")
def guarded(toy: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """That model, served."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    with served(*toy, log) as server:
        yield server


def images(rows: int = 1) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, *SIZES)).astype(np.float32)


def answers(server: Server) -> bool:
    """Whether a new client gets an answer."""
    connection = server.http_model(timeout=10)
    try:
        return len(connection.infer(images(2))["logits"]) == 2
    except (server.client.ServerError, OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def await_answer(server: Server, after: Callable[[], bool], seconds: float = 90) -> None:
    """Wait until ``after`` and an answer."""
    end = time.monotonic() + seconds
    while not (after() and answers(server)):
        assert time.monotonic() < end, server.log.read_text("utf-8", "replace")[-3000:]
        time.sleep(0.2)


def await_watched(server: Server) -> None:
    """Wait until the script, too, knows that the server is ready: then it bounds its memory."""
    end = time.monotonic() + 30
    while resource.prlimit(server.pid, resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY:
        assert time.monotonic() < end
        time.sleep(0.05)


def region_of(server: Server) -> str:
    """Name of the backend's own shared memory, which anybody can read in its command line."""
    (stub,) = server.stubs()
    words = Path(f"/proc/{stub}/cmdline").read_bytes().decode().split("\0")
    return next(word for word in words if "_shm_region_" in word)


def header_of(server: Server, option: str) -> tuple[str, str]:
    """Name and value that open what is closed, which anybody can read, too."""
    words = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode().split("\0")
    (given,) = [word for word in words if word.startswith(f"--{option}=")]
    name, _, value = given.partition(":")[2].partition("=")
    return name, value


def raw(server: Server, request: bytes) -> bytes:
    """What comes back for these bytes; nothing where the server ends the connection."""
    with socket.create_connection(("127.0.0.1", server.http), timeout=10) as connection:
        connection.sendall(request)
        try:
            return connection.recv(65536)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_calls_that_write_into_the_server_are_refused(
    guarded: Server, method: str, path: str
) -> None:
    body = json.dumps({"key": region_of(guarded), "offset": 0, "byte_size": 64}).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n".encode()
    assert b" 403 " in raw(guarded, head + b"\r\n" + body).partition(b"\r\n")[0]


def test_who_reads_the_command_line_gets_no_further(guarded: Server) -> None:
    name, value = header_of(guarded, "http-restricted-api")
    escaped = [text.replace("\n", "\\n") for text in (name, value)]
    encoded = [text.replace("\n", "%0A") for text in (name, value)]
    spaced = [text.replace("\n", " ") for text in (name, value)]
    folded = [text.replace("\n", "\r\n ") for text in (name, value)]
    returned = [text.replace("\n", "\r\n") for text in (name, value)]
    for one, other in ((name, value), escaped, encoded, spaced, folded, returned):
        lines = f"GET /v2/systemsharedmemory/status HTTP/1.1\r\nHost: x\r\n{one}: {other}\r\n\r\n"
        said = raw(guarded, lines.encode())
        assert b"200 OK" not in said
        assert not said or b" 403 " in said or b" 400 " in said
    assert answers(guarded)


def test_calls_over_grpc_are_refused(guarded: Server) -> None:
    grpc = pytest.importorskip("tritonclient.grpc", reason="needs pip install 'vim-deploy[triton]'")
    name, value = header_of(guarded, "grpc-restricted-protocol")
    with grpc.InferenceServerClient(f"127.0.0.1:{guarded.grpc}") as client:
        region = region_of(guarded)
        for call in (
            lambda: client.register_system_shared_memory("x", region, 64),
            client.get_system_shared_memory_status,
            client.get_cuda_shared_memory_status,
            lambda: client.update_log_settings({"log_file": "/tmp/x"}),
            lambda: client.update_trace_settings(settings={"trace_file": "/tmp/x"}),
            client.get_model_repository_index,
            lambda: client.unload_model("toy"),
        ):
            with pytest.raises(grpc.InferenceServerException, match="restricted"):
                call()
        for key in (name, f"triton-grpc-protocol-{name}"):
            # The client itself refuses to send such a name, and no other one opens the door.
            with pytest.raises((grpc.InferenceServerException, ValueError)):
                client.get_system_shared_memory_status(headers={key: value})
        plain = {f"triton-grpc-protocol-{name}".replace("\n", ""): value.replace("\n", "")}
        with pytest.raises(grpc.InferenceServerException, match="restricted"):
            client.get_system_shared_memory_status(headers=plain)
    assert answers(guarded)


def test_an_answer_that_is_no_number_is_an_error(guarded: Server) -> None:
    bad = images(2)
    bad[1, 0, 0, 0] = np.nan
    for model in (guarded.http_model(), guarded.grpc_model()):
        with pytest.raises(guarded.client.ServerError, match="NaN or infinite"):
            model.infer(bad)
        assert model.infer(images(3))["logits"].shape == (3, 4)
        model.close()


def await_gone(pids: list[int]) -> None:
    """Ended with their group; whoever adopts a process may take a moment to notice."""
    end = time.monotonic() + 10
    while [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_dead_server_is_started_again(toy: tuple[Path, Path], tmp_path: Path) -> None:
    with served(*toy, tmp_path / "log") as server:
        first, stubs = server.pid, server.stubs()
        await_watched(server)
        os.kill(first, signal.SIGKILL)
        await_answer(server, lambda: not Path(f"/proc/{first}").exists())
        said = server.log.read_text("utf-8", "replace")
        assert "tritonserver has ended with -9" in said
        assert "starting the server again" in said
        await_gone(stubs)


@pytest.mark.parametrize("who", ["backend", pytest.param("server", marks=waits)])
def test_one_that_stands_still_is_started_again(
    toy: tuple[Path, Path], tmp_path: Path, who: str
) -> None:
    with served(*toy, tmp_path / "log", **QUICK) as server:
        await_watched(server)
        first = server.stubs()[0] if who == "backend" else server.pid
        os.kill(first, signal.SIGSTOP)
        await_answer(server, lambda: not Path(f"/proc/{first}").exists())
        said = server.log.read_text("utf-8", "replace")
        found = ("the model has not answered for 3 s", f"the process {first} was stopped")
        assert any(why in said for why in found)


def test_a_server_that_stands_still_can_be_stopped(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """The signal that tells it to stop waits in it; whoever asks again means it."""
    with served(*toy, tmp_path / "log", VIM_PROBE_SECONDS="0") as server:
        await_watched(server)
        first, stubs = server.pid, server.stubs()
        server.process.send_signal(signal.SIGINT)
        os.kill(first, signal.SIGSTOP)
        time.sleep(3)
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGINT)
        server.process.wait(10)
        await_gone([first, *stubs])


@waits
def test_a_slow_model_is_not_taken_for_one_that_stands_still(
    toy: tuple[Path, Path], tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    shutil.copytree(toy[0], slow)
    code = slow / "models" / "toy" / "1" / "model.py"
    text = code.read_text()
    assert "        taken = [self.read(request) for request in requests]\n" in text
    code.write_text(
        text.replace(
            '        taken = [self.read(request) for request in requests]\n',
            "        import time; time.sleep(1.5)\n"
            '        taken = [self.read(request) for request in requests]\n',
        )
    )  # fmt: skip
    with served(slow, toy[1], tmp_path / "log", VIM_PROBE_SECONDS="1", VIM_HANG_SECONDS="2") as it:
        first = it.pid
        end = time.monotonic() + 10
        while time.monotonic() < end:
            model = it.http_model(timeout=60)
            assert len(model.infer(images(8))["logits"]) == 8
            model.close()
        assert it.pid == first


@waits
def test_only_an_idle_model_is_asked(toy: tuple[Path, Path], tmp_path: Path) -> None:
    with served(*toy, tmp_path / "log", VIM_PROBE_SECONDS="0") as server:
        watcher = server.http_model()
        before = watcher.statistics()["inference_count"]
        time.sleep(2)
        assert watcher.statistics()["inference_count"] == before
        watcher.close()
    with served(*toy, tmp_path / "log", **QUICK) as server:
        watcher = server.http_model()
        before = watcher.statistics()["inference_count"]
        end = time.monotonic() + 20
        while watcher.statistics()["inference_count"] == before:
            assert time.monotonic() < end
            time.sleep(0.2)
        assert watcher.statistics()["inference_stats"]["fail"].get("count", 0) == 0
        watcher.close()


def test_a_request_beyond_all_bounds_does_not_take_the_memory(
    toy: tuple[Path, Path], tmp_path: Path
) -> None:
    with served(*toy, tmp_path / "log", VIM_MEMORY_MB=str(MEMORY_MB)) as server:
        await_watched(server)
        before = server.resident_bytes()
        path = f"/v2/models/{server.facts['name']}/infer"
        for body, kind in ((bytes(512 << 20), ""), (gzip.compress(bytes(512 << 20), 1), "gzip")):
            peak, end = flood(server, path, body, kind)
            assert peak < before + (MEMORY_MB + 64 << 20), (kind, before, peak)
            assert b"200 OK" not in end
            await_answer(server, lambda: True)


def flood(server: Server, path: str, body: bytes, encoding: str) -> tuple[int, bytes]:
    """Send a body; the largest memory that the server had meanwhile, and what it answered."""
    pid = server.pid
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += f"Content-Encoding: {encoding}\r\n" if encoding else ""
    with socket.create_connection(("127.0.0.1", server.http), timeout=60) as connection:
        try:
            connection.sendall(head.encode() + b"\r\n" + body)
            answer = connection.recv(4096)
        except OSError:
            answer = b""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        # It has ended: then the limit was met.
        return 0, answer
    peak = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return (peak[0] if peak else 0) * 1024, answer


@pytest.mark.parametrize("name", ["VIM_PROBE_SECONDS", "VIM_MEMORY_MB", "VIM_HTTP_PORT"])
def test_variables_that_are_no_numbers_are_named(toy: tuple[Path, Path], name: str) -> None:
    for value in ("x", "-1", "nan", "inf", "1e30"):
        done = start_alone(*toy, **{name: value})
        assert done.returncode == 1
        assert f"{name}={value!r} is not a number" in done.stdout


def test_a_port_that_somebody_has_is_not_taken_for_ours(toy: tuple[Path, Path]) -> None:
    """Whatever answers there, it would be asked whether our server is ready."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = start_alone(*toy, VIM_HTTP_PORT=port)
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1 cannot be used" in done.stdout
