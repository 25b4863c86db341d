"""Artifacts that say what a test tells them, for runners that stand in for a runtime's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.files import sight


@dataclass(frozen=True)
class Told(Artifact):
    """An engine, of which nothing is read but its hash."""

    said: ExportInfo | None = None

    @cached_property
    def info(self) -> ExportInfo | None:
        return self.said


def told(path: Path, said: ExportInfo | None) -> Told:
    """The engine at ``path``, which need not be there."""
    return Told(path, sight(path), "engine", said)
