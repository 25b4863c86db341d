"""The ops of the contract: a file each, and the table that everything else asks."""

from __future__ import annotations

from vim_deploy.ops.bi_causal_conv import BI_CAUSAL_CONV
from vim_deploy.ops.bi_selective_scan import BI_SELECTIVE_SCAN
from vim_deploy.ops.op import Op
from vim_deploy.ops.selective_scan import SELECTIVE_SCAN

#: Every op by its name, in the order in which their functions stand in a file.
OPS: dict[str, Op] = {op.name: op for op in (SELECTIVE_SCAN, BI_CAUSAL_CONV, BI_SELECTIVE_SCAN)}

__all__ = ["BI_CAUSAL_CONV", "BI_SELECTIVE_SCAN", "OPS", "SELECTIVE_SCAN", "Op"]
