"""The products of a float32 graph that int8 and fp8 quantize, as matrices.

A product is ``y = x W`` with x [.., K] and W [K, N]: a MatMul or Gemm of a linear layer, or the
patch embedding's convolution, whose rows are patches. Where a fused mixer multiplies both
directions at once, x [2, B, L, K] and W [2, 1, K, N], each direction is a product of its own, with
values of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from vim_deploy import places
from vim_deploy.onnx_graph import GraphIndex, attribute_int, attribute_ints
from vim_deploy.recipe.precision_policy import PrecisionPolicy

Matrix = NDArray[np.float32]
#: Axes of weights that hold both directions: [2, 1, K, N].
_PAIR_RANK = 4


@dataclass(frozen=True)
class Product:
    """One of them.

    Attributes:
        name: of its node; with the direction, as a node for one of them would be called, where
            the node multiplies both.
        node: the node's name.
        role, block: as in precision policies.
        activations: name of the tensor x.
        weight: W, float32 [K, N].
        half: which half of the node's leading axis is multiplied, 0 or 1; None for all of it.
        kernel: height and width of patches and the steps between them, for a convolution.
    """

    name: str
    node: str
    role: str
    block: int | None
    activations: str
    weight: Matrix
    half: int | None = None
    kernel: tuple[int, int, int, int] | None = None

    @property
    def is_convolution(self) -> bool:
        """Whether x are pictures, [B, C, H, W]."""
        return self.kernel is not None

    @property
    def channels(self) -> int:
        """K: how many numbers a row of x has."""
        return int(self.weight.shape[0])

    def rows_of(self, values: NDArray[np.generic]) -> Matrix:
        """The rows of x, [rows, K], in the tensor ``activations`` as a run of the graph gives it.

        Padding of a convolution is left out: it adds rows with zeros to those that are there.
        """
        taken = values if self.half is None else values[self.half]
        if self.kernel is not None:
            height, width, down, right = self.kernel
            windows = np.lib.stride_tricks.sliding_window_view(taken, (height, width), (2, 3))
            patches = windows[:, :, ::down, ::right]
            taken = patches.transpose(0, 2, 3, 1, 4, 5)
        return np.ascontiguousarray(taken.reshape(-1, self.channels), np.float32)


def find_products(model: onnx.ModelProto, policy: PrecisionPolicy) -> tuple[Product, ...]:
    """The products of ``model`` that ``policy`` quantizes, in order of computation.

    Args:
        model: an exported float32 graph, before it is typed.
        policy: which roles of which blocks stay as they are.
    """
    index = GraphIndex(model.graph)
    return tuple(item for node in model.graph.node for item in _products_of(node, index, policy))


def _products_of(node: NodeProto, index: GraphIndex, policy: PrecisionPolicy) -> Iterator[Product]:
    role, block = places.role_of(node.name)
    if node.domain or role is None or not policy.quantizes(role, block):
        return
    if node.op_type not in ("MatMul", "Gemm", "Conv"):
        return
    stored = index.constant(node.input[1])
    # A segmentation network's head is a convolution, and none of the patch embedding.
    if stored is None or (node.op_type == "Conv") != (role == "patch_embed"):
        return
    weight = stored.astype(np.float32)
    source = node.input[0]
    if node.op_type == "Conv":
        height, width = weight.shape[2:]
        steps = attribute_ints(node, "strides") or [1, 1]
        kernel = (height, width, steps[0], steps[1])
        matrix = weight.reshape(len(weight), -1).T
        yield Product(node.name, node.name, role, block, source, matrix, kernel=kernel)
    elif node.op_type == "Gemm":
        if attribute_int(node, "transA", 0):
            return
        matrix = weight.T if attribute_int(node, "transB", 0) else weight
        yield Product(node.name, node.name, role, block, source, matrix)
    elif weight.ndim == _PAIR_RANK:
        for half, direction in enumerate(places.DIRECTIONS):
            operator = places.parse(node.name).operator
            name = places.beside(node.name, operator, direction)
            matrix = weight[half, 0]
            yield Product(name, node.name, role, block, source, matrix, half=half)
    else:
        yield Product(node.name, node.name, role, block, source, weight)
