"""The two sides of a comparison: told apart, checked against each other, opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.file import named
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.onnx_file import bytes_with
from vim_deploy.codec import Count, stored
from vim_deploy.errors import VimDeployError
from vim_deploy.files import sha256_of
from vim_deploy.parity.agreement import OpenSide, classes_of, kind_compared
from vim_deploy.progress import stage_log
from vim_deploy.recipe.catalog import checkpoint_of
from vim_deploy.runtimes import open_runner
from vim_deploy.runtimes.base import Runner, RunnerOptions
from vim_deploy.runtimes.onnxruntime.runner import TENSORRT
from vim_deploy.specs import OpsWay
from vim_deploy.stages.exporting import require_torch
from vim_deploy.stages.quantizing import plain_of
from vim_deploy.text import storable


@stored(sparse=("ops", "kernels"))
@dataclass(frozen=True)
class ComparedSide:
    """What one side is, as it is stored.

    Attributes:
        name: of the file, without its folder; of a recipe or address that.
        kind: ``ONNX file``, ``engine`` or ``checkpoint``.
        bytes, sha256: of the file with its weights beside it; None and empty where there is none.
        precision: of what ran.
        head, image, checkpoint: as the file says: output, height and width, origin of the weights.
        runtime: name and version.
        ops, kernels: as of ``runtimes.base.Runner``.
    """

    name: str
    kind: str
    bytes: Count | None
    sha256: str
    precision: str
    head: str
    image: tuple[int, int]
    checkpoint: str
    runtime: str
    ops: OpsWay | None = None
    kernels: str = ""


@dataclass(frozen=True)
class Source:
    """What A or B names; ``file`` None for a checkpoint, which runs in PyTorch."""

    text: str
    file: Artifact | None

    @classmethod
    def of(cls, text: str) -> Source:
        """VIM-401 when there is no such file, VIM-203 for stored outputs, which run nowhere."""
        kind = named(text)
        if kind == "stored":
            raise VimDeployError(
                "VIM-203",
                f"{text} holds stored outputs, which cannot be run on pictures",
                fix="name an exported ONNX file, an engine or a checkpoint",
            )
        return cls(text, None if kind == "checkpoint" else Artifact.open(Path(text)))

    @property
    def name(self) -> str:
        """For people."""
        return storable(Path(self.text).name if self.file or self._path.is_file() else self.text)

    @property
    def _path(self) -> Path:
        return Path(checkpoint_of(self.text))

    @cached_property
    def sha256(self) -> str:
        """Of its file; empty where there is none."""
        if self.file is not None:
            return self.file.sha256
        return sha256_of(self._path) if self._path.is_file() else ""

    @cached_property
    def bytes(self) -> int | None:
        """Of its file, with the weights beside it; None where there is none."""
        if self.file is None:
            return self._path.stat().st_size if self._path.is_file() else None
        return bytes_with(self.file.path, self.file.companions)

    def described(self, opened: OpenSide) -> ComparedSide:
        """As it is stored."""
        info, runner = opened.info, opened.runner
        kind = "checkpoint" if self.file is None else "engine" if self.file.is_engine else ""
        return ComparedSide(
            self.name,
            kind or "ONNX file",
            self.bytes,
            self.sha256,
            info.precision if self.file is None else self.file.precision,
            info.head,
            (info.image.height, info.image.width),
            info.checkpoint.name,
            runner.name,
            runner.ops,
            runner.kernels,
        )


def read_sources(a: str, b: str) -> tuple[Source, Source]:
    """What A and B name; nothing is loaded.

    Raises:
        VimDeployError: VIM-203 (one file twice, two checkpoints, stored outputs), VIM-401.
    """
    sources = Source.of(a), Source.of(b)
    first, second = (source.file for source in sources)
    if first is None and second is None:
        raise VimDeployError(
            "VIM-203",
            f"{a} and {b} are both checkpoints",
            why="one side has to be an exported file or an engine, which says how pictures are "
            "prepared; the other may be its checkpoint, which runs in PyTorch",
            fix=f"vim-deploy export {a}, and name the file",
        )
    if first and second and first.sighting.identity == second.sighting.identity:
        raise VimDeployError(
            "VIM-203",
            f"{a} and {b} are the same file",
            why="it agrees with itself",
            fix="name the file that is to take its place",
        )
    return sources


def read_infos(sources: tuple[Source, Source]) -> tuple[ExportInfo, ExportInfo]:
    """What both files say of themselves; a checkpoint is read as the other side's file says.

    Raises:
        VimDeployError: VIM-409, VIM-410, VIM-413 (a file that cannot be read or says nothing),
            VIM-440 (files whose answers cannot be compared).
    """
    found = [None if source.file is None else source.file.require_info() for source in sources]
    known = next(info for info in found if info is not None)
    a, b = (plain_of(known) if info is None else info for info in found)
    _require_alike(a, b)
    return a, b


def _require_alike(a: ExportInfo, b: ExportInfo) -> None:
    kinds = kind_compared(a), kind_compared(b)
    if None in kinds:
        side, info = ("A", a) if kinds[0] is None else ("B", b)
        raise _other_question(
            f"{side} gives no classes to compare (head {info.head})",
            "export it with a head that gives classes: --head logits; vim-deploy verify compares "
            "values",
        )
    if kinds[0] != kinds[1]:
        raise _other_question(
            f"A answers with {kinds[0]} (head {a.head}), B with {kinds[1]} (head {b.head})",
            "name two files that were exported for the same task",
        )
    if classes_of(a) != classes_of(b):
        raise _other_question(
            f"A tells {classes_of(a)} classes apart, B {classes_of(b)}",
            "name two files that were trained on the same classes",
        )
    other = [pair for pair in zip(a.labels, b.labels, strict=False) if pair[0] != pair[1]]
    if other:
        place = next(
            index for index, pair in enumerate(zip(a.labels, b.labels, strict=False))
            if pair[0] != pair[1]
        )  # fmt: skip
        raise _other_question(
            f"{len(other)} classes have other names: class {place} is {a.labels[place]!r} in A and "
            f"{b.labels[place]!r} in B",
            "if only the spelling differs, export one again with --labels and the other's names",
        )
    if kinds[0] == "detections" and (a.image.height, a.image.width) != (
        b.image.height,
        b.image.width,
    ):
        raise _other_question(
            f"A takes pictures of {a.image.height} x {a.image.width} pixels, B of "
            f"{b.image.height} x {b.image.width}, and detections are matched in the input's pixels",
            "export both at the same --image-size",
        )


def _other_question(why: str, fix: str) -> VimDeployError:
    return VimDeployError("VIM-440", "A and B do not answer the same question", why=why, fix=fix)


@contextmanager
def open_sides(
    sources: tuple[Source, Source],
    infos: tuple[ExportInfo, ExportInfo],
    options: RunnerOptions,
    batch: int,
) -> Iterator[tuple[OpenSide, OpenSide]]:
    """Both, opened where ``options`` say; a checkpoint in PyTorch.

    Args:
        sources, infos: of A and B.
        options: as the user gave them.
        batch: that ONNX files are made ready for.

    Raises:
        VimDeployError: VIM-203 (an option that neither side takes); errors of the runtimes, and of
            the checkpoint.
    """
    _require_taken(sources, options)
    with ExitStack() as stack:
        opened = [
            OpenSide(stack.enter_context(_runner(source, info, options, batch)), info)
            for source, info in zip(sources, infos, strict=True)
        ]
        yield opened[0], opened[1]


def _runner(source: Source, info: ExportInfo, options: RunnerOptions, batch: int) -> Runner:
    stage_log.info("loading %s", source.name)
    if source.file is not None:
        runner = open_runner(source.file, _for_file(source.file, options, batch))
        # The runtime has its own, and a comparison may take hours; which files lie beside this one
        # stands in the model.
        _ = source.bytes
        source.file.forget_model()
        return runner
    require_torch()
    from vim_deploy.model.reference import reference_model
    from vim_deploy.runtimes.torch.runner import TorchRunner

    return TorchRunner(reference_model(source.text, info))


def _for_file(file: Artifact, options: RunnerOptions, batch: int) -> RunnerOptions:
    """The options that are for this kind of file: the other side takes the others."""
    if file.is_engine:
        return dataclasses.replace(options, runtime=None, provider=None, ops="auto")
    plugin = options.plugin if options.provider == TENSORRT else None
    return dataclasses.replace(options, plugin=plugin, allow_plan_code=False, max_batch=batch)


def _require_taken(sources: tuple[Source, Source], options: RunnerOptions) -> None:
    files = [source.file for source in sources if source.file is not None]
    engines, models = (
        [file for file in files if file.is_engine == wanted] for wanted in (True, False)
    )
    plugged = engines or options.provider == TENSORRT
    for option, given, taken, who in (
        ("--runtime", options.runtime is not None, models, "ONNX file"),
        ("--provider", options.provider is not None, models, "ONNX file"),
        ("--ops", options.ops != "auto", models, "ONNX file"),
        ("--allow-plan-code", options.allow_plan_code, engines, "engine"),
        ("--plugin", options.plugin is not None, plugged, "engine"),
    ):
        if given and not taken:
            raise VimDeployError(
                "VIM-203", f"{option} has no effect: no {who} is given", fix="leave it out"
            )
