"""The ops of the contract: a file each, and the table that everything else asks."""

from __future__ import annotations

from vim_deploy.ops.bi_causal_conv import BI_CAUSAL_CONV
from vim_deploy.ops.bi_selective_scan import BI_SELECTIVE_SCAN
from vim_deploy.ops.op import Op
from vim_deploy.ops.pyramid_roi_align import PYRAMID_ROI_ALIGN
from vim_deploy.ops.selective_scan import SELECTIVE_SCAN
from vim_deploy.ops.sorted_nms import SORTED_NMS

#: Every op by its name, in the order in which their functions stand in a file.
OPS: dict[str, Op] = {
    op.name: op
    for op in (
        SELECTIVE_SCAN, BI_CAUSAL_CONV, BI_SELECTIVE_SCAN, SORTED_NMS, PYRAMID_ROI_ALIGN
    )
}  # fmt: skip
#: Those with a kernel for GPUs: TensorRT's plugins.
PLUGIN_OPS: dict[str, Op] = {name: op for name, op in OPS.items() if op.plugin}

__all__ = [
    "BI_CAUSAL_CONV",
    "BI_SELECTIVE_SCAN",
    "OPS",
    "PLUGIN_OPS",
    "PYRAMID_ROI_ALIGN",
    "SELECTIVE_SCAN",
    "SORTED_NMS",
    "Op",
]
