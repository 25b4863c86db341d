"""Starts nvidia-pytriton's Triton server for the model of this folder, and watches it.

run.sh starts this with the Python of the server's environment. Triton keeps saying that it is ready
when the process of its python backend has died or stands still; it is therefore ended here and
started again, as it is when it dies itself. Whether a backend stands still only an answer can tell:
a model that nobody has asked for VIM_PROBE_SECONDS is asked here. A backend that cannot start makes
Triton wait for ever and ignore signals; that ends here after VIM_START_SECONDS.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent
# Python looks in no folder of its own when it is isolated.
sys.path.insert(0, str(HERE))
from server_watch import STUB, Facts, Probe, Stop, Watch, number

#: Starts within SPAN seconds after which a server that keeps dying is given up.
RESTARTS, SPAN = 5, 300.0
#: What a path may consist of that means the same to a shell.
PLAIN = re.compile(r"[A-Za-z0-9_./+@%,=-]+")
#: Calls that nobody may make, and the header that Triton asks for when one is made: its name holds
#: a line break, so it cannot be sent, and need not be a secret (a command line is none).
CLOSED = "shared-memory,logging,trace,model-repository:no\nbody=no\nbody"
#: Requests of the largest batch that are held at once, how often each is (as it came, joined, as
#: the backend gets it), and what the server needs beyond what it has when it becomes ready.
HELD, COPIES, ROOM_BYTES = 64, 3, 1 << 30
#: Options of Triton that would take the server away from where it is watched.
OWN_OPTIONS = ("--http-port", "--http-address", "--allow-http")
#: Seconds that Triton gives requests when it is told to stop, unless --exit-timeout-secs says more.
EXIT_SECONDS = 30


def model_facts() -> Facts:
    """What the manifest says of the model; SystemExit when it does not."""
    path = HERE / "manifest.json"
    try:
        return Facts(json.loads(path.read_text(encoding="utf-8"))["about"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        sys.exit(f"{path} cannot be used: {type(error).__name__}: {error}")


def environment() -> tuple[pathlib.Path, pathlib.Path]:
    """Folder of the server and of libpython; SystemExit with the reason when it cannot work."""
    import numpy

    # For the model, too: without it ONNX Runtime sends names and hashes of models to Microsoft.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: F401 - the model needs it in this environment

    if int(numpy.__version__.split(".")[0]) >= 2:
        sys.exit(f"NumPy {numpy.__version__}: the server's python backend needs numpy<2")
    server = pathlib.Path(sysconfig.get_path("purelib"), "pytriton", "tritonserver")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / STUB
    if not stub.is_file():
        sys.exit(f"the server has no python backend for Python {version}")
    library = pathlib.Path(sysconfig.get_config_var("LIBDIR"), f"libpython{version}.so.1.0")
    if not library.exists():
        sys.exit(f"{library} is missing: take a Python with a shared library, with PYTHON=...")
    # Beside the backend the stub finds the wheel's libraries by its own relative path.
    target = server / "backends" / "python" / STUB
    if not target.exists():
        # Whole or not there: another start may look for it now.
        part = target.with_name(f"{STUB}.{os.getpid()}")
        shutil.copy2(stub, part)
        part.replace(target)
    return server, library.parent


def variables(server: pathlib.Path, library: pathlib.Path) -> dict[str, str]:
    """Environment of the server: its backend finds this Python, its packages and libraries."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    libraries = [str(server.parents[1] / "nvidia_pytriton.libs"), str(library)]
    programs = [str(pathlib.Path(sys.executable).parent)]
    for name, first in (("LD_LIBRARY_PATH", libraries), ("PATH", programs)):
        kept[name] = os.pathsep.join([*first, *filter(None, [kept.get(name)])])
    return kept


@contextlib.contextmanager
def plain_paths(*folders: pathlib.Path) -> Iterator[list[pathlib.Path]]:
    """The folders under names that a shell reads as they are, for as long as the block lasts.

    The server's python backend hands them to a shell, unquoted.
    """
    if all(PLAIN.fullmatch(str(folder)) for folder in folders):
        yield list(folders)
        return
    try:
        place = tempfile.TemporaryDirectory(prefix="vim-deploy-")
    except OSError as error:
        sys.exit(f"{HERE}: the server needs other names for these folders: {error}; set TMPDIR")
    with place as name:
        if not PLAIN.fullmatch(name):
            sys.exit(f"{name}: the server cannot use a folder of this name; set TMPDIR")
        links = [pathlib.Path(name, str(count)) for count in range(len(folders))]
        for link, folder in zip(links, folders):
            link.symlink_to(folder)
        yield links


def command(models: pathlib.Path, server: pathlib.Path, extra: list[str]) -> list[str]:
    """The server's command line; it listens on VIM_ADDRESS only."""
    address = os.environ.get("VIM_ADDRESS") or "127.0.0.1"
    ports = {"http": 8000, "grpc": 8001, "metrics": 8002}
    words = [
        str(server / "bin" / "tritonserver"),
        f"--model-repository={models}",
        f"--backend-directory={server / 'backends'}",
        f"--cache-directory={server / 'caches'}",
        "--allow-gpu-metrics=false",
        "--disable-auto-complete-config",
    ]
    for word in extra:
        if word.partition("=")[0] in OWN_OPTIONS:
            sys.exit(f"{word}: say it with VIM_ADDRESS and VIM_HTTP_PORT, where it is watched")
    for name, port in ports.items():
        chosen = number(f"VIM_{name.upper()}_PORT", port, 65535, 1)
        require_free(address, int(chosen))
        words += [f"--{name}-address={address}", f"--{name}-port={chosen:.0f}"]
    closed = [f"--{name}={CLOSED}" for name in ("http-restricted-api", "grpc-restricted-protocol")]
    return [*words, *closed, *extra]


def require_free(address: str, port: int) -> None:
    """SystemExit when somebody listens there: the answers would be taken for our server's."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listening:
            # As servers do: what is left of connections that have ended does not count.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
    except OSError as error:
        sys.exit(f"port {port} of {address} cannot be used: {error.strerror or error}")


def exit_seconds(extra: list[str]) -> int:
    """What Triton gives requests when it is told to stop."""
    found = re.findall(r"--exit-timeout-secs[= ](\d{1,9})(?!\d)", " ".join(extra))
    return int(found[-1]) if found else EXIT_SECONDS


def serve(
    models: pathlib.Path, server: pathlib.Path, library: pathlib.Path, extra: list[str]
) -> int:
    """The exit status of a server that was stopped, did not come up, or was given up."""
    facts, limit = model_facts(), number("VIM_START_SECONDS", 120)
    every, answer = number("VIM_PROBE_SECONDS", 30), number("VIM_HANG_SECONDS", 60, least=1)
    room = math.ceil((ROOM_BYTES + HELD * COPIES * facts.largest) / 2**20)
    room = int(number("VIM_MEMORY_MB", room) * 2**20)
    starts: list[float] = []
    stop = Stop(exit_seconds(extra) + answer)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    words, environ = command(models, server, extra), variables(server, library)
    while not stop.requested:
        starts = [*[at for at in starts if time.monotonic() - at < SPAN], time.monotonic()]
        watch = Watch(words, environ, stop, Probe(facts, every, answer))
        status: int | None = watch.run(limit, room)
        if status is not None:
            return status
        if len(starts) > RESTARTS:
            print(f"given up after {RESTARTS} restarts", file=sys.stderr, flush=True)
            return 1
        print("starting the server again", file=sys.stderr, flush=True)
    return 0


def main(extra: list[str]) -> int:
    """Exit status of the whole."""
    server, library = environment()
    if extra == ["--prepare"]:
        return 0
    # The backend finds what it needs from where its folder is, so the whole environment has a name.
    site = server.parents[1]
    with plain_paths(HERE / "models", site) as (models, plain):
        return serve(models, plain / server.relative_to(site), library, extra)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
