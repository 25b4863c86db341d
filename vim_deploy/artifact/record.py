"""The record beside an engine: what it was made from, how, and where it runs.

A plan stays raw, so that trtexec, Triton and C++ programs load it as it is; everything about it
stands in ``NAME.plan.json``: what was decided before the build (``EngineSettings``) and what was
found (``EngineRecord``). Two builds with the same settings hash come from the same file with the
same options, runtime and tool.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vim_deploy.artifact.marked_tensors import MarkedTensor
from vim_deploy.artifact.metadata import ExportInfo, require_usable
from vim_deploy.artifact.profiles import Profile, check_profiles
from vim_deploy.codec import OnError, decode, encode, stored
from vim_deploy.errors import VimDeployError
from vim_deploy.files import sha256_of
from vim_deploy.plugin.describe import PluginInfo
from vim_deploy.precisions import NAMES
from vim_deploy.ranges import SIZE
from vim_deploy.specs import TensorSpec
from vim_deploy.text import storable
from vim_deploy.untrusted import read_json

#: Raised when a field changes its meaning; a record of another format is not read.
RECORD_FORMAT = 1
#: A record is a few kilobytes; labels of a large label set make it a few hundred.
_MAX_RECORD_BYTES = 64 << 20
#: Bytes of a file's name on the usual file systems.
_LONGEST_NAME = 255
#: Characters of a runtime's version, far more than there are.
_LONGEST_VERSION = 64
_CAPABILITY = re.compile(r"[0-9]{1,3}\.[0-9]{1,2}")
#: Fields that count or measure something.
_COUNTS = ("layers", "engine_layers", "build_seconds", "peak_memory_bytes", "device_memory_bytes")


@dataclass(frozen=True)
class FileIdentity:
    """A file's name (without folder), SHA-256 and size in bytes."""

    name: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path, name: str | None = None, sha256: str = "") -> FileIdentity:
        """Read ``path``; ``name`` when the file will be called otherwise."""
        return cls(storable(name or path.name), sha256 or sha256_of(path), path.stat().st_size)


@dataclass(frozen=True)
class PluginIdentity:
    """The plugin library of an engine.

    Attributes:
        name, sha256: of the file.
        version: of the plugin sources.
        contract_version: of the ops' inputs, attributes and meaning.
        interface: ``V2`` (TensorRT 8.6) or ``V3`` (10 and 11).
        ops: op types it registers.
        embedded: the engine carries the library inside.
    """

    name: str
    sha256: str
    version: str
    contract_version: int
    interface: str
    ops: tuple[str, ...]
    embedded: bool = False

    @classmethod
    def of(cls, info: PluginInfo, embedded: bool) -> PluginIdentity:
        """The library that ``info`` describes."""
        return cls(
            name=Path(info.path).name,
            sha256=info.sha256,
            version=info.version,
            contract_version=info.contract_version,
            interface=info.interface,
            ops=info.ops,
            embedded=embedded,
        )


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What an engine is made from and how, known before it is built.

    Attributes:
        source: the ONNX file it is built from.
        external_data: files with weights that the ONNX file refers to; usually none.
        runtime, runtime_version: such as ``tensorrt-rtx``, ``1.7.1.116``.
        profiles: shapes it accepts.
        compute_capabilities: GPUs it runs on, such as ``8.6``.
        later_gpus: whether it also runs on GPUs newer than all of these.
        tool_version: of vim-deploy.
        export: what the ONNX file says about itself; None when vim-deploy did not make it.
        command: command line that led here; may be empty.
        gpu: name of the GPU it is built on; empty when none is needed (TensorRT-RTX).
        hardware_compat: GPUs besides that one: ``none``, ``ampere+`` or ``same-cc``.
        plugin: the plugin library it needs; None when it needs none.
        precision: what was asked for and found: ``fp32``, ``fp16`` or ``bf16``; with TensorRT-RTX
            only what the graph was given in memory, else empty.
        flags: TensorRT's BuilderFlag members that were set.
        options: what else was asked (``runtimes.building.request.TrtOptions.settings``).
        lowering: what was done to the graph, in memory, before the runtime read it.
        stripped: it holds no weights and must be refitted before it is used.
        weights_from: the file its weights come from, when it was refitted.
        inner_tensors: what the engine gives out for diagnosis; empty for one that is used.
    """

    source: FileIdentity
    external_data: tuple[FileIdentity, ...]
    runtime: str
    runtime_version: str
    profiles: tuple[Profile, ...]
    compute_capabilities: tuple[str, ...]
    later_gpus: bool
    tool_version: str
    export: ExportInfo | None = None
    command: tuple[str, ...] = ()
    gpu: str = ""
    hardware_compat: str = "none"
    plugin: PluginIdentity | None = None
    precision: str = ""
    flags: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    lowering: tuple[str, ...] = ()
    stripped: bool = False
    weights_from: FileIdentity | None = None
    inner_tensors: tuple[MarkedTensor, ...] = ()

    @property
    def runs_on(self) -> list[str]:
        """The compute capabilities, and ``later`` when newer GPUs are included."""
        return [*self.compute_capabilities, *(["later"] if self.later_gpus else [])]

    def settings(self) -> dict[str, Any]:
        """What decides the engine's bytes, as a mapping for ``files.settings_hash``.

        File names are left out: a renamed model is the same model. What TensorRT-RTX does not know
        is there only when it is set.
        """
        extra: dict[str, Any] = {
            "GPU": self.gpu,
            "plugin library": self.plugin.sha256 if self.plugin else "",
            "precision": self.precision,
            "options": dict(self.options),
            "weights": self.weights_from.sha256 if self.weights_from else "",
        }
        return {
            "ONNX file": self.source.sha256,
            "external data": sorted(item.sha256 for item in self.external_data),
            "runtime": self.runtime,
            "runtime version": self.runtime_version,
            "profiles": [encode(profile) for profile in self.profiles],
            "compute capabilities": self.runs_on,
            "vim-deploy version": self.tool_version,
            **{key: value for key, value in extra.items() if value},
        }


@stored(head={"format": RECORD_FORMAT}, without=("up_to_date",))
@dataclass(frozen=True, kw_only=True)
class EngineRecord(EngineSettings):
    """What is known about an engine: its settings, and what the build found.

    Attributes:
        plan: the engine file.
        inputs, outputs: of the engine; a str in a shape is a symbolic size.
        layers: layers of the network that the runtime's parser made.
        settings_hash: of everything that decides what is built, see ``settings``.
        build_seconds: wall time of the build process.
        peak_memory_bytes: largest resident memory of the build process.
        plugin_layers: plugin layers in the engine, by op type.
        layer_types: layers of the engine by the float type of their first output.
        engine_layers: layers of the engine, after fusion; 0 when not read.
        refittable: its weights can be exchanged.
        device_memory_bytes: GPU memory of one execution context; 0 when not read.
        up_to_date: set on a record that was found rather than made; not stored.
    """

    plan: FileIdentity
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: int
    settings_hash: str
    build_seconds: float
    peak_memory_bytes: int
    plugin_layers: Mapping[str, int] = field(default_factory=dict)
    layer_types: Mapping[str, int] = field(default_factory=dict)
    engine_layers: int = 0
    refittable: bool = False
    device_memory_bytes: int = 0
    up_to_date: bool = field(default=False, compare=False)


def record_path(plan_path: Path) -> Path:
    """Where the record of a plan stands: ``model.plan`` -> ``model.plan.json``."""
    # Not with_name: a path without a name, such as ".", is for the writer to refuse.
    return plan_path.parent / f"{plan_path.name}.json"


def read_record(plan_path: Path) -> EngineRecord | None:
    """The record beside a plan, or None when there is none.

    Raises:
        VimDeployError: VIM-413 when there is one that cannot be read.
    """
    path = record_path(plan_path)
    if not path.exists():
        return None

    def unreadable(why: str) -> VimDeployError:
        return VimDeployError(
            "VIM-413",
            f"{path} is not a readable engine record",
            why=why,
            fix="build the engine again: vim-deploy build-engine MODEL.onnx --force",
        )

    return parse_record(read_json(path, unreadable, max_bytes=_MAX_RECORD_BYTES), unreadable)


def parse_record(value: Any, on_error: OnError) -> EngineRecord:  # noqa: ANN401 - a parsed file
    """The record that ``encode`` made, after a JSON round trip.

    Keys that the record does not have are left out: a later version may write some.

    Raises:
        VimDeployError: what ``on_error`` makes of a sentence, when it is no such record.
    """
    record = decode(value, EngineRecord, on_error)
    try:
        _check(record)
    except ValueError as error:
        raise on_error(str(error)) from error
    return record


def _check(record: EngineRecord) -> None:
    """ValueError for values of the right type that no build writes."""
    files = (record.plan, record.source, record.weights_from, record.plugin)
    for file in files:
        if file is not None and not _is_file_name(file.name):
            raise ValueError(f"{file.name!r} is not the name of a file beside it")
    for item in record.external_data:
        # An ONNX file may have its weights in folders below its own.
        if not all(map(_is_file_name, item.name.split("/"))):
            raise ValueError(f"{item.name!r} is not the name of a file below it")
    for name in _COUNTS:
        if getattr(record, name) < 0:
            raise ValueError(f"{name} is {getattr(record, name)}")
    if record.precision not in ("", *NAMES):
        raise ValueError(f"its precision is {record.precision!r}")
    if len(record.runtime_version) > _LONGEST_VERSION:
        raise ValueError(f"its runtime_version has {len(record.runtime_version)} characters")
    for capability in record.compute_capabilities:
        if not _CAPABILITY.fullmatch(capability):
            raise ValueError(f"{capability[:80]!r} is no compute capability")
    for spec in (*record.inputs, *record.outputs):
        if any(isinstance(size, int) and not 0 <= size <= SIZE.high for size in spec.shape):
            raise ValueError(f"tensor {spec.name!r} has the shape {list(spec.shape)}")
    check_profiles(record.profiles, record.inputs)
    for marked in record.inner_tensors:
        marked.check()
    if record.export is not None:
        require_usable(record.export)
        # Models of others may have scalars.
        if not record.inputs or not all(spec.shape for spec in record.inputs):
            raise ValueError("it has no input with an axis for the batch")


def _is_file_name(name: str) -> bool:
    """Whether ``name`` is one step of a path."""
    plain = Path(name).name == name and name not in ("", "..") and "\0" not in name
    return plain and len(name.encode()) <= _LONGEST_NAME
