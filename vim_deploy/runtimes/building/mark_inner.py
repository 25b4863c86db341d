"""Which inner tensors an engine is to give out for diagnosis, and how TensorRT is told.

``build-engine --inner-tensors`` marks every tensor that ``graph.inner_tensors`` finds. TensorRT 10
and later, and TensorRT-RTX, have debug tensors, which reach a listener at run time. What no other
node of the graph reads becomes an output all the same, lest TensorRT leave it out as leading
nowhere; before TensorRT 10 everything becomes one. Either way the tensor has to exist and is not
fused away, so such an engine is not the one that people run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper

from vim_deploy.artifact.marked_tensors import DEBUG, OUTPUT, OWN_OUTPUT, InnerTensor, MarkedTensor
from vim_deploy.artifact.metadata import inputs_of
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.inner_tensors import with_inner_outputs
from vim_deploy.onnx_graph import inferred
from vim_deploy.places import Place
from vim_deploy.recipe.model_config import ModelConfig
from vim_deploy.runtimes.building.typed_model import TypedModel


def marked_model(
    typed: TypedModel, debug_tensors: bool
) -> tuple[TypedModel, tuple[MarkedTensor, ...]]:
    """The graph that an engine with inner tensors is built from, and what it gives out.

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
            where.block,
            where.part,
            where.direction,
            renamed.get(tensor.name, tensor.name),
            how[tensor.name],
            tensor.index,
            tensor.columns,
            tensor.factor,
        )
        for where, tensor in found.items()
    )
    counts = ", ".join(
        f"{len({item.name for item in marked if item.how == kind})} as {kind}s"
        for kind in (DEBUG, OUTPUT)
    )
    steps = (*typed.steps, f"inner tensors given out: {counts}")
    return dataclasses.replace(typed, model=model, steps=steps), marked


def _instrumented(typed: TypedModel) -> tuple[onnx.ModelProto, dict[Place, InnerTensor]]:
    if typed.export is None:
        raise _hidden("the file holds no vim-deploy metadata")
    rank = int(ModelConfig.from_dict(typed.export.model_config).ssm["dt_rank"])
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
    (source,) = inputs_of(model)
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
