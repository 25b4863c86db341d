"""Checkpoints: weights, where they came from, and the training arguments stored beside them.

Understood are files of ``torch.save`` that hold a Vim, under whatever name and prefix
(``entries``), and safetensors. What is chosen, left out or converted is said in the notes; nothing
is guessed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vim_deploy.artifact.file import CHECKPOINT_SUFFIXES, is_checkpoint
from vim_deploy.errors import VimDeployError, missing_package, nearest
from vim_deploy.families import FAMILIES, Family
from vim_deploy.files import require_file, sha256_of, sight
from vim_deploy.model.contents import parts_of, shown, sign_of_quantization, values_of
from vim_deploy.model.entries import choose_entry
from vim_deploy.model.hub import CheckpointFile, locate
from vim_deploy.model.inert import StandIn
from vim_deploy.model.unpickle import load_pickled, unreadable
from vim_deploy.recipe.stored_preparation import (
    CONFIG_BESIDE,
    StoredPreparation,
    read_tables,
    tables_beside,
    tables_in,
)
from vim_deploy.specs import CheckpointInfo
from vim_deploy.text import storable

PARTS = ("auto", "model", "model_ema")
_LISTED = 10
#: Classes that a note names before it only counts.
_FEW = 4
#: Of a tensor of one number for each channel.
_MOST_CHANNELS = 64
_PLAIN = (
    "save the weights as plain tensors of floats, whole ones where they are sharded, by text keys"
)
_AS_TRAINED = "give the checkpoint as it was trained, with weights of floats, and quantize that"
#: What trainers of Hugging Face and DeepSpeed keep beside the weights, by the same suffixes.
_TRAINING = re.compile(
    r"(optimizer|scheduler|scaler|sampler|rng_state|random_states|training_args|dl_state_dict)"
    r"[_\d]*\.\w+|.*optim_states\.pt"
)
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$")
#: Convolutions that read pictures.
_FIRST_LAYERS = tuple(family.keys[0] for family in FAMILIES)
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
        config: what ``config.json`` beside the file holds, unchecked; often empty.
        preparation: what the file, or one beside it, says of pictures. Weights of a model that
            takes blue first are turned round already: ``state_dict`` takes red first.
    """

    state_dict: Mapping[str, Tensor]
    info: CheckpointInfo
    args: Mapping[str, Any]
    notes: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    preparation: StoredPreparation = field(default_factory=StoredPreparation)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> Family | None:
        """Whose weights these are, by the keys of a classifier; None where those do not tell."""
        held = self.state_dict
        return next((item for item in FAMILIES if held.keys() >= {*item.keys}), None)


def read_checkpoint(
    address: str | Path, *, part: str = "auto", key: str | None = None
) -> Checkpoint:
    """Read a checkpoint without running anything in it.

    Args:
        address: a file, a folder that holds one checkpoint, or
            ``hf://owner/name[@revision][/file]``.
        part: ``model``, ``model_ema`` (moving average of the weights), or ``auto``, which is
            ``model``, as the official evaluation uses it.
        key: name of the entry that holds the weights, instead of ``part``.

    Raises:
        VimDeployError: VIM-202 (``part`` or address), VIM-301 (huggingface_hub or safetensors not
            installed), VIM-303 (hub not reachable), VIM-401 (not found), VIM-402 (not readable),
            VIM-403 (would run code), VIM-404 (no such part), VIM-405 (NaN or Inf), VIM-439
            (replaced while it was read).
    """
    if part not in PARTS:
        raise VimDeployError("VIM-202", f"unknown part {part!r}", fix=nearest(part, PARTS))
    file = find_file(address)
    try:
        sighting = sight(file.path)
        digest = sha256_of(file.path)
        loaded, foreign = _load(file.path)
    except OSError as error:
        raise unreadable(file.path, error.strerror or str(error), "check its rights") from error
    notes = list(file.notes)
    entry, choice = choose_entry(loaded, part, key, file.path)
    notes += [choice] * bool(choice)
    if entry.removed:
        notes.append("removed from the keys: " + ", ".join(map(repr, entry.removed)))
    if entry.beside:
        notes.append(f"left out, no part of the model: {_names(entry.beside)}")
    if foreign:
        notes.append(f"not made, since no code of a checkpoint is run: {_names(foreign, _FEW)}")
    if sign := sign_of_quantization(entry.tensors, foreign):
        raise unreadable(file.path, f"its weights are quantized already: {sign}", _AS_TRAINED)
    state_dict = _float32(entry.tensors, file.path, notes)
    # safetensors maps the file: only now have all bytes been read.
    sighting.require_unchanged()
    _refuse_non_finite(state_dict, file.path)
    averaged = part == "model_ema" and key is None
    chosen = "model_ema" if averaged else entry.name or "state_dict"
    info = CheckpointInfo(storable(file.path.name), digest, chosen, file.source)
    said = {name: values_of(value) for name, value in parts_of(values_of(loaded)).items()}
    stored = said.get("meta")
    meta = (
        {key: value for key, value in stored.items() if _is_text(key) and _is_sound(value)}
        if isinstance(stored, Mapping)
        else {}
    )
    pixels = ("the checkpoint's pixel_mean", _pixel_tensors(state_dict))
    inside, beside = tuple(tables_in(said)), dict(tables_beside(file.path))
    preparation = read_tables((*inside, *beside.items(), pixels))
    if preparation.bgr:
        state_dict |= _red_first(state_dict, notes)
    args = _plain_args(said)
    # Not from beside: another model's size would give this one another stride.
    height, width = read_tables(inside).values.get("image_size", (0, None))
    if height == width and type(args.get("input_size")) is not int:
        args["input_size"] = height
    config = beside.get(CONFIG_BESIDE)
    config = config if isinstance(config, Mapping) else {}
    return Checkpoint(state_dict, info, args, tuple(notes), meta, preparation, config)


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
        if key.endswith(_FIRST_LAYERS) and value.ndim == 4 and value.shape[1] == 3
    }
    if turned:
        notes.append(
            "the checkpoint is of a model that takes BGR pictures: the input channels of "
            f"{', '.join(turned)} are turned round, and what is exported takes RGB"
        )
    return turned


def find_file(address: str | Path) -> CheckpointFile:
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
    called = sorted(filter(is_checkpoint, names))
    found = [name for name in called if not _TRAINING.fullmatch(name.rpartition("/")[2])] or called
    if len(found) == 1:
        return found[0]
    if not found:
        is_sharded = any(name.endswith(".distcp") for name in names)
        raise VimDeployError(
            "VIM-401",
            f"no checkpoint in {place}",
            why="no file there ends in " + ", ".join(CHECKPOINT_SUFFIXES),
            fix="it is sharded by torch.distributed: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {place} FILE.pth"
            if is_sharded
            else "give the path of the checkpoint file itself",
        )
    if all(_SHARD.search(name) for name in found):
        raise VimDeployError(
            "VIM-401",
            f"the weights in {place} are cut into {len(found)} files",
            why=f"found {found[0]} to {found[-1]}",
            fix="save them as one: of safetensors load_file each, and save_file({**first, **second}"
            ', "whole.safetensors"); of others the same with torch.load and torch.save',
        )
    shown = found[:10] + [f"and {len(found) - 10} more"] * (len(found) > 10)
    raise VimDeployError(
        "VIM-401",
        f"{len(found)} checkpoints in {place}; which one is not clear",
        why="found " + ", ".join(shown),
        fix=f"name one of them: {prefix}{found[0]}",
    )


def _load(path: Path) -> tuple[Any, tuple[str, ...]]:
    """What the file holds, and what is left out of it."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(512)
    _refuse_known_others(path, head)
    header_size = int.from_bytes(head[:8], "little")
    is_safetensors = head[8:9] == b"{" and header_size <= size - 8
    is_pickle = head.startswith((b"PK\x03\x04", b"\x80"))
    if is_safetensors or (path.suffix == ".safetensors" and not is_pickle):
        return _load_safetensors(path), ()
    return load_pickled(path)


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


def _float32(weights: Mapping[Any, Any], path: Path, notes: list[str]) -> dict[str, Tensor]:
    """Plain dense tensors, floating ones as float32; VIM-402 for anything else."""
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
    if not isinstance(value, Tensor):
        kind = value.name if isinstance(value, StandIn) else type(value).__name__
        raise unreadable(path, f"entry {shown(key)!r} is a {kind}", _PLAIN)
    if not _is_text(key) or value.is_complex() or value.is_quantized:
        raise unreadable(path, f"entry {shown(key)!r} of {value.dtype} is no weight", _PLAIN)
    # A few bytes can claim any shape through strides of zero; converting it would fill memory.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        why = f"tensor {key!r} claims shape {tuple(value.shape)}, more than the file stores"
        raise unreadable(path, why, f"{_PLAIN}, expanded ones as tensor.contiguous()")


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


def _names(keys: Sequence[str], most: int = _LISTED) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def _plain_args(said: Mapping[Any, Any]) -> dict[str, Any]:
    """Stored arguments that are plain values; other ones have no meaning for the architecture."""
    # Of a whole network the file says its attributes, the official keywords among them.
    stored = said if "_parameters" in said else said.get("args", said.get("hyper_parameters"))
    plain = (str, int, float, bool, type(None))
    return {
        key: value
        for key, value in parts_of(stored).items()
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
