"""server.py of a package, without a server: what it refuses at its start, and how it stops."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.packages import SERVED, names_of
from vim_deploy.packaging.scripts import CLOSED


@pytest.fixture(scope="module")
def server() -> SimpleNamespace:
    watch, server = names_of(SERVED / "server_watch.py"), names_of(SERVED / "server.py")
    return SimpleNamespace(**vars(watch) | vars(server))


def test_every_server_of_a_package_closes_the_same_calls(server: SimpleNamespace) -> None:
    assert server.CLOSED == CLOSED


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port on which something listens and never says a word of HTTP."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def test_a_port_that_is_taken(server: SimpleNamespace, taken: socket.socket) -> None:
    port = taken.getsockname()[1]
    with pytest.raises(SystemExit, match=f"port {port} of 127.0.0.1 cannot be used"):
        server.require_free("127.0.0.1", port)
    taken.close()
    server.require_free("127.0.0.1", port)
    with pytest.raises(SystemExit, match="cannot be used"):
        server.require_free("no such name.invalid", port)


def test_something_else_than_http_is_no_server(
    server: SimpleNamespace, taken: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer() -> None:
        connection, _ = taken.accept()
        connection.recv(100)
        connection.sendall(b"220 smtp ready\r\n")
        connection.close()

    monkeypatch.setenv("VIM_HTTP_PORT", str(taken.getsockname()[1]))
    thread = threading.Thread(target=answer)
    thread.start()
    assert not server.is_ready()
    thread.join()


@pytest.mark.parametrize("word", ["--http-port=9000", "--http-address", "--allow-http=false"])
def test_options_that_would_take_the_server_elsewhere(server: SimpleNamespace, word: str) -> None:
    with pytest.raises(SystemExit, match="VIM_HTTP_PORT"):
        server.command(Path("models"), Path("server"), [word])


@pytest.mark.parametrize(
    ("extra", "seconds"),
    [
        ([], 30),
        (["--exit-timeout-secs=5"], 5),
        (["--exit-timeout-secs", "7", "--log-verbose=1"], 7),
        (["--exit-timeout-secs=x"], 30),
    ],
)
def test_how_long_triton_waits(server: SimpleNamespace, extra: list[str], seconds: int) -> None:
    assert server.exit_seconds(extra) == seconds


def test_an_answer_may_take_some_time(
    server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIM_HANG_SECONDS", "0")
    with pytest.raises(SystemExit, match="is not a number from 1"):
        server.number("VIM_HANG_SECONDS", 60, least=1)
    monkeypatch.setenv("VIM_HANG_SECONDS", "")
    assert server.number("VIM_HANG_SECONDS", 60, least=1) == 60


def test_a_wish_to_stop_is_obeyed_at_last(
    server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stop = server.Stop(40)
    stop.process = SimpleNamespace(send_signal=told.append)
    assert not stop.is_over()
    stop()
    assert (stop.requested, stop.is_over(), told) == (True, False, [signal.SIGINT])
    now[0] += 0.5
    stop()
    assert not stop.is_over(), "one wish, repeated by a supervisor"
    now[0] += 30
    assert not stop.is_over()
    now[0] += 10
    assert stop.is_over(), "out of patience"
    again = server.Stop(1000)
    again.process = stop.process
    again()
    now[0] += 3
    again()
    assert again.is_over(), "asked once more"
