"""What TensorRT-RTX says when it fails, turned into coded errors a person can act on."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from vim_deploy.errors import VimDeployError

_EXPORT_AGAIN = "export the model again with this version: vim-deploy export CHECKPOINT"
_SEE_LOG = "run it again with -v to see the whole log of the runtime"
#: How many refused nodes a message names.
_NODES_SHOWN = 8
_STDERR_SHOWN = 8

#: Part of a build error, and what to do about it. Texts as TensorRT-RTX 1.7.1 writes them.
_BUILD_REMEDIES = (
    (
        "for Turing (SM75)",
        "leave out compute capability 7.5, or export the model with --precision fp16: "
        "TensorRT-RTX has no FP32 matrix products for Turing",
    ),
    (
        "Mismatched number of elements in reshape op",
        "its compiler fails on Unsqueeze, Squeeze and MatMul inside a Scan body; " + _EXPORT_AGAIN,
    ),
    (
        "no optimization profile has been defined",
        "give --minShapes, --optShapes and --maxShapes for every input with dynamic sizes",
    ),
    # "Memory", "memory" and "OutOfMemory"
    ("emory", "give a smaller --max-batch, or build on a machine with more memory"),
)


def _without_driver_noise(text: str) -> str:
    """Drop the lines that only say that there is no GPU, which this build does not need."""
    lines = [line for line in text.splitlines() if "cudaError 35" not in line]
    return "\n".join(lines) or text


def _node_line(error: Mapping[str, Any]) -> str:
    node, op = error.get("node") or "?", error.get("op") or "?"
    text = _without_driver_noise(str(error.get("text", "")))
    if error.get("code") == "UNSUPPORTED_NODE":
        text = f"operator not supported, or not with these inputs ({error.get('check')}: {text})"
    elif "Plugin not found" in text:
        text = "the operator is not known, and the file carries no local function for it"
    elif node == "?" and op == "?":
        return text
    within = error.get("functions") or []
    place = f" in the function of {' > '.join(map(str, within))}" if within else ""
    return f"node {node!r} ({op}){place}: {text}"


def _parse_error(facts: Mapping[str, Any], model: str) -> VimDeployError:
    errors = list(facts.get("errors") or [])
    lines = [_node_line(error) for error in errors[:_NODES_SHOWN]]
    if len(errors) > _NODES_SHOWN:
        lines.append(f"and {len(errors) - _NODES_SHOWN} more")
    return VimDeployError(
        "VIM-601",
        f"TensorRT-RTX cannot take {model}",
        why="\n".join(lines) or "its parser gave no reason",
        fix=_EXPORT_AGAIN,
    )


def _build_error(facts: Mapping[str, Any], model: str) -> VimDeployError:
    errors = [_without_driver_noise(str(text)) for text in facts.get("errors") or []]
    why = "\n".join(errors) or "the runtime gave no reason"
    fix = next((remedy for part, remedy in _BUILD_REMEDIES if part in why), _SEE_LOG)
    return VimDeployError(
        "VIM-603", f"TensorRT-RTX could not build an engine from {model}", why=why, fix=fix
    )


def _tensors(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in types.items()) or "none"


def error_from_failure(facts: Mapping[str, Any], model: str) -> VimDeployError:
    """The coded error for a worker's ``failed`` event.

    Raises:
        OSError: instead, for the stage ``write``; the caller knows the output's real name.
    """
    stage = facts.get("stage")
    if stage == "write":
        number = facts.get("errno") or errno.EIO
        raise OSError(number, os.strerror(number))
    if stage == "parse":
        return _parse_error(facts, model)
    if stage == "empty":
        return VimDeployError(
            "VIM-602",
            f"TensorRT-RTX found nothing in {model}",
            why=f"it parses, and makes {facts.get('layers')} layers and {facts.get('outputs')} "
            "outputs: the file is empty, text, or not an ONNX model",
            fix=_EXPORT_AGAIN,
        )
    if stage == "interface":
        side, expected, found = facts["side"], dict(facts["expected"]), dict(facts["found"])
        return VimDeployError(
            "VIM-601",
            f"TensorRT-RTX would change the {side} of {model}",
            why=f"the file has {_tensors(expected)}; the engine would have {_tensors(found)}",
            fix="use float32, float16, bfloat16 or integer types for the model's " + str(side),
        )
    if stage == "import":
        return VimDeployError(
            "VIM-301",
            "TensorRT-RTX does not load in the build process",
            why=str(facts.get("text", "")),
            fix="pip install --force-reinstall 'vim-deploy[rtx]'",
        )
    if stage == "target":
        return VimDeployError(
            "VIM-202",
            f"TensorRT-RTX does not build for compute capability {facts.get('capability')}",
            fix="vim-deploy doctor lists those it builds for",
        )
    if stage == "profile":
        return VimDeployError(
            "VIM-202",
            f"TensorRT-RTX refuses the shapes of the input {facts.get('input')!r}",
            why=str(facts.get("text", "")),
            fix="compare the shapes with vim-deploy inspect MODEL.onnx",
        )
    return _build_error(facts, model)


def error_from_death(status: int, stderr: Sequence[str], model: str) -> VimDeployError:
    """VIM-604 for a worker that ended without a closing event."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        how = f"it was ended by {name}"
        if name == "SIGKILL":
            how += ", often sent by the system when memory runs out"
    else:
        how = f"it ended with status {status}"
    said = "\n".join(list(stderr)[-_STDERR_SHOWN:])
    return VimDeployError(
        "VIM-604",
        f"the process building an engine from {model} died",
        why=f"{how}\n{said}".rstrip(),
        fix="try a smaller --max-batch or a machine with more memory; nothing was written",
    )
