"""Parts of the build process that need no TensorRT-RTX."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.builds import job_for
from tests.support.source import REPOSITORY
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building import worker
from vim_deploy.runtimes.building.compiler import check_interface, peak_memory_bytes, write_plan
from vim_deploy.runtimes.building.worker import Events, WriteError


def test_a_full_disk_is_reported_with_its_number():
    with pytest.raises(WriteError) as caught:
        write_plan(b"x" * 100_000, Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC


def test_a_plan_is_written_whole(tmp_path):
    assert write_plan(b"abc", tmp_path / "p") == 3
    assert (tmp_path / "p").read_bytes() == b"abc"


def test_peak_memory_is_this_process_own():
    code = (
        "from vim_deploy.runtimes.building.compiler import peak_memory_bytes as peak\n"
        "before = peak(); block = bytearray(200 << 20); after = peak()\n"
        "print(before, after)"
    )
    # The parent's memory must not count: it is larger than what the child starts with.
    ballast = bytearray(os.urandom(1) * (300 << 20))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    before, after = map(int, done.stdout.split())
    assert len(ballast) > before
    assert after - before >= 190 << 20
    assert peak_memory_bytes() > len(ballast)


def test_events_of_two_threads_do_not_mix():
    stream = io.BytesIO()
    events = Events(stream)

    def send(name: str) -> None:
        for step in range(200):
            events.send("step", name=name * 50, step=step)

    threads = [threading.Thread(target=send, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 400
    assert all(json.loads(line)["event"] == "step" for line in lines)


class _Interface:
    """The part of a TensorRT network that ``check_interface`` reads."""

    def __init__(self, inputs: dict[str, str], outputs: dict[str, str]) -> None:
        self._sides = (self._tensors(inputs), self._tensors(outputs))
        self.num_inputs, self.num_outputs = len(inputs), len(outputs)

    @staticmethod
    def _tensors(types):
        class Tensor:
            def __init__(self, name, dtype):
                self.name, self.shape = name, (-1, 4)
                self.dtype = type("DataType", (), {"name": dtype})

        return [Tensor(name, dtype) for name, dtype in types.items()]

    def get_input(self, index):
        return self._sides[0][index]

    def get_output(self, index):
        return self._sides[1][index]


@pytest.mark.parametrize(
    ("inputs", "outputs", "side"),
    [
        ({"x": "FLOAT"}, {"y": "HALF"}, None),
        ({"x": "INT32"}, {"y": "HALF"}, "inputs"),
        ({"x": "FLOAT"}, {}, "outputs"),
        ({"x": "FLOAT"}, {"y": "HALF", "z": "HALF"}, "outputs"),
    ],
)
def test_interface(inputs, outputs, side):
    job = job_for(inputs={"x": "float32"}, outputs={"y": "float16"})
    network = _Interface(inputs, outputs)
    if side is None:
        check_interface(network, job)
    else:
        with pytest.raises(VimDeployError, match=f"change the {side} of") as caught:
            check_interface(network, job)
        assert caught.value.code == "VIM-601"


def test_a_worker_whose_parent_is_gone_ends_and_tidies_up(tmp_path, monkeypatch):
    """The end of standard input stops a build that never looks at it."""
    output = tmp_path / "half.plan"
    output.write_bytes(b"half of it")
    code = (
        "import sys, time\n"
        "from vim_deploy.runtimes.building import worker\n"
        "from vim_deploy.runtimes.tensorrt_rtx import worker as rtx_worker\n"
        "worker.CANCEL_GRACE_SECONDS = 0.1\n"
        "rtx_worker.build = lambda job, events, stop: time.sleep(60)\n"
        "sys.exit(rtx_worker.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=job_for(output=output).encoded(),
        capture_output=True,
        timeout=30,
        cwd=REPOSITORY,
    )
    assert done.returncode == worker.CANCELLED_STATUS
    assert not output.exists()
