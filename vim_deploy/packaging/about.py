"""What a manifest says of its package (``about``), typed, for each target.

Only what this version reads is here; a manifest holds more, for ``client.py`` and for people, and a
later version may add to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from vim_deploy.codec import decode
from vim_deploy.errors import VimDeployError
from vim_deploy.packaging.manifest import Manifest
from vim_deploy.packaging.native_ops import PackedOps
from vim_deploy.packaging.triton import CONFIG_NAME
from vim_deploy.parity.limits import DetectionLimits
from vim_deploy.parity.metrics import Tolerance
from vim_deploy.specs import Backend, CheckpointInfo, ImagePreparation, PreprocessMode, TensorSpec

About = TypeVar("About", "TritonAbout", "CppAbout", "WebAbout", "PackedModel")


@dataclass(frozen=True)
class PackedArtifact:
    """Where the artifact is in the package."""

    path: str


@dataclass(frozen=True)
class Golden:
    """The stored answers.

    Attributes:
        file: that holds them.
        outputs: their names; none where the artifact did not run when it was packaged.
        made_by: the runner that gave them.
        tolerance: how far other answers may be from them.
        why: there are none.
        detections: how far a detector's may be, in place of ``tolerance``; None for other models.
    """

    file: str
    outputs: tuple[str, ...]
    made_by: str
    tolerance: Tolerance
    why: str
    detections: DetectionLimits | None = None

    def __post_init__(self) -> None:
        limits = self.tolerance
        for name in ("atol", "rtol", "relative_l2", "kl"):
            limit = getattr(limits, name)
            if limit is not None and limit < 0:
                raise ValueError(f"tolerance {name} is {limit}")
        for name in ("cosine", "top1_agreement", "label_agreement"):
            limit = getattr(limits, name)
            if limit is not None and not 0 <= limit <= 1:
                raise ValueError(f"tolerance {name} is {limit}")


@dataclass(frozen=True)
class TritonAbout:
    """Of a model repository for Triton.

    Attributes:
        name: of the model.
        runtime: Triton's backend.
        folder: of the model inside the package.
        artifact: the file that is served.
        max_batch: most pictures at once; 0 for a fixed batch.
        input, outputs: of the artifact.
        size: its second input, a detector's sizes of pictures; None where it takes none.
        golden: stored answers.
        plugin: library of an engine; None where it needs none beside it.
        notes: sentences for the user.
        ops: native ops of an ONNX file; None when it runs without.
    """

    name: str
    runtime: Backend
    folder: str
    artifact: PackedArtifact
    max_batch: int
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    golden: Golden
    plugin: str | None
    notes: tuple[str, ...]
    ops: PackedOps | None = None
    size: TensorSpec | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Of the artifact, in its order."""
        return (self.input,) if self.size is None else (self.input, self.size)

    @property
    def files(self) -> Iterable[str]:
        """Files of the package that are opened by what is said here."""
        yield from (self.artifact.path, self.golden.file, f"{self.folder}/{CONFIG_NAME}")
        if self.plugin is not None:
            yield self.plugin
        if self.ops is not None:
            yield self.ops.library


@dataclass(frozen=True)
class CppAbout:
    """Of a C++ package.

    Attributes:
        name: of the model.
        runtime: that the C++ library runs it with.
        artifact: the engine or ONNX file.
        inputs, outputs: of it.
        notes: sentences for the user.
        plugin: library of an engine; None where it needs none beside it.
        ops: native ops of an ONNX file; None when it runs without.
    """

    name: str
    runtime: Literal["tensorrt", "onnxruntime"]
    artifact: PackedArtifact
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...]
    plugin: str | None = None
    ops: PackedOps | None = None

    @property
    def files(self) -> Iterable[str]:
        """Files of the package that are opened by what is said here."""
        yield self.artifact.path
        if self.plugin is not None:
            yield self.plugin
        if self.ops is not None:
            yield self.ops.library


@dataclass(frozen=True)
class WebAbout:
    """Of a page: name, runtime, the ONNX file and its tensors, stored answers, sentences."""

    name: str
    runtime: Literal["onnxruntime-web"]
    artifact: PackedArtifact
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    golden: Golden
    notes: tuple[str, ...]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Of the artifact."""
        return (self.input,)

    @property
    def files(self) -> Iterable[str]:
        """Files of the package that are opened by what is said here."""
        return (self.artifact.path, self.golden.file)


@dataclass(frozen=True)
class PackedModel:
    """What the manifest says of its model for people, whatever the target; ``inspect`` shows it.

    Attributes:
        name, runtime, artifact, input, outputs, max_batch: as in ``TritonAbout``.
        model, checkpoint, head, labels, image, preprocess, precision: as in
            ``artifact.metadata.ExportInfo``.
        inputs: of a C++ package, in place of ``input``.
    """

    name: str
    runtime: str
    artifact: PackedArtifact
    outputs: tuple[TensorSpec, ...]
    model: str
    checkpoint: CheckpointInfo
    head: str
    labels: tuple[str, ...]
    image: ImagePreparation
    preprocess: PreprocessMode
    input: TensorSpec | None = None
    inputs: tuple[TensorSpec, ...] = ()
    max_batch: int | None = None
    precision: str = ""

    @property
    def files(self) -> Iterable[str]:
        """As in ``TritonAbout``."""
        return (self.artifact.path,)


def read_about(folder: Path, manifest: Manifest, kind: type[About]) -> About:
    """What the manifest of ``folder`` says, as ``kind``.

    Raises:
        VimDeployError: VIM-427 when it does not say that, or names files that it has no hash of.
    """

    def incomplete(why: str) -> VimDeployError:
        return VimDeployError(
            "VIM-427",
            f"the manifest of {folder} does not describe a package for {manifest.target}",
            why=why,
            fix="make the package again: vim-deploy package ARTIFACT --force",
        )

    about: About = decode(manifest.about, kind, incomplete)
    named = [name for name in about.files if name not in manifest.files]
    if named:
        raise incomplete(f"it names files that it has no hash of: {', '.join(named)}")
    return about
