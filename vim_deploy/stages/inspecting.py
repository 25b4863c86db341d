"""Inspect: say what a file is, from its contents rather than its name."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any, get_args

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.description import Description
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.activations import batch_of, measure_activations
from vim_deploy.graph.inventory import take_inventory
from vim_deploy.graph.scan_bound import find_gpu, predict
from vim_deploy.graph.verify import missing_functions, summarize
from vim_deploy.onnx_graph import opset_version
from vim_deploy.onnx_quantized import quantized_products
from vim_deploy.packaging.about import PackedModel, read_about
from vim_deploy.packaging.manifest import read_manifest, require_intact, sealed
from vim_deploy.paths import StrPath, as_path
from vim_deploy.ranges import BATCH, require_all
from vim_deploy.recipe.catalog import find_recipe
from vim_deploy.specs import Target

#: Why there is no prediction of the scans' share.
_STANDALONE = (
    "the file is standalone: its scans are standard operators, and what kernels a runtime makes of "
    "them, it alone decides. A file exported without --standalone tells what an engine with the "
    "plugin library launches"
)
_NO_SCAN = "no scan was found: no node is one of our ops, or named after one"


@dataclasses.dataclass(frozen=True)
class GraphQuestion:
    """What to say about an ONNX file's graph: for how many pictures, and for which GPU."""

    batch: int = 1
    gpu: str = "h200"

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, batch=BATCH)


def inspect(
    path: StrPath, graph: GraphQuestion | None = None, *, key: str | None = None
) -> dict[str, Any]:
    """Describe an ONNX file, engine, checkpoint, recipe or package as a JSON-able mapping.

    Every description has ``kind``, ``file``, ``bytes`` and ``sha256``; that of a package, a folder,
    has the files' hashes, which were compared with the files. Checkpoints, or the folder of one,
    need torch; ``key`` names the entry with the weights.
    With ``graph``, an ONNX file's description has ``inventory`` as well: each block's operators,
    types, kernel launches and sizes, and the scans' ideal share of the time, or why that cannot be
    told (``not_predicted``).

    Raises:
        VimDeployError: VIM-202 when ``graph`` is given for something that is no ONNX file.
        VimDeployError: VIM-401 (missing), VIM-402, VIM-403, VIM-409, VIM-412 or VIM-413 when the
            file is not what it seems to be; VIM-425 (files of a package are damaged, missing or
            extra) and VIM-427 (a folder that is no package).
    """
    path = as_path(path, "path")
    artifact = Artifact.open(path, "file", folders=True)
    if artifact.kind == "checkpoint" and os.path.isdir(path):
        path = _file_in(path)
        artifact = Artifact.open(path, "checkpoint")
    if graph is not None:
        _require_onnx(artifact)
    if artifact.kind == "package":
        return _package(path)
    if artifact.kind == "recipe":
        description = encode(find_recipe(str(path)))
    elif artifact.kind == "engine":
        description = _engine(artifact)
    elif artifact.kind == "checkpoint":
        description = _checkpoint(path, key)
    else:
        description = _onnx(artifact)
    if graph is not None:
        description["inventory"] = _inventory(artifact, graph)
    found = {"file": artifact.name, "bytes": path.stat().st_size, "sha256": artifact.sha256}
    return {"kind": artifact.kind, **description, **found}


def _require_onnx(artifact: Artifact) -> None:
    """VIM-202 for what has no graph to describe."""
    if artifact.kind == "onnx":
        return
    folder = artifact.kind == "package"
    raise VimDeployError(
        "VIM-202",
        f"--graph describes ONNX files, {artifact.name} is "
        + ("a folder" if folder else f"of kind {artifact.kind}"),
        fix="leave --graph away, or name "
        + ("the .onnx file in it" if folder else "an exported .onnx file"),
    )


def _package(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    require_intact(folder, manifest)
    if manifest.target in get_args(Target):
        read_about(folder, manifest, PackedModel)
    return {
        "file": folder.name,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        **sealed(manifest),
    }


def _engine(engine: Artifact) -> dict[str, Any]:
    header, record = engine.header, engine.record
    if record is not None and engine.sha256 != record.plan.sha256:
        raise VimDeployError(
            "VIM-902",
            f"{engine.record_path} is not the record of {engine.path}",
            why=f"the engine's SHA-256 is {engine.sha256}, the record's {record.plan.sha256}",
            fix="put back the engine that the record describes, or build again with --force",
        )
    capabilities, later = engine.gpus
    return {
        "runtime": header.runtime,
        "runtime_version": header.version,
        "compute_capabilities": list(capabilities),
        "later_gpus": later,
        "record": None if record is None else encode(record),
    }


def _onnx(artifact: Artifact) -> dict[str, Any]:
    model, info = artifact.model, artifact.info
    blocks = info.model_config.blocks if info else 0
    return {
        "ir_version": model.ir_version,
        "opset": opset_version(model),
        "inputs": [encode(spec) for spec in artifact.inputs],
        "outputs": [encode(spec) for spec in artifact.outputs],
        "parameters": sum(math.prod(map(int, item.dims)) for item in model.graph.initializer),
        "graph": encode(summarize(model, blocks)),
        "quantized_products": quantized_products(model),
        "activations": _activations(artifact),
        "functions": [f"{item.domain}::{item.name}" for item in model.functions],
        "runs_without_plugin": not missing_functions(model),
        "external_data": [
            {"file": item.name, "bytes": item.bytes, "sha256": item.sha256}
            for item in artifact.companions
        ],
        "export": encode(info) if info else None,
        "description": _description(artifact.description),
    }


def _description(found: Description) -> dict[str, Any]:
    """Where ``export`` was found, what in it the graph shows to be otherwise, and who wrote it."""
    return {
        "place": found.place,
        "changed": {
            name: {"said": said, "found": is_so} for name, (said, is_so) in found.changed.items()
        },
        "doubt": found.doubt,
        "producer": found.producer,
        "was_exported": found.was_exported,
    }


def _activations(artifact: Artifact) -> dict[str, Any] | None:
    """Sizes of the activations; None for another exporter's file, whose tokens are unknown."""
    if artifact.info is None:
        return None
    try:
        return encode(measure_activations(artifact.model, artifact.info.model_config))
    except VimDeployError as error:
        # A file that was changed by hand is described all the same.
        return {"not_measured": f"{error.code}: {error.message}: {error.why}"}


def _inventory(artifact: Artifact, question: GraphQuestion) -> dict[str, Any]:
    gpu = find_gpu(question.gpu)
    batch = batch_of(artifact.model, question.batch)
    blocks = take_inventory(artifact.model, batch)
    scans = [scan for block in blocks for scan in block.scans]
    launches = [block.launches for block in blocks if block.launches is not None]
    unknown = ""
    if len(launches) < len(blocks):
        unknown = _STANDALONE
    elif not scans:
        unknown = _NO_SCAN
    return {
        "batch": batch,
        "tokens": max((scan.tokens for scan in scans), default=None),
        "launches": sum(launches) if len(launches) == len(blocks) else None,
        "prediction": None if unknown else encode(predict(blocks, gpu, batch)),
        "not_predicted": unknown,
        "blocks": [encode(block) for block in blocks],
    }


def _file_in(folder: Path) -> Path:
    from vim_deploy.stages.exporting import require_torch

    require_torch()
    from vim_deploy.model.checkpoint import find_file

    return find_file(folder).path


def _checkpoint(path: Path, key: str | None) -> dict[str, Any]:
    from vim_deploy.stages.exporting import require_torch

    require_torch()
    from vim_deploy.model.describe import describe_checkpoint

    return describe_checkpoint(path, key)
