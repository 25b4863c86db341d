"""What is measured: one model in one runtime at one image size and batch size."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vim_deploy import runtimes
from vim_deploy.artifact import Artifact, metadata
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.base import Array, Runner, RunnerOptions
from vim_deploy.specs import CheckpointInfo, TensorSpec

ONNX_RUNTIME = "onnxruntime"
PYTORCH = "pytorch"
#: DeiT's module in PyTorch; its ONNX file is an ``ONNX_RUNTIME`` subject like any other.
PYTORCH_DEIT = "pytorch-deit"
#: The weights of a model that is built only to be timed.
_TIMING_SEED = 0

#: Label, runtime, batch, image size: what identifies the same measurement in two reports.
SubjectKey = tuple[str, str, int, tuple[int, int]]


@dataclass(frozen=True)
class Subject:
    """One thing to measure.

    Attributes:
        label: model, as the report calls it; the same at every size and batch.
        runner: name of a runtime (``runtimes.RUNTIMES``), or ``PYTORCH_DEIT``.
        source: JSON-able arguments of the runner, see ``open_runner``.
        batch: images in one call.
        image: height and width in pixels.
        tokens: sequence length; None where the file does not say.
        facts: JSON-able notes for the report (sha256, weights, attention).
        estimated_bytes: memory it is expected to need, None when not known.
    """

    label: str
    runner: str
    source: dict[str, Any]
    batch: int
    image: tuple[int, int]
    tokens: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    estimated_bytes: int | None = None

    @property
    def key(self) -> SubjectKey:
        """What identifies the same measurement in two reports."""
        return self.label, self.runtime, self.batch, self.image

    @property
    def runtime(self) -> str:
        """The runtime for people: PyTorch is one, whichever module it runs."""
        provider = self.source.get("provider")
        if provider is not None:
            return f"{self.runner} {provider}"
        return PYTORCH if self.runner == PYTORCH_DEIT else self.runner


def load_runtime(runner: str) -> None:
    """Import what ``open_runner`` needs: the memory of a process before it has a model.

    Raises:
        VimDeployError: VIM-301 when ONNX Runtime or TensorRT is not installed.
        ImportError: when PyTorch or transformers is not.
    """
    if runner not in (PYTORCH, PYTORCH_DEIT):
        runtimes.runtime_named(runner).load()
        return
    importlib.import_module("vim_deploy.runtimes.torch.runner")
    importlib.import_module("vim_deploy.model.load")
    if runner == PYTORCH_DEIT:
        from vim_deploy.model.deit import load_library

        load_library()


def open_runner(runner: str, source: dict[str, Any], threads: int) -> Runner:
    """The runner that ``source`` describes, on ``threads`` threads.

    ``PYTORCH``: ``path`` of an exported file, whose architecture is taken, and ``checkpoint``, its
    address or None for seeded weights. ``PYTORCH_DEIT``: ``size``, ``image`` (height, width),
    ``attention``. Other runtimes: ``path``, and fields of ``RunnerOptions``.

    Raises:
        VimDeployError: VIM-301, VIM-302, VIM-4xx of the file, VIM-9xx of an engine, VIM-202 for an
            unknown runner.
    """
    if runner == PYTORCH:
        return _vim_module(Path(source["path"]), source["checkpoint"], threads)
    if runner == PYTORCH_DEIT:
        from vim_deploy.model.deit import build_deit
        from vim_deploy.runtimes.torch.runner import ModuleRunner

        height, width = source["image"]
        module = build_deit(source["size"], (height, width), source["attention"])
        spec = TensorSpec("image", "float32", ("batch", 3, height, width))
        return ModuleRunner(module, spec, ("logits",), threads=threads)
    given = dict(source)
    artifact = Artifact.open(Path(given.pop("path")))
    plugin = given.pop("plugin", None)
    # As stored: what is timed is the file as the runtime takes it, not the proof of its rounding. A
    # bfloat16 file has no such form on the CPU, and its name says so.
    options = RunnerOptions(
        **given,
        plugin=None if plugin is None else Path(plugin),
        threads=threads,
        as_stored=True,
        timed=True,
    )
    opened = runtimes.runtime_named(runner).runner(artifact, options)
    # The runtime has its own; what is measured is its memory.
    artifact.forget_model()
    return opened


def _vim_module(path: Path, checkpoint: str | None, threads: int) -> Runner:
    """The reference module of an exported file, with its checkpoint's weights or seeded ones."""
    from vim_deploy.model.reference import reference_model
    from vim_deploy.runtimes.torch.runner import TorchRunner

    info = require_info(Artifact.open(path))
    if checkpoint is None:
        checkpoint, info = seeded(info)
    return TorchRunner(reference_model(checkpoint, info), threads=threads)


def seeded(info: ExportInfo) -> tuple[str, ExportInfo]:
    """The same model with weights that mean nothing, and their address."""
    if info.checkpoint.part == "seeded":
        return info.checkpoint.name, info
    stored = CheckpointInfo(name=f"seed:{_TIMING_SEED}", sha256="", part="seeded")
    return stored.name, dataclasses.replace(info, checkpoint=stored)


def require_info(file: Artifact) -> ExportInfo:
    """What an exported file says about itself; VIM-410 when it says nothing."""
    fix = "export it with vim-deploy, or leave out --baseline"
    return metadata.require_info(
        file.info, f"{file.path} does not say which model it holds", fix=fix
    )


def input_for(runner: Runner, batch: int, seed: int = 0) -> Array:
    """A repeatable random batch of the runner's dtype and shape.

    Raises:
        VimDeployError: VIM-415 when the model's batch is fixed to another size, or a size other
            than the batch is not fixed.
    """
    spec = runner.input
    if isinstance(spec.shape[0], int) and spec.shape[0] != batch:
        raise VimDeployError(
            "VIM-415",
            f"the model takes batches of {spec.shape[0]} only, not of {batch}",
            fix=f"--batches {spec.shape[0]}, or export it with --batch dynamic",
        )
    unknown = [size for size in spec.shape[1:] if not isinstance(size, int)]
    if unknown:
        raise VimDeployError(
            "VIM-415",
            f"the model's image size is not fixed: {list(spec.shape)}",
            fix="give a model made by vim-deploy export",
        )
    shape = (batch, *(int(size) for size in spec.shape[1:]))
    generator = np.random.default_rng(seed)
    if np.issubdtype(np.dtype(spec.dtype), np.integer):
        pixels: Array = generator.integers(0, 256, shape).astype(spec.dtype)
        return pixels
    values: Array = generator.standard_normal(shape, dtype=np.float32).astype(spec.dtype)
    return values
