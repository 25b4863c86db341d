"""Watches a server that server.py beside this has started, and ends it when it does not work."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import math
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import Any

STUB = "triton_python_backend_stub"
PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.25
#: Seconds for which a backend may be stopped by a signal, before its server is started again.
STOPPED_SECONDS = 5.0
#: Two signals within so many seconds are one wish: supervisors and terminals repeat themselves.
AGAIN_SECONDS = 2.0
#: Triton's data types of inputs and the bytes of one element.
ELEMENT_BYTES = {"uint8": 1, "float16": 2, "float32": 4, "int32": 4, "int64": 8}
TRITON_TYPES = {
    "uint8": "UINT8",
    "float16": "FP16",
    "float32": "FP32",
    "int32": "INT32",
    "int64": "INT64",
}
#: Questions to our own server go to it, whatever proxy the environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
#: What asking may raise, also where something else than an HTTP server answers.
UNANSWERED = (OSError, ValueError, http.client.HTTPException)


class Facts:
    """The model's name, its inputs (name, dtype, shape of the least request), bytes of the largest.

    A detector has two: the pictures, and their sizes.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        most = about["max_batch"]
        given = [about["input"], *([about["size"]] if about.get("size") else [])]
        self.name = about["name"]
        self.inputs = [
            (spec["name"], spec["dtype"], [1, *spec["shape"][1:]] if most else spec["shape"])
            for spec in given
        ]
        self.largest = max(most, 1) * sum(map(self.bytes_of, self.inputs))

    @staticmethod
    def bytes_of(given: tuple[str, str, list[int]]) -> int:
        """Of one input of the least request."""
        _, dtype, shape = given
        return math.prod(shape) * ELEMENT_BYTES[dtype]


def number(name: str, default: float, most: float = 1e9, least: float = 0) -> float:
    """A variable's value as a number from ``least`` to ``most``; SystemExit when it is none."""
    text = os.environ.get(name) or str(default)
    with contextlib.suppress(ValueError):
        if least <= float(text) <= most:
            return float(text)
    sys.exit(f"{name}={text!r} is not a number from {least:.0f} to {most:.0f}")


def stubs_of(pid: int) -> list[int]:
    """Process ids of the server's python backend."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split() if STUB in words_of(word)]
        except OSError:
            continue
    return found


def words_of(pid: int | str) -> str:
    """A process's command line; empty for one that has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def is_stopped(pid: int) -> bool:
    """Whether a signal keeps a process from running: its state, proc_pid_stat(5)."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False


def own_url() -> str:
    """Where the server answers HTTP on this machine."""
    host = os.environ.get("VIM_ADDRESS") or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked, not bound
    port = number("VIM_HTTP_PORT", 8000, 65535)
    return f"http://[{host}]:{port:.0f}" if ":" in host else f"http://{host}:{port:.0f}"


def is_ready() -> bool:
    """Whether the server says that it is ready."""
    try:
        with OPENER.open(f"{own_url()}/v2/health/ready", timeout=2):
            return True
    except UNANSWERED:
        return False


class Probe(threading.Thread):
    """Asks the model for an answer when nobody else does; ``silent`` once there is none.

    An answer that says what went wrong is an answer. While others ask, the server's own count of
    executions says that the model works, and no request is made, so its counters count clients.
    """

    def __init__(self, facts: Facts, every: float, limit: float) -> None:
        super().__init__(daemon=True)
        self.url = f"{own_url()}/v2/models/{facts.name}"
        self.every, self.limit = every, limit
        self.silent, self.ended = False, threading.Event()
        self.body, self.header = self.zeros(facts)

    @staticmethod
    def zeros(facts: Facts) -> tuple[bytes, int]:
        """Body of the smallest request, of zeros, and the length of its first part."""
        tensors = [
            {
                "name": given[0],
                "shape": given[2],
                "datatype": TRITON_TYPES[given[1]],
                "parameters": {"binary_data_size": facts.bytes_of(given)},
            }
            for given in facts.inputs
        ]
        head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
        return head + bytes(sum(map(facts.bytes_of, facts.inputs))), len(head)

    def executions(self) -> int | None:
        """How often the model has run; None when the server does not say."""
        try:
            with OPENER.open(f"{self.url}/stats", timeout=5) as answer:
                return int(json.load(answer)["model_stats"][0]["execution_count"])
        except (*UNANSWERED, KeyError, IndexError):
            return None

    def is_answered(self) -> bool:
        """Whether a request gets an answer within the limit."""
        headers = {"Inference-Header-Content-Length": str(self.header)}
        where = f"{self.url}/infer"  # http, and our own
        request = urllib.request.Request(where, self.body, headers, method="POST")  # noqa: S310
        try:
            with OPENER.open(request, timeout=self.limit):
                return True
        except urllib.error.HTTPError:
            return True
        except UNANSWERED:
            return False

    def run(self) -> None:
        """Until the model is silent, or ``ended`` is set."""
        seen = self.executions()
        while not self.ended.wait(self.every):
            now = self.executions()
            # A busy model may need longer for what came before; then it has run meanwhile.
            if (now is None or now == seen) and not self.is_answered():
                before, now = now, self.executions()
                if now is None or now == before:
                    self.silent = True
                    return
            seen = self.executions()


def bound_memory(pid: int, room: int) -> None:
    """Let a server that is ready have only ``room`` bytes more; 0 sets no limit.

    This Triton has no limit for the size of a request, nor for what a compressed one becomes.
    """
    # One that has ended meanwhile needs no limit; whoever watches it says so.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        has = [line.split()[1] for line in status.splitlines() if line.startswith("VmData:")]
        if room and has:
            limit = int(has[0]) * 1024 + room
            resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))


def die_with_parent() -> None:
    """In the server's process: end when this program is killed, rather than stay behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


class Stop:
    """Handles SIGINT and SIGTERM: the server is told to finish what it has begun.

    It has ``patience`` seconds; asked again some seconds later it is ended at once.
    """

    def __init__(self, patience: float) -> None:
        self.patience, self.since = patience, math.inf
        self.process: subprocess.Popen[bytes] | None = None
        self.requested = self.again = False

    def is_over(self) -> bool:
        """Whether a server that was told to stop has had its time."""
        return self.requested and (self.again or time.monotonic() - self.since > self.patience)

    def __call__(self, *_: object) -> None:
        now = time.monotonic()
        self.again = self.requested and now - self.since > AGAIN_SECONDS
        self.requested, self.since = True, min(now, self.since)
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)


class Watch:
    """One run of the server."""

    def __init__(self, words: list[str], environ: dict[str, str], stop: Stop, probe: Probe) -> None:
        # A session of its own: Ctrl-C reaches the server once, through us.
        self.process = subprocess.Popen(
            words, env=environ, start_new_session=True, preexec_fn=die_with_parent
        )
        self.probe = probe
        self.seen: dict[int, str] = {}
        self.stopped: dict[int, float] = {}
        self.stop, stop.process = stop, self.process
        if stop.requested:
            stop()

    def kill(self) -> None:
        """End the server at once, and remove what it then leaves behind."""
        seen = self.seen or {pid: words_of(pid) for pid in stubs_of(self.process.pid)}
        memory = [word for pid in seen for word in seen[pid].split("\0") if "_shm_region_" in word]
        # The whole group: a backend that is just being started would otherwise stay behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for name in memory:
            # Where Triton puts it.
            pathlib.Path("/dev/shm", name.strip("/")).unlink(missing_ok=True)  # noqa: S108

    def trouble(self) -> str:
        """Why a server that was ready has to be started again; empty when it has not."""
        lost = [pid for pid in self.seen if STUB not in words_of(pid)]
        if lost:
            return f"the backend process {lost[0]} has died"
        now = time.monotonic()
        for pid in (self.process.pid, *self.seen):
            if not is_stopped(pid):
                self.stopped.pop(pid, None)
            elif now - self.stopped.setdefault(pid, now) > STOPPED_SECONDS:
                return f"the process {pid} was stopped"
        if self.probe.silent:
            return f"the model has not answered for {self.probe.limit:g} s"
        return ""

    def run(self, limit: float, room: int) -> int | None:
        """The exit status; None when the server is to be started again.

        It may take ``limit`` seconds to become ready, and ``room`` bytes of memory from then on.
        """
        try:
            return self.watch(limit, room)
        finally:
            self.probe.ended.set()
            if self.probe.is_alive():
                # Its question ends with the server. A process is best started by a lone thread.
                self.probe.join(self.probe.limit)

    def watch(self, limit: float, room: int) -> int | None:
        """As ``run``."""
        started, ready = time.monotonic(), False
        while self.process.poll() is None:
            time.sleep(POLL_SECONDS)
            if not ready and is_ready():
                ready = True
                print(f"the model answers at {own_url()}", file=sys.stderr, flush=True)
                bound_memory(self.process.pid, room)
                if self.probe.every:
                    self.probe.start()
            if ready and not self.seen:
                # From now on: before, Triton starts and ends backends to look at the model.
                self.seen = {pid: words_of(pid) for pid in stubs_of(self.process.pid)}
            if self.stop.is_over():
                print("the server did not stop and is ended", file=sys.stderr, flush=True)
                self.kill()
                return 1
            why = "" if self.stop.requested else self.trouble()
            if why and self.process.poll() is None:
                print(why, file=sys.stderr, flush=True)
                self.kill()
                return None
            if not ready and time.monotonic() - started > limit:
                print(f"the server is not ready after {limit:.0f} s", file=sys.stderr, flush=True)
                self.kill()
                return 1
        status = self.process.returncode
        # One that leaves by itself before it is ready has said why, and would say it again.
        if self.stop.requested or status == 0 or (status > 0 and not ready):
            return status
        print(f"tritonserver has ended with {status}", file=sys.stderr, flush=True)
        self.kill()
        return None
