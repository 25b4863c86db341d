"""Reading and writing what an exported ONNX file says about itself."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from vim_deploy.artifact.onnx_file import read_model
from vim_deploy.artifact.stored_export import read_export
from vim_deploy.errors import VimDeployError
from vim_deploy.specs import ExportInfo, TensorSpec
from vim_deploy.untrusted import parse_json

#: Key of the one metadata entry; its value is the JSON of ``ExportInfo``.
METADATA_KEY = "vim_deploy"

#: A size that is free and that the file gives no name.
_UNNAMED = "?"


def attach(model: onnx.ModelProto, info: ExportInfo) -> None:
    """Store ``info`` in ``model``, replacing an earlier one."""
    kept = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = json.dumps(info.as_dict(), sort_keys=True, allow_nan=False)


def find(model: onnx.ModelProto) -> ExportInfo | None:
    """The stored record, or None when the file was not made by this tool.

    Raises:
        VimDeployError: VIM-410 when there is one that is not as ``attach`` writes it.
    """
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            try:
                value = parse_json(entry.value)
            except ValueError as error:
                raise _unreadable(str(error)) from error
            return read_export(value, _unreadable)
    return None


def _unreadable(why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-410",
        "the file's vim-deploy metadata cannot be read",
        why=why,
        fix="export the file again with this version of vim-deploy",
    )


def load_model(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file, weights beside it included; errors as ``onnx_file.read_model``."""
    return read_model(path)


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
