"""From a checkpoint's keys and shapes to its architecture, and to the keys of our module.

Shapes tell all that the official constructor takes, the picture's size and what has no weights
apart. Kinds of VMamba that are not supported show in their keys, and are refused by the name of
the option that makes them (``VMambaConfig``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vim_deploy.families import named
from vim_deploy.families.vmamba.config import DIRECTIONS, DOWNSAMPLE_KERNELS, VMambaConfig
from vim_deploy.model.keys import cannot_infer, shape_of

_KEYS = named(VMambaConfig.family).keys
#: Linear layers that a version of the official code stores as convolutions of one pixel.
_LINEAR = re.compile(r"(in_proj|out_proj|fc1|fc2|head)\.weight$")
#: The stacked weights under the names of the official single file (vmamba.py), by ours: there they
#: are weights of grouped layers, [4 N, K] for [4, N, K].
_GROUPED = {"x_proj.weight": "x_proj_weight", "dt_projs.weight": "dt_projs_weight"}
_BLOCK = re.compile(r"layers\.([0-9]{1,6})\.blocks\.([0-9]{1,6})\.")
_FIRST = "layers.0.blocks.0."
_HEAD = "classifier.head.weight"
#: Of what nothing in the weights tells: as all published models have it.
PUBLISHED = {"forward_type": "v05_noz", "norm_layer": "ln2d"}


def own_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state_dict`` by the keys and in the shapes of our module, where official code has others.

    A head without classes, which the official code stores as empty weights, is left out.
    """
    found: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        for grouped, stacked in _GROUPED.items():
            groups = len(DIRECTIONS)
            if key.endswith(f".op.{grouped}") and tensor.ndim >= 2 and not len(tensor) % groups:
                key = key.removesuffix(grouped) + stacked
                tensor = tensor.reshape(groups, len(tensor) // groups, -1)
        if _LINEAR.search(key) and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
            tensor = tensor.flatten(1)
        if key.startswith("classifier.head.") and tensor.shape[:1] == (0,):
            continue
        found[key] = tensor
    return found


def read_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Keywords of the official constructor that the shapes of ``tensors`` (``own_keys``) tell.

    Raises:
        VimDeployError: VIM-407 when these are not the keys of a VMamba, or not all.
    """
    depths = _depths(tensors)
    starts = [f"layers.{level}.blocks.0." for level in range(len(depths))]
    widths = tuple(shape_of(tensors, f"{start}norm.weight", 1)[0] for start in starts)
    mixers = [_mixer(tensors, f"{start}op.") for start in starts]
    inner, ranks = [mixer[0] for mixer in mixers], [mixer[1] for mixer in mixers]
    doubled = all(width == widths[0] << level for level, width in enumerate(widths))
    bias = f"{_FIRST}op.conv2d.bias" in tensors
    return {
        "in_chans": shape_of(tensors, "patch_embed.0.weight", 4)[1],
        "num_classes": classes_of(tensors),
        "depths": depths,
        "dims": widths[0] if doubled else widths,
        "ssm_d_state": shape_of(tensors, f"{_FIRST}op.A_logs", 2)[1],
        "ssm_ratio": _ratio("ssm_ratio", inner, widths),
        "ssm_dt_rank": _rank(ranks, widths),
        "ssm_conv": mixers[0][2],
        "ssm_conv_bias": bias,
        **_gate(tensors, inner[0]),
        **_mlp(tensors, widths, starts),
        **_outside(tensors, len(depths)),
    }


def classes_of(tensors: Mapping[str, Tensor]) -> int:
    """Width of the classifier; 0 without one."""
    return shape_of(tensors, _HEAD, 2)[0] if _HEAD in tensors else 0


def _depths(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Blocks of each level, which are numbered without gaps."""
    found: dict[int, set[int]] = {}
    for key in tensors:
        if block := _BLOCK.match(key):
            found.setdefault(int(block[1]), set()).add(int(block[2]))
    if any(key not in tensors for key in _KEYS):
        first = sorted({key.partition(".")[0] for key in tensors})[:8]
        raise cannot_infer(
            "these are not the weights of a VMamba",
            f"there is no {' or no '.join(_KEYS)}; keys start with {', '.join(first)}",
            "give a checkpoint of MzeroMiko/VMamba, or its keywords with --config",
        )
    for what, numbers in [("levels", set(found)), *(("blocks", own) for own in found.values())]:
        missing = next(number for number in range(len(numbers) + 1) if number not in numbers)
        if missing != len(numbers):
            raise cannot_infer(
                f"the architecture cannot be inferred: {what} are not numbered without gaps",
                f"there are {len(numbers)}, but none has the number {missing}",
            )
    return tuple(len(found[level]) for level in range(len(found)))


def _mixer(tensors: Mapping[str, Tensor], start: str) -> tuple[int, int, int]:
    """Channels, rank of the step sizes and width of the convolution of a mixer."""
    if f"{start}conv2d.weight" not in tensors and f"{start}in_proj.weight" in tensors:
        inner = shape_of(tensors, f"{start}out_proj.weight", 2)[1]
        return inner, shape_of(tensors, f"{start}dt_projs_weight", 3)[2], 1
    inner, _, _, kernel = shape_of(tensors, f"{start}conv2d.weight", 4)
    return inner, shape_of(tensors, f"{start}dt_projs_weight", 3)[2], kernel


def _ratio(name: str, sizes: list[int], widths: tuple[int, ...]) -> int | float:
    """The factor from ``widths`` to ``sizes``, the same on all levels."""
    ratio = sizes[0] / widths[0]
    if any(int(ratio * width) != size for width, size in zip(widths, sizes, strict=True)):
        raise cannot_infer(
            f"the architecture cannot be inferred: {name}",
            f"{sizes} channels of {list(widths)} on the levels: no one factor gives these",
        )
    return ratio


def _rank(ranks: list[int], widths: tuple[int, ...]) -> int | str:
    if all(rank == math.ceil(width / 16) for rank, width in zip(ranks, widths, strict=True)):
        return "auto"
    if len(set(ranks)) > 1:
        raise cannot_infer(
            "the architecture cannot be inferred: ssm_dt_rank",
            f"the levels have {ranks}, and the official code gives all one number, or a 16th",
        )
    return ranks[0]


def _gate(tensors: Mapping[str, Tensor], inner: int) -> dict[str, Any]:
    """The forward type: what it makes of ``in_proj`` and ``out_norm`` shows in the weights."""
    rows = shape_of(tensors, f"{_FIRST}op.in_proj.weight", 2)[0]
    name = PUBLISHED["forward_type"]
    if rows == 2 * inner:
        return {"forward_type": name.removesuffix("_noz")}
    if f"{_FIRST}op.out_norm.weight" not in tensors:
        # A norm with a convolution has numbered parts; a softmax, a sigmoid or none, no weights.
        numbered = f"{_FIRST}op.out_norm.0.weight" in tensors
        numbered |= f"{_FIRST}op.out_norm.1.weight" in tensors
        return {"forward_type": f"v05_{'ondwconv3' if numbered else 'onnone'}_noz"}
    return {"forward_type": name}


def _mlp(
    tensors: Mapping[str, Tensor], widths: tuple[int, ...], starts: list[str]
) -> dict[str, Any]:
    if f"{_FIRST}mlp.fc1.weight" not in tensors:
        return {"mlp_ratio": 0.0}
    hidden = [shape_of(tensors, f"{start}mlp.fc2.weight", 2)[1] for start in starts]
    gated = shape_of(tensors, f"{_FIRST}mlp.fc1.weight", 2)[0] == 2 * hidden[0]
    return {"mlp_ratio": _ratio("mlp_ratio", hidden, widths), "gmlp": gated}


def _outside(tensors: Mapping[str, Tensor], levels: int) -> dict[str, Any]:
    """Patch embedding, the steps between levels, norms and position embedding."""
    values: dict[str, Any] = {
        "patchembed_version": "v2" if "patch_embed.5.weight" in tensors else "v1",
        "patch_norm": "patch_embed.2.weight" in tensors,
        "posembed": "pos_embed" in tensors,
        "norm_layer": PUBLISHED["norm_layer"],
        "downsample_version": "v3",
    }
    if any(key.endswith(".running_mean") for key in tensors):
        values["norm_layer"] = "bn"
    if levels > 1 and "layers.0.downsample.1.weight" in tensors:
        kernel = shape_of(tensors, "layers.0.downsample.1.weight", 4)[2]
        known = {size: name for name, size in DOWNSAMPLE_KERNELS.items()}
        values["downsample_version"] = known.get(kernel, f"{kernel} pixels wide")
    elif levels > 1:
        values["downsample_version"] = "v1"
    return values


def infer(
    tensors: Mapping[str, Tensor], image_size: int | tuple[int, int] | None
) -> tuple[VMambaConfig, tuple[str, ...], frozenset[str]]:
    """The architecture of a checkpoint, what is said about it, and the fields that are assumed.

    Args:
        tensors: weights, by ``own_keys``.
        image_size: that was asked for: nothing in the weights tells it.

    Raises:
        VimDeployError: VIM-407 when these are not the keys of a VMamba, VIM-408 when they are of
            one that is not supported.
    """
    values = read_shapes(tensors)
    size = VMambaConfig.imgsize if image_size is None else image_size
    config = VMambaConfig(imgsize=size, **values)
    told = {name: value for name, value in values.items() if name not in PUBLISHED}
    listed = ", ".join(f"{name}={value!r}" for name, value in told.items())
    assumed: dict[str, Any] = {
        **PUBLISHED,
        "ssm_act_layer": config.ssm_act_layer,
        "mlp_act_layer": config.mlp_act_layer,
    }
    guessed = ", ".join(f"{name}={value!r}" for name, value in assumed.items())
    statements = [
        f"from the shapes of the weights: {listed}",
        f"assumed {guessed}: shapes do not tell, and the published models have these",
    ]
    if image_size is None:
        assumed["imgsize"] = size
        statements.append(f"assumed imgsize={size!r}: the weights fit any image size")
    else:
        statements.append(f"imgsize={size!r}, as asked")
    return config, tuple(statements), frozenset(assumed)
