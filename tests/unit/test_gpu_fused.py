"""``benchmarks/gpu/fused.py``: a Vim on the fused kernels computes what the module does."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.source import REPOSITORY
from vim_deploy.errors import VimDeployError

torch = pytest.importorskip("torch", reason="not checked here: torch is not installed")

from tests.support.reference_kernels import ReferenceKernels  # noqa: E402
from vim_deploy.families.vim.config import VimConfig  # noqa: E402
from vim_deploy.families.vim.network.vim import VisionMamba  # noqa: E402
from vim_deploy.model.seeding import seed_weights  # noqa: E402
from vim_deploy.plugin.kernels import ScanLibrary  # noqa: E402

GPU = REPOSITORY / "benchmarks" / "gpu"
CONFIG = VimConfig(
    img_size=48, depth=2, embed_dim=32, num_classes=10, bimamba_type="v2", final_pool_type="mean"
)
#: Float32 sums in another order, over two blocks.
LIMIT = 1e-5


@pytest.fixture(scope="module", autouse=True)
def _scripts() -> Iterator[None]:
    sys.path.insert(0, str(GPU))
    yield
    sys.path.remove(str(GPU))


def model_of(config: VimConfig) -> Any:
    model = VisionMamba(config)
    seed_weights(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            # Whatever is seeded with zeros or ones hides a wrong place.
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator()))
    return model


def generator() -> Any:
    return torch.Generator().manual_seed(1)


def distance(config: VimConfig, library: Any, dtype: Any, low_rank: bool) -> float:
    """Relative L2 of the fused logits to the module's."""
    from fused import fuse

    model = model_of(config)
    image = torch.randn(2, 3, *config.image_hw, generator=generator())
    with torch.inference_mode():
        expected = model(image)
        assert fuse(model, library, dtype, low_rank=low_rank) is model
        found = model(image).float()
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("low_rank", [False, True])
def test_against_the_module(low_rank: bool) -> None:
    library = ReferenceKernels()
    assert distance(CONFIG, library, torch.float32, low_rank) <= LIMIT
    assert library.launched == ["VimBiCausalConv", "VimBiSelectiveScan"] * CONFIG.depth


def test_half_precision_and_biases() -> None:
    config = dataclasses.replace(
        CONFIG, d_state=8, if_divide_out=False, ssm_cfg={"bias": True, "conv_bias": False}
    )
    assert 1e-6 < distance(config, ReferenceKernels(), torch.float16, True) < 1e-2


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"bimamba_type": "v1"}, "bimamba_type is v1"),
        ({"bimamba_type": "none"}, "bimamba_type is none"),
        ({"init_layer_scale": 1e-5}, "layer scale"),
        ({"if_bidirectional": True}, "directions are exchanged"),
    ],
)
def test_mixers_of_another_kind_are_refused(given: dict[str, Any], why: str) -> None:
    from fused import fuse

    model = VisionMamba(dataclasses.replace(CONFIG, **given))
    before = [layer.mixer for layer in model.layers]
    with pytest.raises(VimDeployError) as caught:
        fuse(model, ReferenceKernels(), torch.float32)
    assert caught.value.code == "VIM-504"
    assert why in caught.value.why
    assert [layer.mixer for layer in model.layers] == before


def test_other_modules_are_refused() -> None:
    from fused import FusedMixer

    with pytest.raises(VimDeployError) as caught:
        FusedMixer(torch.nn.Identity(), ReferenceKernels(), torch.float32)
    assert "it is a Identity" in caught.value.why


@pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs this")
@pytest.mark.parametrize("low_rank", [False, True])
def test_on_the_kernels_compiled_for_the_cpu(low_rank: bool) -> None:
    sys.path.insert(0, str(REPOSITORY / "plugins" / "tests" / "host"))
    import kernel_library

    if reason := kernel_library.missing_host_tools():
        pytest.skip(reason)
    # The address of the loaded file; it goes with this process.
    library = ScanLibrary(Path(kernel_library.host_library().c._name))
    assert distance(CONFIG, library, torch.float32, low_rank) <= LIMIT
    assert distance(CONFIG, library, torch.float16, low_rank) <= 1e-2
