"""DeiT beside what is measured: through the same exporter, typing and engine builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.artifact.profiles import ProfileOptions
from vim_deploy.bench.subject import ONNX_RUNTIME, PYTORCH_DEIT, Subject, deit_bytes
from vim_deploy.errors import VimDeployError
from vim_deploy.files import write_bytes
from vim_deploy.precisions import Precision
from vim_deploy.recipe.precision_policy import PrecisionPolicy
from vim_deploy.runtimes import runtime_named
from vim_deploy.stages.building import build_engine
from vim_deploy.stages.exporting import require_torch

_NAMES = {"tiny": "DeiT-Ti", "small": "DeiT-S", "base": "DeiT-B"}
_OF_WIDTH = {192: "tiny", 384: "small", 768: "base"}
#: Float32 in half precision. Softmax is not: TensorRT fuses attention whose tensors are all of one
#: type, and keeps its sums wide inside.
_WIDE = ("LayerNormalization",)
_LARGEST_HALF = float(np.finfo(np.float16).max)


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
        onnx_source: how an ONNX file is opened at a batch size.
        progress: told what is exported and built.
    """

    def __init__(
        self,
        folder: Path,
        onnx_source: Callable[[Path, int], dict[str, Any]],
        progress: Callable[[str], None],
    ) -> None:
        self._folder, self._onnx_source, self._progress = folder, onnx_source, progress

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
        for attention in ATTENTIONS:
            if len(engines) < len(members):
                source = self._onnx_source(self._exported(size, image, attention), batch)
                subjects.append(_subject(ONNX_RUNTIME, source, size, image, batch, attention))
            for (runner, precision), like in kinds.items():
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
        """DeiT through the same exporter and the same tidying as our own models."""
        name = f"deit-{size}-{attention}-{_size_text(image)}"
        path = self._folder / (
            f"{name}.onnx" if precision == "fp32" else f"{name}.{precision}.onnx"
        )
        if path.exists():
            return path
        if precision != "fp32":
            model = Artifact.open(self._exported(size, image, attention)).model
            type_deit(model, cast(Precision, precision))
        else:
            from vim_deploy.graph.tidy import tidy
            from vim_deploy.graph.trace import trace_classifier
            from vim_deploy.model.deit import build_deit

            self._progress(f"exporting {path.stem}")
            model = tidy(trace_classifier(build_deit(size, image, attention), image))
        write_bytes(path, model.SerializeToString())
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
