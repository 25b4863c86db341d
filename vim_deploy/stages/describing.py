"""Describe again: what an exported file says of itself, carried over to what a tool made of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

from vim_deploy.artifact import Artifact, metadata
from vim_deploy.artifact.description import corrected, different_tensors
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.onnx_file import data_path, model_output
from vim_deploy.codec import stored
from vim_deploy.errors import VimDeployError
from vim_deploy.files import remove_leftovers, single_writer
from vim_deploy.paths import StrPath, as_path


@stored(keys=("file=path.name", "export=info", "changed"))
@dataclass(frozen=True)
class Described:
    """A file that says again what it is.

    Attributes:
        path: of the new file.
        info: what it says now.
        changed: fields in which the tool's file is not what the original says of itself.
    """

    path: Path
    info: ExportInfo
    changed: tuple[str, ...]


def describe_from(
    changed: StrPath, original: StrPath, output: StrPath, *, force: bool = False
) -> Described:
    """Write ``changed``, which a tool made of the exported file ``original``, with its description.

    Nodes and weights are those of ``changed``. What its graph shows to be otherwise than the
    original says (opset, precision) is described as it is.

    Args:
        changed: ONNX file that a tool wrote.
        original: exported file that the tool was given.
        output: the new file; it may be ``changed`` with ``force``.
        force: replace a file that is there.

    Raises:
        VimDeployError: VIM-203 (the output is the original, or weights of either file), VIM-401,
            VIM-409 (either file), VIM-410 (the original says nothing), VIM-415 (inputs or outputs
            are others than the original's), VIM-404 (the changed file says that it holds other
            weights), VIM-204 (an output exists), VIM-304, VIM-305, VIM-306 (output).
    """
    file = Artifact.open(as_path(changed, "changed"), "ONNX model")
    source = Artifact.open(as_path(original, "original"), "exported file")
    path = as_path(output, "output")
    info = source.require_info("has no description to carry over")
    _require_same_model(file, source, info)
    model = copy.deepcopy(file.model)
    in_place = path.exists() and path.samefile(file.path)
    for what, artifact in (("original", source), ("changed file", file)):
        if artifact.lies_at(path) and not (artifact is file and in_place):
            raise VimDeployError(
                "VIM-203",
                f"the output {path} is the {what} itself, or its weights",
                fix="choose another with -o",
            )
    found, differing = corrected(info, model, source.model)
    # An export with this hash would write the original.
    found = replace(found, settings_hash="")
    metadata.attach(model, found)
    file.forget_model()
    with single_writer(path):
        for place in (path, data_path(path)):
            remove_leftovers(place)
            if place.exists() and not force:
                raise _exists(place)
        file.sighting.require_unchanged()
        with model_output(model, path):
            pass
    return Described(path, found, tuple(differing))


def _require_same_model(file: Artifact, source: Artifact, info: ExportInfo) -> None:
    """VIM-415, VIM-404 for a file that ``source`` does not describe."""
    for artifact in (file, source):
        if artifact.kind != "onnx":
            raise VimDeployError(
                "VIM-409",
                f"{artifact.path} is of kind {artifact.kind}, no ONNX model",
                fix="--describe-from carries a description from one ONNX file to another",
            )
    for what in ("inputs", "outputs"):
        why = different_tensors(getattr(source, what), getattr(file, what))
        if why:
            raise VimDeployError(
                "VIM-415",
                f"{source.name} does not describe {file.name}: they have other {what}",
                why=why,
                fix="name the exported file that the tool was given",
            )
    try:
        own = file.info
    except VimDeployError:
        # What cannot be read is what is to be replaced.
        own = None
    if own is not None and own.checkpoint.sha256 != info.checkpoint.sha256:
        raise VimDeployError(
            "VIM-404",
            f"{source.name} does not describe {file.name}: it was made from other weights",
            why=f"{file.name} says {own.checkpoint.name}, SHA-256 {own.checkpoint.sha256}; "
            f"{source.name} says {info.checkpoint.name}, {info.checkpoint.sha256}",
            fix=f"{file.name} says itself what it is; use it as it is",
        )


def _exists(path: Path) -> VimDeployError:
    return VimDeployError(
        "VIM-204",
        f"{path} exists",
        fix="add --force to replace it, or choose another output with -o",
    )
