"""From what the exporter wrote to a graph that reads like the model.

``tidy`` folds constants and drops what a static token count makes superfluous: a chosen subset of
onnxscript's optimizer. Two of its steps are left out on purpose: it merges equal initialisers and
drops zero biases, and then the graph would depend on the weights' values, so that two checkpoints
of one architecture could differ in structure.

``apply_names`` says which block and direction a node or tensor belongs to (``places``). Before:
``node_linear_7`` with the exporter's metadata. After: ``block_03/mixer/bwd/x_proj/MatMul`` with
output ``block_03/mixer/bwd/x_proj/MatMul_output_0``, parameters under their official keys, and no
metadata (which holds source paths of the exporting machine).
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from onnx import NodeProto
from onnxscript import rewriter
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter.rules import common as rules

from vim_deploy.families.base import ModelConfig
from vim_deploy.onnx_graph import attribute_int, constants_of
from vim_deploy.ops import OPS, contract

#: Largest tensor that constant folding may read or make, in elements: above the largest weight of
#: Vim-B (768 x 3072), below anything that would bloat the file.
_FOLD_LIMIT = 1 << 24

_RULES = (
    rules.materialize_reshape_shape_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.squeeze_reshape_1d_rule,
    rules.normalize_pad_format_conv_rule,
    rules.fuse_pad_into_conv_rule,
)
#: Folding and rewriting feed each other; Vim's graphs settle after two rounds.
_ROUNDS = 3

_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
#: Attribute name of the network inside the traced one.
_MODEL_PREFIX = "model"
#: Scope that torch.export gives to nodes it made itself, such as the batch size's.
_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """An equivalent model with constants folded, duplicates merged and dead nodes removed."""
    graph = ir.serde.deserialize_model(model)
    common.InlinePass()(graph)
    for _ in range(_ROUNDS):
        folded = fold_constants_ir(
            graph,
            onnx_shape_inference=True,
            input_size_limit=_FOLD_LIMIT,
            output_size_limit=_FOLD_LIMIT,
        )
        rewriter.rewrite(graph, _RULES)
        common.RemoveUnusedNodesPass()(graph)
        if not folded.modified:
            break
    common.CommonSubexpressionEliminationPass()(graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    common.RemoveUnusedNodesPass()(graph)
    common.RemoveUnusedFunctionsPass()(graph)  # type: ignore[no-untyped-call]
    common.RemoveUnusedOpsetsPass()(graph)
    tidied: onnx.ModelProto = ir.serde.serialize_model(graph)
    _drop_allowzero(tidied.graph)
    return tidied


def _drop_allowzero(graph: onnx.GraphProto) -> None:
    """Take the attribute from every Reshape to sizes without a 0, to which it means nothing.

    PyTorch's exporter sets it always, and there are runtimes that refuse it.
    """
    sizes = constants_of(graph)
    for node in graph.node:
        if node.op_type == "Reshape" and 0 not in sizes.get(node.input[1], [0]):
            kept = [item for item in node.attribute if item.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)


def apply_names(model: onnx.ModelProto, config: ModelConfig, core_path: str = "") -> None:
    """Rename nodes, tensors and initialisers of ``model`` in place and drop its metadata.

    Args:
        model: as traced.
        config: of the family's model in it.
        core_path: where that is among the network's modules; its nodes, and those of the modules
            that hold it, are named without their paths.
    """
    graph = model.graph
    scopes = [_scope_of(node) for node in graph.node]
    fixed = {value.name for value in [*graph.input, *graph.output]}
    renamed = _name_initializers(model, scopes)
    seen: Counter[str] = Counter()
    for node, scope in zip(graph.node, scopes, strict=True):
        inner = _within(scope, core_path)
        base = f"{config.scope(inner)}/{node.op_type}".lstrip("/")
        seen[base] += 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base] - 1}"
        for index, output in enumerate(node.output):
            if output and output not in fixed:
                renamed[output] = f"{node.name}_output_{index}"
    _rename_tensors(model, renamed)
    _strip_metadata(model)


def _within(scope: str, core_path: str) -> str:
    """``scope`` within the innermost module that holds it: the model, or one around it."""
    while core_path:
        if scope.startswith(f"{core_path}."):
            return scope.removeprefix(f"{core_path}.")
        core_path = core_path.rpartition(".")[0]
    return scope


def _scope_of(node: NodeProto) -> str:
    """Path of the innermost module that made ``node``, official from the model on."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES_KEY:
            scopes: list[str] = ast.literal_eval(entry.value)
            # The last entry is the operation itself, the one before it the module.
            path = scopes[-2] if len(scopes) > 1 else ""
            return "" if path == _NO_MODULE else path.removeprefix(_MODEL_PREFIX).lstrip(".")
    return ""


def _name_initializers(model: onnx.ModelProto, scopes: list[str]) -> dict[str, str]:
    """New names by old: official keys for parameters, role names for what was folded."""
    roles: dict[str, str] = {}
    for node, scope in zip(model.graph.node, scopes, strict=True):
        for position, name in enumerate(node.input):
            roles.setdefault(name, f"{scope}.{_role(node, position)}".lstrip("."))
    prefix = f"{_MODEL_PREFIX}."
    # Parameters first, so that a folded constant never takes the name of a real one.
    names = [tensor.name for tensor in model.graph.initializer]
    parameters = {name: name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    taken = Counter(parameters.values())
    renamed = dict(parameters)
    for name in names:
        if name in renamed:
            continue
        wanted = roles.get(name, name)
        taken[wanted] += 1
        renamed[name] = wanted if taken[wanted] == 1 else f"{wanted}_{taken[wanted] - 1}"
    return renamed


def _role(node: NodeProto, position: int) -> str:
    """What a folded constant is to the node that reads it."""
    if node.domain == contract.DOMAIN:
        return OPS[node.op_type].inputs[position]
    if node.op_type == "MatMul":
        return "weight_t"
    if node.op_type in ("Conv", "ConvTranspose"):
        if attribute_int(node, "group", 1) > 1:
            # The depthwise convolution of a mixer; all others have a batch norm folded in.
            return "weight_reversed" if position == 1 else "zero_bias"
        return "weight_folded" if position == 1 else "bias_folded"
    return f"{node.op_type.lower()}_constant"


def _rename_tensors(model: onnx.ModelProto, renamed: dict[str, str]) -> None:
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for value in graph.value_info:
        value.name = renamed.get(value.name, value.name)


def _strip_metadata(model: onnx.ModelProto) -> None:
    graph = model.graph
    graph.name = "vision_mamba"
    for item in [graph, *graph.node, *graph.initializer]:
        del item.metadata_props[:]
    for value in [*graph.input, *graph.output, *graph.value_info]:
        del value.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
