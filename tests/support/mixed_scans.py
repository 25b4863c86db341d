"""Models of several ``VimSelectiveScan`` nodes that differ in sizes, columns or tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vim_deploy.ops import SELECTIVE_SCAN, contract
from vim_deploy.ops.functions import direction_attributes

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sizes:
    """One node: tokens L, channels D, states N, columns of B and C, and of the gate."""

    tokens: int
    channels: int
    states: int
    b_off: int
    c_off: int
    reverse: bool = False
    gate: bool = False
    z_off: int = 0
    softplus: bool = True

    @property
    def widths(self) -> dict[str, int]:
        """Columns of the activations."""
        columns = max(self.b_off, self.c_off) + self.states + 1
        gate = {"z": self.z_off + self.channels + 2} if self.gate else {}
        return {"u": self.channels, "dt": self.channels, "bc": columns, **gate}


#: As in MambaVision: neither goes backwards, and there is no gate.
FORWARD = (Sizes(12, 6, 3, 4, 7), Sizes(5, 9, 3, 6, 9), Sizes(1, 2, 1, 0, 1))
#: As in VMamba: both ways, one state or several.
BOTH_WAYS = (Sizes(9, 6, 1, 2, 3), Sizes(33, 4, 5, 0, 7, reverse=True), Sizes(4, 4, 5, 7, 1))
GATED = (
    Sizes(8, 6, 3, 4, 7, gate=True, z_off=6),
    Sizes(3, 4, 2, 5, 2, reverse=True, gate=True, softplus=True),
)
#: One size, and one number of tokens each.
TOKENS_ALONE = (Sizes(7, 6, 3, 4, 7, reverse=True), Sizes(16, 6, 3, 4, 7, reverse=True))


def weights(sizes: Sizes, seed: int) -> Arrays:
    generator = np.random.default_rng(seed)
    made = {
        "A": -np.exp(generator.standard_normal((sizes.states, sizes.channels))),
        "Dskip": generator.standard_normal(sizes.channels),
        "dt_bias": generator.standard_normal(sizes.channels),
    }
    return {name: value.astype(np.float32) for name, value in made.items()}


def mixed_model(
    nodes: tuple[Sizes, ...], element: int = TensorProto.FLOAT, batch: int | str = "B"
) -> onnx.ModelProto:
    """A model in which node i reads ``u_i``, ``dt_i``, ... and writes ``y_i``; no functions."""
    made, inputs, outputs, stored = [], [], [], []
    for number, sizes in enumerate(nodes):
        given = [name for name in SELECTIVE_SCAN.inputs if name != "z" or sizes.gate]
        way = "bwd" if sizes.reverse else "fwd"
        made.append(
            helper.make_node(
                SELECTIVE_SCAN.name,
                [f"{name}_{number}" for name in given],
                [f"y_{number}"],
                f"block_{number:02d}/mixer/{way}/scan/VimSelectiveScan",
                domain=contract.DOMAIN,
                reverse=int(sizes.reverse),
                delta_softplus=int(sizes.softplus),
                b_off=sizes.b_off,
                c_off=sizes.c_off,
                z_off=sizes.z_off,
                has_z=int(sizes.gate),
                **direction_attributes(sizes.reverse),
            )
        )
        for name, width in sizes.widths.items():
            shape = [batch, sizes.tokens, width]
            inputs.append(helper.make_tensor_value_info(f"{name}_{number}", element, shape))
        shape = [batch, sizes.tokens, sizes.channels]
        outputs.append(helper.make_tensor_value_info(f"y_{number}", element, shape))
        for name, value in weights(sizes, number).items():
            stored.append(numpy_helper.from_array(value, f"{name}_{number}"))
    graph = helper.make_graph(made, "scans", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(contract.DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def feeds(nodes: tuple[Sizes, ...], batch: int = 2) -> Arrays:
    generator = np.random.default_rng(11)
    return {
        f"{name}_{number}": generator.standard_normal((batch, sizes.tokens, width)).astype("f4")
        for number, sizes in enumerate(nodes)
        for name, width in sizes.widths.items()
    }


def expected(nodes: tuple[Sizes, ...], fed: Arrays) -> list[np.ndarray]:
    """Every output in float64."""
    found = []
    for number, sizes in enumerate(nodes):
        own = weights(sizes, number)
        own |= {name: fed[f"{name}_{number}"] for name in sizes.widths}
        values = [own[name].astype(np.float64) for name in SELECTIVE_SCAN.inputs if name in own]
        found.append(
            SELECTIVE_SCAN.reference(
                *values,
                reverse=sizes.reverse,
                delta_softplus=sizes.softplus,
                b_off=sizes.b_off,
                c_off=sizes.c_off,
                z_off=sizes.z_off,
                has_z=sizes.gate,
            )
        )
    return found
