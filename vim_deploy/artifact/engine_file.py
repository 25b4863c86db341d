"""What an engine file is, read from its first bytes and the record beside it.

Nothing is deserialised, so no runtime and no GPU is needed and no code of the plan is run. Header
of TensorRT (``ftrt``; the fields its own trtexec reads) and TensorRT-RTX (``vtrt``; read off plans
of version 1.7.1)::

    byte 0   magic, 4 bytes
    byte 4   0, u32 little-endian
    byte 16  RTX: size of the file, u64 little-endian
    byte 24  version: major, minor, patch, build; one byte each
    byte 32  RTX 1.7: GPUs the engine runs on, one bit each (gpus.from_plan_word)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vim_deploy.artifact.gpus import from_plan_word
from vim_deploy.artifact.record import EngineRecord, FileIdentity, read_record, record_path
from vim_deploy.errors import VimDeployError
from vim_deploy.files import require_file

#: What an engine's file is called.
ENGINE_SUFFIXES = (".plan", ".engine")
#: Runtimes that make engines, and their names as NVIDIA writes them.
TENSORRT: Final = "tensorrt"
TENSORRT_RTX: Final = "tensorrt-rtx"
TITLES: Final = {TENSORRT: "TensorRT", TENSORRT_RTX: "TensorRT-RTX"}

#: First bytes of an engine, and what built it.
MAGIC = {b"ftrt": TENSORRT, b"vtrt": TENSORRT_RTX}
_HEADER_BYTES = 36
#: Versions whose word at byte 32 is known.
_RTX_GPU_WORD_VERSIONS = ((1, 7),)


@dataclass(frozen=True)
class PlanHeader:
    """What a plan's first bytes say.

    Attributes:
        runtime: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the runtime that built it.
        compute_capabilities: GPUs it runs on; empty when the header does not tell.
        later_gpus: whether newer GPUs are included.
    """

    runtime: str
    version: str
    compute_capabilities: tuple[str, ...]
    later_gpus: bool


def is_engine(path: Path) -> bool:
    """Whether a file is an engine, by its name or its first bytes; VIM-401 when it is missing."""
    require_file(path, "artifact")
    with path.open("rb") as stream:
        return path.suffix in ENGINE_SUFFIXES or stream.read(4) in MAGIC


def _not_an_engine(path: Path, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-413",
        f"{path} is not a readable engine",
        why=why,
        fix="build it again: vim-deploy build-engine MODEL.onnx -o " + str(path),
    )


def read_header(path: Path) -> PlanHeader:
    """Read a plan's header.

    Raises:
        VimDeployError: VIM-401 (no such file), VIM-413 (empty, truncated or not an engine).
    """
    require_file(path, "engine")
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    runtime = MAGIC.get(head[:4])
    if not head:
        raise _not_an_engine(path, "the file is empty")
    if runtime is None:
        raise _not_an_engine(path, f"it begins with {head[:4]!r}, not with an engine's mark")
    if len(head) < _HEADER_BYTES:
        raise _not_an_engine(path, f"it is truncated: {size} bytes are less than a header")
    if int.from_bytes(head[4:8], "little") != 0:
        raise _not_an_engine(path, "its header is damaged")
    numbers = tuple(head[24:28])
    capabilities: tuple[str, ...] = ()
    later = False
    if runtime == TENSORRT_RTX:
        expected = int.from_bytes(head[16:24], "little")
        if expected != size:
            kind = "truncated" if size < expected else "longer than it should be"
            raise _not_an_engine(path, f"it is {kind}: {size} bytes, its header says {expected}")
        if numbers[:2] in _RTX_GPU_WORD_VERSIONS:
            capabilities, later = from_plan_word(int.from_bytes(head[32:36], "little"))
    return PlanHeader(runtime, ".".join(map(str, numbers)), capabilities, later)


def inspect_plan(path: Path) -> dict[str, Any]:
    """Describe an engine as a JSON-able mapping.

    Keys: ``kind`` (``engine``), ``file`` (name, sha256, bytes), ``runtime``, ``runtime_version``,
    ``compute_capabilities``, ``later_gpus``, ``record`` (None when there is none beside it).

    Raises:
        VimDeployError: VIM-401, VIM-413 (engine or record not readable), VIM-902 (the record
            belongs to another engine).
    """
    header = read_header(path)
    identity = FileIdentity.of(path)
    record = read_record(path)
    if record is not None:
        _check_together(path, identity, record)
    capabilities = header.compute_capabilities
    later = header.later_gpus
    if not capabilities and record is not None:
        capabilities, later = record.compute_capabilities, record.later_gpus
    return {
        "kind": "engine",
        "file": {"name": identity.name, "sha256": identity.sha256, "bytes": identity.bytes},
        "runtime": header.runtime,
        "runtime_version": header.version,
        "compute_capabilities": list(capabilities),
        "later_gpus": later,
        "record": None if record is None else record.as_dict(),
    }


def _check_together(path: Path, identity: FileIdentity, record: EngineRecord) -> None:
    if identity.sha256 != record.plan.sha256:
        raise VimDeployError(
            "VIM-902",
            f"{record_path(path)} is not the record of {path}",
            why=f"the engine's SHA-256 is {identity.sha256}, the record's {record.plan.sha256}",
            fix="put back the engine that the record describes, or build again with --force",
        )
