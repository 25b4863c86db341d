"""Where an ONNX file says what it is, twice, and how much of that still holds after a tool.

Its one entry of metadata is ONNX's own place for it. Tools that build the file anew often leave
metadata out (docs/tools.md has the table), and nearly all of them keep the text that describes the
graph; so the same JSON stands there, too, on a line of its own. The entry counts while it is there,
even a damaged one: whoever edits it means it.

A tool may also have changed what is described. What can be read off the graph is taken from there,
and the second place is not believed when the picture input is another one than it describes: it
then tells how pictures were prepared for a part of the graph that was cut off.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import onnx

from vim_deploy import heads
from vim_deploy.artifact import metadata
from vim_deploy.artifact.metadata import IMAGE_INPUT, PRODUCER, SIZE_INPUT, ExportInfo, size_flaw
from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import DEFAULT_DOMAINS, opset_version
from vim_deploy.onnx_quantized import precision_of, quantized_precision
from vim_deploy.ops.contract import DOMAIN
from vim_deploy.precisions import TABLE
from vim_deploy.specs import TensorSpec

#: Places of a description, as ``inspect`` calls them.
Place = Literal["metadata", "doc_string"]


@dataclass(frozen=True)
class Description:
    """What an ONNX file says about itself.

    Attributes:
        info: as it stands in the file, but for what the graph shows to be otherwise; None when
            there is none, or none to believe.
        place: where it was found; None when there is none.
        changed: fields that the graph shows to be otherwise: what is said, and what is found.
        doubt: why what was found is not believed, or that the two places differ; a sentence.
        producer: name and version of the tool that says it wrote the file; may be empty.
        was_exported: the file shows by other marks that vim-deploy made it once.
    """

    info: ExportInfo | None
    place: Place | None
    changed: dict[str, tuple[str, str]] = field(default_factory=dict)
    doubt: str = ""
    producer: str = ""
    was_exported: bool = False


def undescribed(found: Description | None, path: Path, unsaid: str, fix: str) -> VimDeployError:
    """VIM-410: what the file at ``path`` is, as far as that shows, and what to do about it.

    Args:
        found: of an ONNX file; None for an engine, whose record says nothing or is missing.
        path: of the file.
        unsaid: what it does not say.
        fix: what helps besides a description; may be empty.
    """
    if found is None:
        why = "what an engine's model is stands in its record NAME.plan.json"
        helps = "put its record beside it; its ONNX file has to be one of vim-deploy export"
    else:
        why = _why_unsaid(found)
        helps = f"vim-deploy inspect {shlex.quote(str(path))} --describe-from ORIGINAL.onnx "
        helps += "-o NEW.onnx, ORIGINAL being what a tool was given; or export the model with "
        helps += "vim-deploy export"
    message = f"{path.name} {unsaid}"
    return metadata.undescribed(message, why=why, fix=f"{helps}; or {fix}" if fix else helps)


def _why_unsaid(found: Description) -> str:
    tool = "" if found.producer.startswith(PRODUCER) else found.producer
    if found.doubt:
        return found.doubt + (f"; {tool} wrote it" if tool else "")
    if found.was_exported:
        return f"vim-deploy exported it, and {tool or 'a tool'} left out what it said of itself"
    writer = f"{tool} wrote it" if tool else "nothing says which tool wrote it"
    return f"it holds no vim-deploy metadata; {writer}"


def describe(model: onnx.ModelProto) -> Description:
    """What ``model`` says about itself.

    Raises:
        VimDeployError: VIM-410 when that is not as ``metadata.attach`` writes it.
    """
    entry = metadata.entry_of(model)
    producer = f"{model.producer_name} {model.producer_version}".strip()
    ours = PRODUCER in model.producer_name or any(
        item.domain == DOMAIN for item in model.opset_import
    )
    info = metadata.find(model)
    if info is None:
        return Description(None, None, producer=producer, was_exported=ours)
    if entry is None and (misfit := misfit_of(info, model)):
        doubt = f"the text of its graph describes another one: {misfit}"
        return Description(None, None, doubt=doubt, producer=producer, was_exported=True)
    doubt = ""
    if entry is not None and metadata.lines_of(model) - {entry}:
        doubt = "the text of its graph says otherwise than its metadata, which counts"
    as_found, changed = corrected(info, model)
    if entry is None:
        # It went through a tool, so it is not what an export with this hash would be.
        as_found = replace(as_found, settings_hash="")
    place: Place = "metadata" if entry is not None else "doc_string"
    return Description(as_found, place, changed, doubt, producer, was_exported=True)


def corrected(
    info: ExportInfo, model: onnx.ModelProto, original: onnx.ModelProto | None = None
) -> tuple[ExportInfo, dict[str, tuple[str, str]]]:
    """``info`` with what ``model`` shows in its place, and what was another before: said, found.

    Args:
        info: what ``model``, or the ``original`` that it was made of, says of itself.
        model: as it is.
        original: as vim-deploy wrote it; None when only ``model`` is known.
    """
    precisions = {row.dtype: row.name for row in TABLE.values()}
    outside = (*metadata.inputs_of(model), *metadata.outputs_of(model))
    floats = {precisions[spec.dtype] for spec in outside if spec.dtype in precisions}
    # Our ops were announced, and none is there: their functions were put into their places.
    domains = {node.domain for node in model.graph.node}
    announced = any(item.domain == DOMAIN for item in (original or model).opset_import)
    found = replace(
        info,
        standalone=DOMAIN not in domains
        and (info.standalone or (announced and domains <= set(DEFAULT_DOMAINS))),
        opset=opset_version(model),
        precision=precision_of(model),
        quantization=info.quantization if quantized_precision(model) else None,
        io_precision=floats.pop() if len(floats) == 1 else info.io_precision,
    )
    changed = {
        name: (str(getattr(info, name)), str(getattr(found, name)))
        for name in ("opset", "precision", "io_precision", "standalone")
        if getattr(info, name) != getattr(found, name)
    }
    # Of equal hash is an equal file.
    return (replace(found, settings_hash="") if changed else info), changed


def different_tensors(original: Sequence[TensorSpec], changed: Sequence[TensorSpec]) -> str:
    """How inputs or outputs are others than the original's, a sentence; empty when they fit.

    Names and sizes have to be the same, where both are fixed; the type may differ among floats.
    Sizes that a tool does not declare (no axes: every answer has a batch) are no others.
    """
    names = [[spec.name for spec in specs] for specs in (original, changed)]
    if names[0] != names[1]:
        return f"{', '.join(names[1]) or 'none'}; the original has {', '.join(names[0])}"
    floats = {row.dtype for row in TABLE.values()}
    for old, new in zip(original, changed, strict=True):
        sizes = zip(old.shape, new.shape, strict=False)
        fixed = ((a, b) for a, b in sizes if isinstance(a, int) and isinstance(b, int))
        alike = len(old.shape) == len(new.shape) or not new.shape
        alike = alike and all(a == b for a, b in fixed)
        if not alike or (old.dtype != new.dtype and not {old.dtype, new.dtype} <= floats):
            said, found = (f"{spec.dtype} {list(spec.shape)}" for spec in (old, new))
            return f"{new.name} is {found}; the original's is {said}"
    return ""


def misfit_of(info: ExportInfo, model: onnx.ModelProto) -> str:
    """How the inputs of ``model`` are others than ``info`` describes; empty when they are not."""
    inputs = {spec.name: spec for spec in metadata.inputs_of(model)}
    sized = heads.of_file(info).takes_size
    expected = (IMAGE_INPUT, SIZE_INPUT) if sized else (IMAGE_INPUT,)
    if set(inputs) != set(expected):
        names = ", ".join(inputs) or "none"
        return f"its inputs are {names}, not {' and '.join(expected)}"
    source = inputs[IMAGE_INPUT]
    image, shape = info.image, source.shape
    bytes_in = info.preprocess == "uint8"
    sizes = (image.height, image.width)
    axes = (*sizes, image.channels) if bytes_in else (image.channels, *sizes)
    fits = len(shape) == 4 and all(
        not isinstance(found, int) or found == size
        for found, size in zip(shape[1:], axes, strict=True)
    )
    if not fits or bytes_in != (source.dtype == "uint8"):
        wanted = "x".join(map(str, axes))
        return f"its input is {source.dtype} {list(shape)}, pictures are prepared as {wanted}"
    return size_flaw(inputs[SIZE_INPUT], source) if sized else ""
