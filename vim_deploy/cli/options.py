"""Options that more than one command takes, and the types of those that are numbers.

Numbers are finite and in a range of ``ranges``, else refused at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from vim_deploy import heads, precisions
from vim_deploy.cli import completion
from vim_deploy.cli.model_files import config_in, labels_in
from vim_deploy.ranges import (
    BATCH,
    CROP_RATIO,
    DURATION,
    IMAGE_SIDE,
    MEAN,
    OPSET,
    SEED,
    STD,
    THREADS,
    WARMUP,
    Range,
    Real,
    Whole,
    shown,
)
from vim_deploy.recipe.schema import AUTO, ModelRequest
from vim_deploy.runtimes import onnx_runtimes
from vim_deploy.runtimes.onnxruntime.capability import PROVIDERS
from vim_deploy.specs import (
    GraphChoice,
    Interpolation,
    OpsChoice,
    PosEmbedMode,
    PreprocessMode,
    ScanBody,
)

if TYPE_CHECKING:
    from vim_deploy.runtimes.base import RunnerOptions

Command = TypeVar("Command", bound=Callable[..., Any])


class Parsed(click.ParamType[Any]):
    """What is read out of a text; a default is a value already."""

    @abstractmethod
    def parse(self, text: str) -> object:
        """The value; ValueError with a sentence for a text that has none."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:  # noqa: ANN401 - what ``parse`` gives
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _InRange(Parsed):
    allowed: Range

    def parse(self, text: str) -> float:
        return self.allowed.parse(text)


class WholeNumber(_InRange, click.IntRange):
    """A whole number that the range has."""

    def __init__(self, allowed: Whole) -> None:
        super().__init__(allowed.low, allowed.high)
        self.allowed = allowed


class RealNumber(_InRange, click.FloatRange):
    """A finite number that the range has."""

    def __init__(self, allowed: Real) -> None:
        super().__init__(allowed.low, allowed.high, min_open=allowed.above)
        self.allowed = allowed


class Numbers(Parsed):
    """Numbers of one range, joined by commas."""

    name = "n,n,.."

    def __init__(self, allowed: Range) -> None:
        self.allowed = allowed

    def parse(self, text: str) -> tuple[float, ...]:
        return tuple(self.allowed.parse(part) for part in text.split(","))


class Percent(Parsed):
    """``5%`` or ``5``: a share of the range as a fraction, here 0.05."""

    name = "percent"

    def __init__(self, allowed: Real) -> None:
        self.percent = Real(100 * allowed.low, 100 * allowed.high, allowed.why)

    def parse(self, text: str) -> float:
        return self.percent.parse(text.strip().removesuffix("%")) / 100


class ImageSize(Parsed):
    """``N`` for a square, or ``HEIGHTxWIDTH``."""

    name = "n or hxw"

    def parse(self, text: str) -> int | tuple[int, int]:
        parts = text.lower().split("x")
        if len(parts) > 2:
            raise ValueError(f"{shown(text)} is not a size such as 224 or 224x320")
        sizes = [IMAGE_SIDE.parse(part) for part in parts]
        return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1])


class ImageSizes(ImageSize):
    """Sizes joined by commas."""

    name = "size,size,.."

    def parse(self, text: str) -> Any:  # noqa: ANN401 - a tuple of what ``ImageSize`` gives
        return tuple(super(ImageSizes, self).parse(part) for part in text.split(","))


class Batch(Parsed):
    """``dynamic`` (0) or a fixed size."""

    name = "dynamic or n"

    def parse(self, text: str) -> int:
        return 0 if text == "dynamic" else BATCH.parse(text)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


force_option = click.option("--force", is_flag=True, help="Replace an output of other settings.")
output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write; derived by default."
)


key_option = click.option(
    "--key", metavar="NAME", help="Entry with the weights, of a checkpoint that holds several."
)
use_ema_option = click.option(
    "--use-ema", is_flag=True, help="Take the averaged weights of a training file."
)
_MODEL_OPTIONS = (
    click.argument("source", metavar="CHECKPOINT-OR-RECIPE", shell_complete=completion.recipes),
    click.option(
        "--model",
        default=AUTO,
        show_default=True,
        shell_complete=completion.models,
        help="auto or a variant's name.",
    ),
    click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        help="JSON with the official constructor's keywords; a detector's YAML of LazyConfig.",
    ),
    click.option("--image-size", type=ImageSize(), help="Another size than the checkpoint's."),
    click.option(
        "--pos-embed",
        type=click.Choice(get_args(PosEmbedMode)),
        default="grid",
        show_default=True,
        help="How the position embedding is fitted to another size (docs/resolutions.md).",
    ),
    use_ema_option,
    key_option,
    click.option(
        "--random-weights",
        type=WholeNumber(SEED),
        metavar="SEED",
        help="Seeded weights that mean nothing, for timing; the source is then a variant's name.",
    ),
    click.option(
        "--mean", type=Numbers(MEAN), help="Picture mean per channel, for values in [0, 1]."
    ),
    click.option("--std", type=Numbers(STD), help="Picture standard deviation per channel."),
    click.option(
        "--crop-ratio",
        type=RealNumber(CROP_RATIO),
        help="Share of the resized short side that the centre crop keeps.",
    ),
    click.option(
        "--interpolation",
        type=click.Choice(get_args(Interpolation)),
        help="Filter of the resize.",
    ),
    click.option(
        "--labels",
        "labels_file",
        type=click.Path(path_type=Path),
        help='Class names: a file with one a line, or JSON such as {"0": "tench"}.',
    ),
)

_GRAPH_OPTIONS = (
    click.option("--batch", type=Batch(), default="dynamic", show_default=True, help="Batch size."),
    click.option(
        "--graph",
        type=click.Choice(get_args(GraphChoice)),
        default="auto",
        show_default=True,
        help="Both directions of a mixer in one convolution and one scan (low-rank: the scan "
        "computes dt as well), or one scan node for each. Auto: low-rank for Vim-Ti, else fused "
        "(docs/fused-graph.md).",
    ),
    click.option(
        "--scan-body",
        type=click.Choice(get_args(ScanBody)),
        help="What runtimes without the plugin run: an ONNX Scan, or log2(tokens) steps on all "
        "tokens at once, without a loop. Unrolled is slower on a CPU, loads more slowly, needs "
        "d_state times the memory of an activation, and holds for one token count "
        "(docs/scan-op.md).  [default: scan, or the exported file's]",
    ),
    click.option(
        "--standalone",
        is_flag=True,
        help="Standard operators only, for runtimes that know no functions of other domains: "
        "OpenVINO, browsers, old ONNX Runtimes (docs/runtimes.md). Nothing is left for the plugin "
        "or native ops to take.",
    ),
    click.option(
        "--dump-passes",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Folder for the graph before and after each fusion pass.",
    ),
    click.option(
        "--precision",
        type=click.Choice(precisions.NAMES),
        default="fp32",
        show_default=True,
        help="Type of weights and activations (docs/precision.md, docs/quantization.md).",
    ),
    click.option(
        "--precision-policy",
        type=click.Path(path_type=Path),
        metavar="FILE.toml",
        help=f"What stays in float32 in 16 bits, and what {precisions.QUANTIZED_IN_WORDS} leave.  "
        "[default: the shipped policy]",
    ),
    click.option(
        "--io-precision",
        type=click.Choice(precisions.FLOATS),
        default="fp32",
        show_default=True,
        help="Type of float inputs and outputs: fp32, or that of --precision.",
    ),
    click.option(
        "--opset",
        type=WholeNumber(OPSET),
        help="ONNX opset, 17 to 21.  [default: 18; 19 for fp8]",
    ),
    click.option(
        "--preprocess",
        type=click.Choice(get_args(PreprocessMode)),
        default="none",
        show_default=True,
        help="What the graph does itself: nothing, (x - mean) / std, or that from NHWC bytes.",
    ),
    click.option(
        "--head",
        shell_complete=completion.heads,
        help=f"Output: {_listed(heads.usages(dense=False))}; of a segmentation model "
        f"{_listed(heads.usages(dense=True))}, +aux adds the auxiliary logits.  "
        "[default: logits, or features of a backbone]",
    ),
    click.option("--no-check", is_flag=True, help="Do not compare the file with PyTorch."),
)

_OPS_HELP = (
    "Kernels of our ops in ONNX Runtime: native ones (auto: where they are built or installed), or "
    "the functions in the file (docs/native-ops.md)."
)


def ops_option(help_text: str = _OPS_HELP) -> Callable[[Command], Command]:
    """``--ops``, and what it means to a command."""
    return click.option(
        "--ops",
        type=click.Choice(get_args(OpsChoice)),
        default="auto",
        show_default=True,
        help=help_text,
    )


_RUNNER_OPTIONS = (
    click.option(
        "--runtime",
        type=click.Choice(onnx_runtimes()),
        help="Runs ONNX files (docs/runtimes.md).  [default: onnxruntime]",
    ),
    click.option(
        "--provider",
        type=click.Choice(tuple(PROVIDERS)),
        help="Where ONNX Runtime runs an ONNX file.  [default: cpu]",
    ),
    ops_option(),
    click.option(
        "--plugin",
        type=click.Path(path_type=Path),
        help="TensorRT plugin library, for an engine or the provider tensorrt.",
    ),
    click.option(
        "--allow-plan-code",
        is_flag=True,
        help="Let a version-compatible engine run the code its file carries; only if you trust it.",
    ),
)


def all_of(options: tuple[Callable[[Command], Command], ...]) -> Callable[[Command], Command]:
    """A decorator that gives a command all of these, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def clock_options(*, warmup: float, duration: float) -> Callable[[Command], Command]:
    """How long is measured, in seconds a measurement, and with how many threads."""
    return all_of(
        (
            click.option(
                "--warmup",
                type=RealNumber(WARMUP),
                default=warmup,
                show_default=True,
                help="Seconds of calls before the clock counts, for each measurement.",
            ),
            click.option(
                "--duration",
                type=RealNumber(DURATION),
                default=duration,
                show_default=True,
                help="Seconds of timed calls for each measurement; at least three calls are made.",
            ),
            click.option(
                "--threads",
                type=WholeNumber(THREADS),
                help="Threads inside one operator.  [default: the processors this process may use]",
            ),
        )
    )


model_options = all_of(_MODEL_OPTIONS)
#: The same for commands whose argument may also be something else than a checkpoint.
checkpoint_options = all_of(_MODEL_OPTIONS[1:])
graph_options = all_of(_GRAPH_OPTIONS)
runner_options = all_of(_RUNNER_OPTIONS)


def take_runner(options: dict[str, Any]) -> RunnerOptions:
    """Take ``runner_options``'s values out of a command's keywords."""
    from vim_deploy.runtimes.base import RunnerOptions

    names = ("runtime", "provider", "ops", "plugin", "allow_plan_code")
    return RunnerOptions(**{name: options.pop(name) for name in names})


def take_request(options: dict[str, Any]) -> ModelRequest:
    """Take ``model_options``'s values out of a command's keywords."""
    config_file: Path | None = options.pop("config_file")
    labels_file: Path | None = options.pop("labels_file")
    names = ("source", "model", "image_size", "use_ema", "key", "pos_embed", "random_weights",
             "mean", "std", "crop_ratio", "interpolation")  # fmt: skip
    values = {name: options.pop(name) for name in names}
    return ModelRequest(
        **values,
        config=None if config_file is None else config_in(config_file),
        labels=None if labels_file is None else labels_in(labels_file),
    )
