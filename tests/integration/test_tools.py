"""Tools of others: what docs/tools.md says of each is so, and what it drops is brought back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest

from benchmarks import consumer_runs
from tests.support import consumers
from tests.support.source import REPOSITORY
from tests.support.tool_worker import TOOLS
from vim_deploy.artifact import Artifact
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.stages import describe_from, verify
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export

pytest.importorskip("torch")

WORKER = REPOSITORY / "tests" / "support" / "tool_worker.py"
#: Columns of the page's table, and the options that make their files.
FORMS: dict[str, dict[str, Any]] = {
    "as exported": {},
    "`--standalone`": {"standalone": True},
    "and unrolled": {"standalone": True, "scan_body": "unrolled"},
}
#: What this project installs itself, and the packages of each lock in requirements/consumers.
OWN = ("onnx", "onnxruntime", "onnxscript")
LOCKED = {
    "tools": ("onnxslim", "polygraphy", "onnx-graphsurgeon"),
    "tools-more": ("onnxsim", "onnxoptimizer", "onnxconverter-common"),
}
#: What is handed to whom most often; the rest needs minutes.
OFTEN = ("onnxslim", "polygraphy surgeon sanitize", "onnx_graphsurgeon", "onnx.utils.extract_model")
REST = tuple(name for name in TOOLS if name not in OFTEN)
#: What ``description`` takes from the graph, and the hash, which no changed file keeps.
FROM_GRAPH = ("opset", "precision", "io_precision", "standalone", "settings_hash")


def rows() -> dict[str, dict[str, str]]:
    """The page's table: by tool its cells by column."""
    text = (REPOSITORY / "docs" / "tools.md").read_text(encoding="utf-8")
    table = [line.split(" | ") for line in re.findall(r"^\| (.+) \|$", text, re.MULTILINE)]
    return {line[0].strip("`"): dict(zip(table[0], line, strict=True)) for line in table[1:]}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits model in each form, in the last one with VIM_TEST_ALL=1."""
    folder = tmp_path_factory.mktemp("tools")
    forms = list(FORMS.values()) if os.environ.get("VIM_TEST_ALL") else list(FORMS.values())[:2]
    for number, options in enumerate(forms):
        export("vim-digits", folder / f"{number}.onnx", ExportOptions(**options, check=False))
    return folder


def put_through(folder: Path, tools: Sequence[str], environment: Path | None) -> dict[str, Any]:
    """Every file through every tool; what the worker says."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(WORKER), str(folder), *tools],
        env=consumer_runs.variables(environment),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def place_of(path: Path) -> str:
    """Where the description is found, in the words of the table."""
    found = Artifact.open(path).description.place
    return {"metadata": "metadata", "doc_string": "text", None: "nowhere"}[found]


def outcome(path: Path, original: Path) -> str:
    """What ``verify`` says of the file, in the words of the table."""
    if not path.exists():
        return "fails"
    try:
        onnx.checker.check_model(onnx.load(path), full_check=False)
        report = verify(path, against=str(original))
    except (onnx.checker.ValidationError, VimDeployError):
        return "does not run"
    return "same" if report.passed else "other numbers"


def said_by(path: Path) -> dict[str, Any]:
    """What the file says of itself, but for what the graph says better."""
    fields = encode(Artifact.open(path).require_info())
    return {name: value for name, value in fields.items() if name not in FROM_GRAPH}


def check(tools: Sequence[str], environment: Path | None, folder: Path) -> None:
    """Each cell of the rows of these tools."""
    said = put_through(folder, tools, environment)
    table = rows()
    for name in tools:
        row = table[name]
        assert row["version"] == said[name]["version"], name
        for original in folder.glob("[0-9].onnx"):
            form = list(FORMS)[int(original.stem)]
            path = folder / name / original.name
            cell = (name, form, said[name]["failed"].get(original.stem))
            assert outcome(path, original) == row[form], cell
            if row[form] in ("fails", "does not run"):
                continue
            assert place_of(path) == row["description"], cell
            if row["description"] != "nowhere":
                assert said_by(path) == said_by(original), cell


def test_the_table_names_every_tool() -> None:
    assert list(rows()) == list(TOOLS)


@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
def test_tools_used_often(exported: Path, pytestconfig: pytest.Config) -> None:
    check(OFTEN, consumers.environment_of(pytestconfig, "tools"), exported)
    changed = exported / "onnx.utils.extract_model" / "0.onnx"
    made = describe_from(changed, exported / "0.onnx", exported / "described.onnx")
    assert not made.changed
    assert verify(made.path, against="vim-digits").passed


def test_functions_that_were_inlined_are_not_described(exported: Path, tmp_path: Path) -> None:
    """Though nothing in a standalone file tells that there were any."""
    made = describe_from(exported / "1.onnx", exported / "0.onnx", tmp_path / "described.onnx")
    assert made.changed == ("standalone",)
    assert made.info.standalone


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
@pytest.mark.parametrize("environment", [*LOCKED, None], ids=str)
def test_the_other_tools(
    environment: str | None, exported: Path, pytestconfig: pytest.Config
) -> None:
    packages = LOCKED[environment] if environment else OWN
    place = consumers.environment_of(pytestconfig, environment) if environment else None
    check([name for name in REST if TOOLS[name][0] in packages], place, exported)
