"""Which of the things in a file are the weights, by their keys rather than by what they are called.

Trainers put a network's weights under many names and prefixes, beside optimizers, averages, losses
and counters. Wherever a family's ``keys`` stand together under one prefix, there is a model; with
the heads of a dense model around it, it is that model's. What stands beside it is left out, and
said. Files without any are taken by the official names, for messages about what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vim_deploy.errors import VimDeployError
from vim_deploy.families import FAMILIES
from vim_deploy.model.contents import is_other_tensor, parts_of, shown, tensor_mappings
from vim_deploy.model.inert import StandIn

#: Parts of keys that wrappers add: DistributedDataParallel, DeepSpeed and AveragedModel, Lightning
#: Fabric, torch.compile, FullyShardedDataParallel of PyTorch and of fairscale, checkpointing.
_WRAPPERS = frozenset(
    {
        "module", "_forward_module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module",
        "_checkpoint_wrapped_module",
    }
)  # fmt: skip
#: Names of moving averages: model_ema, state_dict_ema, ema_model, ModelEMA, swa_model, ...
_AVERAGE = re.compile(r"(?<![a-z])(ema|swa|avg|averaged?|shadow)(?![a-z])|modelema|emamodel")
#: Last parts of keys that hold counts and rates of training and profiling (thop, AveragedModel and
#: other averages, Module.get_extra_state), and first parts of what only training computes.
_COUNTS = ("total_ops", "total_params", "n_averaged", "num_updates", "decay", "_extra_state")
_LOSSES = ("criterion", "criteria", "loss", "loss_fn")
#: Weights that stand in no layer.
_OWN = ("pos_embed", "cls_token")
#: Official entries, in the order in which they are taken where a file has several.
_OFFICIAL = ("model", "model_ema", "state_dict", "state_dict_ema", "")
#: A linear head beside the model instead of in it: an own class's, and mmpretrain's.
_HEADS = ("head.", "head.fc.")
#: Entries of files with an average of mmengine, and of Lightning's WeightAveraging: they exchange
#: the two, and their own evaluation takes the average, which is then called state_dict.
_SWAPPED = (
    {"message_hub", "state_dict", "ema_state_dict"},
    {"averaging_state", "state_dict", "current_model_state"},
)
_LISTED = 10
#: Models that are looked for under the prefixes of one entry; two or three are usual.
_MOST = 16


@dataclass(frozen=True)
class Entry:
    """Weights in a file.

    Attributes:
        name: of the entry and of the prefix of its keys, as ``--key`` takes it; ``""`` for a whole
            file without either.
        tensors: what stands there by the model's own keys.
        beside: names of what stands among the weights and belongs to no model.
        removed: parts that were taken out of the keys.
        heads: keys beside a model without a head that a head of its could be stored under.
    """

    name: str
    tensors: Mapping[Any, Any]
    beside: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()

    @property
    def averaged(self) -> bool:
        """Whether its name says that it is a moving average."""
        return bool(_AVERAGE.search(self.name.lower()))

    @property
    def rank(self) -> int:
        """Place among several: official entries first."""
        return _OFFICIAL.index(self.name) if self.name in _OFFICIAL else len(_OFFICIAL)


def choose_entry(loaded: Any, part: str, key: str | None, path: Path) -> tuple[Entry, str]:  # noqa: ANN401
    """The wanted weights, and a sentence on the choice, which may be empty.

    Args:
        loaded: what the file holds.
        part: ``model_ema`` for the moving average; anything else for the weights as trained.
        key: name of the entry, or a beginning or an end of it at a dot; then ``part`` is not asked.
        path: of the file, for messages.

    Raises:
        VimDeployError: VIM-402 (no weights at all), VIM-404 (not what is wanted, or several).
    """
    mappings = list(tensor_mappings(loaded))
    found = [entry for name, mapping in mappings for entry in _models(name, mapping)]
    found = _without_copies(found or [_plain(name, mapping) for name, mapping in mappings])
    if key is not None:
        return _named(found, mappings, key, path), f"weights: {key!r}, as asked"
    if not found:
        raise VimDeployError(
            "VIM-402",
            f"no weights in {path}",
            why=f"it holds {_contents(loaded)}; expected named tensors",
            fix="give the file that holds the weights; of a network in memory, save them with "
            "torch.save(model.state_dict(), FILE)",
        )
    averages = [entry for entry in found if entry.averaged]
    others = [entry for entry in found if not entry.averaged]
    if any(set(parts_of(loaded)) >= swapped for swapped in _SWAPPED):
        own = [entry for entry in others if entry.name.partition(".")[0] == "state_dict"]
        averages = others = own or others
    wanted, rest = (averages, others) if part == "model_ema" else (others, averages)
    if not wanted and part == "model_ema":
        raise VimDeployError(
            "VIM-404",
            f"no moving average of the weights (model_ema) in {path}",
            why=f"it holds {_contents(loaded)}",
            fix="leave out --use-ema, or name the entry with --key",
        )
    if not wanted:
        raise VimDeployError(
            "VIM-404",
            f"only the moving average of the weights ({averages[0].name}) is in {path}",
            fix="take it with --use-ema",
        )
    chosen = min(wanted, key=lambda entry: entry.rank)
    if sum(entry.rank == chosen.rank for entry in wanted) > 1:
        raise _several(wanted, path)
    _require_head(chosen, path)
    if part == "model_ema":
        return chosen, f"weights: {chosen.name!r}, the moving average"
    there = [f"; {entry.name!r} is there too, --use-ema takes it"
             for entry in rest[:1] if entry is not chosen]  # fmt: skip
    there += [f"; --key {entry.name} takes others" for entry in wanted if entry is not chosen][:1]
    name = repr(chosen.name) + " of the file" if chosen.name else "the file itself"
    return chosen, f"weights: {name}{''.join(there)}" if chosen.name or there else ""


def _several(found: Iterable[Entry], path: Path) -> VimDeployError:
    names = [entry.name or "state_dict" for entry in found]
    return VimDeployError(
        "VIM-404",
        f"{len(names)} sets of weights in {path}; which one is not clear",
        why="found " + _few(names),
        fix=f"name one of them: --key {names[0]}",
    )


def _named(
    found: list[Entry], mappings: list[tuple[str, Mapping[Any, Any]]], key: str, path: Path
) -> Entry:
    """The entry called ``key``; VIM-404 when there is none, or several."""
    # A whole file is recorded as state_dict, and is found again by that.
    known = {entry.name or "state_dict": entry for entry in found}
    if key in known:
        return known[key]
    fits = [
        entry
        for name, entry in known.items()
        if name.startswith(f"{key}.") or name.endswith(f".{key}")
    ]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise _several(fits, path)
    for name, mapping in mappings:
        if name == key:
            return _plain(name, mapping)
    raise VimDeployError(
        "VIM-404",
        f"no weights called {key!r} in {path}",
        why=f"found {_few(known) or 'none'}",
        fix=f"--key {next(iter(known), 'NAME')}, or leave it out",
    )


def _require_head(entry: Entry, path: Path) -> None:
    """VIM-404 when a layer that may be the classifier stands beside a model without one."""
    if entry.heads:
        raise VimDeployError(
            "VIM-404",
            f"the model in {path} has no head, and what stands beside it may be one",
            why=f"{_few(entry.heads)} beside {entry.name!r}",
            fix=f"--key {entry.name} exports the features without it; for the classes store it as "
            "head.weight and head.bias with the model's weights",
        )


def _contents(loaded: Any) -> str:  # noqa: ANN401
    names = [shown(key) for key in parts_of(loaded)]
    kind = loaded.name if isinstance(loaded, StandIn) else type(loaded).__name__
    return _few(names) or ("nothing" if isinstance(loaded, Mapping) else f"a {kind}")


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _LISTED} more" * (len(listed) > _LISTED)
    return ", ".join(listed[:_LISTED]) + more


# Which of it is a model.


def _plain(name: str, mapping: Mapping[Any, Any]) -> Entry:
    """A mapping that is taken as it is, the wrappers in its keys apart."""
    removed: dict[str, None] = {}
    tensors = _unwrapped(mapping, removed)
    kept = {key: item for key, item in tensors.items() if not _is_extra(key, item)}
    return Entry(name, kept, _names(tensors.keys() - kept.keys(), tensors), tuple(removed))


def _unwrapped(mapping: Mapping[Any, Any], removed: dict[str, None]) -> dict[Any, Any]:
    """Keys without the parts that wrappers add, wherever they stand."""
    found: dict[Any, Any] = {}
    for key, item in mapping.items():
        parts = key.split(".") if isinstance(key, str) else []
        kept = ".".join(part for part in parts[:-1] if part not in _WRAPPERS)
        short = f"{kept}.{parts[-1]}" if kept else parts[-1] if parts else key
        if short != key and (short in mapping or short in found):
            short = key
        if short != key:
            removed.update(dict.fromkeys(f"{part}." for part in parts if part in _WRAPPERS))
        found[short] = item
    return found


def _is_extra(key: object, item: object) -> bool:
    """Whether no model's weights have that: values of training, counts, losses."""
    if not isinstance(key, str):
        return not isinstance(item, Tensor)
    if key.rpartition(".")[2] in _COUNTS or key.partition(".")[0] in _LOSSES:
        return True
    # A tensor of the model that is no tensor must be missed, and not passed over.
    if "." in key or key.startswith(_OWN):
        return False
    return item.ndim == 0 if isinstance(item, Tensor) else not is_other_tensor(item)


def _models(name: str, mapping: Mapping[Any, Any]) -> list[Entry]:
    """The models in a mapping, each with the prefix of its keys."""
    removed: dict[str, None] = {}
    tensors = _unwrapped(mapping, removed)
    names = [key for key in tensors if isinstance(key, str)]
    places: dict[str, None] = {}
    for first, second in (family.keys for family in FAMILIES):
        roots = [key.removesuffix(first) for key in names if key.endswith(first)][:_MOST]
        found = [root for root in roots if root[-1:] in ("", ".") and f"{root}{second}" in tensors]
        places |= dict.fromkeys(_model_place(root, tensors) for root in found)
    return [_entry(name, place, tensors, tuple(places), tuple(removed)) for place in places]


def _model_place(root: str, tensors: Mapping[Any, Any]) -> str:
    """Where the model around what is at ``root`` begins; both end in a dot, or are empty."""

    def has(prefix: str) -> bool:
        return any(isinstance(key, str) and key.startswith(prefix) for key in tensors)

    outer = _outside(root)
    if root.endswith("net.") and has(f"{outer}simfp_"):
        further = _outside(outer)
        return further if outer == f"{further}backbone." else outer
    if root != f"{outer}backbone.":
        return root
    is_classifier = has(f"{root}cls_token") or has(f"{root}head.") or has(f"{outer}head.")
    return root if is_classifier and not has(f"{outer}decode_head.") else outer


def _outside(prefix: str) -> str:
    """One name less: ``a.`` of ``a.b.``."""
    outer = prefix.rstrip(".").rpartition(".")[0]
    return f"{outer}." if outer else ""


def _entry(
    name: str,
    place: str,
    tensors: Mapping[Any, Any],
    places: tuple[str, ...],
    removed: tuple[str, ...],
) -> Entry:
    """The model at ``place``, one of ``places``."""
    inner = tuple(other for other in places if other.startswith(place) and other != place)
    own, beside = {}, {}
    for key, item in tensors.items():
        text = key if isinstance(key, str) else ""
        is_own = text.startswith(place) and not (inner and text.startswith(inner))
        if is_own and not _is_extra(key, item):
            own[text.removeprefix(place) or key] = item
        elif not text.startswith(tuple(other for other in places if other != place)):
            beside[key] = item
    heads: tuple[str, ...] = ()
    width = _width(own)
    if place and width and "head.weight" not in own and "fpn1.0.weight" not in own:
        heads = _take_head(own, beside, _outside(place), width)
    full = ".".join(part for part in (name, place.rstrip(".")) if part)
    prefix = (place,) if place else ()
    return Entry(full, own, _names(beside, tensors), (*removed, *prefix), heads)


def _width(tensors: Mapping[str, Any]) -> int:
    """Channels of what the classifier reads; 0 where no weight tells."""
    for family in FAMILIES:
        wide = tensors.get(family.wide_key)
        if family.keys[0] in tensors and isinstance(wide, Tensor) and wide.ndim:
            return int(wide.shape[0])
    return 0


def _take_head(
    own: dict[str, Any], beside: dict[Any, Any], outer: str, width: int
) -> tuple[str, ...]:
    """Take the head that stands beside a model; where it is not clear, names of what may be it."""
    linear = [
        key
        for key, item in beside.items()
        if isinstance(key, str) and isinstance(item, Tensor) and item.ndim == 2
        and item.shape[1] == width
    ]  # fmt: skip
    for head in _HEADS:
        if linear == [f"{outer}{head}weight"]:
            for part in ("weight", "bias"):
                if f"{outer}{head}{part}" in beside:
                    own[f"head.{part}"] = beside.pop(f"{outer}{head}{part}")
            return ()
    return tuple(linear)


def _names(keys: Iterable[Any], order: Mapping[Any, Any]) -> tuple[str, ...]:
    wanted = set(keys)
    return tuple(shown(key) for key in order if key in wanted)


def _without_copies(found: list[Entry]) -> list[Entry]:
    """Each set of weights once: a file may hold one under several names."""
    seen: dict[object, Entry] = {}
    for entry in sorted(found, key=lambda entry: entry.rank):
        tensors = [(k, item) for k, item in entry.tensors.items() if isinstance(item, Tensor)]
        same = tuple(sorted((str(key), item.data_ptr()) for key, item in tensors))
        seen.setdefault((entry.averaged, same), entry)
    return [entry for entry in found if any(entry is kept for kept in seen.values())]
