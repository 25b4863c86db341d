"""Refit: an engine gets the weights of an ONNX file, or of a checkpoint exported the same way."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from vim_deploy.artifact.file import named
from vim_deploy.artifact.record import EngineRecord, FileIdentity
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file
from vim_deploy.paths import StrPath, as_path, as_text, optional_path
from vim_deploy.recipe.schema import ModelRequest
from vim_deploy.runtimes import AUTO
from vim_deploy.runtimes.building.process import ProgressCallback
from vim_deploy.runtimes.tensorrt.refit import (
    refit_engine,
    refittable_record,
    refuse_other_scales,
)
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.exporting import export


def refit(
    engine: StrPath,
    source: StrPath,
    output: StrPath | None = None,
    *,
    plugin: StrPath = AUTO,
    use_ema: bool = False,
    key: str | None = None,
    progress: ProgressCallback | None = None,
    force: bool = False,
    command: Sequence[str] = (),
) -> EngineRecord:
    """Give an engine the weights of ``source``, an ONNX file or a checkpoint of the same model.

    A checkpoint is exported with the options in the engine's record first, in a temporary folder.
    Other arguments and errors as ``runtimes.tensorrt.refit.refit_engine``, and those of ``export``.
    """
    engine = as_path(engine, "engine")
    source = require_file(as_path(source, "source"), "file with the weights")
    exchange = partial(
        refit_engine,
        engine,
        output=optional_path(output, "output"),
        plugin=as_text(plugin, "plugin"),
        progress=progress,
        force=force,
        command=command,
    )
    if named(source) == "onnx":
        if use_ema or key is not None:
            option = "--use-ema" if use_ema else "--key"
            raise VimDeployError(
                "VIM-203", f"{option} with an ONNX file", fix="it chooses weights of a checkpoint"
            )
        return exchange(weights=source)
    record = refittable_record(engine)
    refuse_other_scales(record, source.name)
    with tempfile.TemporaryDirectory(prefix="vim-deploy-refit-") as folder:
        chosen = ModelRequest(str(source), use_ema=use_ema, key=key)
        exported = _export_like(record, chosen, Path(folder) / "weights.onnx")
        return exchange(weights=exported, weights_from=FileIdentity.of(source))


def _export_like(record: EngineRecord, chosen: ModelRequest, path: Path) -> Path:
    """Export a checkpoint as the engine's own ONNX file was exported."""
    info = record.export
    if info is None:
        raise VimDeployError(
            "VIM-607",
            "the engine's record does not say how its model was exported",
            why="its ONNX file was not made by vim-deploy",
            fix="give an ONNX file of the same model instead of a checkpoint",
        )
    batch = record.inputs[0].shape[0]
    request = replace(
        chosen,
        config=encode(info.model_config),
        mean=info.image.mean,
        std=info.image.std,
        crop_ratio=info.image.crop_ratio,
        interpolation=info.image.interpolation,
        labels=info.labels or None,
    )
    options = ExportOptions(
        batch=batch if isinstance(batch, int) else None,
        graph=info.graph,
        opset=info.opset,
        preprocess=info.preprocess,
        head=info.head,
    )
    return export(request, path, options).path
