"""The official detector on a CPU, as a process that ``detection.py`` asks for runs.

It needs a checkout of hustvl/Vim and the packages that its detector imports (torchvision, timm,
einops, fvcore, iopath, omegaconf, hydra-core, pycocotools, termcolor, tabulate, yacs, cloudpickle,
and what they need) on PYTHONPATH. No file of the checkout is changed and its CUDA extensions are
not needed: where the official code would call a kernel it calls the reference function that stands
beside that kernel in the same repository.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

CONFIG = "det/projects/ViTDet/configs/COCO/cascade_mask_rcnn_vimdet_t_100ep_adj1.py"
#: Packages that are imported on the way and take no part in a forward pass on a CPU.
_UNUSED = (
    "transformers",
    "transformers.generation",
    "transformers.utils",
    "transformers.utils.hub",
    "selective_scan_cuda",
    "causal_conv1d",
    "causal_conv1d_cuda",
)
_PACKAGE, _SCAN = "mamba_ssm", "mamba_ssm.ops.selective_scan_interface"


def load(checkout: Path, weights: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 - of the checkout
    """The official model of ``CONFIG`` with these weights, every key of them."""
    _make_importable(checkout)
    config = importlib.import_module("detectron2.config")
    model = config.LazyConfig.load(str(checkout / CONFIG)).model
    model.backbone.net.pretrained = None
    network = config.instantiate(model).eval()
    _use_references()
    network.load_state_dict(weights)
    return network


def detect(network: Any, picture: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:  # noqa: ANN401
    """What the official model finds in uint8 [h, w, 3], RGB, by the names of our outputs.

    ``proposals`` is how many of them there were.
    """
    image = torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32))
    proposals: list[Any] = []
    hook = network.proposal_generator.register_forward_hook(lambda *call: proposals.append(call[2]))
    with torch.no_grad():
        (found,) = network.inference([{"image": image}], do_postprocess=False)
    hook.remove()
    ((of_picture,), _) = proposals[0]
    return {
        "proposals": np.array([len(of_picture)]),
        "boxes": found.pred_boxes.tensor.numpy(),
        "scores": found.scores.numpy(),
        "classes": found.pred_classes.numpy(),
        "masks": found.pred_masks[:, 0].numpy(),
    }


def _make_importable(checkout: Path) -> None:
    """The checkout's packages, and stand-ins for what is imported and not used."""
    for name in _UNUSED:
        sys.modules[name] = MagicMock(name=name)
    triton, language = types.ModuleType("triton"), types.ModuleType("triton.language")
    for name in ("jit", "autotune", "heuristics"):
        setattr(triton, name, MagicMock(name=name))
    triton.Config = lambda _values, **given: types.SimpleNamespace(**given)
    triton.language, language.constexpr = language, int
    sys.modules |= {"triton": triton, "triton.language": language}
    # Its __init__ imports the language model, which nothing here needs.
    package = types.ModuleType(_PACKAGE)
    package.__path__ = [str(checkout / "mamba-1p1p1" / _PACKAGE)]
    sys.modules[_PACKAGE] = package
    # detectron2 looks for configurations where its own installation would have copied them.
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda _package, name: str(checkout / "det" / name)
    sys.modules["pkg_resources"] = resources
    # The backbone looks for the classifier's folder beside the working directory; utils and rope
    # are modules of it.
    sys.path[:0] = [str(checkout / "vim"), str(checkout / "det")]
    importlib.import_module("mamba_ssm.modules.mamba_simple")
    # PyTorch would take it for a triton.
    del sys.modules["triton"], sys.modules["triton.language"]


def _use_references() -> None:
    """Reference functions in place of the kernels, where the official modules look them up."""
    importlib.import_module("models_mamba").rms_norm_fn = _rms_norm
    mixer = importlib.import_module("mamba_ssm.modules.mamba_simple")
    mixer.mamba_inner_fn_no_out_proj = _one_direction


def _rms_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    residual_in_fp32: bool,  # as everything is
    **given: Any,  # noqa: ANN401 - as the official function
) -> Any:  # noqa: ANN401 - the norm, or the norm and what it is of
    return sys.modules["mamba_ssm.ops.triton.layer_norm"].rms_norm_ref(x, weight, bias, **given)


def _one_direction(
    xz: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    x_proj: Tensor,
    dt_proj: Tensor,
    a: Tensor,
    b: None,
    c: None,
    d: Tensor,
    *,
    delta_bias: Tensor,
    delta_softplus: bool,
) -> Tensor:
    """What the official fused function computes (Mamba, arXiv 2312.00752), without its kernels.

    Convolution over the past and SiLU; step sizes, B and C from its result; the scan with the gate.
    """
    assert b is None
    assert c is None
    x, gate = xz.chunk(2, dim=1)
    length, width = x.shape[-1], conv_weight.shape[-1]
    x = F.silu(F.conv1d(x, conv_weight, conv_bias, padding=width - 1, groups=len(conv_weight)))
    x = x[..., :length]
    rank, states = dt_proj.shape[1], a.shape[1]
    steps, into, out = (x.transpose(1, 2) @ x_proj.t()).split((rank, states, states), dim=-1)
    steps = (steps @ dt_proj.t()).transpose(1, 2)
    into, out = into.transpose(1, 2).contiguous(), out.transpose(1, 2).contiguous()
    scan = sys.modules[_SCAN].selective_scan_ref
    result: Tensor = scan(x, steps, a, into, out, d, gate, delta_bias, delta_softplus)
    return result
