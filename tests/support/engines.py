"""Engines of the stand-in TensorRT on disk, with their records, and a pretended GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.fake_cudart import FakeCudart
from tests.support.fake_tensorrt import VERSIONS
from tests.support.fake_tensorrt.runtime import plan_bytes
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.profiles import Profile, ShapeRange
from vim_deploy.artifact.record import EngineRecord, FileIdentity, record_path
from vim_deploy.codec import encode
from vim_deploy.cuda import runtime as cudart
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.files import settings_hash, write_json
from vim_deploy.specs import CheckpointInfo, ImagePreparation, TensorSpec

#: Input of the stand-in's engines, without the batch.
TAIL = (1, 2, 3)
EXPORT = ExportInfo(
    model="custom",
    model_config=VimConfig(depth=1, img_size=(2, 3), patch_size=1, channels=1),
    checkpoint=CheckpointInfo("a.pth", "00", "model"),
    image=ImagePreparation(2, 3, channels=1, mean=(0.5,), std=(0.5,), crop_ratio=1.0),
    preprocess="none",
    head="logits",
    graph="fused",
    precision="fp32",
    opset=18,
    pos_embed="unchanged",
    tool_version="0.1.0",
    settings_hash="11",
    labels=("north", "east", "south", "west"),
)


def use_fake_gpu(monkeypatch: pytest.MonkeyPatch, **properties: Any) -> FakeCudart:
    """From now on ``cuda.runtime`` works on this pretended GPU."""
    fake = FakeCudart(**properties)
    monkeypatch.setattr(cudart, "load", lambda: fake)
    return fake


def images(batch: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Input of the stand-in's engines, float32 [batch, 1, 2, 3]."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((batch, *TAIL)).astype(np.float32)


def write_engine(
    folder: Path,
    version: str = "10.14",
    *,
    profiles: tuple[tuple[int, int, int], ...] = ((1, 2, 4),),
    name: str = "model.plan",
    **plan: Any,
) -> Path:
    """A plan without a record, built by one of the stand-in's releases."""
    path = folder / name
    path.write_bytes(plan_bytes(VERSIONS.get(version, version), profiles=profiles, **plan))
    return path


def record_of(
    path: Path,
    version: str = "10.14",
    *,
    profiles: tuple[tuple[int, int, int], ...] = ((1, 2, 4),),
    **changes: Any,
) -> EngineRecord:
    """The record that a build of ``path`` would write; ``changes`` are other fields."""
    ranges = [ShapeRange(*((batch, *TAIL) for batch in sizes)) for sizes in profiles]
    record = EngineRecord(
        plan=FileIdentity.of(path),
        source=FileIdentity("model.onnx", "bb", 10),
        external_data=(),
        runtime="tensorrt",
        runtime_version=VERSIONS.get(version, version),
        inputs=(TensorSpec("image", "float32", ("batch", *TAIL)),),
        outputs=(TensorSpec("logits", "float32", ("batch", 4)),),
        profiles=tuple(Profile({"image": item}) for item in ranges),
        compute_capabilities=("9.0",),
        later_gpus=False,
        layers=3,
        tool_version="0.1.0",
        settings_hash="",
        build_seconds=1.0,
        peak_memory_bytes=1 << 20,
        export=EXPORT,
    )
    record = dataclasses.replace(record, **changes)
    return dataclasses.replace(record, settings_hash=settings_hash(record.settings()))


def write_record(path: Path, record: EngineRecord) -> None:
    """Put a record beside its engine."""
    write_json(record_path(path), encode(record))
