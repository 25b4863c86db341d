"""What a manifest says of its model: typed when it is read, whatever its hash says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.packages import classifier
from vim_deploy.cli.main import run
from vim_deploy.errors import VimDeployError
from vim_deploy.packaging.manifest import read_manifest, write_manifest
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.stages import check_package, package
from vim_deploy.stages.packaging import PackageOptions


def packed(folder: Path) -> Path:
    """A classifier in a package for the python backend."""
    serving = PackageOptions(ServingOptions(runtime="python"))
    return package(classifier(folder / "toy.onnx"), folder / "made", serving).folder


@pytest.mark.parametrize(
    "change",
    [
        {"artifact": {"path": "../../secret"}},
        {"plugin": "/usr/lib/evil.so"},
        {"golden": {}},
        {"input": None, "artifact": None},
        {"input": {"name": "image", "dtype": "float32", "shape": "1x2x3"}},
        {"outputs": [{"name": "logits", "dtype": 32, "shape": [4]}]},
        {"outputs": {"logits": 1}},
        {"max_batch": "32"},
        {"max_batch": True},
        {"runtime": "paddle"},
        {"runtime": None},
        {"name": ["toy"]},
        {"notes": "none"},
        {"plugin": 3},
        {"plugin": ""},
        {"artifact": {"path": "models/toy/1/model.onnx/.."}},
    ],
)
def test_a_manifest_that_names_other_files(tmp_path: Path, change: dict[str, Any]) -> None:
    made = packed(tmp_path)
    about = {**read_manifest(made).about, **change}
    write_manifest(made, "triton", about, tool_version="1", settings="00")
    with pytest.raises(VimDeployError, match="does not describe") as caught:
        check_package(made)
    assert caught.value.code == "VIM-427"


@pytest.mark.parametrize(
    "change",
    [
        {"atol": "1e-4"},
        {"atol": None, "rtol": None},
        {"atol": -1},
        {"rtol": [0]},
        {"relative_l2": -1e-9},
        {"top1_agreement": "all"},
        {"top1_agreement": 2},
        {"kl": {}},
        {"where_classes": "no"},
    ],
)
def test_a_tolerance_that_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    made = packed(tmp_path)
    about = dict(read_manifest(made).about)
    about["golden"] = {**about["golden"], "tolerance": {**about["golden"]["tolerance"], **change}}
    write_manifest(made, "triton", about, tool_version="1", settings="00")
    with pytest.raises(VimDeployError, match="does not describe") as caught:
        check_package(made)
    assert caught.value.code == "VIM-427"


def test_lists_of_all_kinds_are_shown(tmp_path: Path, capsys: Any) -> None:
    made = packed(tmp_path)
    about = {**read_manifest(made).about, "later": [{"a": 1}, 2, [3], {}, None]}
    write_manifest(made, "triton", about, tool_version="9", settings="00")
    assert run(["inspect", "-v", str(made)]) == 0
    said = capsys.readouterr().out
    assert all(key in said for key in ("about.later[0].a", "about.later[1]", "about.later[4]"))


def test_a_manifest_of_a_later_version(tmp_path: Path) -> None:
    made = packed(tmp_path)
    about = {**read_manifest(made).about, "later": {"more": [1]}}
    write_manifest(made, "triton", about, tool_version="9", settings="00")
    assert check_package(made).name == "toy"
