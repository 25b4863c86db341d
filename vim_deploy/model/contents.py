"""What a file holds: every mapping with tensors in it, by the names that lead there.

Mappings are dicts, and what a stand-in would have become one or had as attributes; of a whole
network the state dict is put together as ``torch.nn.Module.state_dict`` does it.
"""

from __future__ import annotations

import argparse
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vim_deploy.model.inert import StandIn

#: How deep entries and modules are looked for.
_DEPTH = 12
#: Buffers of one module that are not stored; more are no module's.
_PASSING = 100
#: Letters of a name; those of mmsegmentation's deepest weights are below 60.
_LONGEST = 200
#: Parts of keys and of class names that only quantized weights have: torch.ao and torchao,
#: bitsandbytes (SCB; absmax and quant_map of 4 bits), GPTQ and AWQ (qweight), compressed-tensors
#: (weight_scale), and the quantizers of training for it.
_QUANTIZED = re.compile(
    r"(^|[._])(_packed_params|packed_weight|scb|absmax|quant_map|quant_state|qweight|qzeros|g_idx"
    r"|weight_scale|weight_scale_inv|weight_zero_point|fake_quant|activation_post_process"
    r"|\w*quantizer|quantized|rebuild_qtensor|bitsandbytes|torchao)([._]|$)",
    re.IGNORECASE,
)
#: Modules of a whole network that hold such weights. Optimizers of 8 bits are no network.
_QUANTIZED_MODULES = re.compile(r"nn\.(intrinsic\.)?(quantized|qat)\.|bitsandbytes\.nn\.")


def tensor_mappings(loaded: Any) -> Iterator[tuple[str, Mapping[Any, Any]]]:  # noqa: ANN401
    """Every mapping with tensors in the file and its name, whatever holds it, each once."""
    waiting, seen = deque([("", loaded, 0)]), set[int]()
    while waiting:
        name, value, depth = waiting.popleft()
        if id(value) in seen or depth > _DEPTH:
            continue
        if isinstance(value, StandIn):
            if "_parameters" in value.attributes:
                yield name, _state_dict(value, seen)
            else:
                # Each for itself: many stand-ins may share one of them.
                parts = (value.attributes, value.items, value.args, value.members)
                waiting.extend((name, part, depth) for part in parts)
        seen.add(id(value))
        inner = parts_of(value)
        if any(isinstance(item, Tensor) or is_other_tensor(item) for item in inner.values()):
            yield name, inner
        waiting.extend(
            (f"{name}.{key}" if name else str(key), item, depth + 1)
            for key, item in inner.items()
            if is_name(key) and not isinstance(item, Tensor | str | int | float)
        )


def parts_of(value: Any) -> Mapping[Any, Any]:  # noqa: ANN401
    """What a value holds, by name; empty for what holds nothing, or is a stand-in."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, argparse.Namespace):
        return vars(value)
    if isinstance(value, list | tuple):
        return {str(index): item for index, item in enumerate(value)}
    return {}


def values_of(value: Any) -> Any:  # noqa: ANN401
    """A stand-in's attributes and entries as one dict; any other value itself."""
    return {**value.attributes, **value.items} if isinstance(value, StandIn) else value


def is_name(key: object) -> bool:
    """Whether a key is one that people give: printable, and no longer than a line or two."""
    if isinstance(key, str):
        return len(key) <= _LONGEST and key.isprintable()
    return isinstance(key, int) and key.bit_length() <= 64


def shown(key: object) -> str:
    """A key in a message, whatever it is."""
    text = key if isinstance(key, str) else str(key) if is_name(key) else f"a {type(key).__name__}"
    return text[:80]


def _state_dict(network: StandIn, seen: set[int]) -> dict[str, Any]:
    """The weights of a whole ``torch.nn.Module`` in the file; modules in ``seen`` are left out."""
    weights: dict[str, Any] = {}
    waiting = [("", network)]
    while waiting:
        prefix, module = waiting.pop()
        if id(module) in seen or prefix.count(".") > _DEPTH:
            continue
        seen.add(id(module))
        parts = module.attributes
        names = parts.get("_non_persistent_buffers_set")
        few = names[:_PASSING] if isinstance(names, list | tuple) else ()
        passing = {item for item in few if isinstance(item, str)}
        for kind in ("_parameters", "_buffers", "_modules"):
            held = parts.get(kind)
            if id(held) in seen:
                continue
            seen.add(id(held))
            for name, item in parts_of(held).items():
                if isinstance(item, StandIn) and is_name(name):
                    waiting.append((f"{prefix}{name}.", item))
                elif isinstance(item, Tensor) and is_name(name) and name not in passing:
                    weights[f"{prefix}{name}"] = item
    return weights


def sign_of_quantization(weights: Mapping[Any, Any], made: Iterable[str]) -> str:
    """What says that weights were quantized, in words; empty for plain ones.

    Args:
        weights: of a model, by its own keys.
        made: names of what the file makes besides plain values.
    """
    for key, value in weights.items():
        text = shown(key)
        if _QUANTIZED.search(text):
            return f"it has {text!r}"
        name = value.name if isinstance(value, StandIn) else ""
        if _QUANTIZED.search(name):
            return f"entry {text!r} is a {name}"
        is_whole = isinstance(value, Tensor) and not (
            value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
        )
        if is_whole and text.endswith("weight") and value.ndim > 1:
            return f"{text!r} is {str(value.dtype).removeprefix('torch.')}"
    names = (name for name in made if _QUANTIZED_MODULES.search(name))
    return next((f"it makes a {name}" for name in names), "")


def is_other_tensor(item: object) -> bool:
    """Whether a file makes a tensor of a kind that is not made here: sparse, quantised, sharded."""
    return isinstance(item, StandIn) and "tensor" in item.name.lower().replace("_rebuild", "tensor")
