"""Files of version 0.1.0 are read, and what is written today is what it wrote, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.bench import bench_report, measured
from tests.support.reference import REPOSITORY
from vim_deploy.artifact.metadata import read_export
from vim_deploy.bench.compare import read_baseline
from vim_deploy.codec import decode, encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.fusion.run import PassReport
from vim_deploy.graph.activations import Activations
from vim_deploy.graph.precision import PrecisionReport
from vim_deploy.packaging.manifest import MANIFEST_NAME, read_manifest, sealed
from vim_deploy.parity.comparison import Comparison
from vim_deploy.parity.metrics import Tolerance
from vim_deploy.parity.report import CaseResult, ParityReport
from vim_deploy.recipe.catalog import find_recipe
from vim_deploy.text import json_text

OLD = REPOSITORY / "tests" / "data" / "old"
EXPORTS = ("export-fp32.json", "export-fp16.json")

Record = TypeVar("Record")


def bad(why: str) -> VimDeployError:
    return VimDeployError("VIM-410", why)


def old(name: str) -> Any:
    return json.loads((OLD / name).read_text(encoding="utf-8"))


def same(record: object, value: object) -> bool:
    return json_text(encode(record)) == json_text(value)


def read(value: Any, kind: type[Record]) -> Record:
    """The record, which is written as it was."""
    record = decode(value, kind, bad)
    assert same(record, value)
    return record


@pytest.mark.parametrize("name", EXPORTS)
def test_what_an_exported_file_says(name: str) -> None:
    value = old(name)
    info = read_export(value["export"], bad)
    assert same(info, value["export"])
    assert (info.precision_policy is None) == (name == "export-fp32.json")
    assert info.model_config.embed_dim == 64


@pytest.mark.parametrize("name", EXPORTS)
def test_the_report_of_an_export(name: str) -> None:
    value = old(name)
    for entry in value["passes"]:
        read(entry, PassReport)
    read(value["activations"], Activations)
    if value["precision"] is not None:
        read(value["precision"], PrecisionReport)


@pytest.mark.parametrize("name", EXPORTS)
def test_a_parity_report(name: str) -> None:
    value = old(name)["parity"]
    results = tuple(
        CaseResult(
            case["case"], case["batch"], tuple(read(item, Comparison) for item in case["outputs"])
        )
        for case in value["results"]
    )
    report = ParityReport(
        value["artifact"],
        value["artifact_sha256"],
        value["reference"],
        value["candidate"],
        read(value["tolerance"], Tolerance),
        results,
    )
    assert same(report, value)


def test_a_manifest(tmp_path: Path) -> None:
    text = (OLD / "manifest.json").read_bytes()
    (tmp_path / MANIFEST_NAME).write_bytes(text)
    manifest = read_manifest(tmp_path)
    assert (json_text(sealed(manifest)) + "\n").encode() == text


def test_a_benchmark(tmp_path: Path) -> None:
    value = old("bench.json")
    found = read_baseline(OLD / "bench.json", value["machine"], value["settings"])
    assert [item.label for item in found.results] == ["d"]
    # Of memory only what is compared is read.
    (result,), (stored,) = encode(found)["results"], value["results"]
    memory = {"model_bytes": stored["memory"]["model_bytes"]}
    assert json_text(result) == json_text({**stored, "memory": memory})
    written = encode(bench_report(measured("d")))
    assert list(written) == list(value)
    assert list(written["results"][0]) == list(value["results"][0])
    assert list(written["results"][0]["latency"]) == list(value["results"][0]["latency"])
    assert written["method"].keys() == value["method"].keys()


@pytest.mark.parametrize("name", old("recipes.json"))
def test_a_recipe(name: str) -> None:
    assert same(find_recipe(name), old("recipes.json")[name])
