"""Options of commands that quantize a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from vim_deploy import precisions
from vim_deploy.cli.options import WholeNumber, all_of
from vim_deploy.ranges import CALIBRATION_IMAGES, SEED
from vim_deploy.recipe.quantization import OPTIONS, QuantizeOptions
from vim_deploy.specs import ActivationScales, CalibrationMethod

if TYPE_CHECKING:
    from vim_deploy.precisions import Precision

# None is what nobody gave: an option that has no effect is refused when it is given, whatever its
# value. The usual ones are those of ``QuantizeOptions``.
_OPTIONS = (
    click.option(
        "--calibration",
        type=click.Path(path_type=Path),
        metavar="DIR|FILE.json",
        help=f"For {precisions.QUANTIZED_IN_WORDS}: pictures like those the model will see, "
        "without labels, or what --save-calibration wrote (docs/quantization.md).",
    ),
    click.option(
        "--calibration-method",
        type=click.Choice(get_args(CalibrationMethod)),
        help="How the range of activations is chosen: the largest value, or less of it by "
        f"ONNX Runtime's methods.  [default: {QuantizeOptions.method}]",
    ),
    click.option(
        "--calibration-images",
        type=WholeNumber(CALIBRATION_IMAGES),
        metavar="N",
        help=f"Pictures that are taken of the folder.  [default: {QuantizeOptions.images}]",
    ),
    click.option(
        "--calibration-seed",
        type=WholeNumber(SEED),
        metavar="SEED",
        help=f"Of the choice among the folder's pictures.  [default: {QuantizeOptions.seed}]",
    ),
    click.option(
        "--activation-scales",
        type=click.Choice(get_args(ActivationScales)),
        help="Scales of activations: one for each tensor, from pictures, or one for each row, "
        f"computed while the model runs.  [default: {QuantizeOptions.activations}]",
    ),
    click.option(
        "--high-precision",
        type=click.Choice(precisions.FLOATS),
        help=f"Type of what {precisions.QUANTIZED_IN_WORDS} do not quantize.  "
        f"[default: {QuantizeOptions.high_precision}]",
    ),
)
_SAVE = click.option(
    "--save-calibration",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="File to write with what was found, for other exports of the model.",
)
#: Of commands that quantize to look at what comes out, and write no model.
trial_quantization_options = all_of(_OPTIONS)
#: Their keywords.
TRIAL = tuple(option[2:].replace("-", "_") for option in OPTIONS if option != "--save-calibration")
quantization_options = all_of((*_OPTIONS, _SAVE))


def take_quantize_options(
    options: dict[str, Any], precision: Precision | None = None
) -> QuantizeOptions:
    """Take ``quantization_options``'s values out of a command's keywords.

    Args:
        options: the keywords, of either set of options.
        precision: of the export; None where that is not known yet.

    Raises:
        VimDeployError: VIM-203 for what ``precision`` has no use for, or cannot be without.
    """
    found = {option: options.pop(option[2:].replace("-", "_"), None) for option in OPTIONS}
    given = {option: value for option, value in found.items() if value is not None}
    made = QuantizeOptions(**{OPTIONS[option]: value for option, value in given.items()})
    if precision is not None:
        made.require_effect(precision, given)
    return made
