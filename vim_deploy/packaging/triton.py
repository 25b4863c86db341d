"""A model repository for Triton Inference Server, with everything that serving it needs.

FOLDER/models/NAME/config.pbtxt        and labels.txt
FOLDER/models/NAME/1/                  the artifact, native ops; model.py for the python backend
FOLDER/plugins/                        the plugin library of an engine
FOLDER/run.sh, compose.yaml            start the server on 127.0.0.1
FOLDER/client.py, golden.npz           ask it, and what it has to answer
FOLDER/manifest.json                   what is here, with hashes
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy.artifact.passport import matching_library
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.files import output_errors, sha256_of
from vim_deploy.packaging.detector import detector_facts
from vim_deploy.packaging.native_ops import OPS_LIBRARY, choose_ops, described, opened_by
from vim_deploy.packaging.repository import (
    LABELS_NAME,
    ONNXRUNTIME,
    PYTHON,
    ServingOptions,
    choose_runtime,
    model_config,
    render,
)
from vim_deploy.packaging.scripts import (
    Surroundings,
    check_image,
    scripts,
    unchanged,
    write_labels,
    write_text,
)
from vim_deploy.packaging.servable import Servable
from vim_deploy.plugin.ort_library import OrtLibraryInfo
from vim_deploy.text import storable

#: The only version of the model in a repository.
VERSION = "1"
CONFIG_NAME = "config.pbtxt"
_PROGRAMS = ("run.sh", "client.py")
_LIBRARY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Plan:
    """Everything about a repository that is settled before a byte is written.

    Attributes:
        servable: the artifact.
        config: of the model.
        plugin: library to take along; None when there is none to take.
        ops: library of native ops to take along; None when there is none to take.
        around: what the scripts depend on.
        notes: sentences for the user.
    """

    servable: Servable
    config: Mapping[str, Any]
    plugin: Path | None
    ops: OrtLibraryInfo | None
    around: Surroundings
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the model."""
        return str(self.config["name"])

    @property
    def model_folder(self) -> str:
        """Folder of the model inside the package."""
        return f"models/{self.name}"


def plan_repository(
    servable: Servable, options: ServingOptions, *, image: str = "", plugin: Path | None = None
) -> Plan:
    """Settle what goes into the package.

    Raises:
        VimDeployError: as ``repository.model_config`` and ``native_ops.choose_ops``; VIM-903 when
            the engine's plugin library is not to be found, VIM-907 when ``image`` holds another
            TensorRT.
    """
    runtime = choose_runtime(servable, options.runtime)
    notes: list[str] = []
    ops = choose_ops(servable, runtime, options.ops, image, notes)
    config = model_config(servable, options)
    if ops is not None:
        opened = opened_by(runtime, _ops_path(config["name"]))
        config = model_config(servable, options, ops_library=opened)
    library = _library(servable, plugin, notes)
    if runtime == ONNXRUNTIME and servable.precision == "int8":
        notes.append(
            "Triton's backend for ONNX Runtime cannot be told to multiply int8 exactly: serve it "
            "on processors with VNNI instructions, or with --runtime python"
        )
    if servable.file.record is not None and image:
        notes.append(check_image(image, servable.file.record))
    if servable.profiles and min(item.min for item in servable.profiles) > 1:
        least = min(item.min for item in servable.profiles)
        notes.append(f"the engine takes {least} pictures or more at once: so must every request")
    around = Surroundings(
        runtime, image, "" if library is None else library.name, servable.file.record
    )
    return Plan(servable, config, library, ops, around, tuple(notes))


def _ops_path(name: str) -> str:
    """Where the native ops of the model ``name`` are in the package."""
    return f"models/{name}/{VERSION}/{OPS_LIBRARY}"


def _library(servable: Servable, named: Path | None, notes: list[str]) -> Path | None:
    """The plugin library to take along, with the hash the record names."""
    record = servable.file.record
    if record is None or record.plugin is None:
        return None
    if record.plugin.embedded and named is None:
        notes.append("the engine carries its plugin library inside; none is put beside it")
        return None
    found = matching_library(servable.file.path, record.plugin, named, notes)
    if not _LIBRARY.fullmatch(found.name):
        raise VimDeployError(
            "VIM-903",
            f"{found.name!r} cannot be handed to the server",
            why="the server takes libraries as a list joined by semicolons",
            fix="rename the library: letters, digits and _ . + - are taken",
        )
    return found


def settings_of(plan: Plan) -> dict[str, Any]:
    """What decides the contents of the package, for ``files.settings_hash``."""
    record = plan.servable.file.record
    return {
        "artifact": plan.servable.file.sha256,
        "record": record.settings_hash if record else "",
        "config": render(plan.config),
        "image": plan.around.image,
        "plugin": sha256_of(plan.plugin) if plan.plugin else "",
        "ops": plan.ops.sha256 if plan.ops else "",
    }


def write_repository(folder: Path, plan: Plan) -> None:
    """Write everything but the stored answers and the manifest into an empty folder."""
    model = folder / plan.model_folder
    version = model / VERSION
    with output_errors(folder):
        version.mkdir(parents=True)
        for source, name in plan.servable.files():
            target = version / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        if plan.around.runtime == PYTHON:
            write_text(version / "model.py", unchanged("served/model.py"))
            # The backend's interpreter takes no environment variables, and would keep compiled code
            # beside model.py, which nobody has hashed. A file of that name leaves it no place.
            write_text(version / "__pycache__", "")
        if plan.ops is not None:
            shutil.copyfile(plan.ops.path, version / OPS_LIBRARY)
        write_text(model / CONFIG_NAME, render(plan.config))
        write_labels(model / LABELS_NAME, plan.servable.info.labels)
        if plan.plugin is not None:
            (folder / "plugins").mkdir()
            shutil.copyfile(plan.plugin, folder / "plugins" / plan.plugin.name)
        for name, text in scripts(plan.around).items():
            write_text(folder / name, text)
            (folder / name).chmod(0o755 if name in _PROGRAMS else 0o644)


def about(plan: Plan, golden: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of the model; ``client.py`` and ``--check`` read it."""
    servable, info = plan.servable, plan.servable.info
    record = servable.file.record
    artifact, *companions = [name for _, name in servable.files()]
    return {
        "name": plan.name,
        "runtime": plan.around.runtime,
        "folder": plan.model_folder,
        "artifact": {
            "path": f"{plan.model_folder}/{VERSION}/{artifact}",
            "source": storable(servable.file.name),
            "sha256": servable.file.sha256,
        },
        "companions": companions,
        "max_batch": plan.config["max_batch_size"],
        "input": encode(servable.input),
        "size": encode(servable.size) if servable.size else None,
        "outputs": [encode(spec) for spec in servable.file.outputs],
        "precision": servable.precision,
        "preprocess": info.preprocess,
        "image": encode(info.image),
        "head": info.head,
        "labels": list(info.labels),
        **(detector_facts(info) if servable.size else {}),
        "model": info.model,
        "checkpoint": encode(info.checkpoint),
        "tensorrt": record.runtime_version if record else None,
        "compute_capabilities": list(record.compute_capabilities) if record else [],
        "plugin": f"plugins/{plan.plugin.name}" if plan.plugin else None,
        "ops": described(plan.ops, _ops_path(plan.name)) if plan.ops else None,
        "server_image": plan.around.image or None,
        "golden": golden,
        "notes": list(plan.notes),
    }
