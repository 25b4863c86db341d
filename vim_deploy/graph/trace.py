"""From the PyTorch module to an ONNX graph in which each scan direction is one node."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import torch
from onnx.defs import OpSchema
from onnxscript import values
from torch import Tensor, nn

import vim_deploy.model.region_ops
import vim_deploy.model.scan  # noqa: F401 - both register torch.ops.vim_deploy
from vim_deploy import interrupts
from vim_deploy.artifact.metadata import IMAGE_INPUT, SIZE_INPUT
from vim_deploy.errors import VimDeployError
from vim_deploy.model.deployed import DeployedModel, example_input, example_size
from vim_deploy.ops import PYRAMID_ROI_ALIGN, SELECTIVE_SCAN, SORTED_NMS, Op, contract
from vim_deploy.ops.functions import KIND_TYPES, direction_attributes
from vim_deploy.threads import TORCH, no_warnings

#: Opset that PyTorch's exporter is written against; other opsets are made from it (opset.py).
TRACE_OPSET = 18
#: A batch of 1 would be specialised: the exporter treats a size of 1 as a constant.
TRACE_BATCH = 2


def schema(op: Op) -> OpSchema:
    """The ONNX schema of ``op``."""
    parameter, option = OpSchema.FormalParameter, OpSchema.FormalParameterOption
    always = {True: option.Single, False: option.Optional}
    return OpSchema(
        op.name,
        contract.DOMAIN,
        contract.DOMAIN_VERSION,
        inputs=[
            parameter(name, op.element(name), param_option=always[name not in op.optional])
            for name in op.inputs
        ],
        outputs=[parameter(name, op.element(name)) for name in op.outputs],
        type_constraints=[
            ("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "activations")
        ]
        * op.has_activations,
        attributes=[
            OpSchema.Attribute(name, KIND_TYPES[kind][1], required=True)
            for name, kind in op.attributes.items()
        ],
    )


def _caller(op: Op) -> values.Op:
    """What makes nodes of ``op`` in the exporter."""
    opset = values.Opset(contract.DOMAIN, contract.DOMAIN_VERSION)
    return values.Op(opset, op.name, schema(op))


_SCAN, _NMS, _ALIGN = map(_caller, (SELECTIVE_SCAN, SORTED_NMS, PYRAMID_ROI_ALIGN))


def _translate_scan(
    u: Any,  # noqa: ANN401 - the exporter's symbolic values
    dt: Any,  # noqa: ANN401
    a: Any,  # noqa: ANN401
    bc: Any,  # noqa: ANN401
    d_skip: Any,  # noqa: ANN401
    dt_bias: Any,  # noqa: ANN401
    z: Any,  # noqa: ANN401
    reverse: bool,
    delta_softplus: bool,
    b_off: int,
    c_off: int,
    z_off: int,
    has_z: bool,
) -> Any:  # noqa: ANN401
    """The traced op as a contract node, which has no seventh input where there is no gate."""
    return _SCAN(
        *(u, dt, a, bc, d_skip, dt_bias),
        *((z,) if has_z else ()),
        reverse=int(reverse),
        delta_softplus=int(delta_softplus),
        b_off=b_off,
        c_off=c_off,
        z_off=z_off,
        has_z=int(has_z),
        **direction_attributes(reverse),
    )


def _translate_nms(
    boxes: Any,  # noqa: ANN401
    group: Any,  # noqa: ANN401
    valid: Any,  # noqa: ANN401
    iou_threshold: float,
    groups: int,
) -> Any:  # noqa: ANN401
    return _NMS(boxes, group, valid, iou_threshold=iou_threshold, groups=groups)


def _translate_align(
    p2: Any,  # noqa: ANN401
    p3: Any,  # noqa: ANN401
    p4: Any,  # noqa: ANN401
    p5: Any,  # noqa: ANN401
    boxes: Any,  # noqa: ANN401
    output_size: int,
    canonical_size: float,
    spatial_scale: float,
) -> Any:  # noqa: ANN401
    return _ALIGN(
        p2,
        p3,
        p4,
        p5,
        boxes,
        output_size=output_size,
        canonical_size=canonical_size,
        spatial_scale=spatial_scale,
    )


_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.vim_deploy.selective_scan.default: _translate_scan,
    torch.ops.vim_deploy.sorted_nms.default: _translate_nms,
    torch.ops.vim_deploy.pyramid_roi_align.default: _translate_align,
}


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says about packages this project does not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        # torch.export warns about its own deprecated internals; nothing a user could act on.
        with no_warnings():
            yield
    finally:
        logger.setLevel(level)


def trace(module: DeployedModel, *, batch: int | None) -> onnx.ModelProto:
    """Trace ``module`` into an unoptimised opset-18 graph.

    Args:
        module: in eval mode, float32, on the CPU.
        batch: fixed batch size, or None for a dynamic one.

    Returns:
        A model with input ``image``, with ``size`` where the head takes it, and the head's outputs;
        nodes carry the exporter's metadata.

    Raises:
        VimDeployError: VIM-501 when the exporter fails.
    """
    config, size = module.model.config, batch or TRACE_BATCH
    examples = {IMAGE_INPUT: example_input(config, module.preprocess, size)}
    if module.head.takes_size:
        examples[SIZE_INPUT] = example_size(config, size)
    return _export(module, examples, module.head.output_names, dynamic=batch is None)


def trace_classifier(module: nn.Module, image: tuple[int, int]) -> onnx.ModelProto:
    """Trace a classifier of another kind, for comparison, by the same exporter.

    Args:
        module: in eval mode, float32, on the CPU; takes [B, 3, height, width], returns logits.
        image: height and width.

    Returns:
        As ``trace``: input ``image`` with a dynamic batch, output ``logits``.

    Raises:
        VimDeployError: VIM-501 when the exporter fails.
    """
    example = {IMAGE_INPUT: torch.zeros((TRACE_BATCH, 3, *image))}
    return _export(module, example, ("logits",), dynamic=True)


def _export(
    module: nn.Module, examples: dict[str, Tensor], outputs: tuple[str, ...], *, dynamic: bool
) -> onnx.ModelProto:
    """Run PyTorch's exporter; ``dynamic`` leaves the batch open."""
    shapes = {0: torch.export.Dim("batch")} if dynamic else {}
    try:
        # FakeTensorMode aborts the process when an exception comes out of its dispatch.
        with TORCH, interrupts.deferred(), _quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                module,
                tuple(examples.values()),
                dynamo=True,
                opset_version=TRACE_OPSET,
                input_names=list(examples),
                output_names=list(outputs),
                dynamic_shapes=(shapes,) * len(examples),
                custom_translation_table=_TRANSLATIONS,
                optimize=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        _raise_machines(error)
        raise VimDeployError(
            "VIM-501",
            "PyTorch's exporter could not trace the model",
            why=str(error).strip().splitlines()[0],
            fix="run again with -vv and report the trace together with the model config",
        ) from error
    if program is None:
        raise VimDeployError("VIM-501", "PyTorch's exporter returned no model")
    return program.model_proto


def _raise_machines(error: BaseException | None) -> None:
    """Raise what is behind ``error`` when the machine refused something: no disk, no memory."""
    while error is not None:
        if isinstance(error, OSError | MemoryError):
            raise error
        error = error.__cause__ or error.__context__
