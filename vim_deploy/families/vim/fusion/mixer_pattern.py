"""Recognise the bidirectional mixers of a traced graph, from their structure alone.

A mixer is taken as a whole or not at all: both convolutions, all four projections, both scans and
their sum, with nothing else reading a tensor in between. Everything a pass needs is noted here, so
no pass meets a surprise half way; a scan outside such a mixer is refused with the reason.

Names are not trusted. They only give the new nodes theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from onnx import GraphProto, NodeProto

from vim_deploy.families.vim.fusion.branch_pattern import Branch, NoMatch, Sizes, find_branch
from vim_deploy.graph.pass_report import Refusal
from vim_deploy.onnx_graph import DEFAULT_DOMAINS, GraphIndex, attribute_int
from vim_deploy.ops import BI_CAUSAL_CONV, SELECTIVE_SCAN, contract
from vim_deploy.ops.functions import nodes_of, plugin_attributes
from vim_deploy.places import DIRECTED, parse

_Z = SELECTIVE_SCAN.inputs.index("z")
_SHARED = tuple(name for name in plugin_attributes(SELECTIVE_SCAN) if name != "reverse")

Value = TypeVar("Value", str, int)


@dataclass(frozen=True)
class Mixer:
    """A bidirectional mixer: what its two branches share, and the branches.

    Attributes:
        place: ``block_03/mixer``, start of the new node names.
        parameters: ``layers.3.mixer``, start of the new initialiser names.
        xz: the packed rows [B,L,Zc] that both convolutions and the gate read.
        z_off: first column of the gate in ``xz``.
        b_off, c_off: first columns of B and C in the traced ``x_dbl``.
        delta_softplus: 0 or 1.
        scale: factor on the sum of the directions.
        output: the scaled sum, [B,L,D].
        forward, backward: by the order in which they read the tokens.
    """

    place: str
    parameters: str
    xz: str
    z_off: int
    b_off: int
    c_off: int
    delta_softplus: int
    scale: float
    output: str
    forward: Branch
    backward: Branch

    @property
    def branches(self) -> tuple[Branch, Branch]:
        """Forward and backward: the order of the leading axis of the fused tensors."""
        return self.forward, self.backward

    @property
    def form(self) -> tuple[Sizes, int, int, float]:
        """What the fused ops' functions are written for; one of each op is in a file."""
        return self.forward.sizes, self.z_off, self.delta_softplus, self.scale

    @property
    def column_order(self) -> list[int]:
        """Traced column of x_dbl for each column of B, then C, then dt."""
        sizes = self.forward.sizes
        order = [start + n for start in (self.b_off, self.c_off) for n in range(sizes.states)]
        return [*order, *range(sizes.dt_off, sizes.dt_off + sizes.rank)]

    def node(self, part: str, what: str) -> str:
        """Name of a node that computes ``part`` for both directions."""
        return f"{self.place}/{DIRECTED[part]}/{what}"

    def weight(self, part: str, what: str) -> str:
        """Name of an initialiser of ``part`` for both directions."""
        return f"{self.parameters}.{DIRECTED[part]}_pair.{what}"

    @property
    def u2(self) -> str:
        """Output of the fused convolution, [2,B,L,D]."""
        return self.node("conv", f"{BI_CAUSAL_CONV.name}_output_0")

    @property
    def x_dbl2(self) -> str:
        """Output of the merged x_proj, [2,B,L,K]."""
        return self.node("x_proj", "MatMul_output_0")

    @property
    def dt2(self) -> str:
        """Output of the merged dt_proj, [2,B,L,D]."""
        return self.node("dt_proj", "MatMul_output_0")


def find_mixers(graph: GraphProto) -> tuple[tuple[Mixer, ...], tuple[Refusal, ...]]:
    """The mixers in graph order, and every scan that belongs to none of them."""
    index = GraphIndex(graph)
    mixers: list[Mixer] = []
    reasons: dict[str, str] = {}
    for node in graph.node:
        scans = _summed_scans(index, node)
        if scans is None:
            continue
        try:
            mixer = _mixer(index, node, scans, f"mixer_{len(mixers):02d}")
            if any(mixer.place == other.place for other in mixers):
                raise NoMatch(f"another mixer is named {mixer.place} as well")
            mixers.append(mixer)
        except NoMatch as refusal:
            reasons.update(dict.fromkeys((scan.output[0] for scan in scans), str(refusal)))
    mixers = _of_one_form(mixers, reasons)
    fused = {branch.y for mixer in mixers for branch in mixer.branches}
    alone = "no scan of the other direction is added to its output"
    refused = tuple(
        Refusal(node.name, reasons.get(node.output[0], alone))
        for node in nodes_of(graph, SELECTIVE_SCAN)
        if node.output[0] not in fused
    )
    return tuple(mixers), refused


def _of_one_form(mixers: list[Mixer], reasons: dict[str, str]) -> list[Mixer]:
    """The mixers of the most frequent form; the local functions are written for one only."""
    forms = Counter(mixer.form for mixer in mixers)
    frequent = max(forms, key=forms.__getitem__, default=None)
    for mixer in mixers:
        if mixer.form != frequent:
            why = "its sizes or factor differ from those of the other mixers"
            reasons.update(dict.fromkeys((branch.y for branch in mixer.branches), why))
    return [mixer for mixer in mixers if mixer.form == frequent]


def _summed_scans(index: GraphIndex, node: NodeProto) -> tuple[NodeProto, NodeProto] | None:
    """The two scans that ``node`` adds."""
    if node.op_type != "Add" or node.domain not in DEFAULT_DOMAINS:
        return None
    first, second = (index.producers.get(name) for name in node.input)
    scan = (contract.DOMAIN, SELECTIVE_SCAN.name)
    if first is None or second is None or first is second:
        return None
    if (first.domain, first.op_type) != scan or (second.domain, second.op_type) != scan:
        return None
    return first, second


def _mixer(
    index: GraphIndex, total: NodeProto, scans: tuple[NodeProto, NodeProto], fallback: str
) -> Mixer:
    for scan in scans:
        _check_scan(scan)
    forward, backward = sorted(scans, key=lambda scan: attribute_int(scan, "reverse"))
    if [attribute_int(scan, "reverse") for scan in (forward, backward)] != [0, 1]:
        raise NoMatch("both scans of the sum run in the same direction")
    if forward.input[0] == backward.input[0]:
        raise NoMatch("the directions share one convolution (v1); the fused ops hold one for each")
    shared = {
        name: _shared([attribute_int(scan, name) for scan in scans], name) for name in _SHARED
    }
    if not shared["has_z"]:
        raise NoMatch("the scans have no gate")
    xz = _shared([scan.input[_Z] for scan in scans], "the gate's tensor")
    found = [find_branch(index, scan) for scan in (forward, backward)]
    branches = [branch for branch, _ in found]
    if {branch.xz for branch in branches} != {xz}:
        raise NoMatch("convolutions and gate do not read the same tensor")
    if branches[0].sizes != branches[1].sizes:
        raise NoMatch(f"the directions differ: {branches[0].sizes} and {branches[1].sizes}")
    scale, output, scaling = _scaled(index, total)
    inner = [total, *scans, *scaling, *(node for _, nodes in found for node in nodes)]
    _check_private(index, inner, output)
    place, parameters = _places(scans, fallback)
    mixer = Mixer(
        place=place,
        parameters=parameters,
        xz=xz,
        z_off=shared["z_off"],
        b_off=shared["b_off"],
        c_off=shared["c_off"],
        delta_softplus=shared["delta_softplus"],
        scale=scale,
        output=output,
        forward=branches[0],
        backward=branches[1],
    )
    _check_new(index, mixer)
    return mixer


def _check_scan(scan: NodeProto) -> None:
    """The node has what the contract says, so that looking it up cannot fail."""
    missing = set(plugin_attributes(SELECTIVE_SCAN)) - {item.name for item in scan.attribute}
    if missing:
        raise NoMatch(f"a scan has no attribute {min(missing)}")
    if len(scan.input) != len(SELECTIVE_SCAN.inputs):
        raise NoMatch(f"a scan has {len(scan.input)} inputs")


def _shared(values: list[Value], what: str) -> Value:
    first, second = values
    if first != second:
        raise NoMatch(f"the scans differ in {what}: {first} and {second}")
    return first


def _scaled(index: GraphIndex, total: NodeProto) -> tuple[float, str, list[NodeProto]]:
    """Factor, final tensor and the nodes that follow the sum, when one scales it."""
    output = total.output[0]
    readers = index.readers(output)
    if len(readers) != 1 or output in index.outputs:
        return 1.0, output, []
    (node,) = readers
    if node.op_type != "Mul" or node.domain not in DEFAULT_DOMAINS:
        return 1.0, output, []
    other = node.input[1] if node.input[0] == output else node.input[0]
    factor = index.constant(other)
    if factor is None or factor.size != 1 or factor.ndim > 1:
        return 1.0, output, []
    return float(factor.reshape(-1)[0]), node.output[0], [node]


def _check_private(index: GraphIndex, nodes: Iterable[NodeProto], output: str) -> None:
    """No tensor in between is read by anyone else, or is an output of the graph."""
    inner = {id(node) for node in nodes}
    for node in nodes:
        for tensor in node.output:
            if tensor == output:
                continue
            if tensor in index.outputs:
                raise NoMatch(f"its inner tensor {tensor} is an output of the graph")
            for reader in index.readers(tensor):
                if id(reader) not in inner:
                    raise NoMatch(
                        f"its inner tensor {tensor} is also read by {reader.name or reader.op_type}"
                    )


def _check_new(index: GraphIndex, mixer: Mixer) -> None:
    """The rows hold dt, B and C and nothing else, and the fused tensors' names are free."""
    columns = mixer.forward.sizes.columns
    if sorted(mixer.column_order) != list(range(columns)):
        raise NoMatch(f"the {columns} columns of x_proj's rows are not dt, B and C side by side")
    for tensor in (mixer.u2, mixer.x_dbl2, mixer.dt2):
        if tensor in index.producers:
            raise NoMatch(f"the graph already holds a tensor {tensor}")


def _places(scans: tuple[NodeProto, NodeProto], fallback: str) -> tuple[str, str]:
    """Starts of node and initialiser names; ``fallback`` when the scans' names say nothing."""
    for scan in scans:
        at = parse(scan.name)
        if at.mixer:
            return at.mixer, f"layers.{at.block}.mixer"
    return fallback, fallback
