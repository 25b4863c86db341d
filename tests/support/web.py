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

import pytest

from vim_deploy.errors import VimDeployError
from vim_deploy.folders import user_cache
from vim_deploy.packaging.web_runtime import PACKAGE, VERSION, runtime_files

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


def in_node(package: Path, jobs: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """The answers of ``page_in_node.mjs`` to jobs: {"answer": ...} or {"error": ...} each."""
    program = require_node()
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs), "utf-8")
    done = subprocess.run(
        [program, str(_DRIVER), str(package), str(path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(answers) == len(jobs)
    return answers


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
