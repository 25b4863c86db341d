"""Changed inputs for the C++ library's readers, under the sanitizers: the same ones every time.

``tests/fuzz/cpp/run.sh`` searches on with libFuzzer, for as long as it is told.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import cpp_builds
from tests.support.source import REPOSITORY

pytestmark = pytest.mark.slow

FUZZ = REPOSITORY / "tests" / "fuzz" / "cpp"
TARGETS = ("json", "record", "netpbm", "picture", "prepare", "classes", "found", "text", "onnx")
#: Of each target; ``make fuzz`` goes on for as long as it is told.
MUTATIONS = 2000 if os.environ.get("VIM_TEST_ALL") else 1000


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    subprocess.run([sys.executable, str(FUZZ / "seeds.py"), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("target", TARGETS)
def test_changed_inputs(
    target: str, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = cpp_builds.need_fuzz_driver()
    monkeypatch.chdir(tmp_path)  # where the driver leaves the input that it died of
    files = sorted((seeds / target).iterdir())
    done = cpp_builds.run(driver, target, str(MUTATIONS), "1", *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{target}: {MUTATIONS + len(files)} inputs\n"


def test_every_target_has_seeds_and_is_in_the_script(seeds: Path) -> None:
    assert {path.name for path in seeds.iterdir()} == set(TARGETS)
    assert f"targets=${{*:-{' '.join(TARGETS)}}}" in (FUZZ / "run.sh").read_text("utf-8")


def test_seeds_are_accepted(seeds: Path) -> None:
    """Seeds that a reader refuses at once would fuzz its first lines only."""
    units = cpp_builds.need_program("units")
    for name, mode in (("json", "json"), ("record", "records")):
        documents = [path.read_bytes() for path in sorted((seeds / name).iterdir())]
        stdin = b"".join(b"%d\n%s" % (len(document), document) for document in documents)
        lines = cpp_builds.run(units, mode, stdin=stdin).stdout.splitlines()
        assert all(line.startswith("ok") for line in lines), lines


@pytest.mark.parametrize("words", [[], ["x"], ["-1"]])
def test_script_says_how_it_is_used(words: list[str]) -> None:
    command = ["sh", str(FUZZ / "run.sh"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
