"""Vims and DeiTs that ``models.py`` measures beside each other on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import official
import torch
from fused import Kernels, fuse
from torch import Tensor, nn

from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.vim import VisionMamba
from vim_deploy.graph.verify import form_for
from vim_deploy.model.deit import build_deit
from vim_deploy.recipe.catalog import find_variant

MODEL, DEIT = "vim-tiny", "tiny"
#: Image size -> batches; the first is that of the claim.
SIZES = {224: (64, 1, 128), 1248: (32, 1, 8)}

SCAN, FUSED, OFFICIAL = "vim scan kernels", "vim fused kernels", "vim official"
FULL_DT = "vim fused kernels, dt projected before"
EAGER, SDPA, SDPA_HALF = "deit eager", "deit sdpa", "deit sdpa, fp16 weights"


@dataclass(frozen=True)
class Subject:
    """One module to measure.

    Attributes:
        make: the module for fp32 or fp16, on the device.
        is_vim: its logits are compared.
        graph: it can be captured as a CUDA graph.
        half: its weights and images are float16, and it runs without autocast.
    """

    name: str
    make: Callable[[torch.dtype], nn.Module]
    is_vim: bool
    graph: bool = False
    half: bool = False


@dataclass
class Plan:
    """What is measured, where and how long; ``end`` is a reading of ``time.monotonic``."""

    library: Kernels
    device: str = "cuda"
    config: VimConfig = field(default_factory=lambda: _published(MODEL))
    sizes: Mapping[int, Sequence[int]] = field(default_factory=lambda: SIZES)
    extensions: Path | None = None
    checkout: Path | None = None
    end: float = float("inf")
    turn: float = 1.0

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


def _published(name: str) -> VimConfig:
    config = find_variant(name)
    assert isinstance(config, VimConfig)
    return config


def subjects(plan: Plan, config: VimConfig, state: Mapping[str, Tensor]) -> list[Subject]:
    """Everything there is at one image size, what matters most first."""

    def own(_dtype: torch.dtype) -> nn.Module:
        model = VisionMamba(config)
        model.load_state_dict(dict(state))
        return model.to(plan.device)

    def fused(low_rank: bool) -> Callable[[torch.dtype], nn.Module]:
        return lambda dtype: fuse(own(dtype), plan.library, dtype, low_rank=low_rank)

    def theirs(_dtype: torch.dtype) -> nn.Module:
        assert plan.checkout is not None
        assert plan.extensions is not None
        return official.load(plan.checkout, plan.extensions, config, state).to(plan.device)

    def deit(attention: str, half: bool = False) -> Callable[[torch.dtype], nn.Module]:
        def make(dtype: torch.dtype) -> nn.Module:
            model = build_deit(DEIT, config.image_hw, attention).to(plan.device)
            return model.to(dtype) if half else model

        return make

    # As the exported file of this model has it.
    low_rank = form_for("auto", config) == "fused-low-rank"
    found = [
        Subject(FUSED, fused(low_rank), is_vim=True, graph=True),
        Subject(EAGER, deit("eager"), is_vim=False, graph=True),
        Subject(SDPA, deit("sdpa"), is_vim=False, graph=True),
        Subject(OFFICIAL, theirs, is_vim=True),
        Subject(SCAN, own, is_vim=True),
        Subject(SDPA_HALF, deit("sdpa", half=True), is_vim=False, graph=True, half=True),
    ]
    if low_rank:
        found.append(Subject(FULL_DT, fused(low_rank=False), is_vim=True))
    given = plan.checkout is not None and plan.extensions is not None
    return [subject for subject in found if given or subject.name != OFFICIAL]


def caller(subject: Subject, module: nn.Module, device: str, dtype: str) -> Callable[[Tensor], Any]:
    """A forward pass in ``fp32``, or in ``fp16`` as the subject has it."""
    autocast = dtype == "fp16" and not subject.half

    def call(images: Tensor) -> Any:  # noqa: ANN401 - logits
        with torch.inference_mode(), torch.autocast(device, torch.float16, enabled=autocast):
            return module(images.half() if subject.half else images)

    return call
