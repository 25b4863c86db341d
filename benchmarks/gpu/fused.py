"""A Vim whose mixers run on the plugin library's fused kernels, in PyTorch and without TensorRT.

What an engine with the plugin computes, in the layout of its graph: a block is two matrix products,
one convolution launch and one scan launch for both directions, and between these the products of
the packed rows B | C | dt (and of dt, unless the scan takes its low-rank weight). For measurements;
the module's own mixer stays the reference.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.fusion.directions import ROW_MULTIPLE
from vim_deploy.families.vim.network.mixer import Mixer
from vim_deploy.ops import BI_CAUSAL_CONV, BI_SELECTIVE_SCAN
from vim_deploy.plugin.kernels import DEFAULT_TACTIC, PARAMS, Params, data_type

#: The suffixes of a v2 mixer's branches, that which runs forward first.
_BRANCHES = ("", "_b")


class Kernels(Protocol):
    """What is asked of the library; ``plugin.kernels.ScanLibrary`` is one."""

    def workspace_bytes(self, params: Params, tactic: int) -> int: ...

    def launch(self, params: Params, *, tactic: int, workspace: int, stream: int) -> None: ...


class FusedMixer(nn.Module):
    """Tokens [B, L, embed_dim] of any float type to T[B, L, embed_dim], by the fused kernels.

    Args:
        mixer: of type v2 and in natural order; its weights are read once.
        library: with code for the device of ``mixer``.
        dtype: T, of the activations and of the products' weights: float32, float16 or bfloat16.
            The kernels keep states, A, D, the convolution's weights and all biases in float32.
        low_rank: the scan computes dt itself from its low-rank weight.
        tactic: of the scan; 0 leaves the choice to the library.

    Raises:
        VimDeployError: VIM-504 for a mixer of another kind.
    """

    def __init__(
        self,
        mixer: nn.Module,
        library: Kernels,
        dtype: torch.dtype,
        *,
        low_rank: bool = False,
        tactic: int = DEFAULT_TACTIC,
    ) -> None:
        super().__init__()
        mixer = _known(mixer)
        self._library, self._dtype = library, dtype
        self._low_rank, self._tactic = low_rank, tactic
        self._scale = 0.5 if mixer.halve else 1.0
        states, rank = mixer.A_log.shape[1], mixer.dt_proj.in_features
        self._rank = rank
        self._offsets = {"b_off": 0, "c_off": states, "dt_off": 2 * states}
        for name, value in _weights(mixer, low_rank).items():
            self.register_buffer(name, value.contiguous())
        for name in ("in_w", "in_bias", "x_proj", "dt", "out_w", "out_bias"):
            if hasattr(self, name):
                setattr(self, name, getattr(self, name).to(dtype))

    def forward(self, tokens: Tensor) -> Tensor:
        device = tokens.device
        on = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
        # Types are chosen here, and autocast would change those of the products.
        with on, torch.autocast(device.type, enabled=False):
            stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
            return self._mixed(tokens.to(self._dtype), stream)

    def _mixed(self, x: Tensor, stream: int) -> Tensor:
        batch, length, _ = x.shape
        channels = self.A.shape[2]
        xz = F.linear(x, self.in_w, getattr(self, "in_bias", None))
        u2 = x.new_empty(2, batch, length, channels)
        sizes = {"batch": batch, "length": length, "channels": channels}
        sizes |= {"xz_columns": xz.shape[2], "type": int(data_type(x))}
        self._convolve(xz, u2, sizes, stream)
        xdbl = torch.bmm(u2.view(2, batch * length, channels), self.x_proj)
        dt = self.dt if self._low_rank else torch.bmm(xdbl, self.dt)
        y = x.new_empty(batch, length, channels)
        self._scan((u2, dt, xdbl, self.A, self.Dskip, self.dt_bias, xz), y, sizes, stream)
        return F.linear(y, self.out_w, getattr(self, "out_bias", None))

    def _convolve(self, xz: Tensor, u2: Tensor, sizes: dict[str, int], stream: int) -> None:
        tensors = (xz, self.conv_w, self.conv_b, u2)
        names = (*BI_CAUSAL_CONV.inputs, *BI_CAUSAL_CONV.outputs)
        params = PARAMS[BI_CAUSAL_CONV.name](
            **_addresses(names, tensors), **sizes, width=self.conv_w.shape[1], x_off=0
        )
        self._launch(params, DEFAULT_TACTIC, xz, stream)

    def _scan(
        self, given: tuple[Tensor, ...], y: Tensor, sizes: dict[str, int], stream: int
    ) -> None:
        names = (*BI_SELECTIVE_SCAN.inputs, *BI_SELECTIVE_SCAN.outputs)
        params = PARAMS[BI_SELECTIVE_SCAN.name](
            **_addresses(names, (*given, y)),
            **sizes,
            **self._offsets,
            scale=self._scale,
            states=self.A.shape[1],
            xdbl_columns=self.x_proj.shape[2],
            rank=self._rank if self._low_rank else 0,
            z_off=sizes["channels"],
            delta_softplus=1,
            low_rank=int(self._low_rank),
        )
        self._launch(params, self._tactic, y, stream)

    def _launch(self, params: Params, tactic: int, like: Tensor, stream: int) -> None:
        # The allocator gives memory of this stream again only in the stream's order: nothing has
        # to be kept until the kernel has run.
        size = self._library.workspace_bytes(params, tactic)
        room = torch.empty(size, dtype=torch.uint8, device=like.device)
        address = room.data_ptr() if size else 0
        self._library.launch(params, tactic=tactic, workspace=address, stream=stream)


def fuse(
    model: nn.Module,
    library: Kernels,
    dtype: torch.dtype,
    *,
    low_rank: bool = False,
    tactic: int = DEFAULT_TACTIC,
) -> nn.Module:
    """``model`` itself, every mixer of its layers exchanged for a ``FusedMixer``.

    Args:
        model: a ``VisionMamba`` on its device.
        library, dtype, low_rank, tactic: as for ``FusedMixer``.

    Raises:
        VimDeployError: VIM-504 for a mixer of another kind; ``model`` is unchanged then.
    """
    mixers = [
        FusedMixer(layer.mixer, library, dtype, low_rank=low_rank, tactic=tactic)
        for layer in model.layers
    ]
    for layer, mixer in zip(model.layers, mixers, strict=True):
        layer.mixer = mixer
    return model


def _known(mixer: nn.Module) -> Mixer:
    """``mixer``, when the fused kernels compute it; else VIM-504."""
    why = ""
    if not isinstance(mixer, Mixer):
        why = f"it is a {type(mixer).__name__}, not the mixer of a Vim"
    elif mixer.kind != "v2" or not mixer.bidirectional:
        why = f"its bimamba_type is {mixer.kind}; both directions are computed for v2 only"
    elif mixer.scan.reverse:
        why = "its directions are exchanged (if_bidirectional); the fused ops run forward first"
    elif hasattr(mixer, "gamma"):
        why = "it has a layer scale (init_layer_scale)"
    if why or not isinstance(mixer, Mixer):
        raise VimDeployError(
            "VIM-504",
            "a mixer does not run on the fused kernels",
            why=why,
            fix="measure one of the published architectures, such as vim-tiny",
        )
    return mixer


@torch.no_grad()
def _weights(mixer: Mixer, low_rank: bool) -> dict[str, Tensor]:
    """The mixer's weights as the fused ops take them, of both branches, float32."""

    def both(name: str) -> list[Tensor]:
        modules = [mixer.get_submodule(f"{name}{suffix}") for suffix in _BRANCHES]
        return [module.weight.detach().float() for module in modules]  # type: ignore[union-attr]

    states, rank = mixer.A_log.shape[1], mixer.dt_proj.in_features
    channels = mixer.D.shape[0]
    used = 2 * states + rank
    columns = -(-used // ROW_MULTIPLE) * ROW_MULTIPLE
    # x_proj gives dt | B | C; the packed rows hold B | C | dt and zeros.
    x_proj = mixer.D.new_zeros(2, channels, columns, dtype=torch.float32)
    x_proj[..., :used] = torch.stack([weight.t().roll(-rank, 1) for weight in both("x_proj")])
    dt = torch.stack(both("dt_proj"))
    if not low_rank:
        packed = dt.new_zeros(2, columns, channels)
        packed[:, 2 * states : used] = dt.transpose(1, 2)
        dt = packed
    convolutions = (mixer.conv1d, mixer.conv1d_b)
    biases = [conv.bias for conv in convolutions]
    zeros = mixer.D.new_zeros(channels)
    found = {
        "in_w": mixer.in_proj.weight.detach(),
        "out_w": mixer.out_proj.weight.detach(),
        "conv_w": torch.stack([weight[:, 0].t() for weight in both("conv1d")]),
        "conv_b": torch.stack([zeros if bias is None else bias.detach() for bias in biases]),
        "x_proj": x_proj,
        "dt": dt,
        "A": -torch.stack([mixer.A_log.float().exp().t(), mixer.A_b_log.float().exp().t()]),
        "Dskip": torch.stack([mixer.D, mixer.D_b]).float(),
        "dt_bias": torch.stack([mixer.dt_proj.bias, mixer.dt_proj_b.bias]).float(),
    }
    for name, linear in (("in_bias", mixer.in_proj), ("out_bias", mixer.out_proj)):
        if linear.bias is not None:
            found[name] = linear.bias.detach()
    return found


def _addresses(names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in zip(names, tensors, strict=True)}
