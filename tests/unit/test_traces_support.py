"""The traces that tests share: a module is itself, and every other one is another."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest
import torch

from tests.support import traces
from tests.support.models import perturbed, tiny_config
from tests.support.traces import key, shared, shared_step
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.graph.trace import trace
from vim_deploy.heads import parse_head
from vim_deploy.model.deployed import DeployedModel
from vim_deploy.specs import ImagePreparation


def module(
    preprocess: str = "none", head: str = "logits", mean: float = 0.5, **changes: object
) -> DeployedModel:
    config = tiny_config(**changes)
    image = ImagePreparation(*config.image_hw, 3, (mean,) * 3, (0.25,) * 3)
    model = perturbed(VisionMamba(config))
    return DeployedModel(model, image, preprocess, parse_head(head, config))


def other_weight(given: DeployedModel) -> None:
    with torch.no_grad():
        next(iter(given.parameters())).view(-1)[0] += 1e-6


def other_code(given: DeployedModel) -> None:
    class Changed(type(given.model.layers[0])):  # type: ignore[misc]
        def forward(self, *arguments: object) -> object:
            return super().forward(*arguments)

    given.model.layers[0].__class__ = Changed


def other_setting(given: DeployedModel) -> None:
    given.model.layers[1].tests_own_setting = 3


def other_head(given: DeployedModel) -> None:
    class Changed(type(given.head)):  # type: ignore[misc]
        def forward(self, network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(network, image)

    given.head = Changed(**dataclasses.asdict(given.head))


def test_the_same_module_has_the_same_key() -> None:
    assert key(module(), None) == key(module(), None)


@pytest.mark.parametrize("change", [other_weight, other_code, other_setting, other_head])
def test_a_changed_module_has_another(change: Callable[[DeployedModel], None]) -> None:
    changed = module()
    change(changed)
    assert key(changed, None) != key(module(), None)


def test_other_settings_have_other_keys() -> None:
    keys = {
        key(module(), None),
        key(module(), 2),
        key(module("normalize"), None),
        key(module("normalize", mean=0.25), None),
        key(module("uint8"), None),
        key(module(head="softmax"), None),
        key(module(head="topk:2"), None),
        key(module(head="topk:3"), None),
        key(module(if_divide_out=False), None),
    }
    assert len(keys) == 9


def test_what_is_shared_is_the_trace(tmp_path: Path) -> None:
    made = 0

    def counted(given: DeployedModel, *, batch: int | None) -> onnx.ModelProto:
        nonlocal made
        made += 1
        return trace(given, batch=batch)

    traced = shared(counted, tmp_path)
    first = traced(module(depth=1), batch=None)
    assert traced(module(depth=1), batch=None) == first
    assert made == 1
    # A caller may change what it is given.
    traced(module(depth=1), batch=None).graph.ClearField("node")
    assert traced(module(depth=1), batch=None) == first
    assert len(list(tmp_path.glob("*.onnx"))) == 1
    traced(module(depth=1, if_divide_out=False), batch=None)
    assert made == 2


def test_what_has_no_effect_makes_no_other_trace() -> None:
    modules = [
        module(depth=1, residual_in_fp32=value, fused_add_norm=value) for value in (False, True)
    ]
    first, second = (trace(given, batch=None) for given in modules)
    assert first == second
    assert key(modules[0], None) == key(modules[1], None)


def test_a_refusal_is_not_kept(tmp_path: Path) -> None:
    def refused(given: DeployedModel, *, batch: int | None) -> onnx.ModelProto:
        raise VimDeployError("VIM-501", "no")

    for _ in range(2):
        with pytest.raises(VimDeployError):
            shared(refused, tmp_path)(module(), batch=None)
    assert list(tmp_path.glob("*.onnx")) == []


def test_who_wants_what_is_being_traced_waits_for_it(tmp_path: Path) -> None:
    made: list[int] = []

    def slow(given: DeployedModel, *, batch: int | None) -> onnx.ModelProto:
        made.append(1)
        time.sleep(0.5)
        return onnx.ModelProto(ir_version=len(made))

    given = module(depth=1)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(shared(slow, tmp_path), given, batch=None) for _ in range(2)]
        assert {job.result().ir_version for job in jobs} == {1}
    assert made == [1]


def test_a_step_is_made_once_for_each_graph(tmp_path: Path) -> None:
    made: list[int] = []

    def step(model: onnx.ModelProto) -> onnx.ModelProto:
        made.append(model.ir_version)
        return onnx.ModelProto(ir_version=model.ir_version + 1)

    stepped = shared_step(step, tmp_path)
    found = [stepped(onnx.ModelProto(ir_version=version)).ir_version for version in (1, 4, 1, 4)]
    assert found == [2, 5, 2, 5]
    assert made == [1, 4]


_STARTED = """
import sys
assert not {"numpy", "onnx", "tests", "torch"} & {*sys.modules}
from vim_deploy.graph import export_graph
from tests.unit.test_traces_support import module
print(export_graph.trace(module(depth=1), batch=None).doc_string)
"""


def test_a_started_process_takes_the_traces_of_the_run(tmp_path: Path) -> None:
    made = shared(trace, tmp_path)(module(depth=1), batch=None)
    (path,) = tmp_path.glob("*.onnx")
    made.doc_string = "of the folder"
    path.write_bytes(made.SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", _STARTED],
        env={**os.environ, **traces.variables(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("of the folder\n", "")
