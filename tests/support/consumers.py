"""Other runtimes in tests: files of reference cases in each form, and environments.

Files are made once a run, for all workers; ``python -m tests.support.consumers FOLDER`` makes those
that ``benchmarks/consumers.py`` runs. An environment is made once, in pytest's cache folder, from a
lock with hashes of ``requirements/consumers``; where that cannot be done, its tests skip and say
why.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.consumer_runs import LOCKS, NotToBeHadError, install, locked
from tests.support import reference, traces
from tests.support.dense_graphs import expected_outputs, traced
from tests.support.locks import alone
from tests.support.models import config_of
from vim_deploy.codec import encode
from vim_deploy.graph import export_graph
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

CASES = (*reference.cases(), *reference.dense_cases())
_THIRD = (*reference.cases()[::-3], *reference.dense_cases()[1::3])
#: What tests run: every third case, the trained digits and a detector's backbone among them; all
#: with VIM_TEST_ALL=1.
TRIED = tuple(name for name in CASES if os.environ.get("VIM_TEST_ALL") or name in _THIRD)
#: Pictures of the digits; of the other cases all that are stored.
DIGITS = 20
#: By name, the options of an export that make a form.
FORMS: dict[str, dict[str, Any]] = {
    "functions": {},
    "scan": {"standalone": True},
    "unrolled": {"standalone": True, "scan_body": "unrolled"},
    "unrolled-17": {"standalone": True, "scan_body": "unrolled", "opset": 17},
}

#: Locks that could not be installed, and why; pip, which waits for a network, is asked once.
_LACKING: dict[Path, str] = {}


def files_of(base: Path, form: str, cases: Sequence[str] = TRIED) -> Path:
    """The folder with NAME.onnx and NAME.npz of each case in this form."""
    folder = base / form
    with alone(base / f"{form}.lock"):
        if not folder.exists():
            part = base / f"{form}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            # From behind: the other worker traces the same cases for other tests, in their order,
            # and each takes what the other has traced.
            for name in reversed(cases):
                _write(part, name, FORMS[form])
            part.rename(folder)
    return folder


def _write(folder: Path, name: str, options: dict[str, Any]) -> None:
    case = reference.load_case(name)
    path = folder / f"{name}.onnx"
    image = case.image
    wanted: tuple[Any, ...]
    if name in reference.dense_cases():
        head, wanted = expected_outputs(case)
        onnx.save(traced(name[:3], head).finished(graph="fused", **options).model, path)
    else:
        image, wanted = image[:DIGITS], (case.output[:DIGITS],)
        request = ModelRequest(str(case.checkpoint), config=encode(config_of(case)))
        export(request, path, ExportOptions(check=False, **options))
    arrays = {f"output_{number}": value for number, value in enumerate(wanted)}
    np.savez(path.with_suffix(".npz"), image=image, **arrays)


def environment_of(config: pytest.Config, name: str) -> Path:
    """A folder for PYTHONPATH with what ``NAME.lock`` pins; skips where it cannot be made."""
    return environment_of_lock(config, LOCKS / f"{name}.lock")


def environment_of_lock(config: pytest.Config, lock: Path) -> Path:
    """The same of any lock."""
    assert config.cache is not None
    name = lock.stem
    tag = f"{sys.version_info[0]}.{sys.version_info[1]}"
    short = hashlib.sha256(lock.read_bytes() + tag.encode()).hexdigest()[:12]
    base = config.cache.mkdir("consumers")
    place = base / f"{name}-{short}"
    with alone(base / f"{name}.lock"):
        if not place.exists() and lock not in _LACKING:
            try:
                install(locked(lock), place)
            except NotToBeHadError as error:
                _LACKING[lock] = str(error)
    if lock in _LACKING:
        pytest.skip(f"{name} is not to be had here: {_LACKING[lock]}")
    return place


def main(base: Path) -> None:
    """Make every form in ``base``, each module traced once."""
    place = base / "traces"
    place.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, kept in traces.replaced(export_graph, place).items():
            patch.setattr(export_graph, name, kept)
        for form in FORMS:
            files_of(base, form, CASES)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
