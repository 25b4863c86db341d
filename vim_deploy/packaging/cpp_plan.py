"""What goes into a C++ package, whatever runs its model; settled before a byte is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vim_deploy import heads
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.specs import TensorSpec

#: Folder of the C++ library in a package.
SOURCES_FOLDER = "vim_deploy"


@dataclass(frozen=True)
class CppPlan:
    """Everything about a C++ package that is settled before a byte is written.

    Attributes:
        artifact: the ONNX file or engine.
        place: of it in the package.
        sha256: of it.
        runtime: ``onnxruntime`` or ``tensorrt``.
        info: what it says about its model.
        inputs, outputs: of it.
        files: that are taken as they are, by their path in the package: the artifact, what lies
            beside it, and the libraries that it needs.
        facts: what the manifest says besides, of this runtime alone.
        readme: name of the template of ``README.md``, and ``words`` for it.
        settings: what decides the contents, beside the sources.
        notes: sentences for the user.
    """

    artifact: Path
    place: str
    sha256: str
    runtime: str
    info: ExportInfo
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: Mapping[str, Path]
    facts: Mapping[str, Any]
    readme: str
    words: Mapping[str, str]
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    #: Of the C++ library, by path inside its folder.
    sources: Mapping[str, Path] = field(default_factory=dict)

    @property
    def detects(self) -> bool:
        """Whether the model is a detector's."""
        return heads.of_file(self.info).takes_size

    @property
    def name(self) -> str:
        """Of the package: the artifact's, up to the first point."""
        return self.artifact.name.partition(".")[0]


def require_program(info: ExportInfo, name: str) -> None:
    """VIM-431 for a model that the programs of a package cannot show."""
    if info.dense and not heads.of_file(info).takes_size:
        raise VimDeployError(
            "VIM-431",
            f"the C++ package is for classifiers and detectors, and {name} is neither",
            why=f"it is a dense model ({info.dense.task}, head {info.head}): the programs of the "
            "package print the best classes of whole pictures, or what a detector finds",
            fix="--target triton serves every output; a program of your own can link the library, "
            "which gives outputs as tensors (docs/cpp.md)",
        )
