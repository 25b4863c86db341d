"""What an exported file says about itself: written, read back, and asked for.

It stands in an ONNX file's metadata and in an engine's record, and either may be somebody else's.
Types are those of the record (``codec.decode``), and its architecture and policy check themselves;
what types cannot say is checked here, once, so that whatever prepares a picture or reads a head
later can rely on it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import onnx

from vim_deploy import heads
from vim_deploy.codec import OnError, decode, encode, stored
from vim_deploy.errors import VimDeployError
from vim_deploy.families.base import ModelConfig
from vim_deploy.images import check_preparation
from vim_deploy.precisions import Precision
from vim_deploy.recipe.dense_config import DenseConfig
from vim_deploy.recipe.precision_policy import PrecisionPolicy
from vim_deploy.recipe.quantization import QuantizationInfo
from vim_deploy.specs import (
    CheckpointInfo,
    GraphForm,
    ImagePreparation,
    PreprocessMode,
    ScanBody,
    TensorSpec,
)
from vim_deploy.untrusted import parse_json

#: Key of the one metadata entry; its value is the JSON of ``ExportInfo``.
METADATA_KEY = "vim_deploy"
#: ``producer_name`` of exported files, and the names of their input and, where pictures are fitted
#: into it, of the pictures' sizes.
PRODUCER = "vim-deploy"
IMAGE_INPUT = "image"
SIZE_INPUT = "size"
#: What ``size`` holds of a picture: height and width.
_EXTENTS = 2
#: Its types: as exported, and as TensorRT 8.6 has it, which knows no 64-bit integers.
_INTEGERS = ("int64", "int32")
#: How the line of the graph's text begins that holds the same JSON. A line, since tools that join
#: graphs put their texts one below the other.
_LINE = f"{METADATA_KEY}: "

#: A size that is free and that the file gives no name.
_UNNAMED = "?"


@stored(blank=("precision_policy", "dense"), sparse=("standalone", "quantization"), unread="unread")
@dataclass(frozen=True)
class ExportInfo:
    """What an exported file says about itself (stored in the ONNX file, ``attach``).

    Attributes:
        model: variant short name, or ``custom``.
        model_config: the architecture, of a dense model its backbone's.
        checkpoint: origin of the weights.
        image: preparation of pictures for this model.
        preprocess: what the graph does itself: ``none`` (takes normalised NCHW float),
            ``normalize`` (takes NCHW float in [0, 1]), ``uint8`` (takes NHWC uint8).
        head: ``logits``, ``softmax``, ``topk:K``, ``features`` or ``tokens``; of segmentation also
            ``upsampled`` and ``labels``, with ``+aux`` behind the logits of both heads.
        graph: ``base``, ``fused`` or ``fused-low-rank``: the form that was asked for. What has no
            fused form (a scan without a partner, v1's shared convolution) stays as in ``base``.
        precision: of weights and activations, where ``precision_policy`` does not keep float32.
        opset: of the graph.
        pos_embed: how the position embedding was fitted to the image size.
        labels: class names, in order; may be empty.
        io_precision: of float inputs and outputs.
        precision_policy: None for fp32.
        tool_version: of vim-deploy.
        settings_hash: of everything else; equal hash, equal file.
        scan_body: ``scan`` or ``unrolled``: form of the scan ops' local functions.
        standalone: those functions stand in the places of their calls, so that the file holds
            standard operators only.
        dense: what stands behind a dense model's backbone; None for others.
        quantization: how products were quantized; None for a precision that quantizes nothing.
        unread: what a later version says of these that this one does not know, by path
            (``model_config.if_hydra``); not stored.
    """

    model: str
    model_config: ModelConfig
    checkpoint: CheckpointInfo
    image: ImagePreparation
    preprocess: PreprocessMode
    head: str
    graph: GraphForm
    precision: Precision
    opset: int
    pos_embed: str
    tool_version: str
    settings_hash: str
    labels: tuple[str, ...] = ()
    io_precision: Precision = "fp32"
    precision_policy: PrecisionPolicy | None = None
    # Files from before the choice hold Scans and do not say so.
    scan_body: ScanBody = "scan"
    dense: DenseConfig | None = None
    standalone: bool = False
    quantization: QuantizationInfo | None = None
    unread: tuple[str, ...] = ()

    @property
    def floats(self) -> Precision:
        """The precision of tensors between operators: of everything that is not quantized."""
        return self.quantization.high_precision if self.quantization else self.precision


def read_export(value: Any, on_error: OnError) -> ExportInfo:  # noqa: ANN401 - a parsed file
    """The stored record, as ``encode`` writes it.

    Raises:
        VimDeployError: what ``on_error`` makes of a sentence, when it is no such record.
    """
    info = decode(value, ExportInfo, on_error)
    try:
        require_usable(info)
    except ValueError as error:
        raise on_error(str(error)) from error
    return info


def require_usable(info: ExportInfo) -> None:
    """ValueError for values of the right type that no export has."""
    check_preparation(info.image)
    try:
        heads.of_file(info)
    except VimDeployError as error:
        raise ValueError(f"its head is {info.head!r}, which is none") from error
    if info.opset < 1:
        raise ValueError(f"its opset is {info.opset}")


def attach(model: onnx.ModelProto, info: ExportInfo) -> None:
    """Store ``info`` in ``model``, replacing an earlier one, in both places (``description``)."""
    text = json.dumps(encode(info), sort_keys=True, allow_nan=False)
    kept = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = text
    lines = model.graph.doc_string.split("\n") if model.graph.doc_string else []
    others = [line for line in lines if not line.startswith(_LINE)]
    model.graph.doc_string = "\n".join([*others, _LINE + text])


def find(model: onnx.ModelProto) -> ExportInfo | None:
    """The stored record as it stands, or None when the file holds none.

    Raises:
        VimDeployError: VIM-410 when there is one that is not as ``attach`` writes it.
    """
    text = entry_of(model)
    if text is None:
        text = line_of(model)
    if text is None:
        return None
    try:
        value = parse_json(text)
    except ValueError as error:
        raise _unreadable(str(error)) from error
    return read_export(value, _unreadable)


def entry_of(model: onnx.ModelProto) -> str | None:
    """Text of the metadata entry; None when there is none."""
    found = (entry.value for entry in model.metadata_props if entry.key == METADATA_KEY)
    return next(found, None)


def line_of(model: onnx.ModelProto) -> str | None:
    """Text of the line that describes the graph; None when there is none.

    Raises:
        VimDeployError: VIM-410 for several that differ: of models that were joined.
    """
    found = lines_of(model)
    if len(found) > 1:
        raise _unreadable(f"the text of its graph describes {len(found)} models")
    return next(iter(found), None)


def lines_of(model: onnx.ModelProto) -> set[str]:
    """Texts of all lines that describe the graph, equal ones once."""
    lines = model.graph.doc_string.split("\n")
    return {line.removeprefix(_LINE).rstrip("\r") for line in lines if line.startswith(_LINE)}


def _unreadable(why: str) -> VimDeployError:
    return undescribed(
        "the file's vim-deploy metadata cannot be read",
        why=why,
        fix="export the file again with this version of vim-deploy",
    )


def undescribed(message: str, *, why: str = "", fix: str) -> VimDeployError:
    """VIM-410, which is raised for a file that does not say what has to be known."""
    return VimDeployError("VIM-410", message, why=why, fix=fix)


def require_info(info: ExportInfo | None, message: str, *, why: str = "", fix: str) -> ExportInfo:
    """``info``; VIM-410 with these words for a file that says nothing about itself."""
    if info is None:
        raise undescribed(message, why=why, fix=fix)
    return info


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or _UNNAMED
        for dim in tensor.shape.dim
    )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(value.name, dtype, shape)


def inputs_of(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Graph inputs that are not initialisers."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return tuple(_spec(value) for value in model.graph.input if value.name not in constants)


def outputs_of(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Graph outputs."""
    return tuple(_spec(value) for value in model.graph.output)


class ModelInputs(NamedTuple):
    """``image``, and ``size`` where the model takes one."""

    image: TensorSpec
    size: TensorSpec | None = None


def model_inputs(inputs: Sequence[TensorSpec]) -> ModelInputs | None:
    """Which input is which, in any order; None when they are others.

    A single input is the picture, whatever it is called.
    """
    if len(inputs) == 1:
        return ModelInputs(inputs[0])
    by_name = {spec.name: spec for spec in inputs}
    if len(inputs) != 2 or set(by_name) != {IMAGE_INPUT, SIZE_INPUT}:
        return None
    image, size = by_name[IMAGE_INPUT], by_name[SIZE_INPUT]
    return None if size_flaw(size, image) else ModelInputs(image, size)


def require_inputs(inputs: Sequence[TensorSpec], name: str, fix: str) -> ModelInputs:
    """``model_inputs``; VIM-415 for a file called ``name`` that has others."""
    found = model_inputs(inputs)
    if found is not None:
        return found
    known = {spec.name: spec for spec in inputs}
    flaw = ""
    if set(known) == {IMAGE_INPUT, SIZE_INPUT}:
        flaw = size_flaw(known[SIZE_INPUT], known[IMAGE_INPUT])
    raise VimDeployError(
        "VIM-415",
        f"{name} has {len(inputs)} inputs; {IMAGE_INPUT}, or {IMAGE_INPUT} and {SIZE_INPUT}, "
        "are expected",
        why=flaw or ", ".join(spec.name for spec in inputs),
        fix=fix,
    )


def size_flaw(size: TensorSpec, image: TensorSpec) -> str:
    """How ``size`` is no input of the pictures' sizes, in words; empty when it is one."""
    found = f"{size.name!r} is {size.dtype} {list(size.shape)}"
    batch = image.shape[0] if image.shape else "?"
    wanted = f"{found}, where {_INTEGERS[0]} {[batch, _EXTENTS]} is expected"
    if size.dtype not in _INTEGERS or len(size.shape) != _EXTENTS or size.shape[1] != _EXTENTS:
        return wanted
    # A tool may have fixed the batch of one alone.
    fixed = {axis for axis in (size.shape[0], batch) if isinstance(axis, int)}
    return wanted if len(fixed) > 1 else ""


def extents(image: TensorSpec) -> tuple[int, int] | None:
    """Height and width of a picture input; None where they are not fixed, or it is none.

    Pictures of bytes lie with their channels last, others with them first.
    """
    sides = image.shape[1:3] if image.dtype == "uint8" else image.shape[2:4]
    if len(image.shape) != 4:
        return None
    height, width = sides
    if isinstance(height, str) or isinstance(width, str):
        return None
    return height, width
