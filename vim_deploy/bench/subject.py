"""What is measured: one model in one runtime at one image size and batch size, and its memory.

Memory is estimated before a measurement is begun: rough, for not running out of it. The sizes
follow from the shapes of the largest tensors; how many of them live at once was read off measured
peaks (Vim-Ti and DeiT-Ti, batch 1, 224 to 768 px, ONNX Runtime 1.32 and PyTorch 2.13 on Linux
x86-64) and rounded up. A test holds the estimates to those peaks.
"""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vim_deploy import runtimes
from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.families.base import ModelConfig
from vim_deploy.heads.base import Head
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.detector_config import DetectorConfig
from vim_deploy.runtimes.base import Array, Runner, RunnerOptions
from vim_deploy.specs import CheckpointInfo, TensorSpec

ONNX_RUNTIME = "onnxruntime"
PYTORCH = "pytorch"
#: DeiT's module in PyTorch; its ONNX file is an ``ONNX_RUNTIME`` subject like any other.
PYTORCH_DEIT = "pytorch-deit"
#: How an ONNX file's runtime is called where it runs our kernels and not the function bodies.
NATIVE_OPS = "native ops"
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
        native = f", {NATIVE_OPS}" if self.source.get("ops") == "native" else ""
        if provider is not None:
            return f"{self.runner} {provider}{native}"
        return PYTORCH if self.runner == PYTORCH_DEIT else f"{self.runner}{native}"


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
    return file.require_info("does not say which model it holds", fix="leave out --baseline")


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


_FLOAT = 4
_MB = 1_000_000
#: A process with its runtime, before the model.
_ONNX_RUNTIME_BYTES = 70 * _MB
_PYTORCH_BYTES = 250 * _MB
_TRANSFORMERS_BYTES = 150 * _MB
#: What PyTorch adds with its first calls, whatever their size.
_PYTORCH_FIRST_CALL = 90 * _MB
#: Copies of the weights that live at once, while loading or running.
_WEIGHT_COPIES = 2.5
#: Values for each token and channel of the stream of a DeiT that live at once.
_DEIT_VALUES = 50
#: Maps of the finest level that live at once, in channels of the pyramid and of the decode head.
_PYRAMID_VALUES = 5
_DECODER_VALUES = 20
#: Bins of a region for the box heads; the mask head has four times as many. Values for each bin and
#: channel that live at once: ONNX Runtime took 0.6 GB to pool 1000 boxes of 256 channels.
_BINS, _REGION_VALUES = 49, 12
#: Matrices of scores that live at once; fused attention has none.
_SCORES = {
    (ONNX_RUNTIME, "eager"): 5,
    (ONNX_RUNTIME, "sdpa"): 7,
    (ONNX_RUNTIME, "flash"): 0,
    (PYTORCH_DEIT, "eager"): 4,
    (PYTORCH_DEIT, "sdpa"): 0,
}


@dataclass(frozen=True)
class DenseSize:
    """What stands behind the blocks: weights, and values that live at once for one picture."""

    weights: int
    values: int


def dense_size(config: ModelConfig, dense: DenseConfig, head: Head) -> DenseSize:
    """Of the neck and the heads that ``head`` runs, from the shapes of their largest tensors."""
    width, maps = config.width, config.map_pixels(dense)
    if dense.pyramid is not None:
        out = dense.pyramid.out_channels
        # Two transposed convolutions of level 2, one of level 3; 1x1 and 3x3 of each level.
        weights = 4 * width * width + 4 * out * width + 4 * 9 * out * out
        pyramid = DenseSize(weights, _PYRAMID_VALUES * out * maps[0] + out * sum(maps))
        if dense.detector is None or head.kind != "detections":
            return pyramid
        regions = _region_size(dense.detector, out)
        # The maps stay while regions of them are pooled; the pyramid is done by then.
        values = max(pyramid.values, out * sum(maps) + regions.values)
        return DenseSize(weights + regions.weights, values)
    weights = 3 * 4 * width * width if dense.if_fpn else 0
    values = 2 * width * sum(maps)
    decode = dense.decode_head
    if decode is None or head.kind == "features":
        return DenseSize(weights, values)
    wide, pools = decode.channels, len(decode.pool_scales)
    weights += (3 + pools) * width * wide + 9 * wide * (width + pools * wide)
    weights += 3 * 9 * wide * wide + 9 * 4 * wide * wide + wide * decode.num_classes
    # The levels side by side, themselves, and their sum behind the last convolution.
    values += _DECODER_VALUES * wide * maps[0] + decode.num_classes * maps[0]
    if head.full_size:
        height, width = config.image_hw
        values += 2 * decode.num_classes * height * width
    return DenseSize(weights, values)


def _region_size(detector: DetectorConfig, channels: int) -> DenseSize:
    """Of a detector's heads, one pooling at a time."""
    convolution, masks = 9 * channels * channels, detector.mask_head
    weights = detector.proposals.convs * convolution
    for _ in detector.stages:
        last = _BINS * channels
        weights += detector.box_head.convs * convolution
        for width in detector.box_head.fc_dims:
            weights, last = weights + last * width, width
        boxes = 1 if detector.class_agnostic else detector.num_classes
        weights += last * (detector.num_classes + 1 + 4 * boxes)
    values = _REGION_VALUES * _BINS * channels * detector.proposals.post_nms_topk
    if masks is not None:
        weights += masks.convs * convolution + channels * (4 * channels + detector.num_classes)
        values = max(values, _REGION_VALUES * 4 * _BINS * channels * detector.detections)
    return DenseSize(weights, values)


def model_bytes(
    config: ModelConfig,
    batch: int,
    runner: str,
    behind: DenseSize | None = None,
    *,
    native: bool = False,
) -> int:
    """Peak resident bytes of a process that runs a model: linear in tokens and batch.

    Args:
        config: of the classifier, or of a dense model's backbone.
        batch: pictures at once.
        runner: ``ONNX_RUNTIME`` or ``PYTORCH``.
        behind: of a dense model, which keeps its blocks' maps while it computes them.
        native: with native ops, whose tensors between the ops of a function body are not there.
    """
    size = config.size(native=native)
    weights, live = _FLOAT * size.weights, _FLOAT * batch * size.values
    if behind is not None:
        weights += _FLOAT * behind.weights
        # The blocks are done when the neck begins.
        live = max(live, _FLOAT * batch * behind.values)
    return int(_process_bytes(runner) + _WEIGHT_COPIES * weights) + live


def deit_bytes(tokens: int, width: int, heads: int, batch: int, runner: str, attention: str) -> int:
    """Peak resident bytes of a process that runs a DeiT: quadratic in tokens by the scores.

    Args:
        runner: ``ONNX_RUNTIME`` or ``PYTORCH_DEIT``.
        attention: ``eager``, ``sdpa``, or ONNX Runtime's ``flash``.
    """
    # Twelve layers of four projections and a four times wider MLP.
    weights = _FLOAT * 12 * 12 * width * width
    scores = _FLOAT * batch * heads * tokens * tokens * _SCORES[runner, attention]
    live = _FLOAT * batch * tokens * width * _DEIT_VALUES
    return int(_process_bytes(runner) + _WEIGHT_COPIES * weights) + scores + live


def _process_bytes(runner: str) -> int:
    if runner == ONNX_RUNTIME:
        return _ONNX_RUNTIME_BYTES
    extra = _TRANSFORMERS_BYTES if runner == PYTORCH_DEIT else _PYTORCH_FIRST_CALL
    return _PYTORCH_BYTES + extra
