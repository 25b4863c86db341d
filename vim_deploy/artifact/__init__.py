"""What a file is: ``Artifact.open(path)`` reads an ONNX file or an engine once and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vim_deploy.artifact.file import Artifact

__all__ = ["Artifact"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class
    # On first use: profiles and records are read where onnx is not wanted, as by --help.
    if name != "Artifact":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vim_deploy.artifact.file import Artifact

    return Artifact
