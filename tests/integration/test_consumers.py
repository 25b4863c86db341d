"""Standalone files in runtimes of others: the cases' official outputs, one process a consumer.

By default every third case; all with VIM_TEST_ALL=1 (``consumers.TRIED``).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.consumer_runs import run_folder
from tests.support import consumers, reference

#: Consumer of the worker, environment (None is that of the tests), scan body.
OURS = [
    ("onnxruntime", "onnxruntime-1.18.1", "scan"),
    ("onnxruntime", None, "scan"),
    ("tract", "tract", "scan"),
]
#: Minutes of compiling or converting, and releases between the oldest and the newest: with
#: VIM_TEST_ALL=1.
SLOW = [
    ("mnn", "mnn", "unrolled"),
    ("onnxruntime", "onnxruntime-1.20.1", "scan"),
    ("onnxruntime", "onnxruntime-1.21.1", "scan"),
]
#: What is run in IREE, which compiles for minutes: the forms that are written otherwise for it or
#: for others (``graph.common_forms``), and a trained model.
IN_IREE = ("A21c_flip_always_rope", "D04_seg_patch8", reference.DIGITS)

Results = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def results(folder_of_traces: Path, pytestconfig: pytest.Config) -> Results:
    """What a consumer says of all files, asked once."""

    @functools.cache
    def said(consumer: str, environment: str | None, body: Any) -> dict[str, Any]:
        place = consumers.environment_of(pytestconfig, environment) if environment else None
        folder = consumers.files_of(folder_of_traces.parent, body)
        return run_folder(consumer, folder, place)

    return said


@pytest.mark.parametrize(("consumer", "environment", "body"), OURS, ids=str)
def test_official_outputs(
    consumer: str, environment: str | None, body: str, results: Results
) -> None:
    said = results(consumer, environment, body)
    if environment and "-" in environment:
        assert said["version"] == environment.partition("-")[2]
    assert said["results"].keys() == set(consumers.TRIED)
    require_close(said)


def require_close(said: dict[str, Any]) -> None:
    """Every file ran, and each output is within the bound."""
    for name, result in said["results"].items():
        assert "refused" not in result, (name, result)
        assert result["differences"], name
        # NaN is within no bound.
        assert all(item <= reference.BOUND for item in result["differences"]), (name, result)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
@pytest.mark.parametrize(("consumer", "environment", "body"), SLOW, ids=str)
def test_official_outputs_of_the_rest(
    consumer: str, environment: str, body: str, results: Results
) -> None:
    test_official_outputs(consumer, environment, body, results)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
def test_forms_that_iree_computed_wrongly(
    folder_of_traces: Path, pytestconfig: pytest.Config
) -> None:
    place = consumers.environment_of(pytestconfig, "iree")
    folder = consumers.files_of(folder_of_traces.parent, "unrolled")
    said = run_folder("iree", folder, place, IN_IREE)
    assert said["results"].keys() == set(IN_IREE)
    require_close(said)
