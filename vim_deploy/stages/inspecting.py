"""Inspect: say what a file is, from its contents rather than its name."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import onnx

from vim_deploy.artifact import metadata
from vim_deploy.artifact.engine_file import inspect_plan, is_engine
from vim_deploy.artifact.external_data import names_of
from vim_deploy.artifact.onnx_file import read_model, tensors_of
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file, sha256_of
from vim_deploy.graph.activations import measure_activations
from vim_deploy.graph.inventory import take_inventory
from vim_deploy.graph.scan_bound import find_gpu, predict
from vim_deploy.graph.verify import missing_functions, summarize
from vim_deploy.onnx_graph import opset_version
from vim_deploy.packaging.manifest import read_manifest, require_intact
from vim_deploy.ranges import BATCH, require_all
from vim_deploy.recipe.catalog import find_recipe
from vim_deploy.recipe.model_config import ModelConfig
from vim_deploy.specs import ExportInfo

_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"
_CHECKPOINT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".tar")


@dataclasses.dataclass(frozen=True)
class GraphQuestion:
    """What to say about an ONNX file's graph: for how many pictures, and for which GPU."""

    batch: int = 1
    gpu: str = "h200"

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, batch=BATCH)


def inspect(path: Path, graph: GraphQuestion | None = None) -> dict[str, Any]:
    """Describe an ONNX file, engine, checkpoint, recipe or package as a JSON-able mapping.

    Every description has ``kind``, ``file``, ``bytes`` and ``sha256``; that of a package, a folder,
    has the files' hashes, which were compared with the files. Checkpoints need torch.
    With ``graph``, an ONNX file's description has ``inventory`` as well: each block's operators,
    types, kernel launches and sizes, and the scans' ideal share of the time.

    Raises:
        VimDeployError: VIM-202 when ``graph`` is given for something that is no ONNX file.
        VimDeployError: VIM-401 (missing), VIM-402, VIM-403, VIM-409, VIM-412 or VIM-413 when the
            file is not what it seems to be; VIM-425 (files of a package are damaged, missing or
            extra) and VIM-427 (a folder that is no package).
    """
    if os.path.isdir(path):
        return _package(path, graph)
    require_file(path, "file")
    if path.suffix == ".toml":
        description = {"kind": "recipe", **find_recipe(str(path)).as_dict()}
    elif is_engine(path):
        description = {"kind": "engine", **inspect_plan(path)}
    elif _is_checkpoint(path):
        description = {"kind": "checkpoint", **_checkpoint(path)}
    else:
        description = {"kind": "onnx", **_onnx(path)}
    if graph is not None:
        if description["kind"] != "onnx":
            raise VimDeployError(
                "VIM-202",
                f"--graph describes ONNX files, {path.name} is of kind {description['kind']}",
                fix="leave --graph away, or name an exported .onnx file",
            )
        description["inventory"] = _inventory(path, graph)
    identity = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
    return {**description, **identity}


def _package(folder: Path, graph: GraphQuestion | None) -> dict[str, Any]:
    if graph is not None:
        raise VimDeployError(
            "VIM-202",
            f"--graph describes ONNX files, {folder.name} is a folder",
            fix="leave --graph away, or name the .onnx file in it",
        )
    manifest = read_manifest(folder)
    require_intact(folder, manifest)
    return {
        "file": folder.name,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        **manifest.as_dict(),
    }


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(4)


def _is_checkpoint(path: Path) -> bool:
    start = _start(path)
    return path.suffix in _CHECKPOINT_SUFFIXES or start == _ZIP_MAGIC or start[:1] == _PICKLE_MAGIC


def _onnx(path: Path) -> dict[str, Any]:
    model = metadata.load_model(path)
    info = metadata.find(model)
    blocks = ModelConfig.from_dict(info.model_config).layers_run if info else 0
    summary = summarize(model, blocks)
    functions = [f"{item.domain}::{item.name}" for item in model.functions]
    return {
        "ir_version": model.ir_version,
        "opset": opset_version(model),
        "inputs": [dataclasses.asdict(spec) for spec in metadata.inputs_of(model)],
        "outputs": [dataclasses.asdict(spec) for spec in metadata.outputs_of(model)],
        "parameters": sum(_elements(tensor.dims) for tensor in model.graph.initializer),
        "graph": dataclasses.asdict(summary),
        "activations": _activations(model, info),
        "functions": functions,
        "runs_without_plugin": not missing_functions(model),
        "external_data": _external_data(path),
        "export": info.as_dict() if info else None,
    }


def _activations(model: onnx.ModelProto, info: ExportInfo | None) -> dict[str, Any] | None:
    """Sizes of the activations; None for another exporter's file, whose tokens are unknown."""
    if info is None:
        return None
    try:
        return measure_activations(model, ModelConfig.from_dict(info.model_config)).as_dict()
    except VimDeployError as error:
        # A file that was changed by hand is described all the same.
        return {"not_measured": f"{error.code}: {error.message}: {error.why}"}


def _external_data(path: Path) -> list[dict[str, Any]]:
    """The files beside ``path`` that hold its weights; ``load_model`` has read them already."""
    model = read_model(path, outside=False)
    files = [(name, path.parent / name) for name in names_of(tensors_of(model))]
    return [
        {"file": name, "bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for name, file in files
    ]


def _inventory(path: Path, question: GraphQuestion) -> dict[str, Any]:
    gpu = find_gpu(question.gpu)
    model = metadata.load_model(path)
    given = metadata.inputs_of(model)[0].shape[0]
    batch = given if isinstance(given, int) else question.batch
    blocks = take_inventory(model, batch)
    tokens = {scan.tokens for block in blocks for scan in block.scans}
    return {
        "batch": batch,
        "tokens": max(tokens, default=0),
        "launches": sum(block.launches for block in blocks),
        "prediction": dataclasses.asdict(predict(blocks, gpu, batch)),
        "blocks": [dataclasses.asdict(block) for block in blocks],
    }


def _elements(dims: Any) -> int:  # noqa: ANN401 - protobuf's repeated field
    product = 1
    for dim in dims:
        product *= int(dim)
    return product


def _checkpoint(path: Path) -> dict[str, Any]:
    from vim_deploy.stages.exporting import require_torch

    require_torch()
    from vim_deploy.model.describe import describe_checkpoint

    return describe_checkpoint(path)
