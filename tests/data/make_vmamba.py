"""Make the committed VMamba case: weights of few bits, and what the official code computes of them.

    python -m tests.data.make_vmamba MODELS

``MODELS`` is the folder ``classification/models`` of MzeroMiko/VMamba. Seeded weights, away from
their initial values so that every one of them matters, and a picture are rounded until they
compress; the official class runs on them on the CPU, in float32, with its own scan in PyTorch.
What it imports for training and for counting operations is replaced by what evaluation needs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.data.pack_reference import DESTINATION, pack_file

CASE = "V01_vmamba"
KEYWORDS: dict[str, Any] = {
    "depths": [1, 2], "dims": 8, "ssm_d_state": 2, "ssm_ratio": 2.0, "ssm_conv_bias": False,
    "forward_type": "v05_noz", "mlp_ratio": 2.0, "num_classes": 5, "norm_layer": "ln2d",
    "downsample_version": "v3", "patchembed_version": "v2",
}  # fmt: skip
#: The maps are 6 x 9 and 3 x 5: sides are odd where a step halves them.
PICTURES = (2, 3, 22, 35)
SEED = 77
#: Explicit bits of the mantissa of weights and pixels.
BITS = 3
#: Size of the noise that is added, by the last part of a parameter's name; weights become noise.
NOISE = {"A_logs": 0.3, "Ds": 0.3, "dt_projs_bias": 1.0, "bias": 0.1}


def official_class(models: Path) -> Any:
    """``VSSM``, on the CPU."""
    layers = types.ModuleType("timm.models.layers")
    vars(layers).update(DropPath=lambda _rate: nn.Identity(), trunc_normal_=nn.init.trunc_normal_)
    counting = types.ModuleType("fvcore.nn")
    names = ("FlopCountAnalysis", "flop_count_str", "flop_count", "parameter_count")
    vars(counting).update(dict.fromkeys(names))
    chunked = types.ModuleType("mamba2.ssd_minimal")
    vars(chunked).update(selective_scan_chunk_fn=None)
    for module in (layers, counting, chunked):
        parent = module.__name__.partition(".")[0]
        sys.modules |= {parent: types.ModuleType(parent), module.__name__: module}
    # Its scans enter the device of their input, and the CPU is none.
    torch.cuda.device = lambda _device: contextlib.nullcontext()  # type: ignore[assignment,misc]
    sys.path.insert(0, str(models))
    return importlib.import_module("vmamba").VSSM


def rounded(values: Tensor) -> Tensor:
    """To ``BITS`` explicit bits."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa * 2 ** (BITS + 1)) / 2 ** (BITS + 1), exponent)


def moved(model: nn.Module, generator: torch.Generator) -> None:
    """Weights away from their initial values, in place."""
    for name, parameter in model.named_parameters():
        noise = torch.empty_like(parameter).normal_(generator=generator)
        last = name.rpartition(".")[2]
        if parameter.ndim == 1 or last in NOISE:
            parameter += NOISE.get(last, 0.2) * noise
        else:
            # Of stacked weights a row is the last axis, of a convolution's all but the first.
            row = parameter.shape[-1] if parameter.ndim == 3 else parameter[0].numel()
            parameter.copy_(noise * row**-0.5)
        parameter.copy_(rounded(parameter))


def run(model: Any, image: Tensor) -> dict[str, Tensor]:
    """Logits, what the head reads, and the output of each level's blocks."""
    found: dict[str, Tensor] = {}
    watched = {f"level_{number}": layer.blocks for number, layer in enumerate(model.layers)}
    for name, module in {**watched, "features": model.classifier.flatten}.items():
        module.register_forward_hook(lambda _m, _a, out, name=name: found.update({name: out}))
    return {"output": model(image), **found}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, help="folder classification/models of VMamba")
    models = parser.parse_args().models
    generator = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        model = official_class(models)(**KEYWORDS).eval()
        moved(model, generator)
        image = rounded(torch.empty(PICTURES).normal_(generator=generator))
        arrays = {name: value.contiguous().numpy() for name, value in run(model, image).items()}
        np.savez(Path(folder) / f"{CASE}.npz", image=image.numpy(), **arrays)
        torch.save({"model": model.state_dict()}, Path(folder) / f"{CASE}.pth")
        for suffix in ("npz", "pth"):
            pack_file(Path(folder) / f"{CASE}.{suffix}", DESTINATION)
    record = {
        "name": CASE,
        "official_repo": "MzeroMiko/VMamba",
        "class": "VSSM",
        "torch": torch.__version__,
        "mode": "CPU, eval, no_grad, float32; the scan of selective_scan_torch",
        "kwargs": KEYWORDS,
    }
    (DESTINATION / f"{CASE}.json").write_text(f"{json.dumps(record)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
