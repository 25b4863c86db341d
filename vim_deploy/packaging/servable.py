"""What is known about an artifact that is to be served: tensors, batches, files, precision.

Everything comes from the ONNX file, or from the engine and its record; nothing is typed by hand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vim_deploy import heads
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.engine_file import TENSORRT
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.record import EngineRecord, record_path
from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import computed_precision
from vim_deploy.onnx_quantized import precision_of
from vim_deploy.precisions import TABLE
from vim_deploy.runtimes.inputs import picture_inputs
from vim_deploy.specs import TensorSpec

#: Names of the artifact inside a package: those that Triton looks for by itself.
PLAN_NAME, ONNX_NAME = "model.plan", "model.onnx"
_VERSION = re.compile(r"\d{1,3}(\.\d{1,6}){2,3}")


@dataclass(frozen=True)
class BatchRange:
    """Smallest, usual and largest batch of one optimisation profile."""

    min: int
    usual: int
    max: int


@dataclass(frozen=True)
class Servable:
    """An artifact that can be packaged.

    Attributes:
        file: the ONNX file or engine.
        input: the picture input; a str in the shape is a symbolic size.
        size: a detector's second input, height and width of each picture inside it; None for
            every other model.
        info: what it says about the model.
        precision: of the file or engine (``precisions.NAMES``).
        profiles: of an engine; empty for an ONNX file.
    """

    file: Artifact
    input: TensorSpec
    info: ExportInfo
    precision: str
    profiles: tuple[BatchRange, ...]
    size: TensorSpec | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Everything that goes in, in the file's order."""
        return (self.input,) if self.size is None else (self.input, self.size)

    @property
    def off_cpu(self) -> str:
        """The type of operators that ONNX Runtime does not have on a CPU; empty for none."""
        if self.file.is_engine:
            return ""
        rows = (TABLE[self.precision], TABLE[computed_precision(self.file.model)])
        return next((row.dtype for row in rows if not row.on_cpu), "")

    @property
    def batches(self) -> bool:
        """Whether the batch is dynamic, so that the server may join requests."""
        return all(
            bool(spec.shape) and isinstance(spec.shape[0], str)
            for spec in (*self.inputs, *self.file.outputs)
        )

    def files(self) -> list[tuple[Path, str]]:
        """Source and name inside the package of every file of the artifact."""
        path = self.file.path
        if self.file.is_engine:
            return [(path, PLAN_NAME), (self.file.record_path, record_path_name())]
        beside = [(path.parent / item.name, item.name) for item in self.file.companions]
        return [(path, ONNX_NAME), *beside]


def record_path_name() -> str:
    """Name of an engine's record inside a package."""
    return record_path(Path(PLAN_NAME)).name


def read_servable(path: Path) -> Servable:
    """Describe an ONNX file or engine.

    Raises:
        VimDeployError: VIM-401, VIM-409, VIM-413 (file not readable), VIM-410 (it does not say how
            pictures are prepared), VIM-426 (it cannot be served: an engine of TensorRT-RTX or
            without record or weights, other inputs than pictures and a detector's sizes), VIM-902
            (engine and record do not belong together).
    """
    file = Artifact.open(path)
    record = _servable_record(file) if file.is_engine else None
    info = file.require_info()
    try:
        image, size = picture_inputs(file)
    except VimDeployError as error:
        raise _refused(path, error.message.partition(" ")[2], error.why, error.fix) from error
    if (size is not None) != heads.of_file(info).takes_size:
        raise _refused(
            path,
            f"says that its head is {info.head}, and has other inputs",
            ", ".join(spec.name for spec in file.inputs),
            "give a model made by vim-deploy export",
        )
    ranges = [profile.shapes[image.name] for profile in record.profiles] if record else []
    return Servable(
        file=file,
        input=image,
        info=info,
        precision=file.precision if record else precision_of(file.model),
        profiles=tuple(
            BatchRange(item.min[0], item.opt[0], item.max[0]) for item in ranges if item.min
        ),
        size=size,
    )


def _refused(path: Path, message: str, why: str, fix: str) -> VimDeployError:
    return VimDeployError("VIM-426", f"{path.name} {message}", why=why, fix=fix)


def _servable_record(engine: Artifact) -> EngineRecord:
    """Of an engine that Triton can load; VIM-426 of any other."""
    path = engine.path
    if engine.header.runtime != TENSORRT:
        raise _refused(
            path,
            "cannot be served by Triton",
            "it is an engine of TensorRT-RTX, which Triton's backends do not load",
            "vim-deploy build-engine MODEL.onnx --runtime tensorrt, or package the ONNX file",
        )
    record = engine.record
    if record is None:
        raise _refused(
            path,
            "has no record, from which its package would be made",
            f"there is no {engine.record_path.name} beside it",
            "copy the record from where the engine was built, or build it again",
        )
    engine.require_own_record(record)
    engine.refuse_diagnosis("packaged")
    if record.stripped:
        raise _refused(
            path,
            "holds no weights",
            "it was built stripped, to be refitted before it is used",
            f"vim-deploy refit {path.name} CHECKPOINT",
        )
    if not _VERSION.fullmatch(record.runtime_version):
        raise _refused(
            path,
            f"was built by {record.runtime_version!r}, which is no version of TensorRT",
            "its record says so, and the version goes into a script",
            "build the engine again",
        )
    return record
