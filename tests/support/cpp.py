"""Engines of the C++ runtime's fake TensorRT, their records, and what is read of records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.support.reference import Array
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.passport import is_version_compatible
from vim_deploy.artifact.profiles import Profile, ShapeRange
from vim_deploy.artifact.record import EngineRecord, FileIdentity, record_path
from vim_deploy.codec import encode
from vim_deploy.families.vim.config import VimConfig
from vim_deploy.files import settings_hash, write_json
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.specs import CheckpointInfo, ImagePreparation, TensorSpec

#: Version of the plans that the fake TensorRT is given: that of the headers.
VERSION = (10, 14, 1, 48)

#: What the fake engine is, and the record that goes with it.
INPUT = TensorSpec("image", "float32", ("batch", 1, 32, 32))
LOGITS = TensorSpec("logits", "float32", ("batch", 10))
PREPARATION = ImagePreparation(32, 32, 1, (0.5,), (0.25,), 1.0)


#: Rows of a fake detector's outputs, the cells of a mask's side, and how many rows are filled.
DETECTIONS, MASK, FOUND = 3, 28, 2


@dataclass(frozen=True)
class FakeEngine:
    """A plan of the fake TensorRT and its record; ``write`` puts both into a folder."""

    input: TensorSpec = INPUT
    outputs: tuple[TensorSpec, ...] = (LOGITS,)
    profiles: tuple[tuple[int, int, int], ...] = ((1, 2, 4),)
    lines: tuple[str, ...] = ("scratch 4096",)
    version: tuple[int, int, int, int] = VERSION
    magic: bytes = b"ftrt"
    capabilities: tuple[str, ...] = ("8.6",)
    later_gpus: bool = False
    preprocess: str = "none"
    head: str = "logits"
    image: ImagePreparation = PREPARATION
    labels: tuple[str, ...] = tuple(f"label {i}" for i in range(10))
    exported: bool = True
    #: Of a detector: its second input, and what it finds.
    size: TensorSpec | None = None
    dense: DenseConfig | None = None

    def plan(self) -> bytes:
        """The bytes of the plan."""
        lines = [f"{kind} {spec.name} {spec.dtype} {_sizes(spec)}" for kind, spec in self._io()]
        for sizes in self.profiles:
            shapes = ["x".join(map(str, self._shape(batch))) for batch in sizes]
            lines.append("profile " + " ".join(shapes))
        header = self.magic + bytes(20) + bytes(self.version) + bytes(8)
        return header + "\n".join([*lines, *self.lines, ""]).encode()

    def _io(self) -> list[tuple[str, TensorSpec]]:
        outputs = [("output", spec) for spec in self.outputs]
        return [*(("input", spec) for spec in self.inputs), *outputs]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Everything that goes in."""
        return (self.input,) if self.size is None else (self.input, self.size)

    def _profile(self, sizes: tuple[int, int, int]) -> Profile:
        ranges = {self.input.name: ShapeRange(*(self._shape(batch) for batch in sizes))}
        if self.size is not None:
            ranges[self.size.name] = ShapeRange(*((batch, 2) for batch in sizes))
        return Profile(ranges)

    def _shape(self, batch: int) -> tuple[int, ...]:
        first, *rest = self.input.shape
        return tuple(int(size) for size in (batch if isinstance(first, str) else first, *rest))

    def _export(self) -> ExportInfo | None:
        if not self.exported:
            return None
        return ExportInfo(
            model="custom",
            model_config=VimConfig(
                depth=2, initializer_cfg={"nested": {"a": [1, 2.5e-05, None, True]}}
            ),
            checkpoint=CheckpointInfo("digits.pth", "0" * 64, "model"),
            image=self.image,
            preprocess=self.preprocess,  # type: ignore[arg-type]
            head=self.head,
            graph="fused",
            precision="fp32",
            opset=18,
            pos_embed="as trained",
            tool_version="0.1.0",
            settings_hash="0" * 64,
            labels=self.labels,
            dense=self.dense,
        )

    def write(self, folder: Path, name: str = "digits.plan") -> Path:
        """Write plan and record; the plan's path."""
        path = folder / name
        path.write_bytes(self.plan())
        record = EngineRecord(
            plan=FileIdentity.of(path),
            source=FileIdentity("digits.onnx", "0" * 64, 1),
            external_data=(),
            runtime="tensorrt" if self.magic == b"ftrt" else "tensorrt-rtx",
            runtime_version=".".join(map(str, self.version)),
            inputs=self.inputs,
            outputs=self.outputs,
            profiles=tuple(map(self._profile, self.profiles)),
            compute_capabilities=self.capabilities,
            later_gpus=self.later_gpus,
            layers=3,
            tool_version="0.1.0",
            settings_hash="",
            build_seconds=1.5,
            peak_memory_bytes=1,
            export=self._export(),
        )
        record = replace(record, settings_hash=settings_hash(record.settings()))
        write_json(record_path(path), encode(record))
        return path


def detector(side: int = 32, *, masks: bool = True, channels: int = 1) -> FakeEngine:
    """A fake engine that finds two things in every picture (``cpp/tests/fake_plan.cpp``)."""
    from tests.support.detectors import described

    rows = ("batch", DETECTIONS)
    outputs = [TensorSpec("boxes", "float32", (*rows, 4)), TensorSpec("scores", "float32", rows)]
    outputs += [TensorSpec("classes", "int64", rows), TensorSpec("count", "int64", ("batch",))]
    if masks:
        outputs.append(TensorSpec("masks", "float32", (*rows, MASK, MASK)))
    return FakeEngine(
        input=TensorSpec("image", "float32", ("batch", channels, side, side)),
        outputs=tuple(outputs),
        size=TensorSpec("size", "int64", ("batch", 2)),
        head="detections",
        image=ImagePreparation(
            side, side, channels, (0.5,) * channels, (0.25,) * channels, 1.0, "bilinear"
        ),
        labels=("sky", "tree", "road"),
        dense=described(side, masks=masks).dense,
    )


def detected(height: int, width: int) -> dict[str, Array]:
    """What that engine gives for one picture of this size inside its input."""
    cells = np.arange(MASK * MASK).reshape(MASK, MASK)
    masks = [(cells * 7 + row * 3) % 16 / 16 for row in range(FOUND)]
    ends = [0.5 * (row + 1) for row in range(FOUND)]
    boxes = [[0.125 * width, 0.125 * height, end * width, end * height] for end in ends]
    return {
        "boxes": np.array(boxes, np.float32),
        "scores": np.array([0.75 - 0.25 * row for row in range(FOUND)], np.float32),
        "classes": np.arange(FOUND) + 1,
        "masks": np.array(masks, np.float32),
        "count": np.array(FOUND),
    }


def _sizes(spec: TensorSpec) -> str:
    return "x".join(str(-1 if isinstance(size, str) else size) for size in spec.shape)


def engine_of(record: EngineRecord, *lines: str) -> FakeEngine:
    """An engine of the C++ stand-in that has the tensors, profiles and version of ``record``."""
    (spec,) = record.inputs
    ranges = [profile.shapes[spec.name] for profile in record.profiles]
    version = [int(part) for part in record.runtime_version.split(".")]
    return FakeEngine(
        input=spec,
        outputs=record.outputs,
        profiles=tuple((item.min[0], item.opt[0], item.max[0]) for item in ranges),
        lines=lines,
        version=tuple([*version, 0, 0][:4]),  # type: ignore[arg-type]
    )


def said_of_record(record: EngineRecord) -> list[str]:
    """The lines that ``units record`` prints when it reads all of ``record`` as it was meant."""

    def text(shape: Sequence[int | str]) -> str:
        return f"[{', '.join(str(-1 if isinstance(size, str) else size) for size in shape)}]"

    plan, plugin = record.plan, record.plugin
    lines = [f"plan {plan.name} {plan.sha256} {plan.bytes}"]
    lines += [f"runtime {record.runtime} {record.runtime_version}"]
    for kind, specs in (("input", record.inputs), ("output", record.outputs)):
        lines += [f"{kind} {spec.name} {spec.dtype} {text(spec.shape)}" for spec in specs]
    for profile in record.profiles:
        for name, item in profile.shapes.items():
            lines.append(f"profile {name} {text(item.min)} {text(item.opt)} {text(item.max)}")
    lines += [f"capability {capability}" for capability in record.compute_capabilities]
    if plugin is not None:
        embedded = int(plugin.embedded)
        lines.append(f"plugin {plugin.name} {plugin.sha256} {plugin.contract_version} {embedded}")
    lines += [f"later {int(record.later_gpus)}", f"stripped {int(record.stripped)}"]
    lines.append(f"version_compatible {int(is_version_compatible(record))}")
    return lines + ([] if record.export is None else said_of_export(record.export))


def said_of_export(export: ExportInfo) -> list[str]:
    """The lines that ``units`` prints of a description that it reads as it was meant."""
    image = export.image
    lines = [f"export {export.model} {export.preprocess} {export.head} {export.precision}"]
    lines.append(f"image {image.height} {image.width} {image.channels} {image.interpolation}")
    lines.append(f"crop_ratio {_hexadecimal(image.crop_ratio)}")
    for mean, deviation in zip(image.mean, image.std, strict=True):
        lines.append(f"channel {_hexadecimal(mean)} {_hexadecimal(deviation)}")
    return lines + [f"label {label}" for label in export.labels]


def _hexadecimal(value: float) -> str:
    """A double as C++ prints it with ``std::hexfloat``: ``0x1p-1``, without trailing zeros."""
    mantissa, exponent = float(value).hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}p{exponent}"
