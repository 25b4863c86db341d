"""DeiT beside what is measured: through the same exporter, typing and engine builder.

Its attention comes in every form that a runtime has. *eager* and *sdpa* are PyTorch's
(``model.deit``). *flash* is the first rewritten to ONNX Runtime's own operator
(``graph.flash_attention``), the fastest DeiT there and so the fair comparison; it exists as a file
for ONNX Runtime only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.bench import environment
from vim_deploy.bench.subject import (
    ONNX_RUNTIME,
    PYTORCH_DEIT,
    Subject,
    deit_bytes,
    input_for,
)
from vim_deploy.errors import VimDeployError
from vim_deploy.files import write_bytes
from vim_deploy.precisions import Precision
from vim_deploy.recipe.precision_policy import PrecisionPolicy
from vim_deploy.runtimes import runtime_named
from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
from vim_deploy.stages.building import build_engine
from vim_deploy.stages.exporting import require_torch

_NAMES = {"tiny": "DeiT-Ti", "small": "DeiT-S", "base": "DeiT-B"}
_OF_WIDTH = {192: "tiny", 384: "small", 768: "base"}
#: Float32 in half precision. Softmax is not: TensorRT fuses attention whose tensors are all of one
#: type, and keeps its sums wide inside.
_WIDE = ("LayerNormalization",)
_LARGEST_HALF = float(np.finfo(np.float16).max)
#: The form that only ONNX Runtime has, and the one it is made of.
FLASH, _PLAIN = "flash", "eager"
#: Largest difference of the flash form's logits, over the largest logit. The two add up the same
#: products in another order: 12 layers in float32 (rounding 6e-8) are 100 times nearer.
_SAME = 1e-4
#: Share of the free memory up to which the plain form is run for that comparison.
_ROOM = 0.8


def deit_sizes(wanted: Sequence[str], widths: Sequence[int]) -> tuple[str, ...]:
    """Keys of ``model.deit.DEIT_SIZES`` for baselines' names; ``deit`` is that of each width.

    Raises:
        VimDeployError: VIM-301 (transformers not installed), VIM-202 (no DeiT is as wide).
    """
    require_torch()
    from vim_deploy.model.deit import load_library

    load_library()
    sizes = [name.removeprefix("deit-") for name in wanted if name != "deit"]
    for width in widths if "deit" in wanted else ():
        if width not in _OF_WIDTH:
            raise VimDeployError(
                "VIM-202",
                f"no DeiT is as wide as this model: {width}",
                fix="--baseline deit-tiny, deit-small or deit-base",
            )
        sizes.append(_OF_WIDTH[width])
    if not sizes:
        raise VimDeployError(
            "VIM-202",
            "the engine's record does not say how wide its model is",
            fix="--baseline deit-tiny, deit-small or deit-base",
        )
    return tuple(dict.fromkeys(sizes))


def require_classifiers(baseline: str, infos: Sequence[ExportInfo]) -> None:
    """VIM-203 when one of the models that ``baseline`` is to stand beside is a dense one."""
    for info in infos:
        if info.dense:
            raise VimDeployError(
                "VIM-203",
                f"--baseline {baseline} does not go with {info.model}, a dense model",
                why="DeiT is a classifier; beside a network with a neck or a segmentation head "
                "its time would be that of another task",
                fix="--baseline pytorch; or compare the backbones as classifiers: vim-deploy "
                f"bench vim-tiny --image-sizes {info.image.height} --baseline {baseline}",
            )


class DeitMaker:
    """Makes DeiT subjects.

    Args:
        folder: for what is exported and built, absolute.
        onnx_runtime: that runs ONNX files.
        onnx_source: how an ONNX file is opened at a batch size.
        progress: told what is exported and built.
    """

    def __init__(
        self,
        folder: Path,
        onnx_runtime: str,
        onnx_source: Callable[[Path, int], dict[str, Any]],
        progress: Callable[[str], None],
    ) -> None:
        self._folder, self._progress = folder, progress
        self._onnx_runtime, self._onnx_source = onnx_runtime, onnx_source
        self._compared: dict[tuple[str, tuple[int, int]], str] = {}

    def beside(
        self,
        members: Sequence[Subject],
        size: str,
        image: tuple[int, int],
        batch: int,
        *,
        with_pytorch: bool,
    ) -> list[Subject]:
        """DeiT with each attention in every runtime of ``members``, engines in their precision."""
        from vim_deploy.model.deit import ATTENTIONS

        engines = [member for member in members if runtime_named(member.runner).builder]
        kinds = {(m.runner, m.facts.get("precision") or "fp32"): m for m in engines}
        subjects = []
        flash = (FLASH,) if self._onnx_runtime == ONNX_RUNTIME else ()
        for attention in (*ATTENTIONS, *flash):
            if len(engines) < len(members):
                source = self._onnx_source(self._exported(size, image, attention), batch)
                subject = _subject(self._onnx_runtime, source, size, image, batch, attention)
                if attention == FLASH:
                    subject.facts["like eager"] = self._compared[size, image]
                subjects.append(subject)
            for (runner, precision), like in kinds.items() if attention != FLASH else ():
                plan = self._engine(size, image, attention, batch, (runner, precision))
                source = {**like.source, "path": str(plan), "plugin": None, "max_batch": batch}
                subject = _subject(runner, source, size, image, batch, attention)
                subject.facts["precision"] = precision
                subjects.append(subject)
        for attention in ATTENTIONS if with_pytorch else ():
            source = {"size": size, "image": image, "attention": attention}
            subjects.append(_subject(PYTORCH_DEIT, source, size, image, batch, attention))
        return subjects

    def _exported(
        self, size: str, image: tuple[int, int], attention: str, precision: str = "fp32"
    ) -> Path:
        """DeiT as a file, in a precision."""
        name = f"deit-{size}-{attention}-{_size_text(image)}"
        path = self._folder / (
            f"{name}.onnx" if precision == "fp32" else f"{name}.{precision}.onnx"
        )
        if attention == FLASH:
            return self._flash(size, image, path)
        if path.exists():
            return path
        if precision != "fp32":
            model = Artifact.open(self._exported(size, image, attention)).model
            type_deit(model, cast(Precision, precision))
        else:
            self._progress(f"exporting {path.stem}")
            model = deit_graph(size, image, attention)
        write_bytes(path, model.SerializeToString())
        return path

    def _flash(self, size: str, image: tuple[int, int], path: Path) -> Path:
        """The plain form's file with ONNX Runtime's attention, compared with it."""
        if (size, image) in self._compared:
            return path
        from vim_deploy.graph.flash_attention import use_flash_attention
        from vim_deploy.model.deit import DEIT_SIZES, DEPTH, deit_tokens

        plain = self._exported(size, image, _PLAIN)
        model = Artifact.open(plain).model
        use_flash_attention(model, DEPTH)
        write_bytes(path, model.SerializeToString())
        width, heads = DEIT_SIZES[size]
        needed = deit_bytes(deit_tokens(image), width, heads, 1, ONNX_RUNTIME, _PLAIN)
        free = environment.available_memory()
        if free is not None and needed > _ROOM * free:
            said = f"not compared: eager needs about {needed / 1e9:.1f} GB"
        else:
            self._progress(f"comparing {path.stem} with {_PLAIN}")
            said = f"largest difference {require_same(plain, path):.1g} of the largest logit"
        self._compared[size, image] = said
        return path

    def _engine(
        self,
        size: str,
        image: tuple[int, int],
        attention: str,
        batch: int,
        kind: tuple[str, str],
    ) -> Path:
        """An engine of DeiT for one batch size, by the builder that makes ours."""
        runtime, precision = kind
        model = self._exported(size, image, attention, precision)
        plan = self._folder / f"{model.stem}.{runtime}.b{batch}.plan"
        self._progress(f"building {plan.stem}")
        profiles = ProfileOptions(min_batch=batch, opt_batch=batch, max_batch=batch)
        build_engine(model, plan, runtime=runtime, profiles=profiles)
        return plan


def deit_graph(size: str, image: tuple[int, int], attention: str) -> onnx.ModelProto:
    """A DeiT through the same exporter and the same tidying as our own models, float32.

    Without the mask of T x T that the exporter writes down and PyTorch never makes.

    Args:
        size, image, attention: as for ``model.deit.build_deit``, whose errors are raised.
    """
    from vim_deploy.graph.flash_attention import drop_idle_masks
    from vim_deploy.graph.tidy import tidy
    from vim_deploy.graph.trace import trace_classifier
    from vim_deploy.model.deit import build_deit

    model = tidy(trace_classifier(build_deit(size, image, attention), image))
    drop_idle_masks(model)
    return model


def require_same(plain: Path, flash: Path) -> float:
    """The largest difference of two files' logits on a random image, over the largest logit.

    Raises:
        VimDeployError: VIM-502 when it is more than rounding; what opening and running raise.
    """
    found = []
    for path in (plain, flash):
        # One after the other: each may take gigabytes.
        with OrtRunner(path) as runner:
            found.append(runner.run(input_for(runner, 1))["logits"])
    expected, logits = found
    distance = float(np.abs(logits - expected).max() / np.abs(expected).max())
    if not distance <= _SAME:
        raise VimDeployError(
            "VIM-502",
            f"{flash.name} does not compute what {plain.name} does",
            why=f"the logits differ by {distance:.1e} of the largest; {_SAME:g} is allowed",
            fix="report a bug with the versions of onnxruntime, torch and transformers",
        )
    return distance


def type_deit(model: onnx.ModelProto, precision: Precision) -> None:
    """Type a traced DeiT in place: norms and the last layer in float32, as in our own models.

    Raises:
        VimDeployError: VIM-502, VIM-505 as ``graph.precision.apply_precision``.
    """
    from vim_deploy.graph.precision import apply_precision

    last = {value.name for value in model.graph.output}
    # The attention mask's value for "not at all" is float32's smallest number.
    beyond = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and float(np.abs(onnx.numpy_helper.to_array(tensor)).max(initial=0.0)) > _LARGEST_HALF
    }
    policy = PrecisionPolicy(())

    def role_of(node: onnx.NodeProto) -> tuple[str | None, int | None]:
        wide = node.op_type in _WIDE or last.intersection(node.output)
        return (None, None) if wide or beyond.intersection(node.input) else ("in_proj", 0)

    # Names are what reports of the typing refer to; a traced graph has them.
    apply_precision(model, precision, policy, role_of=role_of)


def _subject(
    runner: str,
    source: dict[str, Any],
    size: str,
    image: tuple[int, int],
    batch: int,
    attention: str,
) -> Subject:
    from vim_deploy.model.deit import DEIT_SIZES, deit_tokens

    tokens = deit_tokens(image)
    width, heads = DEIT_SIZES[size]
    known = runner in (ONNX_RUNTIME, PYTORCH_DEIT)
    return Subject(
        label=f"{_NAMES[size]} {attention}",
        runner=runner,
        source=source,
        batch=batch,
        image=image,
        tokens=tokens,
        facts={"attention": attention, "weights": "seeded"},
        estimated_bytes=deit_bytes(tokens, width, heads, batch, runner, attention)
        if known
        else None,
    )


def _size_text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
