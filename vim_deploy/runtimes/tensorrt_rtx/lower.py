"""What TensorRT-RTX is given instead of the file: changed in memory, the file unchanged.

Its parser takes local functions as they are, but it has no layer for NonMaxSuppression and none for
RoiAlign: functions that hold them are exchanged for the plain forms of the same ops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import onnx
from onnx import NodeProto

from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import constants_of
from vim_deploy.ops import OPS
from vim_deploy.ops.functions import asked_ops, attach_functions, nodes_of
from vim_deploy.ops.op import PLAIN
from vim_deploy.runtimes.building.graph import TypedModel

#: Most elements that its TopK gives out; TensorRT-RTX 1.7.1 says so when it refuses more.
MOST_OF_TOPK = 3840
#: Operators of ours that it has no layer for, as its parser and builder say.
_LACKING = frozenset({"NonMaxSuppression", "RoiAlign"})


def lower(graph: TypedModel) -> TypedModel:
    """The graph in a form that TensorRT-RTX builds; itself where nothing is to be changed.

    Args:
        graph: its model is not changed.

    Raises:
        VimDeployError: VIM-609 for a TopK of too many, or operators it lacks outside of our ops;
            VIM-903 when our ops mean something in the file that this version does not know.
    """
    model, exchanged = _with_plain_forms(graph.model)
    for flaw in _flaws(model):
        raise flaw
    if not exchanged:
        return graph
    step = f"functions without NonMaxSuppression and RoiAlign: {', '.join(exchanged)}"
    return dataclasses.replace(graph, model=model, steps=(*graph.steps, step))


def _with_plain_forms(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A copy of ``model`` with the plain bodies of those of its ops that have one; their names.

    Where none has one, ``model`` itself comes back.

    Raises:
        VimDeployError: VIM-903 when the model says of its ops what this version does not know.
    """
    there = {node.op_type for node in nodes_of(model.graph)}
    plain = {
        name: op
        for name, op in OPS.items()
        if name in there and any(part.when == PLAIN for part in op.body)
    }
    if not plain:
        return model, ()
    asked_ops(model).require_known("this version")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    attach_functions(copy, ops=plain, plain=True)
    return copy, tuple(plain)


def _flaws(model: onnx.ModelProto) -> Iterator[VimDeployError]:
    constants = constants_of(model.graph)
    for node in model.graph.node:
        if node.op_type == "TopK":
            count = constants.get(node.input[1])
            if count is not None and count.max(initial=0) > MOST_OF_TOPK:
                yield _too_many(node, int(count.max()))
        if node.op_type in _LACKING and not node.domain:
            yield VimDeployError(
                "VIM-609",
                f"TensorRT-RTX has no {node.op_type}",
                why=f"node {node.name} stands in the graph itself; within the functions of our ops "
                "it would be exchanged",
                fix="build from an export without --standalone",
            )


def _too_many(node: NodeProto, count: int) -> VimDeployError:
    return VimDeployError(
        "VIM-609",
        f"TensorRT-RTX takes no TopK of more than {MOST_OF_TOPK}",
        why=f"node {node.name} gives out {count}",
        fix="export the model again with at most that many candidates: pre_nms_topk and "
        "post_nms_topk of a detector's proposals",
    )
