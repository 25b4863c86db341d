"""Shared fixtures and the summary of what this machine could not check."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import reference, traces
from vim_deploy.plugin.ort_library import LIBRARY_VARIABLE
from vim_deploy.runtimes.onnxruntime.capability import NO_TELEMETRY

#: Folders whose files share what they compile: one process runs them all.
SHARED_BUILDS = ("tests/unit/plugins", "tests/unit/cpp")
#: What takes one process minutes. The tests of these stay together as well.
LONG_ALONE = (*SHARED_BUILDS, "tests/rules/test_page_commands.py")


def pytest_configure() -> None:
    """Prepare a process that runs tests.

    Processes started by tests take Ctrl-C even when this one was started in the background. With
    several workers each gets processors of its own: two runtimes that both start a thread for every
    processor, and wait for each other's by spinning, are many times slower than one.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        allowed = sorted(os.sched_getaffinity(0))
        mine = allowed[int(worker.removeprefix("gw")) :: count]
        if mine:
            os.sched_setaffinity(0, mine)
    # Processes that tests start keep what Python compiles for the next of hundreds.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # What a developer has built or installed changes no test; those of native ops name a library.
    os.environ[LIBRARY_VARIABLE] = ""
    # Tests import ONNX Runtime themselves, perhaps before vim_deploy does.
    os.environ.setdefault(*NO_TELEMETRY)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, what one of them has to run alone for long comes first, not last."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: not item.nodeid.startswith(LONG_ALONE))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass by what is there for the whole run.

    Millions of objects: PyTorch, SymPy, the tests. A test that looks for what is left of an engine
    collects garbage several times, at half a second each.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers, the tests of a file stay together: they share what they export.

    The groups of xdist 3.8 do nothing here: it renames tests by an attribute that pytest 9 no
    longer reads.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            place = nodeid.partition("::")[0]
            return next((folder for folder in SHARED_BUILDS if place.startswith(folder)), place)

    return Together(config, log)


@pytest.fixture(scope="session")
def folder_of_traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this run's traces, the same in every worker."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "traces"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module", autouse=True)
def shared_traces(folder_of_traces: Path) -> Iterator[None]:
    """A module that another test has traced is not traced and tidied again."""
    # What was collected has imported it, unless nothing of it traces; PyTorch takes seconds.
    module = sys.modules.get("vim_deploy.graph.export_graph")
    if module is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, kept in traces.replaced(module, folder_of_traces).items():
            patch.setattr(module, name, kept)
        yield


@pytest.fixture(scope="session")
def digits_checkpoint() -> Path:
    """The trained toy checkpoint in the official training layout."""
    return reference.load_case(reference.DIGITS).checkpoint


@pytest.fixture
def full_size_case() -> reference.ReferenceCase:
    """The full-size Vim-Ti case; skips where it is not on this machine."""
    return reference.load_case(reference.FULL_SIZE)
