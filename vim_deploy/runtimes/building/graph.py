"""The graph that an engine is built from: in its precision, and with the tensors it gives out.

Precision lives in the graph: TensorRT 10 and 11 and TensorRT-RTX build what its tensors say. A
float32 file that vim-deploy exported is typed in memory when half precision is asked for, by the
same pass and the same policy as ``export --precision``; the file on disk stays.

``build-engine --inner-tensors`` marks every tensor that ``graph.inner_tensors`` finds. TensorRT 10
and later, and TensorRT-RTX, have debug tensors, which reach a listener at run time. What no other
node of the graph reads becomes an output all the same, lest TensorRT leave it out as leading
nowhere; before TensorRT 10 everything becomes one. Either way the tensor has to exist and is not
fused away, so such an engine is not the one that people run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.marked_tensors import DEBUG, OUTPUT, OWN_OUTPUT, InnerTensor, MarkedTensor
from vim_deploy.artifact.metadata import ExportInfo, attach, inputs_of, outputs_of, require_inputs
from vim_deploy.errors import VimDeployError, nearest
from vim_deploy.graph.inner_tensors import with_inner_outputs
from vim_deploy.graph.precision import apply_precision
from vim_deploy.onnx_graph import computed_precision, inferred
from vim_deploy.onnx_quantized import precision_of
from vim_deploy.places import Place
from vim_deploy.precisions import NAMES, TABLE, Precision
from vim_deploy.recipe.precision_policy import default_policy
from vim_deploy.specs import TensorSpec


@dataclass(frozen=True)
class TypedModel:
    """A model and its precision.

    Attributes:
        file: that it came from.
        model: as loaded, or changed in memory.
        precision: of the file or as it was typed (``precisions.NAMES``).
        export: what the file says about itself; None when vim-deploy did not make it.
        typed: it was given its precision in memory.
        steps: what was done in memory; empty when nothing was.
        marked: inner tensors that it gives out.
    """

    file: Artifact
    model: onnx.ModelProto
    precision: str
    export: ExportInfo | None
    typed: bool = False
    steps: tuple[str, ...] = ()
    marked: tuple[MarkedTensor, ...] = ()

    @property
    def floats(self) -> Precision:
        """The precision of tensors between operators: of everything that is not quantized."""
        return self.export.floats if self.export is not None else computed_precision(self.model)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the graph."""
        return inputs_of(self.model)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the graph."""
        return outputs_of(self.model)


def _precision_of(model: onnx.ModelProto, export: ExportInfo | None) -> str:
    """What the file says of itself; for other files what weights and casts say."""
    if export is not None:
        return export.precision
    return precision_of(model)


def graph_of_precision(
    file: Artifact, precision: str = "", like: ExportInfo | None = None
) -> TypedModel:
    """The graph of ``file`` in ``precision`` (empty: as it is).

    Args:
        file: ONNX file; its model is typed in place, and not for others then.
        precision: one of ``precisions.NAMES``; only floats can be had of another.
        like: take what stays in float32, and the inputs' and outputs' type, from there instead of
            the shipped policy.

    Raises:
        VimDeployError: VIM-202 (no such precision), VIM-203 (the graph has another one and cannot
            be typed), VIM-505 (weights that do not fit), and as ``Artifact.model``.
    """
    if precision and precision not in NAMES:
        raise VimDeployError(
            "VIM-202", f"{precision!r} is not a precision", fix=nearest(precision, NAMES)
        )
    model, export = file.model, file.info
    found = _precision_of(model, export)
    inside = export is not None and export.standalone
    if precision and precision != found and "quantized" in (_kind(precision), _kind(found)):
        raise _quantization_stays(file, precision, found, export)
    if precision and precision != found == "fp32" and export is not None and not inside:
        info, step = _type(model, export, precision, like)
        return TypedModel(file, model, precision, info, typed=True, steps=(step,))
    if precision and precision != found:
        raise VimDeployError(
            "VIM-203",
            f"{precision} was asked for, but the graph is {found}",
            why=f"{file.path} has {found} tensors, an engine has the types of its graph, and only "
            "float32 files that vim-deploy exported can be typed"
            + (", with the functions of their ops (this one is standalone)" if inside else ""),
            fix=f"vim-deploy export CHECKPOINT --precision {precision}, or leave the option out",
        )
    return TypedModel(file, model, found, export)


def _kind(precision: str) -> str:
    return "quantized" if TABLE[precision].quantized else "float"


def _quantization_stays(
    file: Artifact, precision: str, found: str, export: ExportInfo | None
) -> VimDeployError:
    """VIM-203: no build quantizes a graph, none undoes it, and none types what is around it."""
    if TABLE[precision].quantized:
        why = f"{file.path} has {found} tensors; scales come from pictures, when it is exported"
        fix = f"vim-deploy export CHECKPOINT --precision {precision} --calibration PICTURES"
    else:
        floats = export.floats if export is not None else computed_precision(file.model)
        why = f"{file.path} holds products in {found}, and {floats} around them, as it was exported"
        fix = f"vim-deploy export CHECKPOINT --precision {found} --high-precision {precision}"
        if precision == floats:
            fix = f"leave --precision out: what is not quantized is {floats}"
    return VimDeployError(
        "VIM-203", f"{precision} was asked for, but the graph is {found}", why=why, fix=fix
    )


def _type(
    model: onnx.ModelProto, export: ExportInfo, precision: Precision, like: ExportInfo | None
) -> tuple[ExportInfo, str]:
    """Type ``model`` in place; what it says about itself then, and what was done."""
    policy = (like.precision_policy if like is not None else None) or default_policy()
    io_precision: Precision = like.io_precision if like is not None else "fp32"
    report = apply_precision(model, precision, policy, io_precision)
    info = dataclasses.replace(
        export, precision=precision, io_precision=io_precision, precision_policy=policy
    )
    attach(model, info)
    counts = ", ".join(f"{count} nodes in {name}" for name, count in report.nodes.items())
    return info, f"typed as {precision}: {counts}, {report.casts} casts"


def marked_model(typed: TypedModel, debug_tensors: bool) -> TypedModel:
    """The graph that an engine with inner tensors is built from.

    Args:
        typed: the graph in the precision that is built.
        debug_tensors: whether the runtime has them; else everything becomes an output.

    Raises:
        VimDeployError: VIM-434 when the graph does not show its inner tensors.
    """
    model, found = _instrumented(typed)
    own = {value.name for value in typed.model.graph.output}
    read = {name for node in model.graph.node for name in node.input}
    how = {
        value.name: OWN_OUTPUT
        if value.name in own
        else DEBUG
        if debug_tensors and value.name in read
        else OUTPUT
        for value in model.graph.output
    }
    renamed = _give_out(model, {name: kind for name, kind in how.items() if kind != DEBUG})
    marked = tuple(
        MarkedTensor(
            name=renamed.get(tensor.name, tensor.name),
            index=tensor.index,
            columns=tensor.columns,
            factor=tensor.factor,
            block=where.block,
            part=where.part,
            direction=where.direction,
            how=how[tensor.name],
        )
        for where, tensor in found.items()
    )
    counts = ", ".join(
        f"{len({item.name for item in marked if item.how == kind})} as {kind}s"
        for kind in (DEBUG, OUTPUT)
    )
    steps = (*typed.steps, f"inner tensors given out: {counts}")
    return dataclasses.replace(typed, model=model, steps=steps, marked=marked)


def _instrumented(typed: TypedModel) -> tuple[onnx.ModelProto, dict[Place, InnerTensor]]:
    if typed.export is None:
        raise _hidden("the file holds no vim-deploy metadata")
    rank = typed.export.model_config.dt_rank
    try:
        model, found = with_inner_outputs(typed.model, rank)
    except (KeyError, StopIteration) as error:
        raise _hidden(f"{type(error).__name__}: {error}") from error
    if not any(where.in_block for where in found):
        raise _hidden("none of its nodes is named after a block")
    return model, found


def _hidden(why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-434",
        "the inner tensors of the graph cannot be marked",
        why=why,
        fix="leave out --inner-tensors, or give a file made by vim-deploy export, whose node names "
        "are unchanged",
    )


def _give_out(model: onnx.ModelProto, how: Mapping[str, str]) -> dict[str, str]:
    """Make ``how``'s tensors the outputs of ``model``, with their shapes; old name -> new name.

    bfloat16 is given out as float32, for NumPy has no such type.
    """
    graph = inferred(model)
    known = {value.name: value for value in (*graph.value_info, *graph.output)}
    source = require_inputs(inputs_of(model), "the graph", "export it with vim-deploy").image
    kept, renamed = [], {}
    for value in model.graph.output:
        if how.get(value.name) == OWN_OUTPUT:
            kept.append(value)
        elif value.name in how:
            tensor = known[value.name].type.tensor_type
            # Sizes are fixed but for the batch: see docs/decisions/004-static-image-size.md.
            shape = [
                dim.dim_value if dim.HasField("dim_value") else source.shape[0]
                for dim in tensor.shape.dim
            ]
            name, kind = value.name, tensor.elem_type
            if not shape:
                raise _hidden(f"the shape of {name} cannot be inferred")
            if kind == TensorProto.BFLOAT16:
                name, kind = f"{name}_float32", TensorProto.FLOAT
                cast = helper.make_node("Cast", [value.name], [name], name=name, to=kind)
                model.graph.node.append(cast)
                renamed[value.name] = name
            kept.append(helper.make_tensor_value_info(name, kind, shape))
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return renamed
