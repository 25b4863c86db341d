"""Inner tensors of exported graphs against PyTorch's, on the reference cases that differ in form.

Two class tokens, two-layer mode, rope, layer scale, biases and other sizes, one direction: each
names or holds its inner tensors in another way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx
import pytest

from tests.integration.test_export_precision import loaded
from tests.support import reference
from vim_deploy.graph.export_graph import finish_graph, named_trace
from vim_deploy.parity.blocks import compare_parts, part_limit
from vim_deploy.parity.metrics import Array
from vim_deploy.places import Place
from vim_deploy.recipe.precision_policy import default_policy
from vim_deploy.runtimes.onnxruntime.runner import memory_runner
from vim_deploy.runtimes.torch.runner import TorchRunner

CASES = (
    "A03_double_cls",
    "A10b_if_bidirectional_v2_middle_cls_odd_depth",
    "A12c_rope_residual_bidirectional",
    "A14_layer_scale",
    "A22_ssm_cfg",
    "A26_slow_path_v2",
)


def parts_of(model: onnx.ModelProto, image: Array) -> Mapping[Place, Array]:
    with memory_runner(model, "model.onnx") as runner:
        assert runner.parts is not None
        return runner.parts(image)


@pytest.mark.parametrize("name", CASES)
def test_every_part_agrees_in_every_form(name: str) -> None:
    case = reference.load_case(name)
    module, info = loaded(case)
    image = case.image[:2].copy()
    expected = TorchRunner(module, threads=1).parts(image)
    traced = named_trace(module, None)
    typed = {"precision": "fp16", "precision_policy": default_policy()}
    for form, changes in (
        ("base", {}),
        ("fused", {"graph": "fused"}),
        ("fused-low-rank", {"graph": "fused-low-rank"}),
        ("fp16", {"graph": "fused", **typed}),
    ):
        model = onnx.ModelProto()
        model.CopyFrom(traced)
        stated = replace(info, **changes)
        finish_graph(model, module.model.config, stated)
        found = parts_of(model, image)
        report = compare_parts(expected, found, part_limit(stated.precision), True)
        assert report.passed, f"{form}: {report.verdict}"
        # The low-rank form has no step sizes outside of its scan; all others have every part.
        assert all("dt_proj" in place for place in report.missing), (form, report.missing)
        assert not report.missing or form == "fused-low-rank"


def test_parts_come_in_order_of_computation() -> None:
    case = reference.load_case("A01_middle_cls")
    module, _ = loaded(case)
    names = [str(where) for where in TorchRunner(module, threads=1).parts(case.image[:1].copy())]
    assert names[:5] == ["patch_embed", "tokens", "block 0 norm", "block 0 in_proj",
                         "block 0 conv fwd"]  # fmt: skip
    assert names[-3:] == ["norm_f", "features", "head"]
    assert names.index("block 1 residual") == names.index("block 0 out_proj") + 1
