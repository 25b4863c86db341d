"""Vision Mamba for inference (arXiv 2401.09417), loading official checkpoints by their own keys.

No randomness, no training branches, one path for eager runs and for the trace. Where the official
code does something unexpected it is reproduced and the reason is given beside the line.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vim_deploy.families.vim.config import VimConfig
from vim_deploy.families.vim.network.mixer import Mixer
from vim_deploy.families.vim.network.rope import RotaryEmbedding
from vim_deploy.model.network import Network
from vim_deploy.recipe.dense_config import DenseConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis (arXiv 1910.07467), without a bias."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # A quotient: ONNX Runtime computes the traced x / Sqrt(..) * weight as one operator, but
        # x * Reciprocal(Sqrt(..)) step by step.
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def make_norm(config: VimConfig) -> nn.Module:
    """RMSNorm or LayerNorm over ``embed_dim``, as the config says."""
    if config.rms_norm:
        return RMSNorm(config.embed_dim, config.norm_epsilon)
    return nn.LayerNorm(config.embed_dim, eps=config.norm_epsilon)


class PatchEmbed(nn.Module):
    """Image T[B, C, H, W] to tokens T[B, patches, embed_dim], patches in row-major order."""

    def __init__(self, config: VimConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            config.channels, config.embed_dim, kernel_size=config.patch_hw, stride=config.stride
        )

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.proj(image)
        return tokens.flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Add, norm, mix: (hidden, residual) to (mixer output, stream before it)."""

    def __init__(self, config: VimConfig, index: int) -> None:
        super().__init__()
        self.mixer = Mixer(config, config.mirrored(index))
        self.norm = make_norm(config)

    def forward(self, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        stream = hidden if residual is None else hidden + residual
        return self.mixer(self.norm(stream)), stream


class VisionMamba(Network):
    """Image T[B, C, H, W] to logits T[B, classes].

    The output shape follows the official code: [B, tokens, classes] without class token and
    ``final_pool_type`` "all"; [B] with a class token and "max"; with ``num_classes`` 0 the head
    is absent and features come out.
    """

    config: VimConfig
    rope: RotaryEmbedding
    cls_token: nn.Parameter
    cls_token_head: nn.Parameter
    cls_token_tail: nn.Parameter
    #: Path of the Vim among a network's modules: it is the network.
    core_path = ""
    #: What stands behind the blocks of a dense model; a classifier has nothing of that.
    dense: DenseConfig | None = None

    def __init__(self, config: VimConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.patch_embed = PatchEmbed(config)
        if config.if_cls_token:
            names = ("cls_token_head", "cls_token_tail")
            for name in names if config.use_double_cls_token else ("cls_token",):
                setattr(self, name, nn.Parameter(torch.zeros(1, 1, dim)))
        if config.if_abs_pos_embed:
            self.pos_embed = nn.Parameter(torch.zeros(1, config.num_tokens, dim))
        if config.if_rope:
            # The official code divides by patch_size and ignores stride; _check_rope saw to it.
            grid = config.image_hw[0] // config.patch_hw[0]
            self.rope = RotaryEmbedding(dim, grid, config.pt_hw_seq_len)
        self.layers = nn.ModuleList(Block(config, index) for index in range(config.depth))
        self.norm_f = make_norm(config)
        has_head = config.num_classes > 0
        self.head = nn.Linear(dim, config.num_classes) if has_head else nn.Identity()
        self.eval()

    @property
    def vim(self) -> VisionMamba:
        """This module; networks around a Vim have it as a part."""
        return self

    def forward(self, image: Tensor, return_features: bool = False) -> Tensor:
        """Logits, or the features before the head."""
        features = self._pool(self.last_tokens(image))
        if return_features:
            return features
        logits: Tensor = self.head(features)
        # The official code takes this maximum with a class token too, over the classes then.
        return logits.amax(dim=1) if self.config.final_pool_type == "max" else logits

    def last_tokens(self, image: Tensor) -> Tensor:
        """Every token behind the last norm, T[B, L, embed_dim]."""
        return self._final_norm(*self._mix(self._tokens(image)))

    def _tokens(self, image: Tensor) -> Tensor:
        config = self.config
        if image.shape[1:] != (config.channels, *config.image_hw):
            expected = (config.channels, *config.image_hw)
            raise ValueError(f"image {tuple(image.shape)}: the model takes [B, {expected}]")
        x: Tensor = self.patch_embed(image)
        if config.if_cls_token:
            x = self._with_class_tokens(x)
        if config.if_abs_pos_embed:
            x = x + self.pos_embed
        return x.flip(1) if config.flips_sequence else x

    def _with_class_tokens(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        if self.config.use_double_cls_token:
            head = self.cls_token_head.expand(batch, -1, -1)
            return torch.cat((head, x, self.cls_token_tail.expand(batch, -1, -1)), dim=1)
        position = self.config.cls_positions[0]
        token = self.cls_token.expand(batch, -1, -1)
        return torch.cat((x[:, :position], token, x[:, position:]), dim=1)

    def _rotate(self, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Rope before a layer: on the last mixer's output, and on the stream when asked."""
        if not self.config.if_rope:
            return hidden, residual
        hidden = self._rope_in_image_order(hidden)
        if residual is not None and self.config.if_rope_residual:
            residual = self._rope_in_image_order(residual)
        return hidden, residual

    def _rope_in_image_order(self, x: Tensor) -> Tensor:
        # A flipped sequence is flipped back for rope, in one-layer mode only (as officially).
        if self.config.flips_sequence and not self.config.if_bidirectional:
            rotated: Tensor = self.rope(x.flip(1))
            return rotated.flip(1)
        result: Tensor = self.rope(x)
        return result

    def _mix(
        self, x: Tensor, seen: list[tuple[Tensor, Tensor]] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(hidden, residual) behind the last layer; ``seen`` takes those of every layer."""
        hidden, residual = x, None
        if not self.config.if_bidirectional:
            for layer in self.layers:
                hidden, residual = layer(*self._rotate(hidden, residual))
                if seen is not None:
                    seen.append((hidden, residual))
            return hidden, residual
        for index in range(0, self.config.layers_run, 2):
            hidden, residual = self._mix_pair(index, *self._rotate(hidden, residual))
        return hidden, residual

    def _mix_pair(
        self, index: int, hidden: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Two-layer mode: both layers take the same input, the odd one mirrored.

        Both streams are added, so the residual doubles at every pair, as officially.
        """
        first, stream = self.layers[index](hidden, residual)
        second, stream_b = self.layers[index + 1](hidden, residual)
        return first + second, stream + stream_b

    def _final_norm(self, hidden: Tensor, residual: Tensor | None) -> Tensor:
        stream = hidden if residual is None else hidden + residual
        normed: Tensor = self.norm_f(stream)
        return normed

    def _pool(self, x: Tensor) -> Tensor:
        config = self.config
        positions = config.cls_positions
        if len(positions) == 2:
            return (x[:, positions[0]] + x[:, positions[1]]) / 2
        if positions:
            return x[:, positions[0]]
        if config.final_pool_type == "none":
            return x[:, -1]
        return x.mean(dim=1) if config.final_pool_type == "mean" else x
