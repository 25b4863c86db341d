"""Make the committed MambaVision cases: weights of few bits, and the official code run on them.

    python -m tests.data.round_mambavision SOURCE_FOLDER

``SOURCE_FOLDER`` holds M01 and M02 as the official package made them, 4.8 MB of random weights that
no compression makes smaller. This rounds weights and the first image so that they compress to a
twentieth, runs the official class on them in float32 and float64, and packs weights, image and the
float32 results into ``tests/data/reference``. Before that it shows that it computes what the source
says: with the weights as they were, every array is reproduced.

Needs ``mambavision``, which is installed for this alone, with ``timm`` as the record names it
(``pip install --no-deps mambavision==1.2.0``); the scan of ``mamba_ssm``, which needs a GPU, is
replaced by its recurrence.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests.data.pack_reference import DESTINATION, Array, pack_file

CASES = ("M01_mambavision_64", "M02_mambavision_pad")
#: Tensors of so many values keep their signs alone, times one power of two for all of it: the next
#: above their mean size, with which a fault moves outputs as far as with the whole weights.
MANY = 1000
#: Explicit bits of the mantissa of every other value: batch norms, A_log, D, biases, short filters.
MANTISSA_BITS = 3
#: Pixels become multiples of this.
PIXEL_STEP = 0.25
#: What the source may be off by here: another release of PyTorch multiplies in another order.
SOURCE_BOUND = 1e-6


def selective_scan(
    u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, **options: Any
) -> Tensor:
    """What MambaVision asks of ``selective_scan_fn``: no gate, step sizes through softplus.

    Args:
        u: input, ``[batch, channels, length]``.
        delta: step sizes before bias and softplus, as ``u``.
        a: ``[channels, state]``; ``b`` and ``c`` ``[batch, state, length]``; ``d`` ``[channels]``.
        options: ``delta_bias``, ``[channels]``; ``z`` and ``return_last_state`` are None.
    """
    if options["z"] is not None or options["return_last_state"] or not options["delta_softplus"]:
        raise NotImplementedError(f"a scan with {options}")
    a, d, bias = a.to(u.dtype), d.to(u.dtype), options["delta_bias"].to(u.dtype)
    steps = functional.softplus(delta + bias[:, None])
    state = u.new_zeros(*u.shape[:2], a.shape[1])
    outputs = []
    for t in range(u.shape[2]):
        step = steps[:, :, t, None]
        state = torch.exp(step * a) * state + step * u[:, :, t, None] * b[:, None, :, t]
        outputs.append((state * c[:, None, :, t]).sum(-1))
    return torch.stack(outputs, -1) + u * d[:, None]


def official_class() -> Any:
    """``MambaVision`` of the installed package, with the recurrence above for its scan."""
    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    vars(interface)["selective_scan_fn"] = selective_scan
    sys.modules[interface.__name__] = interface
    return importlib.import_module("mambavision.models.mamba_vision").MambaVision


def rounded(values: Array) -> Array:
    """A weight as it is committed."""
    if values.size < MANY:
        mantissa, exponent = np.frexp(values.astype(np.float64))
        # frexp gives one half to one: the leading bit and the explicit ones.
        scale = 2.0 ** (MANTISSA_BITS + 1)
        return np.ldexp(np.rint(mantissa * scale) / scale, exponent).astype(np.float32)
    size = 2.0 ** np.ceil(np.log2(np.abs(values).mean()))
    return np.where(values < 0, -size, size).astype(np.float32)


def results(model: Any, image: Array, dtype: torch.dtype) -> dict[str, Array]:
    """The stored arrays, of one run on the CPU: ``output``, ``features``, ``level_0`` to 3."""
    model = model.eval().to(dtype)
    found = {}
    with torch.no_grad():
        running = model.patch_embed(torch.tensor(image).to(dtype))
        for number, level in enumerate(model.levels):
            running = found[f"level_{number}"] = level(running)
        features = found["features"] = model.forward_features(torch.tensor(image).to(dtype))
        found["output"] = model.head(features)
    return {name: value.numpy() for name, value in found.items()}


def distance(found: dict[str, Array], expected: dict[str, Array]) -> dict[str, float]:
    """Largest difference of each array."""
    return {name: float(np.abs(found[name] - expected[name]).max()) for name in found}


def make(source: Path, case: str, destination: Path) -> None:
    """Make the committed case of the source's case."""
    record = json.loads((source / f"{case}.json").read_text(encoding="utf-8"))
    with np.load(source / f"{case}.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    state = torch.load(source / f"{case}.pth.tar", weights_only=True)["state_dict"]
    model = official_class()(**record["kwargs"])
    model.load_state_dict(state)
    off = distance(results(model, arrays["image"], torch.float32), arrays)
    print(f"{case}: the source's arrays, reproduced within {max(off.values()):.1e}")
    if max(off.values()) > SOURCE_BOUND:
        raise SystemExit(f"more than {SOURCE_BOUND}: {off}")
    few = {
        key: torch.from_numpy(rounded(value.numpy())) if value.is_floating_point() else value
        for key, value in state.items()
    }
    image = (np.rint(arrays["image"][:1] / PIXEL_STEP) * PIXEL_STEP).astype(np.float32)
    model.load_state_dict(few)
    found = results(model, image, torch.float32)
    exact = results(model, image, torch.float64)
    record |= {
        "torch": torch.__version__,
        "input_shape": list(image.shape),
        "output_shape": list(found["output"].shape),
        "float64_max_abs": max(distance(found, exact).values()),
        "rounded": f"tensors of {MANY} values and more: the sign, times a power of two; others:"
        f" {MANTISSA_BITS} explicit bits; pixels: multiples of {PIXEL_STEP}; then run again",
    }
    del record["one_thread_max_abs"]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, stored_arrays = Path(folder, f"{case}.pth.tar"), Path(folder, f"{case}.npz")
        torch.save({"state_dict": few}, checkpoint)
        np.savez(stored_arrays, image=image, **found)
        for path in (checkpoint, stored_arrays):
            pack_file(path, destination)
    (destination / f"{case}.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(f"{case}: float64 is within {record['float64_max_abs']:.1e} of what is committed")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder that holds M01 and M02")
    source = parser.parse_args().source
    for case in CASES:
        make(source, case, DESTINATION)


if __name__ == "__main__":
    main()
