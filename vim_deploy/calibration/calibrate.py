"""From pictures to a plan: what each product reads is watched, and each is decided by its error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import onnx

from vim_deploy.calibration.decide import decide, error_of, weights_of
from vim_deploy.calibration.observe import Batches, Watch, run_on
from vim_deploy.calibration.ranges import RangeCollector
from vim_deploy.graph.quantization.plan import LayerPlan, QuantizationPlan, scale_of
from vim_deploy.graph.quantization.products import Product, find_products
from vim_deploy.graph.quantization.smoothing import norm_before
from vim_deploy.interrupts import check
from vim_deploy.onnx_graph import GraphIndex
from vim_deploy.precisions import Precision
from vim_deploy.progress import stage_log
from vim_deploy.recipe.precision_policy import PrecisionPolicy
from vim_deploy.recipe.quantization import QuantizeOptions
from vim_deploy.runtimes.base import Array


def calibrate(
    model: onnx.ModelProto,
    precision: Precision,
    policy: PrecisionPolicy,
    options: QuantizeOptions,
    batches: Batches,
    pictures: int,
) -> QuantizationPlan:
    """Decide how each product of ``model`` is quantized.

    Args:
        model: an exported float32 graph with its functions and metadata; it is not changed.
        precision: ``int8`` or ``fp8``.
        policy: which products stay as they are.
        options: method, seed, and where scales of activations come from.
        batches: gives the pictures.
        pictures: how many those are; 0 for none, with scales per token.

    Raises:
        VimDeployError: VIM-430 (activations that are not finite), VIM-441 (ranges that hold
            nothing), as a run of the graph.
    """
    products = find_products(model, policy)
    if not pictures:
        return QuantizationPlan(tuple(LayerPlan(product.name) for product in products))
    stage_log.info("watching activations on %d pictures", pictures)
    watch = Watch(products, pictures, options.seed)
    tensors = [product.activations for product in products]
    run_on(model, tensors, batches, watch.see)
    seen = watch.seen()
    index = GraphIndex(model.graph)
    stage_log.info("choosing scales of %d products", len(products))
    layers = {
        product.name: decide(
            product,
            seen[product.name],
            precision,
            options.activations,
            free=norm_before(index, product) is not None,
        )
        for product in products
    }
    if options.method != "minmax" and options.activations == "static":
        layers = _ranged(model, products, layers, options, batches, precision)
    stage_log.info("rounding their weights")
    weights = {}
    for product in products:
        check()
        name, layer, found = product.name, layers[product.name], seen[product.name]
        weights[name] = weights_of(product, layer, found, precision)
        wanted = found.rows @ product.weight
        error = error_of(product, layer, found, precision, wanted, weights[name])
        layers[name] = replace(layer, error=error)
    return QuantizationPlan(tuple(layers[product.name] for product in products), weights)


def _ranged(
    model: onnx.ModelProto,
    products: Iterable[Product],
    layers: Mapping[str, LayerPlan],
    options: QuantizeOptions,
    batches: Batches,
    precision: Precision,
) -> dict[str, LayerPlan]:
    """The layers with scales of the ranges that ``options.method`` chooses.

    Ranges are those of what is quantized, after smoothing, so the pictures are seen once more.
    """
    # Two digits have resolution to spare: their range stays the widest.
    products = tuple(product for product in products if layers[product.name].digits == 1)
    collector = RangeCollector(options.method)

    def see(values: Mapping[str, Array], _pictures: int) -> None:
        found = {}
        for product in products:
            layer = layers[product.name]
            rows = product.rows_of(values[product.activations])
            if layer.smoothing is not None:
                rows = (rows / np.array(layer.smoothing, np.float32)).astype(np.float32)
            found[product.name] = rows
        collector.collect(found)

    run_on(model, [product.activations for product in products], batches, see)
    ranges = collector.ranges()
    return {
        name: replace(layer, scale=scale_of(ranges[name], precision)) if name in ranges else layer
        for name, layer in layers.items()
    }
