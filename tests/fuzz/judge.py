"""Runs inputs of a target in processes of their own and says what is wrong with what happens.

A refusal with a coded error is right, and so is success. A finding is anything else: a defect, an
escape that reaches the terminal, a number that is none, too much time or memory, a dead process.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from tests.fuzz.cases import Files, Target, mutated

CPU_SECONDS = 10
WALL_SECONDS = 60
_ADDRESS_BYTES = 8 << 30
_PRELOADED = ["numpy", "onnx", "onnxruntime", "torch", "vim_deploy.cli.main"]
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_NAN = re.compile(r"(?<![\w.-])-?nan(?![\w.-])")  # not "NaN", the heading of a column


@dataclass(frozen=True)
class Finding:
    """What went wrong with one input: ``kind`` groups, ``detail`` is for a person."""

    target: str
    number: int
    kind: str
    detail: str
    command: str


def _memory(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) << 10
    return 0


@contextlib.contextmanager
def _captured(folder: Path) -> Iterator[None]:
    """File descriptors 1 and 2 to the files ``out`` and ``err`` of a folder."""
    kept = [os.dup(1), os.dup(2)]
    try:
        for descriptor, name in ((1, "out"), (2, "err")):
            with open(folder / name, "wb") as file:
                os.dup2(file.fileno(), descriptor)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        for descriptor, old in zip((1, 2), kept, strict=True):
            os.dup2(old, descriptor)
            os.close(old)


def _innermost(error: BaseException) -> str:
    """The last frame of an exception that is ours, as file:line."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/vim_deploy/" in frame.filename] or frames[-1:]
    return f"{ours[-1].filename.partition('/vim_deploy/')[2]}:{ours[-1].lineno}" if ours else "?"


def _run(arguments: tuple[Any, ...], folder: Path) -> int:
    """One command of a target: a command line, or a function and the path that it reads."""
    from vim_deploy.cli.main import run
    from vim_deploy.errors import VimDeployError

    if callable(arguments[0]):
        try:
            arguments[0](*(Path(str(item).format(folder)) for item in arguments[1:]))
        except VimDeployError as error:
            return int(error.exit_code)
        return 0
    return run([item.replace("{}", str(folder)) for item in arguments])


def _last_of(text: str) -> str:
    """The exception of a printed stack trace with its innermost line of ours."""
    places = re.findall(r'vim_deploy/([\w/]+\.py)", line (\d+)', text)
    errors = re.findall(r"^([A-Za-z_][\w.]+)(?::|$)", text, re.MULTILINE)
    place = ":".join(places[-1]) if places else "?"
    return f"{errors[-1] if errors else 'unknown'} at {place}"


def _judged(
    arguments: tuple[Any, ...], folder: Path, size: int, free: int
) -> tuple[int, list[list[str]]]:
    """Exit code and (kind, detail) of everything wrong with one command."""
    wrong: list[list[str]] = []
    logs = Path(tempfile.mkdtemp(prefix="fuzz-log-"))
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, started = _memory("VmRSS"), time.process_time()
    status = 1
    with _captured(logs):
        try:
            status = _run(arguments, folder)
        except BaseException as error:
            text = "".join(traceback.format_exception(error))
            wrong.append([f"raised {type(error).__name__} at {_innermost(error)}", text[-3000:]])
    spent, grown = time.process_time() - started, _memory("VmHWM") - before
    out, err = ((logs / name).read_bytes().decode("utf-8", "replace") for name in ("out", "err"))
    for name in ("out", "err"):
        (logs / name).unlink()
    logs.rmdir()
    if not wrong and (status == 1 or "Traceback (most" in err or "this is a defect" in out + err):
        wrong.append([f"defect: exit {status}, {_last_of(err)}", err[-3000:]])
    printed = err if "--json" in arguments else out + err
    if found := _CONTROL.search(printed):
        place = printed[max(found.start() - 80, 0) : found.end() + 80]
        wrong.append([f"control character {found.group()!r} printed", ascii(place)])
    if status == 0 and arguments[0] in ("run", "verify") and (nan := _NAN.search(out)):
        wrong.append(["nan with exit 0", ascii(out[max(nan.start() - 200, 0) : nan.end() + 80])])
    if spent > CPU_SECONDS:
        wrong.append([f"more than {CPU_SECONDS} s of CPU time", f"{spent:.1f} s"])
    if grown > 4 * size + free:
        wrong.append(["memory", f"{grown >> 20} MiB for an input of {size} bytes"])
    return status, wrong


def write(files: Files, folder: Path) -> None:
    """The files of one input."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _shown(arguments: tuple[Any, ...]) -> str:
    return " ".join(getattr(item, "__name__", str(item)) for item in arguments)


def _work(pipe: Any, name: str, seed: int) -> None:
    """A worker: takes numbers, answers ("start", command) and at last ("done", findings)."""
    limit = _memory("VmSize") + _ADDRESS_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    streams = importlib.import_module("vim_deploy.cli.streams")
    streams.prepare()
    target = importlib.import_module("tests.fuzz.targets").TARGETS[name]
    seeds = target.seeds()
    pipe.send(("ready", len(seeds)))
    while (number := pipe.recv()) is not None:
        files = seeds[-1 - number] if number < 0 else mutated(target, seeds, seed, number)
        found = []
        for arguments in target.commands_for(number):
            with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
                folder = Path(made)
                write(files, folder)
                os.chdir(folder)
                pipe.send(("start", _shown(arguments)))
                size = sum(map(len, files.values()))
                status, wrong = _judged(arguments, folder, size, target.free_bytes)
                os.chdir("/")
            if number < 0 and status not in target.valid_exits:
                wrong.append([f"the valid input is refused with exit {status}", ""])
            found += [Finding(name, number, *each, _shown(arguments)) for each in wrong]
        pipe.send(("done", found))


class _Worker:
    """A process that judges one input after another; replaced when it dies or hangs."""

    def __init__(self, target: Target, seed: int) -> None:
        self.target, self.seed = target, seed
        self.process: Any = None

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, self.target.name, self.seed)
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        if not self.pipe.poll(4 * WALL_SECONDS):
            raise TimeoutError(f"the seeds of {self.target.name} are not made in time")
        self.pipe.recv()

    def judge(self, number: int) -> list[Finding]:
        if self.process is None:
            self._start()
        command = "?"
        self.pipe.send(number)
        while True:
            hangs = not self.pipe.poll(WALL_SECONDS)
            try:
                word, value = ("hangs", None) if hangs else self.pipe.recv()
            except (EOFError, ConnectionError):
                word, value = "died", None
            if word == "done":
                return value
            if word == "start":
                command = value
                continue
            how = self._end()
            kind = f"no answer in {WALL_SECONDS} s" if hangs else f"the process died: {how}"
            return [Finding(self.target.name, number, kind, "", command)]

    def _end(self) -> str:
        self.process.join(5)
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.process = None
        self.pipe.close()
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit {code}"

    def close(self) -> None:
        if self.process is not None:
            self.pipe.send(None)
            self._end()


def judge(
    target: Target, numbers: Iterable[int], *, seed: int = 0, jobs: int = 1, until: float = 1e18
) -> tuple[list[Finding], int]:
    """Findings of these inputs, and how many ran until ``until`` (of ``time.monotonic``).

    The number -1 is the first valid input, -2 the second.
    """
    queue: Queue[int] = Queue()
    for number in numbers:
        queue.put(number)
    found: list[Finding] = []
    done: list[int] = []
    failed: list[BaseException] = []

    def drive() -> None:
        worker = _Worker(target, seed)
        try:
            while time.monotonic() < until:
                number = queue.get_nowait()
                found.extend(worker.judge(number))
                done.append(number)
        except Empty:
            pass
        except BaseException as error:
            failed.append(error)
        finally:
            worker.close()

    threads = [threading.Thread(target=drive) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return sorted(found, key=lambda each: (each.number, each.kind)), len(done)
