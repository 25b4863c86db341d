"""What is known about an artifact that is to be served: tensors, batches, files, precision.

Everything comes from the ONNX file, or from the engine and its record; nothing is typed by hand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import onnx

from vim_deploy.artifact import metadata
from vim_deploy.artifact.engine_file import TENSORRT, is_engine, read_header
from vim_deploy.artifact.half_weights import half_types
from vim_deploy.artifact.marked_tensors import refuse_diagnosis
from vim_deploy.artifact.passport import check_record
from vim_deploy.artifact.record import EngineRecord, read_record, record_path
from vim_deploy.errors import VimDeployError
from vim_deploy.files import sight
from vim_deploy.runtimes.building.output import external_data
from vim_deploy.specs import ExportInfo, TensorSpec

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
        path: the ONNX file or engine.
        sha256: of its bytes.
        input: the picture input; a str in the shape is a symbolic size.
        outputs: in order.
        info: what it says about the model.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        record: of an engine; None for an ONNX file.
        profiles: of an engine; empty for an ONNX file.
        companions: files with weights beside an ONNX file, which goes nowhere without them.
    """

    path: Path
    sha256: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    info: ExportInfo
    precision: str
    record: EngineRecord | None = None
    profiles: tuple[BatchRange, ...] = ()
    companions: tuple[str, ...] = ()

    @property
    def batches(self) -> bool:
        """Whether the batch is dynamic, so that the server may join requests."""
        return all(
            bool(spec.shape) and isinstance(spec.shape[0], str)
            for spec in (self.input, *self.outputs)
        )

    def files(self) -> list[tuple[Path, str]]:
        """Source and name inside the package of every file of the artifact."""
        if self.record is not None:
            return [(self.path, PLAN_NAME), (record_path(self.path), record_path_name())]
        beside = [(self.path.parent / name, name) for name in self.companions]
        return [(self.path, ONNX_NAME), *beside]


def record_path_name() -> str:
    """Name of an engine's record inside a package."""
    return record_path(Path(PLAN_NAME)).name


def read_servable(path: Path) -> Servable:
    """Describe an ONNX file or engine.

    Raises:
        VimDeployError: VIM-401, VIM-409, VIM-413 (file not readable), VIM-410 (it does not say how
            pictures are prepared), VIM-426 (it cannot be served: an engine of TensorRT-RTX or
            without record or weights, more than one input), VIM-902 (engine and record do not
            belong together).
    """
    return _engine(path) if is_engine(path) else _onnx(path)


def _refused(path: Path, message: str, why: str, fix: str) -> VimDeployError:
    return VimDeployError("VIM-426", f"{path.name} {message}", why=why, fix=fix)


def _engine(path: Path) -> Servable:
    header = read_header(path)
    if header.runtime != TENSORRT:
        raise _refused(
            path,
            "cannot be served by Triton",
            "it is an engine of TensorRT-RTX, which Triton's backends do not load",
            "vim-deploy build-engine MODEL.onnx --runtime tensorrt, or package the ONNX file",
        )
    record = read_record(path)
    if record is None:
        raise _refused(
            path,
            "has no record, from which its package would be made",
            f"there is no {record_path(path).name} beside it",
            "copy the record from where the engine was built, or build it again",
        )
    check_record(path, header, record)
    refuse_diagnosis(record.inner_tensors, path, "packaged")
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
    image = _only(path, record.inputs)
    return Servable(
        path=path,
        sha256=record.plan.sha256,
        input=image,
        outputs=record.outputs,
        info=_described(path, record.export),
        precision=record.precision or (record.export.precision if record.export else "fp32"),
        record=record,
        profiles=_ranges(record, image),
    )


def _ranges(record: EngineRecord, image: TensorSpec) -> tuple[BatchRange, ...]:
    ranges = [profile.shapes[image.name] for profile in record.profiles]
    return tuple(BatchRange(item.min[0], item.opt[0], item.max[0]) for item in ranges if item.min)


def _onnx(path: Path) -> Servable:
    sighting = sight(path)
    model = metadata.load_model(path)
    info = _described(path, metadata.find(model))
    types = half_types(model)
    precision = "fp16" if onnx.TensorProto.FLOAT16 in types else "fp32"
    if onnx.TensorProto.BFLOAT16 in types:
        precision = "bf16"
    return Servable(
        path=path,
        sha256=sighting.sha256(),
        input=_only(path, metadata.inputs_of(model)),
        outputs=metadata.outputs_of(model),
        info=info,
        precision=precision,
        companions=tuple(item.name for item in external_data(path)),
    )


def _only(path: Path, inputs: tuple[TensorSpec, ...]) -> TensorSpec:
    if len(inputs) != 1:
        raise _refused(
            path,
            f"has {len(inputs)} inputs; one picture input is expected",
            ", ".join(spec.name for spec in inputs),
            "give a model made by vim-deploy export",
        )
    return inputs[0]


def _described(path: Path, info: ExportInfo | None) -> ExportInfo:
    if info is None:
        raise VimDeployError(
            "VIM-410",
            f"{path.name} does not say how pictures are prepared for it",
            why="it holds no vim-deploy metadata; for an engine that stands in its record",
            fix="export the model with vim-deploy export",
        )
    return info
