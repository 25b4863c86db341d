"""How one export is quantized: by pictures of a folder, by a saved calibration, or by neither."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx

from vim_deploy.artifact import metadata
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.calibration.calibrate import calibrate
from vim_deploy.calibration.pictures import CalibrationPictures, choose_pictures, prepared_batches
from vim_deploy.calibration.stored import StoredCalibration, load, require_products, save
from vim_deploy.graph.quantization.plan import QuantizationPlan
from vim_deploy.graph.quantization.products import find_products
from vim_deploy.heads import of_file
from vim_deploy.precisions import TABLE
from vim_deploy.recipe.precision_policy import PrecisionPolicy
from vim_deploy.recipe.quantization import CalibrationInfo, QuantizationInfo, QuantizeOptions
from vim_deploy.runtimes.inputs import PictureBatch
from vim_deploy.specs import TensorSpec, WeightRounding

#: Tokens whose activations are in memory at once: of Vim at 224 pixels those of eight pictures.
_TOKENS = 1600


@dataclass(frozen=True)
class Quantizing:
    """What is known before the graph is there.

    Attributes:
        info: of the export, with how it is quantized.
        options: what was asked for.
        pictures: to be watched; None for a saved calibration, or none.
        stored: the saved calibration, if any.
    """

    info: ExportInfo
    options: QuantizeOptions
    pictures: CalibrationPictures | None = None
    stored: StoredCalibration | None = None

    @property
    def policy(self) -> PrecisionPolicy:
        """Which products stay as they are."""
        return self.info.precision_policy or PrecisionPolicy()

    def plan(self, model: onnx.ModelProto) -> QuantizationPlan:
        """How each product of the float32 graph ``model`` is quantized.

        A calibration that was asked to be saved is written.

        Raises:
            VimDeployError: VIM-430, VIM-441 (the calibration), as a run of the graph.
        """
        products = find_products(model, self.policy)
        if self.stored is not None:
            assert self.options.calibration is not None
            channels = {product.name: product.channels for product in products}
            require_products(self.options.calibration, self.stored.plan, channels)
            return self.stored.plan
        plain = onnx.ModelProto()
        plain.CopyFrom(model)
        metadata.attach(plain, plain_of(self.info))
        files = () if self.pictures is None else self.pictures.files

        def batches(spec: TensorSpec) -> Iterator[PictureBatch]:
            together = max(1, min(8, _TOKENS // self.info.model_config.num_tokens))
            return prepared_batches(files, self.info, spec, together)

        plan = calibrate(plain, self.info.precision, self.policy, self.options, batches, len(files))
        place, settled = self.options.save_calibration, self.info.quantization
        if place is not None and settled is not None and settled.calibration is not None:
            found = StoredCalibration.of(self.info, settled.activations, settled.calibration, plan)
            save(place, found)
        return plan


def plain_of(info: ExportInfo) -> ExportInfo:
    """The same export in float32."""
    return replace(
        info,
        precision="fp32",
        io_precision="fp32",
        precision_policy=None,
        quantization=None,
    )


def settle(info: ExportInfo, options: QuantizeOptions) -> Quantizing | None:
    """Choose the pictures, or read the saved calibration; None where nothing is quantized.

    Args:
        info: of the export, before it says how it is quantized.
        options: what was asked for.

    Raises:
        VimDeployError: of ``choose_pictures`` and ``load``.
    """
    if not TABLE[info.precision].quantized:
        return None
    options.require_pictures(info.precision)
    pictures, stored, calibration = None, None, None
    path = options.calibration
    if path is not None and options.takes_stored:
        stored = load(path, info, options)
        calibration = stored.pictures
    elif path is not None:
        sized = of_file(info).takes_size
        pictures = choose_pictures(path, info.image, options.images, options.seed, sized=sized)
        calibration = CalibrationInfo(
            options.method, len(pictures.files), options.seed, pictures.sha256
        )
    rounding: WeightRounding = "nearest" if pictures is None else "activations"
    settled = QuantizationInfo(options.activations, options.high_precision, calibration, rounding)
    return Quantizing(replace(info, quantization=settled), options, pictures, stored)
