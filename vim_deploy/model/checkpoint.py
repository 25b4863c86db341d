"""Checkpoints: weights, where they came from, and the training arguments stored beside them.

Understood are the official training files (``model``, ``model_ema``, ``args`` and more), files with
a ``state_dict`` entry, bare state dicts, all of these with the prefixes that wrappers add, and
safetensors. What is chosen or converted is said in the notes; nothing is guessed.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vim_deploy.errors import VimDeployError, missing_package, nearest
from vim_deploy.files import require_file, sha256_of, sight
from vim_deploy.model.hub import CheckpointFile, locate
from vim_deploy.model.unpickle import load_pickled, unreadable
from vim_deploy.recipe.stored_preparation import StoredPreparation, read_tables, tables_of
from vim_deploy.specs import CheckpointInfo
from vim_deploy.text import storable

PARTS = ("auto", "model", "model_ema")
#: Entries that hold weights: those of the official vim/main.py, and the common other names.
_MODEL_KEYS = ("model", "state_dict")
_EMA_KEYS = ("model_ema", "state_dict_ema")
#: Prefixes that DistributedDataParallel and torch.compile put before every key.
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")
_LISTED = 10
#: Of a tensor of one number for each channel.
_MOST_CHANNELS = 64
#: Suffixes of files that may hold weights.
SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
#: Of a stored whole number; more digits than any argument has cannot even be printed.
_MAX_BITS = 64


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a file.

    Attributes:
        state_dict: tensors on the CPU, by the model's own keys; floating ones are float32.
        info: name, sha256, chosen part and hub address.
        args: training arguments stored in the file, plain values only; often empty.
        notes: sentences on what was chosen and converted.
        meta: what mmsegmentation stores beside the weights, unchecked: class names, colours, the
            text of its configuration; often empty.
        preparation: what the file, or one beside it, says of pictures. Weights of a model that
            takes blue first are turned round already: ``state_dict`` takes red first.
    """

    state_dict: Mapping[str, Tensor]
    info: CheckpointInfo
    args: Mapping[str, Any]
    notes: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    preparation: StoredPreparation = field(default_factory=StoredPreparation)


def read_checkpoint(address: str | Path, *, part: str = "auto") -> Checkpoint:
    """Read a checkpoint without running anything in it.

    Args:
        address: a file, a folder that holds one checkpoint, or
            ``hf://owner/name[@revision][/file]``.
        part: ``model``, ``model_ema`` (moving average of the weights), or ``auto``, which is
            ``model``, as the official evaluation uses it.

    Raises:
        VimDeployError: VIM-202 (``part`` or address), VIM-301 (huggingface_hub or safetensors not
            installed), VIM-303 (hub not reachable), VIM-401 (not found), VIM-402 (not readable),
            VIM-403 (would run code), VIM-404 (no such part), VIM-405 (NaN or Inf), VIM-439
            (replaced while it was read).
    """
    if part not in PARTS:
        raise VimDeployError("VIM-202", f"unknown part {part!r}", fix=nearest(part, PARTS))
    file = _find_file(address)
    try:
        sighting = sight(file.path)
        digest = sha256_of(file.path)
        loaded = _load(file.path)
    except OSError as error:
        raise unreadable(file.path, error.strerror or str(error), "check its rights") from error
    notes = list(file.notes)
    chosen, weights = _choose_part(loaded, part, file.path, notes)
    weights = _without_prefixes(weights, notes)
    state_dict = _float32(weights, file.path, notes)
    # safetensors maps the file: only now have all bytes been read.
    sighting.require_unchanged()
    _refuse_non_finite(state_dict, file.path)
    info = CheckpointInfo(storable(file.path.name), digest, chosen, file.source)
    stored = loaded.get("meta")
    meta = (
        {key: value for key, value in stored.items() if _is_text(key) and _is_sound(value)}
        if isinstance(stored, Mapping)
        else {}
    )
    pixels = ("the checkpoint's pixel_mean", _pixel_tensors(weights))
    preparation = read_tables((*tables_of(loaded, file.path), pixels))
    if preparation.bgr:
        state_dict |= _red_first(state_dict, notes)
    args = _plain_args(loaded)
    height, width = preparation.values.get("image_size", (0, None))
    if height == width and type(args.get("input_size")) is not int:
        args["input_size"] = height
    return Checkpoint(state_dict, info, args, tuple(notes), meta, preparation)


def _pixel_tensors(weights: Mapping[Any, Any]) -> dict[str, list[float]]:
    """Mean and standard deviation that a detector of detectron2 keeps among its weights."""
    return {
        name: value.flatten().tolist()
        for key, value in weights.items()
        if (name := key.rpartition(".")[2]) in ("pixel_mean", "pixel_std")
        and value.numel() <= _MOST_CHANNELS
    }


def _red_first(state_dict: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """The first convolution with its input channels in the other order."""
    turned = {
        key: value.flip(1)
        for key, value in state_dict.items()
        if key.endswith("patch_embed.proj.weight") and value.ndim == 4 and value.shape[1] == 3
    }
    if turned:
        notes.append(
            "the checkpoint is of a model that takes BGR pictures: the input channels of "
            f"{', '.join(turned)} are turned round, and what is exported takes RGB"
        )
    return turned


def _find_file(address: str | Path) -> CheckpointFile:
    """The file that ``address`` means.

    Args:
        address: a file, a folder that holds one checkpoint, or
            ``hf://owner/name[@revision][/file]``.

    Raises:
        VimDeployError: VIM-202 (malformed hub address), VIM-301 and VIM-303 (hub), VIM-401
            (nothing there, or several checkpoints to choose from).
    """
    text = str(address)
    if text.startswith("hf:/"):
        return locate(text, _only_checkpoint)
    path = Path(address)
    if not os.path.isdir(path):
        return CheckpointFile(require_file(path, "checkpoint"))
    names = [entry.name for entry in path.iterdir() if entry.is_file()]
    name = _only_checkpoint(names, text, str(path) + "/")
    return CheckpointFile(path / name, notes=(f"checkpoint {name}, the only one in {path}",))


def _only_checkpoint(names: Sequence[str], place: str, prefix: str) -> str:
    found = sorted(
        name
        for name in names
        if name.endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise VimDeployError(
            "VIM-401",
            f"no checkpoint in {place}",
            why="no file there ends in " + ", ".join(SUFFIXES),
            fix="give the path of the checkpoint file itself",
        )
    shown = found[:10] + [f"and {len(found) - 10} more"] * (len(found) > 10)
    raise VimDeployError(
        "VIM-401",
        f"{len(found)} checkpoints in {place}; which one is not clear",
        why="found " + ", ".join(shown),
        fix=f"name one of them: {prefix}{found[0]}",
    )


def _load(path: Path) -> Mapping[Any, Any]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(512)
    _refuse_known_others(path, head)
    header_size = int.from_bytes(head[:8], "little")
    is_safetensors = head[8:9] == b"{" and header_size <= size - 8
    if is_safetensors or path.suffix == ".safetensors":
        return _load_safetensors(path)
    loaded = load_pickled(path)
    if not isinstance(loaded, Mapping):
        raise unreadable(path, f"it holds a {type(loaded).__name__}, not named weights")
    return loaded


def _refuse_known_others(path: Path, head: bytes) -> None:
    """VIM-402 for what often lies where a checkpoint should be."""
    if not head:
        raise unreadable(path, "the file is empty")
    if head.startswith(b"version https://git-lfs"):
        raise unreadable(path, "it is a Git LFS pointer, not the file itself", "run: git lfs pull")
    if head.lstrip()[:5].lower() in (b"<html", b"<!doc"):
        why = "it is a web page"
        raise unreadable(path, why, "download the file itself, not the page that shows it")


def _load_safetensors(path: Path) -> Mapping[Any, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise missing_package("safetensors", "torch", f"reading {path.name}") from error
    try:
        tensors: Mapping[Any, Any] = load_file(path, device="cpu")
    except Exception as error:
        # The library raises its own SafetensorError, and others from below, for damaged files.
        raise unreadable(path, f"safetensors says: {error}") from error
    return tensors


def _choose_part(
    loaded: Mapping[Any, Any], part: str, path: Path, notes: list[str]
) -> tuple[str, Mapping[Any, Any]]:
    """Name and weights of the wanted part."""
    model = next((key for key in _MODEL_KEYS if isinstance(loaded.get(key), Mapping)), None)
    ema = next((key for key in _EMA_KEYS if isinstance(loaded.get(key), Mapping)), None)
    bare = model is None and ema is None and _all_tensors(loaded)
    if part == "model_ema":
        if ema is None:
            raise VimDeployError(
                "VIM-404",
                f"no moving average of the weights (model_ema) in {path}",
                why=f"it holds {_listing(loaded)}",
                fix="leave out --use-ema",
            )
        notes.append(f"weights: {ema!r}, the moving average")
        return "model_ema", loaded[ema]
    if bare:
        return "state_dict", loaded
    if model is not None:
        other = f"; {ema!r} is there too, --use-ema takes it" if ema else ""
        notes.append(f"weights: {model!r} of the file{other}")
        return model, loaded[model]
    if ema is not None:
        raise VimDeployError(
            "VIM-404",
            f"only the moving average of the weights ({ema}) is in {path}",
            fix="take it with --use-ema",
        )
    why = f"it holds {_listing(loaded)}; expected weights under 'model' or 'state_dict', or alone"
    raise unreadable(path, why)


def _all_tensors(value: Mapping[Any, Any]) -> bool:
    return bool(value) and all(isinstance(item, Tensor) for item in value.values())


def _listing(value: Mapping[Any, Any]) -> str:
    names = [str(key)[:80] for key in list(value)[:_LISTED]]
    more = f" and {len(value) - _LISTED} more" if len(value) > _LISTED else ""
    return (", ".join(names) or "nothing") + more


def _without_prefixes(weights: Mapping[Any, Any], notes: list[str]) -> Mapping[Any, Any]:
    """Keys without the prefixes of wrappers; only a prefix that every key has is removed."""
    stripped = True
    while stripped and weights:
        stripped = False
        for prefix in _WRAPPER_PREFIXES:
            if all(isinstance(key, str) and key.startswith(prefix) for key in weights):
                weights = {key.removeprefix(prefix): value for key, value in weights.items()}
                notes.append(f"prefix {prefix!r} removed from all keys")
                stripped = True
    return weights


def _float32(weights: Mapping[Any, Any], path: Path, notes: list[str]) -> dict[str, Tensor]:
    """Plain dense tensors, floating ones as float32; VIM-402 for anything else."""
    if not weights:
        raise unreadable(path, "it holds no weights")
    result: dict[str, Tensor] = {}
    converted: set[str] = set()
    for key, value in weights.items():
        _check_entry(key, value, path)
        tensor = value.detach()
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            converted.add(str(tensor.dtype).removeprefix("torch."))
            tensor = tensor.to(torch.float32)
        result[key] = tensor
    if converted:
        notes.append(f"weights converted from {', '.join(sorted(converted))} to float32")
    return result


def _check_entry(key: object, value: object, path: Path) -> None:
    if not _is_text(key) or not isinstance(value, Tensor):
        why = f"entry {str(key)[:80]!r} is a {type(value).__name__}, not a tensor"
        raise unreadable(path, why)
    # A few bytes can claim any shape through strides of zero; converting it would fill memory.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        why = f"tensor {key!r} claims shape {tuple(value.shape)}, more than the file stores"
        raise unreadable(path, why)


def _refuse_non_finite(state_dict: Mapping[str, Tensor], path: Path) -> None:
    bad = [
        key
        for key, tensor in state_dict.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if bad:
        raise VimDeployError(
            "VIM-405",
            f"{len(bad)} of {len(state_dict)} tensors hold NaN or Inf in {path}",
            why=_names(bad),
            fix="the training diverged or the file is damaged: use an earlier checkpoint",
        )


def _names(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more


def _plain_args(loaded: Mapping[Any, Any]) -> dict[str, Any]:
    """Stored arguments that are plain values; other ones have no meaning for the architecture."""
    stored = loaded.get("args")
    values = vars(stored) if isinstance(stored, argparse.Namespace) else stored
    if not isinstance(values, Mapping):
        return {}
    plain = (str, int, float, bool, type(None))
    return {
        key: value
        for key, value in values.items()
        if _is_text(key) and isinstance(value, plain) and _is_sound(value)
    }


def _is_text(value: object) -> bool:
    """Whether it is text that can be written: half a surrogate pair can stand in a pickle."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _is_sound(value: object) -> bool:
    """Whether a stored value, lists and texts in it included, can be worked with and written."""
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, int):
        return value.bit_length() <= _MAX_BITS
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list | tuple):
        # Not deeper: no list of lists of texts means anything here.
        return all(not isinstance(item, str) or _is_text(item) for item in value)
    return True
