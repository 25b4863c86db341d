"""The reference cases: what the official code computed, as frozen records.

The small cases are committed (``tests/data/reference``, see the README there). The full-size case,
and the MambaVision cases with their weights as they were, are read from a folder
``shared/reference`` beside the checkout, or from the folder that the environment variable
``VIM_DEPLOY_REFERENCE`` names; where it is absent, their tests are skipped.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from tests.data.drawn import NOISE, drawn
from tests.data.unpack import unpacked

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = REPOSITORY / "tests" / "data" / "reference"
FULL_SIZE = "B_vim_tiny_224"
DIGITS = "vim_digits"
REFERENCE_VARIABLE = "VIM_DEPLOY_REFERENCE"
#: Absolute, of each element of a float32 file against the official outputs, in every runtime: what
#: the README promises. Measured: 2.2e-5 at most, in MNN 3.3e-5.
BOUND = 1e-4

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ReferenceCase:
    """One run of the official code.

    Attributes:
        name: file name without suffix.
        factory: official factory name; empty when the constructor was called directly.
        kwargs: keywords given to the constructor or the factory (lists stand for tuples); of
            E01 and the detection cases the whole configuration of the network.
        image: input, float32 NCHW.
        outputs: ``output`` and, for vim_digits, ``output_ema``; of the backbones ``output_0`` to
            ``output_3`` or ``output_p2`` to ``output_p6``.
        extras: every other stored array: ``features``, ``block_XX_hidden``,
            ``block_XX_residual``, ``labels``, ``test_index``, ``image_uint8``; of E01
            ``aux_output``, ``whole_output``, ``image_slide``, ``slide_output``; of MambaVision
            ``features`` and ``level_0`` to ``level_3``.
        checkpoint: path of the ``.pth``, of MambaVision the ``.pth.tar``.
        record: the whole JSON file.
    """

    name: str
    factory: str
    kwargs: Mapping[str, Any]
    image: Array
    outputs: Mapping[str, Array]
    extras: Mapping[str, Array]
    checkpoint: Path
    record: Mapping[str, Any]

    @property
    def output(self) -> Array:
        """The stored output of the ``model`` weights."""
        return self.outputs["output"]

    @property
    def blocks(self) -> tuple[int, ...]:
        """Indices of the blocks whose outputs are stored."""
        suffix = "_hidden"
        return tuple(
            int(key.removeprefix("block_").removesuffix(suffix))
            for key in sorted(self.extras)
            if key.endswith(suffix)
        )


def cases() -> tuple[str, ...]:
    """Names of the committed classifiers, sorted: the A cases and vim_digits."""
    return tuple(name for name in _committed() if name[0] in "Av")


def dense_cases() -> tuple[str, ...]:
    """Names of the committed segmentation and detection cases, sorted: D01 to D09 and E01."""
    return tuple(name for name in _committed() if name[0] in "DE")


def detector_cases() -> tuple[str, ...]:
    """Names of the committed detectors: F01 and F02 (see ``tests.support.detector_cases``)."""
    return tuple(name for name in _committed() if name[0] == "F")


def mambavision_cases() -> tuple[str, ...]:
    """Names of the MambaVision cases, sorted: M01 and M02. Committed with weights of few bits."""
    return tuple(name for name in _committed() if name[0] == "M")


def dense_case(short: str) -> ReferenceCase:
    """The dense case whose name starts with ``short``, such as ``D01``."""
    (name,) = (name for name in dense_cases() if name.startswith(short))
    return load_case(name)


def _committed() -> tuple[str, ...]:
    found = (*SMALL.glob("*.pth"), *SMALL.glob("*.pth.xz"), *SMALL.glob("*.pth.tar.xz"))
    return tuple(sorted(path.name.partition(".")[0] for path in found))


def full_size_folder() -> Path:
    """Where the full-size case is looked for."""
    named = os.environ.get(REFERENCE_VARIABLE)
    return Path(named) if named else REPOSITORY.parent / "shared" / "reference"


def has_full_size() -> bool:
    """Whether the full-size case is on this machine."""
    return (full_size_folder() / f"{FULL_SIZE}.npz").is_file()


def _full_folder(name: str) -> Path:
    if not (full_size_folder() / f"{name}.npz").is_file():
        pytest.skip(
            f"the reference case {name} is not in {full_size_folder()}; "
            f"set {REFERENCE_VARIABLE} to the folder that holds it"
        )
    return full_size_folder()


def arrays_of(path: Path) -> dict[str, Array]:
    """Every array of an ``.npz`` file, read-only so that a shared one cannot be changed.

    Of one that is kept as ``.npz.xz`` no file is made.
    """
    packed = Path(f"{path}.xz")
    source = io.BytesIO(unpacked(packed.read_bytes())) if packed.exists() else path
    with np.load(source) as stored:
        arrays = {key: stored[key] for key in stored.files}
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def checkpoint_path(name: str) -> Path:
    """The committed checkpoint of ``name``."""
    return stored_path(_checkpoint_file(name))


def _checkpoint_file(name: str) -> str:
    """File name of a case's checkpoint, which the official code of its family gives its suffix."""
    return f"{name}.pth.tar" if name[0] == "M" else f"{name}.pth"


def arrays_path(name: str) -> Path:
    """The committed arrays of ``name``."""
    return stored_path(f"{name}.npz")


def stored_path(name: str) -> Path:
    """The committed archive ``name``; what is kept as ``.xz`` is made a file first.

    That holds the very bytes, those of every fourth place together: exponents beside exponents
    take less.
    """
    plain = SMALL / name
    packed = SMALL / f"{name}.xz"
    if not packed.exists():
        return plain
    stored = packed.read_bytes()
    folder = Path(tempfile.gettempdir(), f"vim-deploy-reference-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    place = folder / hashlib.sha256(stored).hexdigest()[:16] / plain.name
    if not place.exists():
        place.parent.mkdir(exist_ok=True)
        whole = unpacked(stored)
        handle, part = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(whole)
        Path(part).replace(place)
    return place


@functools.lru_cache(maxsize=8)
def load_case(name: str) -> ReferenceCase:
    """The case ``name``; skips the calling test when it is the full-size one and not here."""
    return _case_in(_full_folder(name) if name == FULL_SIZE else SMALL, name)


@functools.lru_cache(maxsize=2)
def full_case(name: str) -> ReferenceCase:
    """A MambaVision case with its weights as they were; skips the calling test where it is not."""
    return _case_in(_full_folder(name), name)


def _case_in(folder: Path, name: str) -> ReferenceCase:
    record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    arrays = arrays_of(folder / f"{name}.npz")
    known = {"image", *record.get("output_shapes", ())}
    arrays |= {key: drawn(record, key) for key in NOISE if key in known - arrays.keys()}
    file, image = _checkpoint_file(name), arrays.pop("image")
    outputs = {key: arrays.pop(key) for key in sorted(arrays) if key.startswith("output")}
    return ReferenceCase(
        name=name,
        factory=record.get("factory", "").partition(" ")[0],
        kwargs=MappingProxyType(_keywords(record)),
        image=image,
        outputs=MappingProxyType(outputs),
        extras=MappingProxyType(arrays),
        checkpoint=stored_path(file) if folder == SMALL else folder / file,
        record=MappingProxyType(record),
    )


def _keywords(record: Mapping[str, Any]) -> dict[str, Any]:
    """The official configuration, as a user would give it with ``--config``."""
    if "net_kwargs" in record:
        pyramid = dict(record["sfp_kwargs"])
        return {"net": record["net_kwargs"], **pyramid, "top_block": "LastLevelMaxPool"}
    keywords: dict[str, Any] = record["config"] if "config" in record else record["kwargs"]
    return keywords


def pos_embed_vectors() -> dict[str, Array]:
    """Input and output of the official position-embedding interpolation (see the data README)."""
    return arrays_of(SMALL / "pos_embed_interp.npz")
