"""What a served model does with bad requests, many requests, a killed backend and Ctrl-C."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.triton import Server, command_of, environment_of, prepare, served, start_alone
from vim_deploy.codec import encode
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages import export, package
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.packaging import PackageOptions

pytestmark = [pytest.mark.triton, pytest.mark.slow]
LARGEST = 8
#: Requests of the soak: a fifth of them where the machine is too slow for all.
SOAK = 10_000
SOAK_SECONDS = 25.0
#: Share by which resident memory may grow between a fifth of the soak and its end.
GROWTH = 0.05


@pytest.fixture(scope="module")
def tiny_package(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Path, Path]:
    """A two-layer model that takes bytes and gives its best three classes; the environment."""
    pytest.importorskip("torch")
    from tests.support.models import perturbed, save_training_file, tiny_config
    from vim_deploy.families.vim.network.vim import VisionMamba

    place = tmp_path_factory.mktemp("tiny")
    config = tiny_config()
    checkpoint = save_training_file(perturbed(VisionMamba(config)), place / "tiny.pth")
    wanted = ModelRequest(str(checkpoint), config=encode(config))
    options = ExportOptions(preprocess="uint8", head="topk:3", check=False)
    path = export(wanted, place / "tiny.onnx", options).path
    serving = ServingOptions(runtime="python", max_batch=LARGEST, threads=1)
    folder = package(path, place / "served", PackageOptions(serving)).folder
    environment = environment_of(request.config)
    prepare(folder, environment)
    return folder, environment


@pytest.fixture(scope="module")
def tiny(tiny_package: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """That model, served."""
    log = tmp_path_factory.mktemp("log") / "server.log"
    with served(*tiny_package, log) as server:
        yield server


@pytest.fixture
def model(tiny: Server) -> Iterator[Any]:
    """A connection; afterwards the server still answers rightly."""
    connection = tiny.http_model()
    yield connection
    connection.close()
    after = tiny.http_model()
    assert after.ready()
    require_right(tiny, after.infer(pictures(2)), pictures(2))
    after.close()


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Bytes of pictures, uint8 [count, 16, 16, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def require_right(server: Server, found: dict[str, np.ndarray], images: np.ndarray) -> None:
    """The answer is that of the same file without a server."""
    local = OrtRunner(server.package / server.facts["artifact"]["path"]).run(images)
    np.testing.assert_array_equal(found["classes"], local["classes"])
    np.testing.assert_allclose(found["probabilities"], local["probabilities"], atol=1e-4)


def test_bytes_in_best_classes_out(tiny: Server, model: Any) -> None:
    require_right(tiny, model.infer(pictures(LARGEST)), pictures(LARGEST))
    grpc = tiny.grpc_model()
    require_right(tiny, grpc.infer(pictures(3)), pictures(3))
    grpc.close()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        pytest.param(np.zeros((1, 16, 15, 3), np.uint8), "unexpected shape", id="shape"),
        pytest.param(np.zeros((8, 16, 3), np.uint8), "unexpected shape", id="no-batch"),
        pytest.param(np.zeros((1, 16, 16, 3), np.float32), "data-type", id="dtype"),
        pytest.param(np.zeros((LARGEST + 1, 16, 16, 3), np.uint8), "batch-size", id="too-many"),
        pytest.param(np.zeros((0, 16, 16, 3), np.uint8), "size mismatch", id="none"),
    ],
)
def test_bad_arrays(tiny: Server, model: Any, images: np.ndarray, said: str) -> None:
    with pytest.raises(tiny.client.ServerError, match=said) as caught:
        model.infer(images)
    assert "HTTP 400" in str(caught.value) or "HTTP 500" in str(caught.value)
    grpc = tiny.grpc_model()
    with pytest.raises(tiny.client.ServerError, match=said):
        grpc.infer(images)
    grpc.close()


def test_a_body_shorter_than_its_tensor(tiny: Server, model: Any) -> None:
    body, length = tiny.client.encode(tiny.facts, pictures(1))
    headers = {tiny.client.HEADER_LENGTH: str(length)}
    path = f"/v2/models/{tiny.facts['name']}/infer"
    status, _, answer = model.request("POST", path, body[:-100], headers)
    assert status == 400
    assert tiny.client.message_of(answer)


def test_a_connection_that_ends_within_the_body(tiny: Server, model: Any) -> None:
    body, length = tiny.client.encode(tiny.facts, pictures(1))
    head = (
        f"POST /v2/models/{tiny.facts['name']}/infer HTTP/1.1\r\nHost: x\r\n"
        f"{tiny.client.HEADER_LENGTH}: {length}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    for end in (len(body) // 2, 0):
        with socket.create_connection(("127.0.0.1", tiny.http), timeout=10) as connection:
            connection.sendall(head.encode() + body[:end])


def test_no_json_and_no_such_model(tiny: Server, model: Any) -> None:
    path = f"/v2/models/{tiny.facts['name']}/infer"
    for place, body in ((path, b"{"), (path, b""), ("/v2/models/other/infer", b"{}")):
        status, _, answer = model.request("POST", place, body)
        # This release answers 500 to a model it does not have when the JSON is empty.
        assert 400 <= status <= 500
        assert tiny.client.message_of(answer)


def test_memory_stays_flat(tiny: Server, model: Any) -> None:
    images = pictures(1)
    wanted = model.infer(images)["classes"]
    clients = 4

    def client(count: int) -> int:
        connection = tiny.http_model()
        same = sum(
            bool((connection.infer(images)["classes"] == wanted).all()) for _ in range(count)
        )
        connection.close()
        return same

    def requests(count: int) -> int:
        with ThreadPoolExecutor(clients) as pool:
            return sum(pool.map(client, [count // clients] * clients))

    first = SOAK // 5
    start = time.monotonic()
    assert requests(first) == first
    slow = time.monotonic() - start > SOAK_SECONDS / 5 and not os.environ.get("VIM_TEST_ALL")
    rest = first if slow else SOAK - first
    before = tiny.resident_bytes()
    assert requests(rest) == rest
    after = tiny.resident_bytes()
    print(f"{first + rest} requests, {before / 2**20:.1f} -> {after / 2**20:.1f} MiB")
    assert after < (1 + GROWTH) * before, f"{before} bytes after {first}, {after} {rest} later"


def test_a_killed_backend_is_an_error_and_comes_back(tiny: Server, model: Any) -> None:
    (stub,) = tiny.stubs()
    before = command_of(stub).split()
    errors: list[str] = []
    right = [0]
    done = threading.Event()

    def client() -> None:
        connection = tiny.http_model(timeout=30)
        while not done.is_set():
            try:
                connection.infer(pictures(LARGEST))
                right[0] += 1
            except (tiny.client.ServerError, OSError, http.client.HTTPException) as error:
                errors.append(str(error))
                done.wait(0.05)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    os.kill(stub, signal.SIGKILL)
    end = time.monotonic() + 60
    while time.monotonic() < end and not (errors and _answers(tiny)):
        time.sleep(0.2)
    done.set()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert right[0] > 0
    assert errors, "no client was told that its request was lost"
    (again,) = tiny.stubs()
    assert again != stub
    said = tiny.log.read_text("utf-8", "replace")
    assert f"the backend process {stub} has died" in said
    assert "starting the server again" in said
    left = [path.name for path in Path("/dev/shm").glob("*_shm_region_*")]
    assert not [name for name in left if name in before]


def test_a_server_that_does_not_come_up_is_ended(
    tiny_package: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, environment = tiny_package
    hanging = tmp_path / "hanging"
    shutil.copytree(folder, hanging)
    (hanging / "models" / "tiny" / "1" / "model.py").write_text("import time\ntime.sleep(300)\n")
    done = start_alone(hanging, environment, VIM_START_SECONDS="2")
    assert done.returncode == 1
    assert "the server is not ready after 2 s" in done.stdout


def test_a_model_that_does_not_load_is_named(
    tiny_package: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, environment = tiny_package
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    path = damaged / "models" / "tiny" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    done = start_alone(damaged, environment)
    assert done.returncode == 1
    assert "InvalidProtobuf" in done.stdout or "INVALID_PROTOBUF" in done.stdout
    assert "failed to load all models" in done.stdout


def _answers(server: Server) -> bool:
    """Whether a new client gets an answer."""
    connection = server.http_model(timeout=10)
    with contextlib.closing(connection):
        try:
            connection.infer(pictures(1))
        except (server.client.ServerError, OSError, http.client.HTTPException):
            return False
        return True
