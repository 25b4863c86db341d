"""The ONNX schema of the custom op, from the contract."""

from __future__ import annotations

from onnx.defs import OpSchema

from vim_deploy.ops import contract


def selective_scan_schema() -> OpSchema:
    """Schema of ``vim_deploy::VimSelectiveScan`` version 1."""
    parameter = OpSchema.FormalParameter
    fixed = contract.FP32_INPUTS[contract.SELECTIVE_SCAN]
    inputs = [
        parameter(name, "tensor(float)" if name in fixed else "T")
        for name in contract.SELECTIVE_SCAN_INPUTS
    ]
    integers = [
        OpSchema.Attribute(name, OpSchema.AttrType.INT, required=True)
        for name in contract.SELECTIVE_SCAN_ATTRIBUTES
    ]
    directions = [
        OpSchema.Attribute(name, OpSchema.AttrType.INTS, required=True)
        for name in (contract.SCAN_INPUT_DIRECTIONS, contract.SCAN_OUTPUT_DIRECTIONS)
    ]
    return OpSchema(
        contract.SELECTIVE_SCAN,
        contract.DOMAIN,
        contract.DOMAIN_VERSION,
        doc=contract.__doc__ or "",
        inputs=inputs,
        outputs=[parameter(name, "T") for name in contract.SELECTIVE_SCAN_OUTPUTS],
        type_constraints=[
            ("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "activations")
        ],
        attributes=[*integers, *directions],
    )
