"""What TensorRT and TensorRT-RTX say when they fail, as coded errors a person can act on."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping, Sequence
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
    ("emory", "give a smaller --max-batch, or build on a machine with more memory"),
)


#: The builder's words when memory ran out; texts of TensorRT 8.6 to 11.
_OUT_OF_MEMORY = ("OutOfMemory", "out of memory", "Out of memory", "std::bad_alloc")


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


def _parse_error(facts: Mapping[str, Any], model: str, runtime: str) -> VimDeployError:
    errors = list(facts.get("errors") or [])
    lines = [_node_line(error) for error in errors[:_NODES_SHOWN]]
    if len(errors) > _NODES_SHOWN:
        lines.append(f"and {len(errors) - _NODES_SHOWN} more")
    return VimDeployError(
        "VIM-601",
        f"{runtime} cannot take {model}",
        why="\n".join(lines) or "its parser gave no reason",
        fix=_EXPORT_AGAIN,
    )


def _build_error(facts: Mapping[str, Any], model: str, runtime: str) -> VimDeployError:
    errors = [_without_driver_noise(str(text)) for text in facts.get("errors") or []]
    why = "\n".join(errors) or "the runtime gave no reason"
    fix = next((remedy for part, remedy in _BUILD_REMEDIES if part in why), _SEE_LOG)
    if any(words in why for words in _OUT_OF_MEMORY):
        return VimDeployError(
            "VIM-608",
            f"{runtime} ran out of memory while building an engine from {model}",
            why=why,
            fix="give a smaller --max-batch, limit --workspace, or end what else uses the GPU",
        )
    return VimDeployError(
        "VIM-603", f"{runtime} could not build an engine from {model}", why=why, fix=fix
    )


def _tensors(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in types.items()) or "none"


def error_from_failure(facts: Mapping[str, Any], model: str, runtime: str) -> VimDeployError:
    """The coded error for a worker's ``failed`` event.

    Raises:
        OSError: instead, for the stage ``write``; the caller knows the output's real name.
    """
    stage = facts.get("stage")
    if stage == "write":
        number = facts.get("errno") or errno.EIO
        raise OSError(number, os.strerror(number))
    if stage == "parse":
        return _parse_error(facts, model, runtime)
    if stage == "empty":
        return VimDeployError(
            "VIM-602",
            f"{runtime} found nothing in {model}",
            why=f"it parses, and makes {facts.get('layers')} layers and {facts.get('outputs')} "
            "outputs: the file is empty, text, or not an ONNX model",
            fix=_EXPORT_AGAIN,
        )
    if stage == "interface":
        side, expected, found = facts["side"], dict(facts["expected"]), dict(facts["found"])
        return VimDeployError(
            "VIM-601",
            f"{runtime} would change the {side} of {model}",
            why=f"the file has {_tensors(expected)}; the engine would have {_tensors(found)}",
            fix="use float32, float16, bfloat16 or integer types for the model's " + str(side),
        )
    if stage == "import":
        return VimDeployError(
            "VIM-301",
            f"{runtime} does not load in the build process",
            why=str(facts.get("text", "")),
            fix="vim-deploy doctor says what is missing",
        )
    if stage == "target":
        return VimDeployError(
            "VIM-202",
            f"{runtime} does not build for compute capability {facts.get('capability')}",
            fix="vim-deploy doctor lists those it builds for",
        )
    if stage == "profile":
        return VimDeployError(
            "VIM-202",
            f"{runtime} refuses the shapes of the input {facts.get('input')!r}",
            why=str(facts.get("text", "")),
            fix="compare the shapes with vim-deploy inspect MODEL.onnx",
        )
    if stage in _TENSORRT_STAGES:
        return _TENSORRT_STAGES[stage](facts, model)
    return _build_error(facts, model, runtime)


def _plugin_error(facts: Mapping[str, Any], _model: str) -> VimDeployError:
    return VimDeployError(
        "VIM-903",
        f"TensorRT does not take the plugin library {facts.get('path')}",
        why=f"not registered after loading it: {', '.join(facts.get('missing') or [])}",
        fix="see vim-deploy plugin info; build for this TensorRT with vim-deploy plugin build "
        "--tensorrt 8.6, 10 or 11",
    )


def _plugin_layers_error(facts: Mapping[str, Any], model: str) -> VimDeployError:
    expected = facts.get("expected") or {}
    asked = ", ".join(f"{count} {op}" for op, count in expected.items())
    return VimDeployError(
        "VIM-606",
        f"TensorRT's parser did not take the plugin for the ops of {model}",
        why=f"the graph has {asked}; the network has {facts.get('found')} plugin layers",
        fix="report this with the version of TensorRT; --plugin none builds without the plugin",
    )


def _tactics_error(facts: Mapping[str, Any], _model: str) -> VimDeployError:
    return VimDeployError(
        "VIM-309",
        f"this TensorRT has no tactic source {str(facts.get('part'))!r}",
        why=f"it has {', '.join(facts.get('known') or [])}",
        fix="write --tactic-sources as trtexec does, for example -CUDNN,-CUBLAS",
    )


def _inner_tensors_error(facts: Mapping[str, Any], model: str) -> VimDeployError:
    missing = list(map(str, facts.get("missing") or []))
    return VimDeployError(
        "VIM-434",
        f"TensorRT does not mark {len(missing)} inner tensors of {model}",
        why=f"not in the network that its parser made, or refused: {_some(missing)}",
        fix="report this with the version of TensorRT; verify the ONNX file with --per-block",
    )


def _inspect_error(facts: Mapping[str, Any], model: str) -> VimDeployError:
    return VimDeployError(
        "VIM-603",
        f"TensorRT built an engine from {model} that it does not load",
        why="\n".join(map(str, facts.get("errors") or [])) or "the runtime gave no reason",
        fix="report this with the version of TensorRT; nothing was written",
    )


def _load_error(facts: Mapping[str, Any], _model: str) -> VimDeployError:
    return VimDeployError(
        "VIM-607",
        "TensorRT does not load the engine that is to be refitted",
        why="\n".join(map(str, facts.get("errors") or [])) or "the runtime gave no reason",
        fix="refit it with the TensorRT and on the GPU that its record names",
    )


def _not_refittable_error(_facts: Mapping[str, Any], _model: str) -> VimDeployError:
    return VimDeployError(
        "VIM-607",
        "the engine cannot be refitted",
        why="TensorRT says that it was not built for that",
        fix="build it again with --refit or --strip-weights",
    )


def _refit_error(facts: Mapping[str, Any], model: str) -> VimDeployError:
    missing, refused = facts.get("missing") or [], facts.get("refused") or []
    lines = []
    if missing:
        lines.append(f"{len(missing)} weights without a value: " + _some(missing))
    if refused:
        lines.append(f"{len(refused)} weights refused: " + _some(refused))
    return VimDeployError(
        "VIM-607",
        f"the engine cannot take the weights of {model}",
        why="\n".join([*lines, *map(str, facts.get("errors") or [])]),
        fix="export the checkpoint with the options of the engine's own ONNX file; nothing was "
        "changed",
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NODES_SHOWN} more" if len(names) > _NODES_SHOWN else ""
    return ", ".join(names[:_NODES_SHOWN]) + more


_TENSORRT_STAGES: dict[str, Callable[[Mapping[str, Any], str], VimDeployError]] = {
    "plugin": _plugin_error,
    "plugin-layers": _plugin_layers_error,
    "tactics": _tactics_error,
    "inner-tensors": _inner_tensors_error,
    "inspect": _inspect_error,
    "load": _load_error,
    "not-refittable": _not_refittable_error,
    "refit": _refit_error,
}


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
