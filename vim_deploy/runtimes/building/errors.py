"""What TensorRT and TensorRT-RTX say when they fail, as coded errors a person can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vim_deploy.errors import VimDeployError

EXPORT_AGAIN = "export the model again with this version: vim-deploy export CHECKPOINT"
_SEE_LOG = "run it again with -v to see the whole log of the runtime"
#: How many refused nodes a message names.
_NODES_SHOWN = 8

#: Part of a build error, and what to do about it. Texts as TensorRT-RTX 1.7.1 writes them.
_BUILD_REMEDIES = (
    (
        "for Turing (SM75)",
        "leave out compute capability 7.5, or export the model with --precision fp16: "
        "TensorRT-RTX has no FP32 matrix products for Turing",
    ),
    (
        "Mismatched number of elements in reshape op",
        "its compiler fails on Unsqueeze, Squeeze and MatMul inside a Scan body; " + EXPORT_AGAIN,
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


def parse_error(errors: Sequence[Mapping[str, Any]], model: str, runtime: str) -> VimDeployError:
    """VIM-601 for what a parser says about nodes that it does not take."""
    lines = [_node_line(error) for error in errors[:_NODES_SHOWN]]
    if len(errors) > _NODES_SHOWN:
        lines.append(f"and {len(errors) - _NODES_SHOWN} more")
    return VimDeployError(
        "VIM-601",
        f"{runtime} cannot take {model}",
        why="\n".join(lines) or "its parser gave no reason",
        fix=EXPORT_AGAIN,
    )


def build_error(said: Sequence[str], model: str, runtime: str) -> VimDeployError:
    """VIM-603, or VIM-608 when memory ran out, for what a builder says."""
    why = "\n".join(map(_without_driver_noise, said)) or "the runtime gave no reason"
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


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NODES_SHOWN} more" if len(names) > _NODES_SHOWN else ""
    return ", ".join(names[:_NODES_SHOWN]) + more
