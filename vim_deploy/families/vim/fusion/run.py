"""The passes in order, and the run of them with its checks and dumps.

Each pass leaves a valid graph of the same meaning, so that a dump of any step can be run. What to
fuse is decided once, before the first pass, for whole mixers: none is ever left half fused.

The graphs that ``export`` traces are all of a kind that the passes rely on. Graphs that were edited
by hand or by other tools need not be, and are refused as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import onnx
from onnx import NodeProto
from onnx.external_data_helper import uses_external_data

from vim_deploy.artifact.onnx_file import model_output
from vim_deploy.codec import encode
from vim_deploy.errors import VimDeployError
from vim_deploy.families.vim.fusion.class_tokens import place_class_tokens
from vim_deploy.families.vim.fusion.directions import fusions
from vim_deploy.families.vim.fusion.mixer_pattern import find_mixers
from vim_deploy.files import output_errors, write_json
from vim_deploy.graph.opset import OPSETS
from vim_deploy.graph.pass_report import PassReport
from vim_deploy.onnx_graph import DEFAULT_DOMAINS, Rewriter, read_by_subgraphs, subgraphs_of
from vim_deploy.ops import contract
from vim_deploy.ops.functions import attach_functions

_CLASS_TOKENS = "class_tokens"
PASSES = (_CLASS_TOKENS, *fusions(low_rank=False))


def run_passes(
    model: onnx.ModelProto,
    *,
    expected: int | None = None,
    low_rank: bool = False,
    dump: Path | None = None,
    unrolled_tokens: int | Collection[int] | None = None,
) -> tuple[PassReport, ...]:
    """Fuse the bidirectional mixers of ``model`` in place; its functions are left alone.

    Args:
        model: a base graph.
        expected: mixers that must be found; None takes any number.
        low_rank: let the scan op compute dt from its low-rank weight.
        dump: folder that takes the graph before the first and after each pass, and the reports.
        unrolled_tokens: as in ``attach_functions``, for the graphs in ``dump``.

    Raises:
        VimDeployError: VIM-502 when a pass rewrote another number of places than expected,
            VIM-504 when the graph is not of the kind that the passes read. ``model`` is of no use
            after VIM-502.
    """
    require_fusable(model)
    # Shapes of inner tensors would be stale.
    del model.graph.value_info[:]
    mixers, outside = find_mixers(model.graph)
    fuse_by = fusions(low_rank)
    reports: list[PassReport] = []
    _dump(model, dump, "00_base", unrolled_tokens)
    for number, name in enumerate(PASSES, start=1):
        before, promised = len(model.graph.node), expected
        graph = Rewriter(model.graph)
        if name == _CLASS_TOKENS:
            (matched, refused), promised = place_class_tokens(graph), None
        elif (fuse := fuse_by[name]) is None:
            matched, refused, promised = 0, (), 0
        else:
            matched, refused = len(mixers), outside
            for mixer in mixers:
                fuse(graph, mixer)
        graph.finish()
        after = len(model.graph.node)
        reports.append(PassReport(name, matched, promised, refused, before, after))
        _dump(model, dump, f"{number:02d}_{name}", unrolled_tokens)
        _check(reports[-1])
    require_distinct_names(model.graph)
    if dump is not None:
        write_json(dump / "passes.json", {"passes": [encode(report) for report in reports]})
    return tuple(reports)


def _dump(
    model: onnx.ModelProto,
    folder: Path | None,
    name: str,
    unrolled_tokens: int | Collection[int] | None,
) -> None:
    """Write the graph as a file that runs: with the functions of the ops it holds."""
    if folder is None:
        return
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    attach_functions(copy, unrolled_tokens)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with model_output(copy, folder / f"{name}.onnx"):
        pass


def _check(report: PassReport) -> None:
    if report.as_expected:
        return
    reasons = "; ".join(f"{item.place}: {item.reason}" for item in report.refused[:4])
    raise VimDeployError(
        "VIM-502",
        f"pass {report.name} rewrote {report.matched} mixers instead of {report.expected}",
        why=reasons or "the graph holds another number of mixers than the model config",
        fix="--graph base exports the model without fused ops; report this model config",
    )


def require_fusable(model: onnx.ModelProto) -> None:
    """Refuse a graph that the passes could mistake for another.

    Raises:
        VimDeployError: VIM-504 with every reason: another opset; weights that were left in another
            file; our ops where the passes do not look; names that stand for two tensors, or a node
            that reads what is made after it or nowhere.
    """
    problems = [*_opset(model), *_weights(model), *_hidden_ops(model), *_names(model.graph)]
    if problems:
        raise VimDeployError(
            "VIM-504",
            "the graph cannot take the fusion passes",
            why="; ".join(problems[:4]),
            fix="give a graph made by vim-deploy export --graph base",
        )


def require_distinct_names(graph: onnx.GraphProto) -> None:
    """Check a rewritten graph's names.

    Raises:
        VimDeployError: VIM-504 when a name that a pass gave was taken.
    """
    problems = _names(graph)
    if problems:
        raise VimDeployError(
            "VIM-504",
            "the names of the fused graph clash with those that were there",
            why="; ".join(problems[:4]),
            fix="rename the tensors of the graph that look like those of vim-deploy",
        )


def _opset(model: onnx.ModelProto) -> list[str]:
    versions = [entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS]
    if len(versions) == 1 and versions[0] in OPSETS:
        return []
    known = f"{OPSETS[0]} to {OPSETS[-1]}"
    return [f"it is of opset {', '.join(map(str, versions)) or 'none'}; the passes know {known}"]


def _weights(model: onnx.ModelProto) -> list[str]:
    names = [tensor.name for tensor in model.graph.initializer if uses_external_data(tensor)]
    return [f"the values of {names[0]} and {len(names) - 1} more were not loaded"] if names else []


def _hidden_ops(model: onnx.ModelProto) -> list[str]:
    inner = [*_inner_nodes(model.graph.node)]
    for function in model.functions:
        inner += [*function.node, *_inner_nodes(function.node)]
    hidden = {node.op_type for node in inner if node.domain == contract.DOMAIN}
    return [f"{name} stands inside a subgraph or a function" for name in sorted(hidden)]


def _inner_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        for body in subgraphs_of(node):
            yield from body.node
            yield from _inner_nodes(body.node)


def _names(graph: onnx.GraphProto) -> list[str]:
    """Names made twice, or read before they are made."""
    given = [tensor.name for tensor in graph.initializer]
    given += [tensor.values.name for tensor in graph.sparse_initializer]
    problems = [f"two initialisers are named {name}" for name in _twice(given)]
    known = {*given, *(value.name for value in graph.input), ""}
    inner = {name for node in graph.node for name in _made_inside(node)}
    for node in graph.node:
        read = [*node.input, *(set(read_by_subgraphs(node)) - inner)]
        problems += [
            f"{node.name or node.op_type} reads {name}, which nothing before it makes"
            for name in read
            if name not in known
        ]
        problems += [f"{name} is made twice" for name in node.output if name and name in known]
        known.update(node.output)
    missing = [value.name for value in graph.output if value.name not in known]
    return problems + [f"nothing makes the output {name}" for name in missing]


def _made_inside(node: NodeProto) -> Iterator[str]:
    for body in subgraphs_of(node):
        yield from (value.name for value in body.input)
        yield from (tensor.name for tensor in body.initializer)
        for inner in body.node:
            yield from inner.output
            yield from _made_inside(inner)


def _twice(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
