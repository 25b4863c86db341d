"""How a checkpoint is exported: what may be asked for, and what the file will say of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import vim_deploy
from vim_deploy.artifact.metadata import ExportInfo
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.opset import DEFAULT_OPSET
from vim_deploy.graph.verify import form_for
from vim_deploy.paths import OptionalPath
from vim_deploy.precisions import (
    FLOATS,
    QUANTIZED_IN_WORDS,
    TABLE,
    TYPED_IN_WORDS,
    Precision,
    require_io_precision,
    require_opset,
)
from vim_deploy.ranges import BATCH, OPSET, require_all, require_names
from vim_deploy.recipe.precision_policy import chosen_policy
from vim_deploy.recipe.quantization import QuantizeOptions
from vim_deploy.specs import GraphChoice, ScanBody
from vim_deploy.stages.exported_file import hashed

if TYPE_CHECKING:
    from vim_deploy.model.load import LoadedModel


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    ``batch`` is a fixed batch size, or None for a dynamic one; ``opset`` None the usual one.
    ``graph`` is the form of the graph (``vim_deploy.specs.GraphChoice``), ``scan_body`` that of the
    scan ops' functions (``ScanBody``; None: ``scan``, or what the exported file has that another is
    made from).
    ``standalone`` puts the functions in the places of their calls, for runtimes that take standard
    operators only. ``dump_passes`` is a folder for the graph before and after each fusion pass.
    ``precision`` types weights and activations, apart from what the file ``precision_policy``
    (None: the shipped one) keeps in float32; ``io_precision`` the inputs and outputs; ``quantize``
    says how int8 and fp8 quantize. ``head`` None gives logits, or the feature maps of a model
    without classes. ``check`` compares the file with PyTorch in ONNX Runtime before it is put in
    place.
    """

    batch: int | None = None
    graph: GraphChoice = "auto"
    scan_body: ScanBody | None = None
    standalone: bool = False
    dump_passes: OptionalPath = OptionalPath()
    precision: Precision = "fp32"
    precision_policy: OptionalPath = OptionalPath()
    io_precision: Precision = "fp32"
    opset: int | None = None
    preprocess: str = "none"
    head: str | None = None
    check: bool = True
    force: bool = False
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)

    def __post_init__(self) -> None:
        """VIM-202 for a number that nobody can mean."""
        require_all(self, batch=BATCH, opset=OPSET)
        require_names(self, graph=get_args(GraphChoice))
        if self.scan_body is not None:
            require_names(self, scan_body=get_args(ScanBody))
        require_names(self, precision=TABLE, io_precision=FLOATS)

    @property
    def floats(self) -> Precision:
        """The precision of everything that is not quantized."""
        quantized = TABLE[self.precision].quantized
        return self.quantize.high_precision if quantized else self.precision

    @property
    def written_opset(self) -> int:
        """The opset: that asked for, or the usual one that has the precision."""
        return self.opset or max(DEFAULT_OPSET, TABLE[self.precision].opset)


def check_options(options: ExportOptions) -> None:
    """VIM-202 and VIM-203 for options that contradict each other, or mean nothing."""
    if options.dump_passes is not None and options.graph == "base":
        raise VimDeployError(
            "VIM-202",
            "--dump-passes has nothing to dump for --graph base",
            why="the passes make the fused forms out of the base graph",
            fix="--graph fused",
        )
    options.quantize.require_effect(options.precision)
    require_opset(options.precision, options.written_opset)
    require_io_precision(options.floats, options.io_precision)
    if options.precision_policy is not None and not TABLE[options.precision].lossy:
        raise VimDeployError(
            "VIM-203",
            "--precision-policy has nothing to decide for --precision fp32",
            why="it says what stays in float32 in a half-precision graph, and is not quantized",
            fix=f"add --precision {TYPED_IN_WORDS}, {QUANTIZED_IN_WORDS}",
        )


def export_info(loaded: LoadedModel, options: ExportOptions, preprocess: Any) -> ExportInfo:  # noqa: ANN401
    """The file's own description; its hash covers everything that decides the bytes."""
    lossy = TABLE[options.precision].lossy
    config = loaded.module.config
    info = ExportInfo(
        model=loaded.name,
        model_config=config,
        checkpoint=loaded.checkpoint,
        image=loaded.image,
        preprocess=preprocess,
        head=options.head or "",
        graph=form_for(options.graph, config),
        precision=options.precision,
        io_precision=options.io_precision,
        precision_policy=chosen_policy(options.precision_policy, config) if lossy else None,
        opset=options.written_opset,
        pos_embed=loaded.pos_embed,
        tool_version=vim_deploy.__version__,
        labels=loaded.labels,
        scan_body=options.scan_body or "scan",
        standalone=options.standalone,
        dense=loaded.module.dense,
        settings_hash="",
    )
    return hashed(info, options.batch)
