"""What a file is, and all that it says: the one place where kinds of files are told apart.

An ``Artifact`` is opened by its path and reads what it is asked for, when it is asked, and once.
An ONNX file comes in by ``onnx_file``, an engine by its first bytes (``engine_file``) and the
record beside it (``record``): nothing is deserialised, so no runtime, no GPU and no torch is
needed, and no code of a plan runs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import onnx

from vim_deploy.artifact import metadata
from vim_deploy.artifact.description import Description, describe, undescribed
from vim_deploy.artifact.engine_file import (
    ENGINE_SUFFIXES,
    MAGIC,
    TENSORRT,
    PlanHeader,
    read_header,
)
from vim_deploy.artifact.marked_tensors import refuse_diagnosis
from vim_deploy.artifact.metadata import ExportInfo, extents, model_inputs
from vim_deploy.artifact.onnx_file import OnnxFile, data_path, read_onnx
from vim_deploy.artifact.record import EngineRecord, FileIdentity, read_record, record_path
from vim_deploy.errors import UnreadableEngineError, UnreadableModelError, VimDeployError
from vim_deploy.files import Sighting, require_file, settings_hash, sight
from vim_deploy.images import SUFFIXES as PICTURES
from vim_deploy.onnx_quantized import precision_of
from vim_deploy.paths import StrPath, as_path
from vim_deploy.recipe.catalog import names_recipe
from vim_deploy.specs import TensorSpec

Kind = Literal["onnx", "engine", "checkpoint", "recipe", "package"]
#: What a name alone says; a checkpoint may be a file, a hub address or a variant.
Named = Literal["onnx", "engine", "stored", "checkpoint"]

#: Of files that may hold weights.
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pth.tar", ".pt.tar")
#: By which a folder is a package.
MANIFEST_NAME = "manifest.json"
_ZIP_MAGIC, _PICKLE_MAGIC = b"PK\x03\x04", b"\x80"


def named(source: str | Path) -> Named:
    """What ``source``, which need not be there, is called: by its suffix, no file is looked at."""
    suffix = Path(source).suffix
    if suffix in ENGINE_SUFFIXES:
        return "engine"
    return "onnx" if suffix == ".onnx" else "stored" if suffix == ".npz" else "checkpoint"


def is_checkpoint(name: str) -> bool:
    """Whether ``name`` is called as files with weights are, hidden ones apart."""
    file = name.rpartition("/")[2].lower()
    return file.endswith(CHECKPOINT_SUFFIXES) and not file.startswith(".")


def is_exported(source: str | Path) -> bool:
    """Whether ``source`` is called as exported files and engines are."""
    return named(source) in ("onnx", "engine")


def is_engine(source: str) -> bool:
    """Whether ``source`` is called as engines are, or is a file that begins as they do."""
    path = Path(source)
    return named(path) == "engine" or (path.is_file() and Artifact.open(path).is_engine)


@dataclass(frozen=True)
class Artifact:
    """A file, or the folder of a package.

    Attributes:
        path: of the file.
        sighting: the file as it was when it was opened; hashes are of no other.
        given_kind: what whoever opened it knows it to be, whatever it is called.
    """

    path: Path
    sighting: Sighting
    given_kind: Kind | None = None

    @classmethod
    def open(cls, path: Path, what: str = "artifact", *, folders: bool = False) -> Artifact:
        """The file at ``path``, of which nothing is read yet.

        Args:
            path: of any file.
            what: it is to be, for the message.
            folders: take a folder, too.

        Raises:
            VimDeployError: VIM-401 when there is no file that this user may read.
        """
        if not (folders and os.path.isdir(path)):
            if not os.path.lexists(path) and names_recipe(str(path)):
                raise _is_recipe(str(path), what)
            require_file(path, what)
        return cls(path, sight(path))

    @classmethod
    def of(cls, source: StrPath | Artifact) -> Artifact:
        """``source`` when it is opened already; else opened as an ONNX file, VIM-401."""
        if isinstance(source, Artifact):
            return source
        return cls.open(as_path(source, "ONNX model"), "ONNX model")

    @classmethod
    def engine(cls, path: Path) -> Artifact:
        """The file at ``path``, which is to be an engine; VIM-401 when it is missing."""
        return cls(require_file(path, "engine"), sight(path), "engine")

    @property
    def name(self) -> str:
        """Of the file, without its folder."""
        return self.path.name

    @cached_property
    def kind(self) -> Kind:
        """What it is, by name or first bytes; ONNX files have no mark and are what is left."""
        suffix = self.path.suffix
        if self.given_kind is not None:
            return self.given_kind
        if os.path.isdir(self.path):
            names = os.listdir(self.path)
            is_package = MANIFEST_NAME in names or not any(map(is_checkpoint, names))
            return "package" if is_package else "checkpoint"
        with self.path.open("rb") as stream:
            start = stream.read(4)
        if suffix in ENGINE_SUFFIXES or start in MAGIC:
            return "engine"
        if suffix == ".toml":
            return "recipe"
        is_pickle = start == _ZIP_MAGIC or start[:1] == _PICKLE_MAGIC
        if is_checkpoint(self.name) or suffix == ".tar" or is_pickle:
            return "checkpoint"
        return "onnx"

    @property
    def is_engine(self) -> bool:
        """Whether a runtime has built it."""
        return self.kind == "engine"

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the file that was opened; VIM-439 when it is another one by now."""
        return self.sighting.sha256()

    @property
    def identity(self) -> FileIdentity:
        """Name, SHA-256 and size; VIM-439 as ``sha256``."""
        return FileIdentity.of(self.path, sha256=self.sha256)

    # What an ONNX file holds.

    @cached_property
    def _onnx(self) -> OnnxFile:
        try:
            return read_onnx(self.path)
        except UnreadableModelError as error:
            other = other_kind(self.path, "onnx")
            if other is None:
                raise
            raise VimDeployError(
                "VIM-409", f"{self.path} is {other.what}, no ONNX model", fix=other.fix
            ) from error

    @property
    def model(self) -> onnx.ModelProto:
        """The parsed model with all its weights, shared: whoever changes it takes a copy.

        Raises:
            VimDeployError: VIM-401, VIM-409 as ``read_onnx``, for an engine as well.
        """
        return self._onnx.model

    def lies_at(self, path: Path) -> bool:
        """Whether a model written to ``path`` takes this ONNX file's place, or its weights'."""
        own = (self.path, *(self.path.parent / name for name in self._onnx.beside))
        written = (place for place in (path, data_path(path)) if place.exists())
        return any(place.samefile(other) for place in written for other in own)

    def forget_model(self) -> None:
        """Give the model's memory back; who asks for it again has it read again."""
        self.__dict__.pop("_onnx", None)

    @cached_property
    def companions(self) -> tuple[FileIdentity, ...]:
        """Files with weights beside an ONNX file, which goes nowhere without them."""
        if self.is_engine:
            return ()
        folder = self.path.parent
        return tuple(FileIdentity.of(folder / name, name) for name in self._onnx.beside)

    # What an engine holds.

    @cached_property
    def header(self) -> PlanHeader:
        """Of an engine; VIM-413 when it is none."""
        return read_header(self.path)

    @cached_property
    def record(self) -> EngineRecord | None:
        """Beside an engine; None when there is none and for other files, VIM-413 as it is read."""
        return read_record(self.path) if self.is_engine else None

    @cached_property
    def known_header(self) -> PlanHeader | None:
        """``header``; None when it is none that we know, about which the passport has the word."""
        try:
            return self.header
        except UnreadableEngineError:
            return None

    @property
    def runtime(self) -> str:
        """That built an engine; releases whose header we do not know are TensorRT's."""
        return self.known_header.runtime if self.known_header else TENSORRT

    @property
    def record_path(self) -> Path:
        """Where an engine's record is looked for."""
        return record_path(self.path)

    @property
    def gpus(self) -> tuple[tuple[str, ...], bool]:
        """Compute capabilities that an engine is for, and whether later ones; of its header first.

        The header of TensorRT does not tell, and some are not known: then the record's word counts.
        """
        says: PlanHeader | EngineRecord | None = self.known_header
        if says is None or (not says.compute_capabilities and self.record is not None):
            says = self.record
        return (says.compute_capabilities, says.later_gpus) if says else ((), False)

    def require_own_record(self, record: EngineRecord) -> EngineRecord:
        """``record``, which is to be that of the engine, as it was written; VIM-902 otherwise."""
        header, size, why = self.known_header, self.path.stat().st_size, ""
        if size < record.plan.bytes:
            why = f"the engine is truncated: it has {size} bytes, the record says "
            why += str(record.plan.bytes)
        elif self.sha256 != record.plan.sha256:
            why = f"the engine's SHA-256 is {self.sha256}, the record says {record.plan.sha256}"
        elif header is not None and header.runtime != record.runtime:
            why = f"the engine's header says {header.runtime}, the record {record.runtime}"
        elif settings_hash(record.settings()) != record.settings_hash:
            why = "the record was changed after it was written: its settings have another hash"
        if not why:
            return record
        raise VimDeployError(
            "VIM-902",
            f"{self.name} and {self.record_path.name} do not belong together",
            why=why,
            fix="copy both again from where they were built, or build again with --force",
        )

    def refuse_diagnosis(self, what: str) -> None:
        """VIM-435 for an engine that was built for diagnosis and is to be ``what``, "measured"."""
        refuse_diagnosis(self.record.inner_tensors if self.record else (), self.path, what)

    # What either says.

    @cached_property
    def description(self) -> Description:
        """Of an ONNX file; VIM-409, VIM-410 when it cannot be read."""
        return describe(self.model)

    @cached_property
    def info(self) -> ExportInfo | None:
        """What it says about its model, as its graph shows it to be; None when it says nothing.

        Raises:
            VimDeployError: VIM-409, VIM-410, VIM-413 when it cannot be read.
        """
        if self.is_engine:
            return self.record.export if self.record else None
        return self.description.info

    def require_info(
        self, unsaid: str = "does not say how pictures are prepared for it", fix: str = ""
    ) -> ExportInfo:
        """``info``; VIM-410, which says that the file ``unsaid``, when there is none.

        Args:
            unsaid: what is missing.
            fix: what helps besides a description.
        """
        if self.info is None:
            found = None if self.is_engine else self.description
            raise undescribed(found, self.path, unsaid, fix)
        return self.info

    def refuse_standalone(self, option: str) -> None:
        """VIM-203 for an ``option`` that names kernels of our ops, and a file without any."""
        if self.info is not None and self.info.standalone:
            raise VimDeployError(
                "VIM-203",
                f"{option} for {self.name}, which is standalone",
                why="it holds standard operators only: there is no node for such kernels to hold "
                "on to",
                fix=f"leave {option} out, or give an export without --standalone",
            )

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """A str in a shape is a symbolic size; of an engine without record nothing is known."""
        if self.is_engine:
            return self.record.inputs if self.record else ()
        return metadata.inputs_of(self.model)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """As ``inputs``."""
        if self.is_engine:
            return self.record.outputs if self.record else ()
        return metadata.outputs_of(self.model)

    @property
    def precision(self) -> str:
        """One of ``precisions.NAMES``; of an engine that says nothing fp32.

        Another exporter's file has what its graph shows. An engine may be typed when it is built,
        and what was found in it then counts.
        """
        built = self.record.precision if self.record else ""
        if built or self.info is not None or self.is_engine:
            return built or (self.info.precision if self.info else "fp32")
        return precision_of(self.model)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its pictures, as it says, else as its picture input has them.

        Raises:
            VimDeployError: VIM-410 (an engine says nothing), VIM-415 (an ONNX file has no such
                input).
        """
        if self.info is not None:
            return self.info.image.height, self.info.image.width
        found = model_inputs(self.inputs)
        sides = None if found is None else extents(found.image)
        if sides is not None:
            return sides
        if self.is_engine:
            raise metadata.undescribed(
                f"nothing says which images {self.name} takes",
                why="there is no record of it, or the record has no image of a fixed size",
                fix=f"put its record {self.record_path.name} beside it",
            )
        raise VimDeployError(
            "VIM-415",
            f"{self.path} has no image input of a fixed size",
            why=", ".join(f"{spec.name} {list(spec.shape)}" for spec in self.inputs),
            fix="give a model made by vim-deploy export",
        )


class OtherKind(NamedTuple):
    """What a file is instead of what it was taken for, in words, and what takes it."""

    what: str
    fix: str


def other_kind(path: Path, wanted: Kind) -> OtherKind | None:
    """What a file that is no readable ``wanted`` is; None when name and first bytes do not tell."""
    if path.suffix.lower() in PICTURES:
        fix = "an exported file or engine stands first: vim-deploy run ARTIFACT PICTURES"
        return OtherKind("a picture", fix)
    if named(path) == "stored":
        return OtherKind("a file of arrays", "vim-deploy verify ARTIFACT --against takes it")
    kind = Artifact(path, sight(path)).kind
    made = kind == "engine" or named(path) == "onnx"
    if kind == wanted or not (made or kind in ("checkpoint", "recipe")):
        return None
    return OtherKind(
        f"an {'engine' if kind == 'engine' else 'exported file'}" if made else f"a {kind}",
        "vim-deploy verify, run, bench and package take it"
        if made
        else f"make an ONNX file of it: vim-deploy export {path}",
    )


def _is_recipe(name: str, what: str) -> VimDeployError:
    """VIM-401 for a recipe where a file has to be."""
    return VimDeployError(
        "VIM-401",
        f"{what} not found: {name}",
        why="it is a recipe, which a file is exported from",
        fix=f"vim-deploy export {name}, and name the file; vim-deploy recipes show {name} says "
        "what it is",
    )
