"""Estimates of memory against peaks that were measured (MB, see the module's docstring)."""

from __future__ import annotations

import pytest

from tests.support.bench import subject
from vim_deploy.bench.subject import ONNX_RUNTIME, PYTORCH, PYTORCH_DEIT, deit_bytes, model_bytes
from vim_deploy.recipe.catalog import find_variant
from vim_deploy.stages.benchmarking import too_large


@pytest.mark.parametrize(
    ("runner", "side", "peak"),
    [(ONNX_RUNTIME, side, peak) for side, peak in ((224, 136), (512, 184), (768, 254))]
    + [(PYTORCH, side, peak) for side, peak in ((224, 374), (512, 415), (768, 479))],
)
def test_vim(runner: str, side: int, peak: int) -> None:
    config = find_variant("vim-tiny").replace(img_size=side)
    assert 0.9 < model_bytes(config, 1, runner) / 1e6 / peak < 1.3


@pytest.mark.parametrize(("side", "peak"), [(224, 121), (512, 145), (768, 184), (1248, 305)])
def test_vim_with_native_ops(side: int, peak: int) -> None:
    config = find_variant("vim-tiny").replace(img_size=side)
    assert 0.9 < model_bytes(config, 1, ONNX_RUNTIME, native=True) / 1e6 / peak < 1.3


@pytest.mark.parametrize(
    ("runner", "attention", "peaks"),
    [
        (ONNX_RUNTIME, "eager", (114, 207, 503)),
        (ONNX_RUNTIME, "sdpa", (118, 227, 631)),
        (ONNX_RUNTIME, "flash", (120, 144, 182)),
        (PYTORCH_DEIT, "eager", (444, 535, 634)),
        (PYTORCH_DEIT, "sdpa", (441, 465, 500)),
    ],
)
def test_deit(runner: str, attention: str, peaks: tuple[int, ...]) -> None:
    for tokens, peak in zip((197, 1025, 2305), peaks, strict=True):
        estimate = deit_bytes(tokens, 192, 3, 1, runner, attention) / 1e6
        assert 0.9 < estimate / peak < 1.3


def test_what_does_not_fit_is_left_out_largest_first() -> None:
    small, large = subject("s", estimated_bytes=400), subject("l", estimated_bytes=2000)
    unknown = subject("u")
    assert too_large([small, large, unknown], None) == {}
    assert too_large([small, large, unknown], 10_000) == {}
    assert list(too_large([small, large, unknown], 1000)) == [large.key]
    # Each would fit alone, but they are measured together.
    reasons = too_large([small, large, unknown], 2300)
    assert list(reasons) == [large.key]
    assert "together with the others" in reasons[large.key]
