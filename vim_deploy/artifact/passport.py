"""The passport check: whether an engine belongs on this machine, before anything of it is loaded.

The header and the record are read, nothing is deserialised, and each thing that does not fit is one
sentence with its fix. Without a record only the header is checked; that is said, not refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vim_deploy.artifact.engine_file import (
    TENSORRT,
    TENSORRT_RTX,
    TITLES,
    PlanHeader,
    describe_gpus,
    read_header,
)
from vim_deploy.artifact.profiles import Profile
from vim_deploy.artifact.record import (
    EngineRecord,
    FileIdentity,
    PluginIdentity,
    read_record,
    record_path,
)
from vim_deploy.errors import UnreadableEngineError, VimDeployError
from vim_deploy.files import require_file, settings_hash, sha256_of
from vim_deploy.ops import contract
from vim_deploy.plugin.library import cache_folder, find_plugin_library

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
        header: None where the header's layout is not known for this release.
        record: None when there is none beside the engine.
        plugin: the library to load first; None when the engine needs none.
        notes: what could not be checked, and what is unusual.
    """

    header: PlanHeader | None
    record: EngineRecord | None
    plugin: Path | None
    notes: tuple[str, ...]


def check_passport(
    path: Path, machine: Machine, *, plugin: Path | None = None, batch: int | None = None
) -> Passport:
    """Compare an engine with the machine.

    Args:
        path: the plan.
        machine: where it would run.
        plugin: library that the user named.
        batch: images at once, when it is known beforehand.

    Raises:
        VimDeployError: VIM-401, VIM-413 (not a whole engine), VIM-901 (other runtime, version or
            GPU), VIM-902 (the record is not that of the engine, or was changed), VIM-903 (plugin
            library), VIM-905 (no profile takes the batch).
    """
    notes: list[str] = []
    header = _header(path, machine, notes)
    record = read_record(path)
    if record is None:
        notes.append(
            f"{path.name} has no record {record_path(path).name}: only its header was checked"
        )
    else:
        check_record(path, header, record)
        _check_weights(path, record)
    _check_version(path, machine, header, record, notes)
    _check_gpu(path, machine, header, record, notes)
    library = _check_plugin(path, record, plugin, notes)
    if batch is not None and record is not None:
        _check_batch(path, record.profiles, batch)
    return Passport(header, record, library, tuple(notes))


def _header(path: Path, machine: Machine, notes: list[str]) -> PlanHeader | None:
    """The header; None, with a note, for a release that may write another."""
    try:
        header = read_header(path)
    except UnreadableEngineError:
        unknown = machine.runtime == TENSORRT and not _header_known(machine.version)
        if not unknown or path.stat().st_size < _SMALLEST_PLAN:
            raise
        notes.append(
            f"the header of {path.name} was not checked: its layout in TensorRT {machine.version} "
            "is not known"
        )
        return None
    if header.runtime != machine.runtime:
        raise VimDeployError(
            "VIM-901",
            f"{path.name} was built by {TITLES[header.runtime]}, not by {TITLES[machine.runtime]}",
            why="neither loads the other's engines",
            fix=f"vim-deploy build-engine MODEL.onnx --runtime {machine.runtime}",
        )
    return header


#: No engine is smaller, whatever its header looks like.
_SMALLEST_PLAN = 64


def _header_known(version: str) -> bool:
    return _numbers(version)[:1] >= _HEADER_KNOWN_FROM


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def check_record(path: Path, header: PlanHeader | None, record: EngineRecord) -> None:
    """Whether the record is that of the engine, and as it was written; VIM-902 otherwise."""
    name = record_path(path).name
    identity = FileIdentity.of(path)
    why = ""
    if identity.bytes < record.plan.bytes:
        why = (
            f"the engine is truncated: it has {identity.bytes} bytes, the record says "
            f"{record.plan.bytes}"
        )
    elif identity.sha256 != record.plan.sha256:
        why = f"the engine's SHA-256 is {identity.sha256}, the record says {record.plan.sha256}"
    elif header is not None and header.runtime != record.runtime:
        why = f"the engine's header says {header.runtime}, the record {record.runtime}"
    elif settings_hash(record.settings()) != record.settings_hash:
        why = "the record was changed after it was written: its settings have another hash"
    if why:
        raise VimDeployError(
            "VIM-902",
            f"{path.name} and {name} do not belong together",
            why=why,
            fix="copy both again from where they were built, or build again with --force",
        )


def _check_weights(path: Path, record: EngineRecord) -> None:
    if record.stripped:
        raise VimDeployError(
            "VIM-413",
            f"{path.name} holds no weights",
            why="it was built stripped, to be refitted before it is used",
            fix=f"vim-deploy refit {path.name} CHECKPOINT",
        )


def _check_version(
    path: Path,
    machine: Machine,
    header: PlanHeader | None,
    record: EngineRecord | None,
    notes: list[str],
) -> None:
    here = _numbers(machine.version)
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
            f"the header of {path.name} says version {built}; for TensorRT {machine.version} that "
            "is not known to be so"
        )
        return
    if record is not None and is_version_compatible(record) and here[:3] > there[:3]:
        notes.append(f"built version-compatible by {built}, run by {machine.version}")
        return
    runtime = TITLES[machine.runtime]
    fix = f"{_REBUILD}, or install {runtime} {'.'.join(map(str, there[:3]))}"
    if record is None:
        fix += f"; if it was built version-compatible, put {record_path(path).name} beside it"
    raise VimDeployError(
        "VIM-901",
        f"{path.name} was built by {runtime} {built}, this is {machine.version}",
        why="an engine runs in the version that built it"
        + ("" if record is None or not is_version_compatible(record) else " or a later one"),
        fix=fix,
    )


def _check_gpu(
    path: Path,
    machine: Machine,
    header: PlanHeader | None,
    record: EngineRecord | None,
    notes: list[str],
) -> None:
    capabilities: tuple[str, ...] = ()
    later = False
    if header is not None and header.compute_capabilities:
        capabilities, later = header.compute_capabilities, header.later_gpus
    elif record is not None:
        capabilities, later = record.compute_capabilities, record.later_gpus
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
            f"{path.name} was built for {describe_gpus(capabilities, later)}; this GPU "
            f"({machine.gpu}) has {here}",
            why="an engine holds machine code of the GPUs it was built for",
            fix=fix,
        )
    if record is not None and record.gpu and record.gpu != machine.gpu:
        notes.append(
            f"built on {record.gpu}, run on {machine.gpu}: it may be slower than one built here"
        )


def _check_plugin(
    path: Path, record: EngineRecord | None, named: Path | None, notes: list[str]
) -> Path | None:
    if record is None:
        return None if named is None else require_file(named, "plugin library")
    wanted = record.plugin
    if wanted is None:
        if named is not None:
            notes.append(f"{path.name} needs no plugin library; {named.name} is loaded as asked")
            return require_file(named, "plugin library")
        return None
    if wanted.contract_version != contract.CONTRACT_VERSION:
        raise VimDeployError(
            "VIM-903",
            f"{path.name} was built with plugins of contract {wanted.contract_version}, this "
            f"vim-deploy has contract {contract.CONTRACT_VERSION}",
            why="the ops' inputs or meaning changed in between",
            fix=_REBUILD,
        )
    if named is None and wanted.embedded:
        return None
    return matching_library(path, wanted, named, notes)


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


def _check_batch(path: Path, profiles: tuple[Profile, ...], batch: int) -> None:
    """VIM-905 when no profile takes ``batch`` in its first input."""
    ranges = [
        (shape.min[0], shape.max[0])
        for profile in profiles
        for shape in list(profile.shapes.values())[:1]
        if shape.min
    ]
    if not ranges or any(low <= batch <= high for low, high in ranges):
        return
    raise VimDeployError(
        "VIM-905",
        f"{path.name} does not take a batch of {batch}",
        why="its profiles take " + ", ".join(f"{low} to {high}" for low, high in ranges),
        fix=f"give a batch within a profile, or build it again with --max-batch {batch}",
    )


def is_version_compatible(record: EngineRecord) -> bool:
    """Whether the engine was built to run in later versions as well."""
    return "VERSION_COMPATIBLE" in record.flags
