"""Other runtimes in tests: standalone files of every reference case, and environments to run them.

Files are made once a run, for all workers. An environment is made once, in pytest's cache folder,
from a lock with hashes of ``requirements/consumers``; where that cannot be done, its tests skip and
say why. ``benchmarks/consumer_worker.py`` runs a folder of files in one process.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support import reference
from tests.support.dense_graphs import expected_outputs, traced
from tests.support.locks import alone
from tests.support.models import config_of
from vim_deploy.codec import encode
from vim_deploy.graph.standalone import standalone
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.specs import ScanBody
from vim_deploy.stages.exporting import ExportOptions, export

WORKER = reference.REPOSITORY / "benchmarks" / "consumer_worker.py"
LOCKS = reference.REPOSITORY / "requirements" / "consumers"
CASES = (*reference.cases(), *reference.dense_cases())
#: Pictures of the digits; of the other cases all that are stored.
DIGITS = 20
#: What pip says when it gets no wheel here: no such release for this Python, or no index.
_NO_WHEEL = ("No matching distribution", "Could not find a version", "Temporary failure", "Errno")


def files_of(base: Path, body: ScanBody) -> Path:
    """The folder with NAME.onnx and NAME.npz of every case, standalone with this scan body."""
    folder = base / f"standalone-{body}"
    with alone(base / f"standalone-{body}.lock"):
        if not folder.exists():
            part = base / f"standalone-{body}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            # From behind: the other worker traces the same cases for other tests, in their order,
            # and each takes what the other has traced.
            for name in reversed(CASES):
                _write(part, name, body)
            part.rename(folder)
    return folder


def _write(folder: Path, name: str, body: ScanBody) -> None:
    case = reference.load_case(name)
    path = folder / f"{name}.onnx"
    image = case.image
    wanted: tuple[Any, ...]
    if name in reference.dense_cases():
        head, wanted = expected_outputs(case)
        graph = traced(name[:3], head).finished(graph="fused", scan_body=body)
        onnx.save(standalone(graph.model), path)
    else:
        image, wanted = image[:DIGITS], (case.output[:DIGITS],)
        request = ModelRequest(str(case.checkpoint), config=encode(config_of(case)))
        export(request, path, ExportOptions(standalone=True, scan_body=body, check=False))
    arrays = {f"output_{number}": value for number, value in enumerate(wanted)}
    np.savez(path.with_suffix(".npz"), image=image, **arrays)


def environment_of(config: pytest.Config, name: str) -> Path:
    """A folder for PYTHONPATH with what ``NAME.lock`` pins; skips where it cannot be made."""
    assert config.cache is not None
    lock = LOCKS / f"{name}.lock"
    tag = f"{sys.version_info[0]}.{sys.version_info[1]}"
    short = hashlib.sha256(lock.read_bytes() + tag.encode()).hexdigest()[:12]
    base = config.cache.mkdir("consumers")
    place = base / f"{name}-{short}"
    with alone(base / f"{name}.lock"):
        if not place.exists():
            _install(lock, place)
    return place


def _install(lock: Path, place: Path) -> None:
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    words += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--target", str(part)]
    done = subprocess.run(
        [*words, "-r", str(lock)], capture_output=True, text=True, timeout=240, check=False
    )
    said = done.stderr.strip()[-500:]
    if done.returncode and any(text in said for text in _NO_WHEEL):
        pytest.skip(f"{lock.stem} is not to be had here: {said}")
    assert done.returncode == 0, said
    part.rename(place)


def run_folder(consumer: str, folder: Path, environment: Path | None) -> dict[str, Any]:
    """What the worker says of every file in the folder, with the consumer of the environment."""
    variables = {**os.environ, "PYTHONPATH": str(environment) if environment else ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(WORKER), consumer, str(folder)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found
