"""What a build is asked for, and what its process is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from vim_deploy.artifact.engine_file import TITLES
from vim_deploy.artifact.profiles import Profile, ProfileOptions
from vim_deploy.codec import decode, encode
from vim_deploy.errors import VimDeployError
from vim_deploy.paths import as_path, as_text
from vim_deploy.plugin.describe import PluginInfo
from vim_deploy.ranges import OPT_LEVEL, WORKSPACE_MIB, require_all
from vim_deploy.runtimes import AUTO

#: ``--plugin`` and ``--timing-cache`` besides AUTO and paths.
NONE, ON, OFF = "none", "on", "off"
#: ``--hardware-compat`` -> member of HardwareCompatibilityLevel.
HARDWARE_LEVELS = {
    "none": "NONE",
    "ampere+": "AMPERE_PLUS",
    "same-cc": "SAME_COMPUTE_CAPABILITY",
}


@dataclass(frozen=True)
class TrtOptions:
    """What to ask of full TensorRT; the defaults ask for nothing special.

    Attributes:
        plugin: ``auto`` (find or build one), ``none`` (the ops' local functions instead) or the
            path of a library.
        timing_cache: ``on`` (a file in the user's cache), ``off``, or the path of a file.
        opt_level: builder optimisation level, 0 to 5; None for TensorRT's own default, 3.
        workspace_mib: limit of the builder's workspace in MiB; None for all of the GPU's memory.
        hardware_compat: ``none``, ``ampere+`` or ``same-cc``.
        version_compatible: the engine also runs on later versions of TensorRT.
        embed_plugin: the engine carries the plugin library; needs ``version_compatible``.
        refit: the engine's weights can be exchanged.
        strip_weights: the engine is written without the weights, to be refitted before use.
        tf32: matrix products of float32 tensors may round their factors to 10 bits of mantissa.
        tactic_sources: trtexec's list, ``-CUDNN,-CUBLAS``; empty for TensorRT's own choice.
        export_layers: a file for the engine inspector's full description.
        inner_tensors: the engine gives out its inner tensors, for diagnosis.
    """

    plugin: str = AUTO
    timing_cache: str = ON
    opt_level: int | None = None
    workspace_mib: int | None = None
    hardware_compat: str = "none"
    version_compatible: bool = False
    embed_plugin: bool = False
    refit: bool = False
    strip_weights: bool = False
    tf32: bool = False
    tactic_sources: str = ""
    export_layers: Path | None = None
    inner_tensors: bool = False

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean; paths may be given as any kind of path."""
        require_all(self, opt_level=OPT_LEVEL, workspace_mib=WORKSPACE_MIB)
        for name in ("plugin", "timing_cache"):
            object.__setattr__(self, name, as_text(getattr(self, name), name))
        if self.export_layers is not None:
            # No OptionalPath: the codec reads the annotations of what goes to the build process.
            object.__setattr__(self, "export_layers", as_path(self.export_layers, "export_layers"))

    def given(self) -> tuple[str, ...]:
        """Options that differ from their defaults, as the command line names them."""
        return tuple(
            "--" + entry.name.replace("_mib", "").replace("_", "-")
            for entry in fields(self)
            if getattr(self, entry.name) != entry.default
        )

    def settings(self) -> dict[str, Any]:
        """The part that decides the engine, JSON-able: what is not at its default.

        The plugin is described by its contents elsewhere; the timing cache changes how long the
        build takes and may change which kernels are taken, as the machine's mood does.
        """
        passive = ("plugin", "timing_cache", "export_layers")
        return {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.name not in passive and getattr(self, entry.name) != entry.default
        }


@dataclass(frozen=True)
class BuildRequest:
    """An engine to be built.

    Attributes:
        model: ONNX file.
        output: where the engine goes, its record beside it; None for ``NAME.plan`` here.
        runtime: ``auto``, ``tensorrt`` or ``tensorrt-rtx``.
        profiles: input shapes to accept; by default batch 1 to 32, tuned for 8.
        compute_capabilities: GPUs to build for, such as ``8.6``, with TensorRT-RTX only; by
            default all from Ampere on that it supports, later ones included.
        tensorrt: what to ask of full TensorRT; of these, TensorRT-RTX knows ``inner_tensors``.
        precision: ``fp32``, ``fp16`` or ``bf16``; empty for that of the graph.
        force: replace an engine made with other settings, and build even if nothing changed.
        command: the command line, for the record.
    """

    model: Path
    output: Path | None = None
    runtime: str = AUTO
    profiles: ProfileOptions = field(default_factory=ProfileOptions)
    compute_capabilities: tuple[str, ...] = ()
    tensorrt: TrtOptions = field(default_factory=TrtOptions)
    precision: str = ""
    force: bool = False
    command: tuple[str, ...] = ()

    @property
    def plan(self) -> Path:
        """``output``, or NAME.plan here; NAME.fp16.plan when NAME does not say the precision."""
        if self.output is not None:
            return self.output
        stem = self.model.stem
        if self.precision not in ("", "fp32") and not stem.endswith(f".{self.precision}"):
            stem = f"{stem}.{self.precision}"
        return Path(f"{stem}.plan")


@dataclass(frozen=True)
class Job:
    """What every build process is told; paths are absolute.

    Attributes:
        worker: module of the process.
        runtime: whose engine it is.
        model: the ONNX file to parse.
        model_name: how messages name the model.
        output: where the engine goes.
        scratch: files that go with the process.
    """

    worker: str
    runtime: str
    model: Path
    model_name: str
    output: Path
    scratch: tuple[Path, ...]

    @property
    def title(self) -> str:
        """The runtime's name for people."""
        return TITLES[self.runtime]

    def encoded(self) -> bytes:
        """One line of JSON. Names that are no UTF-8 pass as escapes, which msgspec would refuse."""
        return json.dumps(encode(self)).encode() + b"\n"


@dataclass(frozen=True)
class BuildJob(Job):
    """A build: what was asked for, and what was decided about it.

    Attributes:
        inputs, outputs: types of the graph's tensors, by name.
        profiles: shapes to accept.
        named: compute capabilities to name to TensorRT-RTX; empty for its default.
        flags, cleared_flags: BuilderFlag members.
        plugin: the library to load; None when none is needed.
        plugin_counts: plugin layers to expect, by op type.
        timing_cache: file, or None.
        types: float types of the graph's tensors, by name, for weakly typed networks.
        debug_tensors: names of tensors to mark.
    """

    request: BuildRequest
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    profiles: tuple[Profile, ...]
    named: tuple[str, ...]
    flags: tuple[str, ...]
    cleared_flags: tuple[str, ...]
    plugin: PluginInfo | None
    plugin_counts: Mapping[str, int]
    timing_cache: Path | None
    types: Mapping[str, str]
    debug_tensors: tuple[str, ...]


AnyJob = TypeVar("AnyJob", bound=Job)


def decoded(line: bytes, kind: type[AnyJob]) -> AnyJob:
    """The job in a line that ``Job.encoded`` made; VIM-604 for any other line."""
    return decode(
        json.loads(line), kind, lambda why: VimDeployError("VIM-604", "not a job", why=why)
    )
