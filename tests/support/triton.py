"""A real Triton server for the tests: that of nvidia-pytriton, started by a package's run.sh.

Its environment is made once, in pytest's cache folder. Where that cannot be done, the tests skip
and say why.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.packages import names_of
from vim_deploy.packaging.scripts import unchanged

#: Seconds until the server is ready. A backend that cannot start makes it hang, not end.
START_LIMIT = 60.0
STOP_LIMIT = 45.0
_SERVER, _STUB = "bin/tritonserver", "triton_python_backend_stub"
#: What pip says when it gets no wheel here: no such release for this Python, or no index.
_NO_WHEEL = ("No matching distribution", "Could not find a version", "Temporary failure", "Errno")
#: What run.sh says of this interpreter.
_NO_PYTHON = ("needs Python 3.10", "shared library", "no python backend")


def environment_of(config: pytest.Config) -> Path:
    """Where the environment of these requirements is kept from run to run."""
    assert config.cache is not None
    texts = [unchanged(f"served/requirements-{part}.txt") for part in ("server", "model")]
    short = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
    return config.cache.mkdir("triton-server") / short


def prepare(package: Path, environment: Path) -> None:
    """Make the server's environment with the package's own script; skips where that cannot be."""
    if sys.platform != "linux":
        pytest.skip("the server's wheel is for Linux")
    done = subprocess.run(
        [package / "run.sh", "--prepare"],
        env=_variables(environment),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if done.returncode == 0:
        return
    said = done.stderr.strip()[-500:]
    if any(text in said for text in (*_NO_WHEEL, *_NO_PYTHON)):
        pytest.skip(f"no Triton server here: {said}")
    pytest.fail(f"run.sh --prepare: {said}")


def _variables(environment: Path) -> dict[str, str]:
    own = {"VIM_SERVER_VENV": str(environment), "PYTHON": sys.executable}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIM_")}
    return {**kept, **own}


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def client_of(package: Path) -> SimpleNamespace:
    """The names of a package's client.py."""
    return names_of(package / "client.py")


@dataclass
class Server:
    """A running server.

    Attributes:
        process: the script, whose only child is the server.
        package: what it serves.
        http, grpc, metrics: its ports on 127.0.0.1.
        log: what it wrote.
    """

    process: subprocess.Popen[bytes]
    package: Path
    http: int
    grpc: int
    metrics: int
    log: Path

    def __post_init__(self) -> None:
        self.client = client_of(self.package)
        self.facts: dict[str, Any] = self.client.load_model_facts()

    def http_model(self, timeout: float = 60.0) -> Any:
        """A connection over HTTP."""
        return self.client.HttpModel(self.facts, f"127.0.0.1:{self.http}", timeout)

    def grpc_model(self, timeout: float = 60.0) -> Any:
        """A connection over gRPC; skips without the client library."""
        pytest.importorskip("tritonclient.grpc", reason="needs pip install 'vim-deploy[triton]'")
        return self.client.GrpcModel(self.facts, f"127.0.0.1:{self.grpc}", timeout)

    @property
    def pid(self) -> int:
        """Process id of tritonserver; it changes when the script starts it again."""
        (found,) = [pid for pid in children(self.process.pid) if _SERVER in command_of(pid)]
        return found

    def stubs(self) -> list[int]:
        """Process ids of the python backend."""
        return [pid for pid in children(self.pid) if _STUB in command_of(pid)]

    def resident_bytes(self) -> int:
        """Resident memory of the server and its backend."""
        return sum(map(resident, (self.pid, *self.stubs())))

    def is_ready(self) -> bool:
        """Whether the server and its model answer."""
        url = f"http://127.0.0.1:{self.http}/v2/models/{self.facts['name']}/ready"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def stop(self) -> int:
        """End it as Ctrl-C would; its exit status, after a kill the negative signal."""
        if self.process.poll() is None:
            self.interrupt()
        try:
            return self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait()

    def kill(self) -> None:
        """End the script, the server and its backend at once."""
        servers = children(self.process.pid)
        backends = [pid for server in servers for pid in children(server)]
        for pid in (self.process.pid, *backends, *servers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def start_alone(
    package: Path, environment: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Start a server that is expected to end by itself; what it wrote."""
    ports = zip(("HTTP", "GRPC", "METRICS"), map(str, free_ports(3)), strict=True)
    named = {f"VIM_{name}_PORT": port for name, port in ports}
    return subprocess.run(
        [package / "run.sh"],
        env={**_variables(environment), **named, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_LIMIT,
        check=False,
    )


@contextlib.contextmanager
def served(package: Path, environment: Path, log: Path, **chosen: str) -> Iterator[Server]:
    """Serve a package for as long as the block lasts; ``chosen`` are variables of the script."""
    http, grpc, metrics = free_ports(3)
    ports = {"VIM_HTTP_PORT": http, "VIM_GRPC_PORT": grpc, "VIM_METRICS_PORT": metrics}
    named = {name: str(port) for name, port in ports.items()}
    variables = {**_variables(environment), **named, **chosen}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [package / "run.sh"], env=variables, stdout=stream, stderr=subprocess.STDOUT
        )
    server = Server(process, package, http, grpc, metrics, log)
    try:
        _await_ready(server)
        yield server
        server.stop()
    finally:
        if process.poll() is None:
            server.kill()
            process.wait()


def _await_ready(server: Server) -> None:
    end = time.monotonic() + START_LIMIT
    while not server.is_ready():
        ended = server.process.poll()
        late = time.monotonic() > end
        if ended is not None or late:
            text = server.log.read_text("utf-8", "replace")[-3000:]
            how = f"ended with {ended}" if ended is not None else f"not ready in {START_LIMIT} s"
            pytest.fail(f"the server {how}:\n{text}")
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """Process ids of the direct children."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return sorted(found)


def command_of(pid: int) -> str:
    """A process's command line; empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def resident(pid: int) -> int:
    """Resident memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def listening(pid: int) -> set[tuple[str, int]]:
    """Address and port of everything a process listens on, from /proc."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(link))
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            listens = fields[3] == "0A"
            if listens and f"socket:[{fields[9]}]" in inodes:
                address, port = fields[1].split(":")
                found.add((_address(address), int(port, 16)))
    return found


def _address(words: str) -> str:
    """An address of /proc/net/tcp: 32-bit words, each in the machine's byte order."""
    parts = [bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8)]
    raw = b"".join(parts)
    mapped = b"\0" * 10 + b"\xff\xff"
    if len(raw) == 16 and raw.startswith(mapped):
        raw = raw[12:]
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, raw)
