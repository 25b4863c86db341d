"""``benchmarks/consumers.py``: what it counts, how consumers end, and the page made of it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks import consumer_runs
from tests.support import reference
from tests.support.packages import classifier
from tests.support.source import REPOSITORY
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner

RESULTS = REPOSITORY / "benchmarks" / "results" / "cpu-2-core" / "consumers.json"
PAGE = REPOSITORY / "docs" / "runtimes.md"

#: Stands in for a consumer: what each file is called says how it ends.
FAKE = """
import json, os, signal, sys, time
consumer, folder, seconds, *names = sys.argv[1:]
if consumer == "broken":
    sys.exit("no such consumer")
print(json.dumps({"version": "1.0"}), flush=True)
for name in names:
    signal.alarm(int(seconds))
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "leave":
        os._exit(3)
    if name == "sleep":
        time.sleep(60)
    print(json.dumps({"name": name, "differences": [0.0], "largest": [1.0]}), flush=True)
"""


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    import consumers

    yield consumers
    sys.path.remove(str(REPOSITORY / "benchmarks"))


@pytest.fixture
def _fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(consumer_runs, "WORKER", tmp_path / "fake.py")


def ran(*differences: float, largest: float = 2.0) -> dict[str, Any]:
    return {"differences": list(differences), "largest": [largest] * len(differences)}


def row(**changes: Any) -> dict[str, Any]:
    values = {"name": "x", "shown": "Xylem", "version": "1.2", "exact": True, "commit": "abc"}
    return {**values, "installed_by": "pip install x==1.2", "date": "2026-11-29", **changes}


def test_the_page_holds_what_the_results_say(script: ModuleType) -> None:
    from consumer_table import MARKERS, table

    made = table(json.loads(RESULTS.read_text("utf-8"))["rows"])
    _, _, rest = PAGE.read_text("utf-8").partition(f"{MARKERS[0]}\n\n")
    found, _, _ = rest.partition(f"\n{MARKERS[1]}")
    assert found == made


def test_rows_are_what_can_be_run(script: ModuleType) -> None:
    from consumer_table import _TITLES
    from consumer_worker import CONSUMERS

    from tests.support.consumers import CASES, FORMS

    names = [item.name for item in script.ROWS]
    assert len(set(names)) == len(names)
    assert {item.consumer for item in script.ROWS} == set(CONSUMERS)
    locks = {path.stem for path in consumer_runs.LOCKS.glob("*.lock")}
    assert {item.lock for item in script.ROWS if item.lock} <= locks
    assert {form for item in script.ROWS for form in item.forms} == set(FORMS) == set(_TITLES)
    assert set(script.FEW) <= set(CASES)
    assert script.BOUND == reference.BOUND


def test_what_is_counted(script: ModuleType) -> None:
    many = {f"A{number:02d}": {"refused": "no Scan"} for number in range(6)}
    results = {
        "D01": ran(1e-6, 2e-5),
        "D02": ran(1e-4),
        "D03": ran(1e-6, 0.25),
        "D04": ran(math.nan, 0.0),
        "D05": {"refused": "no Pad"},
        "D06": {"refused": "outputs of shapes [[1]]"},
        **many,
    }
    found = script.summary(results, exact=True)
    assert found == {
        "cases": 12,
        "within": 2,
        "largest": 1e-4,
        "wrong": {"D03": 0.25, "D04": "nan", "D06": "outputs of shapes [[1]]"},
        "refused": {"no Pad": ["D05"], "no Scan": 6},
    }
    # Of what is not meant to be exact, the distance is told over the largest output.
    rough = script.summary({"D01": ran(0.1), "D02": ran(0.5)}, exact=False)
    assert (rough["within"], rough["largest"], rough["wrong"]) == (2, 0.25, {})


def test_the_table_warns_of_what_is_silently_wrong(script: ModuleType) -> None:
    from consumer_table import table

    shapes = {"refused": "outputs of shapes [[1]]"}
    scan = table([row(forms={"scan": script.summary({"A01_x": shapes}, True)})])
    assert "wrong in 1 of 1 cases**, outputs of shapes [[1]], without a word: A01." in scan
    results = {"A01_x": ran(0.5), "vim_digits": ran(1e-6), "A02_x": {"refused": "no | `Pad`"}}
    forms = {"functions": script.summary({"A01_x": {"refused": "no"}}, True)}
    forms["unrolled"] = script.summary(results, True)
    text = table([row(forms=forms)])
    assert text.startswith("- **Xylem 1.2, unrolled: wrong in 1 of 3 cases**")
    assert "up to 0.5 off, without a word: A01." in text
    cells = "refused (all 1) | - | 1 of 3 (1.0e-06), **1 wrong**, 1 refused | -"
    assert f"| Xylem 1.2 | {cells} |" in text
    assert "- Xylem 1.2, as exported: `no`; unrolled (A02): `no / 'Pad'`" in text
    assert "| `python benchmarks/consumers.py --only x` | `pip install x==1.2` |" in text


@pytest.mark.usefixtures("_fake")
def test_files_that_end_the_process_are_refused_and_the_others_run(tmp_path: Path) -> None:
    names = ["a", "crash", "b", "leave", "sleep", "c"]
    found = consumer_runs.run_folder("fake", tmp_path, None, names, seconds=1)
    assert found["version"] == "1.0"
    said = {name: item["refused"] for name, item in found["results"].items() if "refused" in item}
    assert said == {
        "crash": "the process ends by SIGSEGV",
        "leave": "it exits 3",
        "sleep": "no answer in 1 s",
    }
    assert found["results"].keys() == set(names)


@pytest.mark.usefixtures("_fake")
def test_a_consumer_that_does_not_start_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such consumer"):
        consumer_runs.run_folder("broken", tmp_path, None, ["a"])


def test_what_pip_does_not_find_is_told_apart(tmp_path: Path) -> None:
    nowhere = ["--no-index", "--find-links", str(tmp_path), "no-such-consumer==1"]
    with pytest.raises(consumer_runs.NotToBeHadError, match="no-such-consumer"):
        consumer_runs.install(nowhere, tmp_path / "place")
    assert not (tmp_path / "place").exists()


def test_a_file_is_run_and_compared(tmp_path: Path) -> None:
    path = classifier(tmp_path / "toy.onnx")
    runner = OrtRunner(path)
    image = np.random.default_rng(0).random((1, 1, 2, 3)).astype(np.float32)
    (wanted,) = runner.run(image).values()
    np.savez(tmp_path / "toy.npz", image=image, output_0=wanted)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    np.savez(tmp_path / "bad.npz", image=image, output_0=wanted)
    found = consumer_runs.run_folder("onnxruntime", tmp_path, None)
    assert found["results"]["toy"]["differences"] == [0.0]
    assert found["results"]["toy"]["largest"] == [pytest.approx(float(np.abs(wanted).max()))]
    assert found["results"]["bad"]["refused"]
    assert found["version"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("It failed", "ValueError: It failed"),
        ("in core.cpp:84:\nnot converted\n-- No rule for X", "ValueError: No rule for X"),
        (f"{'/path' * 30} error: Can't create layer X", "ValueError: Can't create layer X"),
        ("/tmp/x/a.mlir:3:4: error: failed to do it", "ValueError: error: failed to do it"),
        ("", "ValueError: "),
    ],
)
def test_the_words_that_say_why(script: ModuleType, said: str, words: str) -> None:
    from consumer_worker import why

    assert why(ValueError(said)) == words


def test_a_consumer_cannot_change_the_files(script: ModuleType, tmp_path: Path) -> None:
    from consumer_worker import answer

    image = np.zeros((1, 2), np.float32)
    (tmp_path / "a.onnx").write_bytes(b"given")
    np.savez(tmp_path / "a.npz", image=image, output_0=image)

    def careless(path: Path, image: Any) -> list[Any]:
        assert path.read_bytes() == b"given"
        path.write_bytes(b"changed")
        return [image]

    assert answer(careless, tmp_path / "a.onnx")["differences"] == [0.0]
    assert (tmp_path / "a.onnx").read_bytes() == b"given"
