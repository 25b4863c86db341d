"""The DeiT baseline: the published architecture, in PyTorch and exported."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from vim_deploy.errors import VimDeployError
from vim_deploy.model.deit import ATTENTIONS, build_deit, deit_tokens, deit_unread, is_installed

needs_transformers = pytest.mark.skipif(
    not is_installed(), reason="transformers is not installed: pip install 'vim-deploy[deit]'"
)


def test_tokens() -> None:
    assert deit_tokens((224, 224)) == 197
    assert deit_tokens((1248, 1248)) == 6085
    assert deit_tokens((738, 738)) == 46 * 46 + 1
    assert deit_unread((738, 740)) == (2, 4)


@pytest.mark.skipif(is_installed(), reason="transformers is installed")
def test_without_the_library() -> None:
    with pytest.raises(VimDeployError, match=r"VIM-301(.|\n)*vim-deploy\[deit\]"):
        build_deit("tiny", (32, 32), "eager")


@pytest.mark.parametrize(
    ("size", "image", "attention", "code"),
    [
        ("huge", (32, 32), "eager", "VIM-202"),
        ("tiny", (32, 32), "flash", "VIM-202"),
        ("tiny", (8, 32), "eager", "VIM-406"),
    ],
)
def test_what_cannot_be_built(size: str, image: tuple[int, int], attention: str, code: str) -> None:
    with pytest.raises(VimDeployError, match=code):
        build_deit(size, image, attention)


@needs_transformers
@pytest.mark.parametrize(("size", "millions"), [("tiny", 5.7), ("small", 22.1), ("base", 86.6)])
def test_parameters_are_those_of_the_paper(size: str, millions: float) -> None:
    # Touvron et al., table 1 (5M, 22M, 86M), to one more digit as the authors' code counts them.
    module = build_deit(size, (224, 224), "sdpa")
    assert sum(p.numel() for p in module.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@needs_transformers
def test_both_attentions_are_used_and_compute_the_same() -> None:
    image = torch.randn((2, 3, 48, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        eager, sdpa = (build_deit("tiny", (48, 64), name)(image) for name in ATTENTIONS)
    assert eager.shape == (2, 1000)
    torch.testing.assert_close(eager, sdpa, rtol=1e-4, atol=1e-5)
    for name in ATTENTIONS:
        module = build_deit("tiny", (48, 64), name)
        assert module.model.config._attn_implementation == name


@needs_transformers
@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTIONS if os.environ.get("VIM_TEST_ALL") else ["sdpa"])
def test_the_exported_file_computes_the_same(tmp_path: Path, attention: str) -> None:
    from vim_deploy.graph.tidy import tidy
    from vim_deploy.graph.trace import trace_classifier
    from vim_deploy.runtimes.onnxruntime.runner import OrtRunner

    module = build_deit("tiny", (32, 48), attention)
    path = tmp_path / "deit.onnx"
    path.write_bytes(tidy(trace_classifier(module, (32, 48))).SerializeToString())
    runner = OrtRunner(path)
    assert runner.input.shape[1:] == (3, 32, 48)
    for batch in (1, 3):
        image = np.random.default_rng(0).standard_normal((batch, 3, 32, 48), dtype=np.float32)
        with torch.inference_mode():
            expected = module(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(runner.run(image)["logits"], expected, atol=1e-4)
