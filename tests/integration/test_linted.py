"""Dockerfiles, workflow, templates and citation, as the tools of others see them.

The tools come from requirements/lint.lock, into pytest's cache folder: hadolint, and the schemas
that check-jsonschema carries.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.consumer_runs import NotToBeHadError, install
from tests.support.locks import alone
from tests.support.source import REPOSITORY

LOCK = REPOSITORY / "requirements" / "lint.lock"
DOCKERFILES = sorted((REPOSITORY / "containers").glob("*.Dockerfile"))
#: File -> name of its schema.
SCHEMAS = {
    ".github/workflows/ci.yml": "github-workflows",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
    ".github/ISSUE_TEMPLATE/export-failure.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/feature.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/wrong-output.yml": "github-issue-forms",
    "containers/compose.yaml": "compose-spec",
    "CITATION.cff": "citation-file-format",
}


@pytest.fixture(scope="module")
def tools(pytestconfig: pytest.Config) -> Path:
    """A folder with the tools; skips where they are not to be had."""
    assert pytestconfig.cache is not None
    base = pytestconfig.cache.mkdir("lint")
    key = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    place = base / key
    with alone(base / "lint.lock"):
        if not place.exists():
            words = ["--no-deps", "--no-compile", "--require-hashes", "-r", str(LOCK)]
            try:
                install(words, place)
            except NotToBeHadError as error:
                pytest.skip(f"the tools are not to be had here: {error}")
    return place


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(path: Path, tools: Path) -> None:
    words = [str(tools / "bin" / "hadolint"), "--no-color", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_hadolint_can_find_something(tools: Path, tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian\nRUN cd /tmp && apt-get install g++\n", encoding="utf-8")
    words = [str(tools / "bin" / "hadolint"), str(bad)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "DL3006" in done.stdout


def validator(tools: Path, schema: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What refuses a value that is not of the schema."""
    folder = tools / "check_jsonschema" / "builtin_schemas" / "vendor"
    if not folder.is_dir():
        pytest.skip("check-jsonschema, which has the schemas, is not for this Python")
    monkeypatch.syspath_prepend(str(tools))
    rules = json.loads((folder / f"{schema}.json").read_text(encoding="utf-8"))
    return import_module("fastjsonschema").compile(rules)


def read(text: str) -> Any:
    """YAML as these schemas know it: a key ``on`` is a word, and a date a text."""
    found = yaml.safe_load(text)
    if isinstance(found, dict) and True in found:
        found["on"] = found.pop(True)
    return json.loads(json.dumps(found, default=datetime.date.isoformat))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_file_is_of_its_schema(name: str, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validate = validator(tools, SCHEMAS[name], monkeypatch)
    validate(read((REPOSITORY / name).read_text(encoding="utf-8")))


def test_a_schema_can_refuse(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validate = validator(tools, "citation-file-format", monkeypatch)
    found = read((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    del found["authors"]
    with pytest.raises(import_module("fastjsonschema").JsonSchemaException):
        validate(found)
