"""What a TensorRT parser is given instead of the file: lowered in memory, the file unchanged.

===============  ===========================================  ==================================
TensorRT         with the plugin                              with ``--plugin none``
===============  ===========================================  ==================================
10.7 and later   our ops' functions dropped                   functions stay
10.0 to 10.6     the same; a function would hide the plugin   functions stay
8.6              functions dropped, others inlined; opset 17  all functions inlined; opset 17
===============  ===========================================  ==================================

8.6 takes no constants in 8 bits either (``quantized_8_6``).

Ops without a kernel for GPUs (``Op.plugin``) are no plugins in any row: their functions stay, or
are inlined. TensorRT computes those with layers of its own, NonMaxSuppression and RoiAlign among
them.

A parser of 10.7 and later prefers a registered plugin to a function of its name (TensorRT's
changelog). Nodes that are to become plugins say the plugin's version and namespace themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from onnx import helper, inliner

from vim_deploy.errors import VimDeployError
from vim_deploy.graph.opset import convert_opset
from vim_deploy.onnx_graph import opset_version
from vim_deploy.ops import PLUGIN_OPS, contract
from vim_deploy.ops.functions import asked_ops, nodes_of
from vim_deploy.runtimes.tensorrt.capability import Capabilities
from vim_deploy.runtimes.tensorrt.quantized_8_6 import widen_constants

#: Attributes by which TensorRT's ONNX parser finds a plugin.
_IDENTITY = {
    "plugin_version": contract.PLUGIN_VERSION,
    "plugin_namespace": contract.PLUGIN_NAMESPACE,
}


@dataclass(frozen=True)
class Lowered:
    """A model for the parser.

    Attributes:
        model: what is parsed.
        steps: what was done to it, for people and the record; empty when nothing was.
        plugin_nodes: node name -> op type, of the nodes that must become plugin layers.
    """

    model: onnx.ModelProto
    steps: tuple[str, ...]
    plugin_nodes: dict[str, str]


def ops_of(model: onnx.ModelProto) -> frozenset[str]:
    """Our op types among the nodes of the graph, of those that a plugin computes."""
    return frozenset(node.op_type for node in _for_plugins(nodes_of(model.graph)))


def _for_plugins(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    return [node for node in nodes if node.op_type in PLUGIN_OPS]


def lower(model: onnx.ModelProto, capabilities: Capabilities, *, use_plugin: bool) -> Lowered:
    """The model in a form that the parser of this TensorRT takes as it is meant.

    Args:
        model: as loaded; it is not changed.
        use_plugin: our ops are to become plugin layers; otherwise their functions are used.

    Raises:
        VimDeployError: VIM-609 when the model has no such form, VIM-903 when plugins would compute
            something else than it says.
    """
    if use_plugin:
        asked_ops(model).require_known("a plugin library of this contract")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    steps: list[str] = []
    plugins = _for_plugins(nodes_of(copy.graph)) if use_plugin else []
    plugin_ops = {node.op_type for node in plugins}
    _drop_functions(copy, plugin_ops, steps)
    _identify(plugins)
    plugin_nodes = _named(plugins)
    _require_functions(copy, {node.op_type for node in nodes_of(copy.graph)} - plugin_ops)
    if copy.functions and not capabilities.local_functions:
        names = ", ".join(sorted(function.name for function in copy.functions))
        copy = inliner.inline_local_functions(copy)
        # The inliner leaves a function of another opset than the model's alone, without a word.
        if copy.functions:
            raise _not_inlined([function.name for function in copy.functions])
        steps.append(f"functions inlined: {names}")
    if not capabilities.narrow_constants:
        widen_constants(copy, steps)
    if capabilities.max_opset is not None:
        _lower_opset(copy, capabilities.max_opset, steps)
    return Lowered(copy, tuple(steps), plugin_nodes)


def _drop_functions(model: onnx.ModelProto, ops: set[str], steps: list[str]) -> None:
    kept = [
        function
        for function in model.functions
        if function.domain != contract.DOMAIN or function.name not in ops
    ]
    dropped = sorted({function.name for function in model.functions} - {f.name for f in kept})
    del model.functions[:]
    model.functions.extend(kept)
    if dropped:
        steps.append(f"functions dropped for the plugin: {', '.join(dropped)}")


def _identify(nodes: list[onnx.NodeProto]) -> None:
    for node in nodes:
        present = {attribute.name for attribute in node.attribute}
        node.attribute.extend(
            helper.make_attribute(name, value)
            for name, value in _IDENTITY.items()
            if name not in present
        )


def _named(nodes: list[onnx.NodeProto]) -> dict[str, str]:
    """Node name -> op type; every node gets a name of its own."""
    named: dict[str, str] = {}
    for index, node in enumerate(nodes):
        if not node.name or node.name in named:
            node.name = f"{node.name or node.op_type}_plugin_{index}"
        named[node.name] = node.op_type
    return named


def _require_functions(model: onnx.ModelProto, ops: set[str]) -> None:
    there = {function.name for function in model.functions if function.domain == contract.DOMAIN}
    missing = sorted(ops - there)
    if missing:
        raise VimDeployError(
            "VIM-609",
            f"the file has no local function for {', '.join(missing)}",
            why="without a plugin, TensorRT needs the op's meaning in standard operators",
            fix="export the file again with this version"
            + (", or leave out --plugin none" if set(missing) <= set(PLUGIN_OPS) else ""),
        )


def _not_inlined(names: list[str]) -> VimDeployError:
    return VimDeployError(
        "VIM-609",
        "this TensorRT's parser knows no local functions, and the file needs some",
        why=f"not to be inlined: {', '.join(names)} (another opset than the model's)",
        fix="export the file again with this version, or use TensorRT 10 or later",
    )


def _lower_opset(model: onnx.ModelProto, newest: int, steps: list[str]) -> None:
    opset = opset_version(model)
    if opset <= newest:
        return
    try:
        convert_opset(model, newest)
        # A rewritten operator that the older opset does not know must not reach the parser.
        onnx.checker.check_model(model)
    except (VimDeployError, onnx.checker.ValidationError) as error:
        raise VimDeployError(
            "VIM-609",
            f"the graph has no form that this TensorRT's parser takes (opset {newest})",
            why=str(error).strip(),
            fix="export it again with --opset 17, or use TensorRT 10 or later",
        ) from error
    steps.append(f"opset {opset} rewritten as {newest}")
