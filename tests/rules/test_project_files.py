"""Files for the place where the project lives: workflow, templates, citation, hooks."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.source import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
TEMPLATES = sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict[Any, Any]:
    """A file of YAML."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    """Every step of every job."""
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_is_a_workflow_and_templates() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml"]
    assert len(TEMPLATES) == 4


@each_workflow
def test_a_workflow_may_read_and_no_more(path: Path) -> None:
    found = read(path)
    assert found["permissions"] == {"contents": "read"}
    for name, job in found["jobs"].items():
        assert "permissions" not in job, name
        assert job["timeout-minutes"] > 0, name
        # A name that moves would run another system from one day to the next.
        assert not job["runs-on"].endswith("latest"), name
    for step in steps(found):
        if "actions/checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


@each_workflow
def test_actions_are_named_by_release_or_commit(path: Path) -> None:
    used = [step["uses"] for step in steps(read(path)) if "uses" in step]
    assert used
    for name in used:
        assert re.fullmatch(r"actions/[\w-]+@(v\d+|[0-9a-f]{40})", name), name


@each_workflow
def test_a_workflow_runs_what_every_machine_can(path: Path) -> None:
    """.ci/run and targets of the Makefile: nothing is built in a way that only the place knows."""
    lines = [step["run"] for step in steps(read(path)) if "run" in step]
    assert ".ci/run" in lines
    targets = [target for line in lines for target in re.findall(r"^make ([\w-]+)$", line)]
    assert {"docs", "wheels"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_every_python_of_the_project_is_tried() -> None:
    (path,) = WORKFLOWS
    tried = read(path)["jobs"]["test"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: 3."
    named = [item.rpartition(" ")[2] for item in PROJECT["classifiers"] if item.startswith(prefix)]
    assert named
    assert set(named) <= set(tried)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_asks_for_what_is_needed(path: Path) -> None:
    found = read(path)
    if path.stem == "config":
        return
    assert {"name", "description", "body"} <= set(found)
    fields = [item for item in found["body"] if item["type"] != "markdown"]
    identifiers = [item["id"] for item in fields]
    assert len(set(identifiers)) == len(identifiers)
    assert all(item["attributes"]["label"] for item in fields)
    assert any(item.get("validations", {}).get("required") for item in fields)
    assert "vim-deploy doctor --json" in [item["attributes"]["label"] for item in fields]


def test_hooks_are_the_checks_of_the_makefile() -> None:
    """In the environment of the lock, so no version stands a second time."""
    found = read(REPOSITORY / ".pre-commit-config.yaml")
    assert [repository["repo"] for repository in found["repos"]] == ["local"]
    hooks = {hook["id"]: hook["entry"] for hook in found["repos"][0]["hooks"]}
    for hook, entry in hooks.items():
        program, _, rest = entry.partition(" -m ")
        assert program == ".venv/bin/python", hook
        command = rest.replace(" --force-exclude", "")
        assert re.search(rf"^\t\$\(BIN\)/python -m {command}( \.)?$", MAKEFILE, re.MULTILINE), entry
    assert set(hooks) == {"ruff-check", "ruff-format", "mypy"}


def test_the_citation_says_what_the_project_says() -> None:
    found = read(REPOSITORY / "CITATION.cff")
    assert found["cff-version"] == "1.2.0"
    assert str(found["version"]) == PROJECT["version"]
    assert found["title"] == PROJECT["name"]
    assert found["license"] == PROJECT["license"]
    named = {author["name"] for author in found["authors"]}
    if "authors" in PROJECT:
        assert named == {author["name"] for author in PROJECT["authors"]}
    urls = {name.lower(): url for name, url in PROJECT.get("urls", {}).items()}
    for key, name in (("repository-code", "repository"), ("url", "documentation")):
        if name in urls:
            assert found[key].rstrip("/") == urls[name].rstrip("/")
    (paper,) = found["references"]
    assert "2401.09417" in paper["url"]
