"""DeiT, the model that Vision Mamba is compared with, for timing only: its weights are seeded.

The plain DeiT (without distillation token) is a vision transformer with other training, and the
Transformers library publishes it under that class (``facebook/deit-tiny-patch16-224`` is a
``ViTForImageClassification``). Everything is built from a config: nothing is downloaded.

The attention is named in every result: ``eager`` writes out the matrix of scores, as in the
comparison of the Vim paper (arXiv 2401.09417, figure 1); ``sdpa`` is PyTorch's fused function,
which an ONNX graph of opset 18 spells out in standard operators again.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from vim_deploy.errors import VimDeployError, missing_package, nearest
from vim_deploy.threads import TORCH

#: Embedding width and attention heads; patch 16, 12 layers and a four times wider MLP in all of
#: them (Touvron et al., arXiv 2012.12877, table 1).
DEIT_SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
#: Names of the library's attention implementations.
ATTENTIONS = ("eager", "sdpa")
DEPTH = 12
PATCH = 16
_PACKAGE = "transformers"
_CLASSES = 1000
_SEED = 0


def is_installed() -> bool:
    """Whether the library can be found."""
    return importlib.util.find_spec(_PACKAGE) is not None


def load_library() -> Any:  # noqa: ANN401 - an untyped module
    """Import the library and what a DeiT needs of it; VIM-301 when it is not installed."""
    if not is_installed():
        raise missing_package(_PACKAGE, "deit", "the DeiT baseline")
    import transformers

    # The package imports its parts on first use.
    _ = transformers.ViTConfig, transformers.ViTForImageClassification
    return transformers


def deit_tokens(image: tuple[int, int]) -> int:
    """Sequence length: patches and one class token."""
    return (image[0] // PATCH) * (image[1] // PATCH) + 1


def deit_unread(image: tuple[int, int]) -> tuple[int, int]:
    """Rows of pixels at the bottom and columns at the right that no patch reaches."""
    return image[0] % PATCH, image[1] % PATCH


def build_deit(size: str, image: tuple[int, int], attention: str) -> nn.Module:
    """A DeiT with seeded weights: float32 [B, 3, height, width] to logits [B, 1000].

    Args:
        size: a key of ``DEIT_SIZES``.
        image: height and width in pixels, each at least a patch.
        attention: one of ``ATTENTIONS``.

    Raises:
        VimDeployError: VIM-301 (library not installed), VIM-202 (unknown size or attention),
            VIM-406 (image smaller than a patch).
    """
    for name, known in ((size, DEIT_SIZES), (attention, ATTENTIONS)):
        if name not in known:
            raise VimDeployError("VIM-202", f"no DeiT is called {name!r}", fix=nearest(name, known))
    if min(image) < PATCH:
        raise VimDeployError(
            "VIM-406", f"{image[0]}x{image[1]} is smaller than DeiT's patch of {PATCH}"
        )
    library = load_library()
    width, heads = DEIT_SIZES[size]
    config = library.ViTConfig(
        image_size=tuple(image),
        patch_size=PATCH,
        hidden_size=width,
        num_hidden_layers=DEPTH,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        num_labels=_CLASSES,
        attn_implementation=attention,
    )
    with TORCH, torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return _Logits(library.ViTForImageClassification(config)).eval()


class _Logits(nn.Module):
    """A model of the library as a function of tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=image).logits
        return logits
