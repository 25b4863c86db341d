"""A float32 graph is run on calibration pictures, and what its products read is watched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from vim_deploy.graph.quantization.products import Matrix, Product
from vim_deploy.interrupts import check
from vim_deploy.runtimes.base import Array, is_finite, not_finite
from vim_deploy.runtimes.inputs import PictureBatch
from vim_deploy.runtimes.onnxruntime.runner import memory_runner
from vim_deploy.specs import TensorSpec

#: Rows of activations that each product keeps: more than any has channels, Vim-B's out_proj 1,536.
ROWS = 2048
#: Parts that pictures are dealt into, to see how far their largest magnitudes differ.
GROUPS = 8
#: Gives pictures for a graph's input, in its own format, the same ones at every call.
Batches = Callable[[TensorSpec], Iterable[PictureBatch]]


@dataclass(frozen=True)
class Observed:
    """What was seen of the activations of one product.

    Attributes:
        peaks: largest magnitude of each of its K channels in each part of the pictures, float32
            [GROUPS, K]; fewer for fewer pictures.
        rows: some of its rows, float32 [rows, K].
    """

    peaks: Matrix
    rows: Matrix

    @property
    def peak(self) -> Matrix:
        """Largest magnitude of each channel, over all pictures."""
        found: Matrix = self.peaks.max(axis=0)
        return found


class Watch:
    """Collects ``Observed`` of every product from runs of the graph.

    Args:
        products: of the graph.
        pictures: how many there will be.
        seed: of the choice of rows.
    """

    def __init__(self, products: Sequence[Product], pictures: int, seed: int) -> None:
        self._products = products
        self._each = -(-ROWS // pictures)
        self._generator = np.random.default_rng(seed)
        self._groups = min(GROUPS, pictures)
        self._pictures = 0
        self._peaks: dict[str, Matrix] = {}
        self._rows: dict[str, list[Matrix]] = {product.name: [] for product in products}

    def see(self, values: Mapping[str, Array], pictures: int) -> None:
        """One run of ``pictures`` pictures: ``values`` by the tensors' names."""
        groups = (self._pictures + np.arange(pictures)) % self._groups
        self._pictures += pictures
        for product in self._products:
            rows = product.rows_of(values[product.activations])
            each = np.abs(rows).reshape(pictures, -1, product.channels).max(axis=1)
            empty = np.zeros((self._groups, product.channels), np.float32)
            peaks = self._peaks.setdefault(product.name, empty)
            np.maximum.at(peaks, groups, each)
            count = min(len(rows), self._each * pictures)
            chosen = self._generator.choice(len(rows), count, replace=False)
            self._rows[product.name].append(rows[np.sort(chosen)])

    def seen(self) -> dict[str, Observed]:
        """By the products' names. VIM-430 for activations that are not finite."""
        for name, peaks in self._peaks.items():
            if not is_finite(peaks):
                raise not_finite("calibration pictures", f"what {name} reads")
        return {
            name: Observed(peaks, np.concatenate(self._rows[name])[:ROWS])
            for name, peaks in self._peaks.items()
        }


def run_on(
    model: onnx.ModelProto,
    tensors: Iterable[str],
    batches: Batches,
    see: Callable[[Mapping[str, Array], int], None],
) -> None:
    """Run a float32 graph on each batch, and hand over what the tensors hold.

    Args:
        model: an exported graph with its local functions.
        tensors: of its main graph, float32.
        batches: the pictures.
        see: takes the tensors by name, and the number of pictures.
    """
    copy, names = _with_outputs(model, tensors)
    with memory_runner(copy, "calibrated.onnx", ops="auto") as runner:
        for images, sizes in batches(runner.input):
            check()
            values = {**runner.run(images, sizes), runner.input.name: images}
            see({name: values[name] for name in names}, len(images))


def _with_outputs(
    model: onnx.ModelProto, tensors: Iterable[str]
) -> tuple[onnx.ModelProto, list[str]]:
    """A copy that gives the tensors out, and their names."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in (*copy.graph.output, *copy.graph.input)}
    names = list(dict.fromkeys(tensors))
    for name in names:
        if name not in known:
            value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            copy.graph.output.append(value)
    return copy, names
