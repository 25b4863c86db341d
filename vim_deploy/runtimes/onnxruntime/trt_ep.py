"""The form of an exported file that ONNX Runtime's TensorRT execution provider takes.

Before: nodes in the domain ``vim_deploy``, each with a local function. After: those that are
plugins in the domain ``trt.plugins``, and no functions of their names. Ops without a kernel for
GPUs stay as they are. The provider registers the plugins it finds under that domain; it cannot see
a node that ONNX Runtime has already replaced by its function, and ONNX Runtime does so with every
function that no provider claims.

A plugin tells ONNX Runtime nothing about the type of its output, so the types are written down.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto

from vim_deploy.errors import VimDeployError
from vim_deploy.onnx_graph import inferred
from vim_deploy.ops import PLUGIN_OPS, contract
from vim_deploy.ops.functions import asked_ops, nodes_of

#: Domain of TensorRT's plugins in ONNX Runtime.
PLUGIN_DOMAIN = "trt.plugins"
PLUGIN_DOMAIN_VERSION = 1


def to_plugin_domain(model: ModelProto) -> ModelProto:
    """A copy of ``model`` whose custom nodes are TensorRT plugins to ONNX Runtime.

    A model without custom nodes comes back as an equal copy.

    Raises:
        VimDeployError: VIM-409 when the type of a plugin's output cannot be told, VIM-903 when
            plugins would compute something else than the model says.
    """
    asked_ops(model).require_known("a plugin library of this contract")
    typed = inferred(model, strict=False)
    lowered = ModelProto()
    lowered.CopyFrom(model)
    custom = [node for node in nodes_of(lowered.graph) if node.op_type in PLUGIN_OPS]
    if not custom:
        return lowered
    known = {value.name: value for value in typed.value_info}
    fixed = {value.name for value in lowered.graph.output}
    stated = {value.name for value in lowered.graph.value_info}
    for node in custom:
        node.domain = PLUGIN_DOMAIN
        for name in node.output:
            if name in fixed or name in stated:
                continue
            if name not in known:
                raise VimDeployError(
                    "VIM-409",
                    f"the type of {name!r} cannot be told",
                    why=f"it is the output of the plugin {node.op_type}",
                    fix="export the model again with this version of vim-deploy",
                )
            lowered.graph.value_info.append(known[name])
    _replace_domain(lowered)
    return lowered


def _replace_domain(model: ModelProto) -> None:
    functions = [
        item
        for item in model.functions
        if item.domain != contract.DOMAIN or item.name not in PLUGIN_OPS
    ]
    del model.functions[:]
    model.functions.extend(functions)
    stays = bool(nodes_of(model.graph))
    opsets = [item for item in model.opset_import if stays or item.domain != contract.DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(
        [*opsets, onnx.helper.make_opsetid(PLUGIN_DOMAIN, PLUGIN_DOMAIN_VERSION)]
    )
