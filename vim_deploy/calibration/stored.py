"""A calibration as a file: saved by one export, and taken by others of the same model.

It is JSON, and may be somebody else's. What it was found on stands in it, since scales of another
checkpoint or another preparation of pictures would be wrong without anybody noticing. Which
products an export quantizes may differ: scales of others are not asked for. The form of the graph,
its precision where nothing is quantized and what it does to pictures itself change no scale.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.codec import decode, encode, sentence, stored
from vim_deploy.errors import VimDeployError
from vim_deploy.families.base import ModelConfig
from vim_deploy.files import require_file, settings_hash, write_bytes
from vim_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan
from vim_deploy.images import check_preparation
from vim_deploy.precisions import Precision
from vim_deploy.ranges import CALIBRATION_IMAGES, shown
from vim_deploy.recipe.quantization import SUFFIX, CalibrationInfo, QuantizeOptions
from vim_deploy.scene.pictures import require_free
from vim_deploy.specs import ActivationScales, CheckpointInfo, ImagePreparation
from vim_deploy.text import json_text
from vim_deploy.untrusted import read_json

FORMAT: Final = 1
#: Vim-B's, with a number for each channel of 144 products, is 3 MB.
_MAX_BYTES = 32 << 20
#: Scales and smoothing are float32 numbers of full precision.
_LEAST, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
#: Of many names, and of a hash, in a message.
_NAMED, _DIGITS = 5, 12


@stored(head={"vim_deploy_calibration": FORMAT})
@dataclass(frozen=True)
class StoredCalibration:
    """What a file holds.

    Attributes:
        checkpoint: origin of the weights.
        model_config: the architecture, of a dense model its backbone's.
        image: preparation of pictures.
        pos_embed: how the position embedding was fitted to the image size.
        precision: that products are quantized to.
        activations: where their scales come from.
        pictures: what was watched.
        plan: how each product is quantized.
        plan_sha256: of the plan as it stands there, so that one that was damaged or edited is
            noticed: a file says of itself only which pictures its scales come from.
    """

    checkpoint: CheckpointInfo
    model_config: ModelConfig
    image: ImagePreparation
    pos_embed: str
    precision: Precision
    activations: ActivationScales
    pictures: CalibrationInfo
    plan: QuantizationPlan
    plan_sha256: str

    @classmethod
    def of(
        cls,
        info: ExportInfo,
        activations: ActivationScales,
        pictures: CalibrationInfo,
        plan: QuantizationPlan,
    ) -> StoredCalibration:
        """What was found for the model that ``info`` describes."""
        return cls(
            info.checkpoint,
            info.model_config,
            info.image,
            info.pos_embed,
            info.precision,
            activations,
            pictures,
            plan,
            settings_hash(encode(plan)),
        )


def require_place(path: Path | None, *, force: bool) -> None:
    """Refuse what ``save`` could not write, before minutes are spent; None passes.

    Raises:
        VimDeployError: VIM-202 (another suffix), VIM-204 (it is there already), VIM-304, VIM-305.
    """
    require_free(path, SUFFIX, force=force, option="--save-calibration")


def save(path: Path, calibration: StoredCalibration) -> None:
    """Write it; ``require_place`` comes first."""
    write_bytes(path, (json_text(encode(calibration), compact=True) + "\n").encode())


def load(path: Path, info: ExportInfo, options: QuantizeOptions) -> StoredCalibration:
    """Read what was saved for the model that ``info`` describes.

    Args:
        path: of the file.
        info: of the export to come, whatever it says of calibration pictures.
        options: of that export; its method is compared where it is not the usual one.

    Raises:
        VimDeployError: VIM-401 (no such file), VIM-441 (not as ``save`` writes it), VIM-442 (saved
            for something else).
    """
    require_file(path, "calibration")

    def damaged(why: str) -> VimDeployError:
        return _unusable(path, why)

    value = read_json(path, damaged, max_bytes=_MAX_BYTES)
    found = decode(
        value,
        StoredCalibration,
        damaged,
        on_unknown=lambda key, _: damaged(f"unknown key {shown(key)}"),
        on_own=lambda error: damaged(sentence(error)),
    )
    try:
        check_preparation(found.image)
    except ValueError as error:
        raise damaged(str(error)) from error
    if flaw := _flaw(found):
        raise damaged(flaw)
    if found.plan_sha256 != settings_hash(encode(found.plan)):
        raise damaged("its scales are not those that were saved")
    if others := list(_differences(found, info, options)):
        raise VimDeployError(
            "VIM-442",
            f"{path} is a calibration of something else",
            why="; ".join(others),
            fix="give the folder of pictures instead, or export as the calibration was made",
        )
    return found


def require_products(path: Path, plan: QuantizationPlan, channels: Mapping[str, int]) -> None:
    """VIM-441 unless ``plan``, of ``path``, is one for these products.

    Args:
        path: of the file, for the message.
        plan: of that file; it may have more products.
        channels: how many numbers a row of activations has, by the product's name.
    """
    layers = plan.named()
    if missing := [name for name in channels if name not in layers]:
        names = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        raise _unusable(path, f"it has no scales of {len(missing)} products: {names}")
    for name, count in channels.items():
        layer = layers[name]
        if layer.smoothing is not None and len(layer.smoothing) != count:
            raise _unusable(
                path, f"{name} has {count} channels, and {len(layer.smoothing)} are smoothed"
            )


def _flaw(found: StoredCalibration) -> str:
    """What no calibration of ours has, in words; empty for nothing."""
    layers, pictures = found.plan.layers, found.pictures
    least, most = CALIBRATION_IMAGES.low, CALIBRATION_IMAGES.high
    if not least <= pictures.images <= most or not re.fullmatch("[0-9a-f]{64}", pictures.sha256):
        return f"it was made of {shown(pictures.images)} pictures {shown(pictures.sha256)}"
    counts = Counter(layer.name for layer in layers)
    twice = [name for name, count in counts.items() if count > 1]
    if twice or not layers:
        return f"product {shown(twice[0])} stands there twice" if twice else "it has no scales"
    for layer in layers:
        if why := _flaw_of_layer(layer, found.activations):
            return f"product {shown(layer.name)}: {why}"
    return ""


def _flaw_of_layer(layer: LayerPlan, activations: ActivationScales) -> str:
    if (layer.scale is None) != (activations == "per-token"):
        return f"its scale is {layer.scale}, and activations are {activations}"
    numbers = [*(() if layer.scale is None else (layer.scale,)), *(layer.smoothing or ())]
    for number in numbers:
        if not _LEAST <= number <= _MOST:
            return f"{number} is no scale"
    if layer.smoothing == ():
        return "smoothing of no channels"
    if layer.error is not None and not (math.isfinite(layer.error) and layer.error >= 0):
        return f"{layer.error} is no error"
    if layer.digits not in (1, 2) or (layer.digits > 1 and layer.scale is None):
        return f"{layer.digits} digits"
    return ""


def _differences(
    found: StoredCalibration, info: ExportInfo, options: QuantizeOptions
) -> Iterator[str]:
    """What it was saved for and this export is not, in words."""
    pairs: list[tuple[str, Any, Any]] = [
        *_apart("", encode(found.model_config), encode(info.model_config)),
        *_apart("image ", encode(found.image), encode(info.image)),
        ("pos_embed", found.pos_embed, info.pos_embed),
        ("precision", found.precision, info.precision),
        ("activation scales", found.activations, options.activations),
    ]
    if options.method != QuantizeOptions.method:
        pairs.append(("method", found.pictures.method, options.method))
    if _identity(found.checkpoint) != _identity(info.checkpoint):
        yield f"saved for {_named(found.checkpoint)}, asked for {_named(info.checkpoint)}"
    for name, theirs, ours in pairs:
        if theirs != ours:
            yield f"{name}: saved for {shown(theirs)}, asked for {shown(ours)}"


def _apart(
    name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    keys = dict.fromkeys((*ours, *theirs))
    return [(f"{name}{key}", theirs.get(key), ours.get(key)) for key in keys]


def _identity(checkpoint: CheckpointInfo) -> tuple[str, str]:
    # Seeded weights have a name and no file.
    return checkpoint.sha256 or checkpoint.name, checkpoint.part


def _named(checkpoint: CheckpointInfo) -> str:
    digest = f", SHA-256 {shown(checkpoint.sha256[:_DIGITS])}" if checkpoint.sha256 else ""
    return f"{shown(checkpoint.name)} ({shown(checkpoint.part)}{digest})"


def _unusable(path: Path, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-441",
        f"{path} is not a usable calibration",
        why=why,
        fix="save it again: vim-deploy export CHECKPOINT --precision int8 --calibration DIR "
        "--save-calibration FILE.json",
    )
