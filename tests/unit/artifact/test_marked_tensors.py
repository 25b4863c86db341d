"""Inner tensors in an engine's record, and the marks that a build sets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.builds import job_for, request_for
from tests.support.engines import record_of, write_engine, write_record
from tests.support.fake_tensorrt import VERSIONS, personality
from vim_deploy.artifact.marked_tensors import DEBUG, OUTPUT, MarkedTensor, refuse_diagnosis
from vim_deploy.artifact.record import read_record, record_path
from vim_deploy.errors import VimDeployError
from vim_deploy.places import place
from vim_deploy.runtimes.building.compiler import mark_debug_tensors
from vim_deploy.runtimes.building.request import BuildJob, TrtOptions
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt_rtx.build import BUILDER

PACKED = MarkedTensor(
    "block_00/x", 1, (4, 5, 0, 1), block=0, part="x_proj", direction="bwd", how=DEBUG
)
SCAN = MarkedTensor("block_00/y_fwd", factor=0.5, block=0, part="scan", direction="fwd", how=OUTPUT)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """An engine whose record has two inner tensors."""
    plan = write_engine(tmp_path)
    write_record(plan, record_of(plan, inner_tensors=(PACKED, SCAN)))
    return plan


def test_the_record_keeps_them(recorded: Path) -> None:
    record = read_record(recorded)
    assert record is not None
    assert record.inner_tensors == (PACKED, SCAN)
    assert record.inner_tensors[0].place == place(0, "x_proj", "bwd")
    assert record.inner_tensors[0].columns == (4, 5, 0, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"how": "somehow"},
        {"part": "xproj"},
        {"name": 3},
        {"columns": ["a"]},
        {"columns": []},
        {"columns": [0, -1]},
        {"index": -1},
        {"index": 0.5},
        {"factor": 0},
        {"block": None},
    ],
)
def test_a_record_with_others_is_none(recorded: Path, change: dict[str, Any]) -> None:
    path = record_path(recorded)
    value = json.loads(path.read_text())
    value["inner_tensors"][0] |= change
    path.write_text(json.dumps(value))
    with pytest.raises(VimDeployError, match="VIM-413"):
        read_record(recorded)


def test_a_record_from_before_has_none(recorded: Path) -> None:
    path = record_path(recorded)
    value = json.loads(path.read_text())
    del value["inner_tensors"]
    path.write_text(json.dumps(value))
    record = read_record(recorded)
    assert record is not None
    assert record.inner_tensors == ()


def test_only_engines_with_them_are_refused() -> None:
    refuse_diagnosis((), Path("a.plan"), "measured")
    twice = (PACKED, dataclasses.replace(PACKED, direction="fwd", index=0), SCAN)
    with pytest.raises(VimDeployError, match="VIM-435") as caught:
        refuse_diagnosis(twice, Path("a.plan"), "measured")
    assert "2 inner tensors" in caught.value.why


@pytest.mark.parametrize("version", VERSIONS)
def test_which_releases_have_debug_tensors(version: str) -> None:
    module = personality(version)
    found = trt.capabilities_of(module).debug_tensors
    assert found == (version != "8.6")
    assert found == hasattr(module.INetworkDefinition, "mark_debug")


def network(names: list[str]) -> Any:
    """A network of the fake with one layer, whose outputs are called so."""
    module = personality("10.14")
    made = module.INetworkDefinition(True)
    outputs = [module.ITensor(name, module.DataType.FLOAT, (1,)) for name in names]
    made._layers.append(module.ILayer("layer", module.LayerType.ELEMENTWISE, [], outputs))
    return made


def job(debug_tensors: list[str]) -> BuildJob:
    """A job that marks these."""
    return job_for(debug_tensors=tuple(debug_tensors))


def test_marks() -> None:
    made = network(["a", "b", "c"])
    mark_debug_tensors(made, job(["c", "a"]))
    assert [tensor.name for tensor in made._debug] == ["c", "a"]


def test_a_tensor_that_the_parser_did_not_make() -> None:
    with pytest.raises(VimDeployError) as caught:
        mark_debug_tensors(network(["a"]), job(["a", "block_00/norm"]))
    assert caught.value.code == "VIM-434"
    assert "block_00/norm" in caught.value.why


def test_for_tensorrt_rtx_as_well() -> None:
    options = TrtOptions(inner_tensors=True, plugin="none")
    BUILDER.refuse(request_for(Path("m.onnx"), options=options))
    options = TrtOptions(inner_tensors=True, refit=True)
    with pytest.raises(VimDeployError, match="VIM-203"):
        BUILDER.refuse(request_for(Path("m.onnx"), options=options))
