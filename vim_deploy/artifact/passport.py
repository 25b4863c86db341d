"""The passport check: whether an engine belongs on this machine, before anything of it is loaded.

Each thing of its header and record that does not fit is one sentence with its fix. Without a record
only the header is checked; that is said, not refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.artifact.engine_file import TENSORRT, TENSORRT_RTX, TITLES, describe_gpus
from vim_deploy.artifact.file import Artifact
from vim_deploy.artifact.profiles import Profile, narrowed
from vim_deploy.artifact.record import EngineRecord, PluginIdentity
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file, sha256_of
from vim_deploy.ops import contract
from vim_deploy.plugin.describe import cache_folder, find_plugin_library

#: Releases whose plan header has been looked at (tensorrt's trtexec reads it from 10 on). What
#: 8.6 writes at byte 24 is not known for sure.
_HEADER_KNOWN_FROM = (10,)
_REBUILD = "build it again here: vim-deploy build-engine MODEL.onnx --force"


@dataclass(frozen=True)
class Machine:
    """What an engine would run with here.

    Attributes:
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        version: of that runtime.
        compute_capability: of the GPU, such as ``9.0``.
        gpu: its name.
    """

    runtime: str
    version: str
    compute_capability: str
    gpu: str


@dataclass(frozen=True)
class Passport:
    """An engine that fits.

    Attributes:
        plugin: the library to load first; None when the engine needs none.
        notes: what could not be checked, and what is unusual.
    """

    plugin: Path | None
    notes: tuple[str, ...]


def check_passport(
    engine: Artifact, machine: Machine, *, plugin: Path | None = None, batch: int | None = None
) -> Passport:
    """Compare an engine with the machine.

    Args:
        engine: the plan.
        machine: where it would run.
        plugin: library that the user named.
        batch: images at once, when it is known beforehand.

    Raises:
        VimDeployError: VIM-401, VIM-413 (not a whole engine), VIM-901 (other runtime, version or
            GPU), VIM-902 (the record is not that of the engine, or was changed), VIM-903 (plugin
            library), VIM-905 (no profile takes the batch).
    """
    notes: list[str] = []
    _check_header(engine, machine, notes)
    record = engine.record
    if record is None:
        notes.append(
            f"{engine.name} has no record {engine.record_path.name}: only its header was checked"
        )
    else:
        engine.require_own_record(record)
        _check_weights(engine.name, record)
    _check_version(engine, machine, notes)
    _check_gpu(engine, machine, notes)
    library = _check_plugin(engine, plugin, notes)
    if batch is not None and record is not None:
        _check_batch(engine.name, record.profiles, batch)
    return Passport(library, tuple(notes))


def _check_header(engine: Artifact, machine: Machine, notes: list[str]) -> None:
    """That it is one, of this runtime; a note for a release that may write another."""
    unknown = machine.runtime == TENSORRT and not _header_known(machine.version)
    if engine.known_header is None and unknown and engine.path.stat().st_size >= _SMALLEST_PLAN:
        notes.append(
            f"the header of {engine.name} was not checked: its layout in TensorRT "
            f"{machine.version} is not known"
        )
        return
    built = engine.header.runtime
    if built != machine.runtime:
        raise VimDeployError(
            "VIM-901",
            f"{engine.name} was built by {TITLES[built]}, not by {TITLES[machine.runtime]}",
            why="neither loads the other's engines",
            fix=f"vim-deploy build-engine MODEL.onnx --runtime {machine.runtime}",
        )


#: No engine is smaller, whatever its header looks like.
_SMALLEST_PLAN = 64


def _header_known(version: str) -> bool:
    return _numbers(version)[:1] >= _HEADER_KNOWN_FROM


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _check_weights(name: str, record: EngineRecord) -> None:
    if record.stripped:
        raise VimDeployError(
            "VIM-413",
            f"{name} holds no weights",
            why="it was built stripped, to be refitted before it is used",
            fix=f"vim-deploy refit {name} CHECKPOINT",
        )


def _check_version(engine: Artifact, machine: Machine, notes: list[str]) -> None:
    header, record, here = engine.known_header, engine.record, _numbers(machine.version)
    if record is not None:
        built = record.runtime_version
    elif header is not None:
        built = header.version
    else:
        return
    there = _numbers(built)
    if here[:3] == there[:3]:
        if here[3:] and there[3:] and here != there:
            notes.append(
                f"built by {built}, run by {machine.version}: another build of one release"
            )
        return
    if record is None and not _header_known(machine.version):
        notes.append(
            f"the header of {engine.name} says version {built}; for TensorRT {machine.version} "
            "that is not known to be so"
        )
        return
    if record is not None and is_version_compatible(record) and here[:3] > there[:3]:
        notes.append(f"built version-compatible by {built}, run by {machine.version}")
        return
    runtime = TITLES[machine.runtime]
    fix = f"{_REBUILD}, or install {runtime} {'.'.join(map(str, there[:3]))}"
    if record is None:
        fix += f"; if it was built version-compatible, put {engine.record_path.name} beside it"
    raise VimDeployError(
        "VIM-901",
        f"{engine.name} was built by {runtime} {built}, this is {machine.version}",
        why="an engine runs in the version that built it"
        + ("" if record is None or not is_version_compatible(record) else " or a later one"),
        fix=fix,
    )


def _check_gpu(engine: Artifact, machine: Machine, notes: list[str]) -> None:
    capabilities, later = engine.gpus
    if not capabilities:
        return
    here = machine.compute_capability
    newest = max(map(_numbers, capabilities))
    if here not in capabilities and not (later and _numbers(here) > newest):
        fix = _REBUILD + ", or there with --hardware-compat"
        if machine.runtime == TENSORRT_RTX:
            fix = (
                "run it on an RTX GPU of these capabilities; for this GPU build with full "
                "TensorRT: vim-deploy build-engine MODEL.onnx --runtime tensorrt"
            )
        raise VimDeployError(
            "VIM-901",
            f"{engine.name} was built for {describe_gpus(capabilities, later)}; this GPU "
            f"({machine.gpu}) has {here}",
            why="an engine holds machine code of the GPUs it was built for",
            fix=fix,
        )
    built_on = engine.record.gpu if engine.record else ""
    if built_on not in ("", machine.gpu):
        notes.append(
            f"built on {built_on}, run on {machine.gpu}: it may be slower than one built here"
        )


def _check_plugin(engine: Artifact, named: Path | None, notes: list[str]) -> Path | None:
    if engine.record is None:
        return None if named is None else require_file(named, "plugin library")
    wanted = engine.record.plugin
    if wanted is None:
        if named is not None:
            notes.append(f"{engine.name} needs no plugin library; {named.name} is loaded as asked")
            return require_file(named, "plugin library")
        return None
    if wanted.contract_version != contract.CONTRACT_VERSION:
        raise VimDeployError(
            "VIM-903",
            f"{engine.name} was built with plugins of contract {wanted.contract_version}, this "
            f"vim-deploy has contract {contract.CONTRACT_VERSION}",
            why="the ops' inputs or meaning changed in between",
            fix=_REBUILD,
        )
    if named is None and wanted.embedded:
        return None
    return matching_library(engine.path, wanted, named, notes)


def matching_library(
    path: Path, wanted: PluginIdentity, named: Path | None, notes: list[str]
) -> Path:
    """The library with the recorded hash; another one only when the user names it.

    Raises:
        VimDeployError: VIM-401 (the named one is missing), VIM-903 (there is none with that hash).
    """
    if named is not None:
        found = require_file(named, "plugin library")
        if sha256_of(found) != wanted.sha256:
            notes.append(
                f"{named.name} is not the library that {path.name} was built with; it is used "
                "because it was named"
            )
        return found
    candidates = sorted(cache_folder().glob(f"*/{wanted.name}"))
    try:
        candidates.insert(0, find_plugin_library())
        why = f"found {candidates[0]} with another hash than the record's {wanted.sha256}"
    except VimDeployError as error:
        why = error.why
    candidates.append(path.parent / wanted.name)
    for candidate in candidates:
        if candidate.is_file() and sha256_of(candidate) == wanted.sha256:
            return candidate
    raise VimDeployError(
        "VIM-903",
        f"{path.name} needs the plugin library {wanted.name} that it was built with",
        why=why,
        fix="name it with --plugin or VIM_DEPLOY_PLUGIN, or put it beside the engine",
    )


def _check_batch(name: str, profiles: tuple[Profile, ...], batch: int) -> None:
    """VIM-905 when no profile takes ``batch`` in all of its inputs."""
    shapes = [[shape for shape in item.shapes.values() if shape.min] for item in profiles]
    taken = [narrowed(*found) for found in shapes if found]
    ranges = [(shape.min[0], shape.max[0]) for shape in taken]
    if not ranges or any(low <= batch <= high for low, high in ranges):
        return
    raise VimDeployError(
        "VIM-905",
        f"{name} does not take a batch of {batch}",
        why="its profiles take " + ", ".join(f"{low} to {high}" for low, high in ranges),
        fix=f"give a batch within a profile, or build it again with --max-batch {batch}",
    )


def is_version_compatible(record: EngineRecord) -> bool:
    """Whether the engine was built to run in later versions as well."""
    return "VERSION_COMPATIBLE" in record.flags
