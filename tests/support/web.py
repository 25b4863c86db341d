"""Packages for the browser in tests: their runtime, what they compute under node, a server.

onnxruntime-web is fetched once, into pytest's cache folder, as ``package`` itself does it. Where
that cannot be done, or node is not there, the tests skip and say why.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.packages import classifier
from vim_deploy.errors import VimDeployError
from vim_deploy.folders import user_cache
from vim_deploy.packaging.web_runtime import PACKAGE, VERSION, runtime_files
from vim_deploy.stages import package
from vim_deploy.stages.packaging import PackageOptions

Array = np.ndarray[Any, np.dtype[Any]]

NODE = "node"
#: From this version on it has what the page's modules ask for.
_OLDEST_NODE = 18
_DRIVER = Path(__file__).with_name("page_in_node.mjs")


def runtime_of(config: pytest.Config) -> Path:
    """A folder with the files of onnxruntime-web; skips where they are not to be had."""
    assert config.cache is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(config.cache.mkdir("onnxruntime-web")))
        try:
            runtime_files()
        except VimDeployError as error:
            if error.code != "VIM-301":
                raise
            pytest.skip(f"no {PACKAGE} here: {error.why}")
        return user_cache() / "web" / f"{PACKAGE}-{VERSION}"


def require_node() -> str:
    """The program; skips without one, or with one that is too old."""
    program = shutil.which(NODE)
    if program is None:
        pytest.skip("no node on the PATH")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    found = done.stdout.strip()
    if int(found.removeprefix("v").partition(".")[0]) < _OLDEST_NODE:
        pytest.skip(f"node {found} is older than {_OLDEST_NODE}")
    return program


def in_node(page: Path, jobs: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """The answers of ``page_in_node.mjs`` to jobs: {"answer": ...} or {"error": ...} each."""
    program = require_node()
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs), "utf-8")
    done = subprocess.run(
        [program, str(_DRIVER), str(page), str(path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(answers) == len(jobs)
    return answers


def answers(page: Path, jobs: Sequence[dict[str, Any]], folder: Path) -> list[Any]:
    """``in_node`` for jobs that have to succeed."""
    found = in_node(page, jobs, folder)
    assert not [item["error"] for item in found if "error" in item]
    return [item["answer"] for item in found]


def made_page(folder: Path, config: pytest.Config) -> Path:
    """A package of a small model, whose page is the same for every model."""
    require_node()
    options = PackageOptions(target="web", web_runtime=runtime_of(config))
    return package(classifier(folder / "toy.onnx"), folder / "page", options).folder


def infer_job(folder: Path, name: str, model: Path, image: Array) -> dict[str, Any]:
    """The job that runs ``image`` through ``model``."""
    (folder / f"{name}.in").write_bytes(np.ascontiguousarray(image).tobytes())
    return {
        "kind": "infer",
        "model": str(model),
        "input": str(folder / f"{name}.in"),
        "type": image.dtype.name,
        "dims": image.shape,
        "to": str(folder / f"{name}.out"),
    }


def outputs_of(job: dict[str, Any], answer: list[dict[str, Any]]) -> dict[str, Array]:
    """The arrays that a job has left."""
    found = {}
    for item in answer:
        raw = Path(f"{job['to']}.{item['name']}").read_bytes()
        found[item["name"]] = np.frombuffer(raw, item["type"]).reshape(item["dims"])
    return found


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Python's own static server, which notes what it is asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing, where the usual one writes a line."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A folder at an address of 127.0.0.1, and the paths that were asked for."""
    handler = type("Handler", (_Quiet,), {"asked": []})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", handler.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
