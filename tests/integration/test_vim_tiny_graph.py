"""The whole Vim-Ti, fused: ONNX's rules with strict shapes, for both scan bodies."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import onnx
import pytest

from tests.unit.graph.test_export_graph import deployed
from vim_deploy.artifact.metadata import outputs_of
from vim_deploy.graph.export_graph import export_graph
from vim_deploy.ops.functions import attach_functions
from vim_deploy.recipe.catalog import find_variant

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs this")
def test_vim_tiny_fused_passes_the_checker_with_either_body() -> None:
    config = find_variant("vim-tiny")
    module, info = deployed(config)
    info = replace(info, graph="fused")
    model, summary, *_ = export_graph(module, info, batch=None)
    assert (summary.blocks, summary.fused_scans, summary.fused_convolutions) == (24, 24, 24)
    for unrolled_tokens in (None, config.num_tokens):
        attach_functions(model, unrolled_tokens)
        held = Counter(node.op_type for item in model.functions for node in item.node)
        assert held["Scan"] == (1 if unrolled_tokens is None else 0)
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
        (logits,) = outputs_of(inferred)
        assert logits.shape[1:] == (1000,)
        scanned = [
            value.type.tensor_type.shape.dim
            for value in inferred.graph.value_info
            if value.name.endswith("VimBiSelectiveScan_output_0")
            or value.name.endswith("mixer/Mul_output_0")
        ]
        # Tokens and channels are known behind every scan; only the batch is symbolic.
        assert [[dim.dim_value for dim in dims][1:] for dims in scanned] == [[197, 384]] * 24
