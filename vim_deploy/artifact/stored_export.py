"""What an exported file says about itself, read back: from ONNX metadata and from engine records.

Both are files that somebody else may have written. Types are those of the record
(``untrusted.typed``); what types cannot say is checked here, once, so that whatever prepares a
picture or reads a head later can rely on it. Model config, dense parts and precision policy are
checked where they are built from (``ModelConfig``, ``DenseConfig``, ``PrecisionPolicy``).
"""

from __future__ import annotations

import re
from typing import Any

from vim_deploy.images import check_preparation
from vim_deploy.recipe.dense_config import DENSE_TASKS
from vim_deploy.specs import ExportInfo
from vim_deploy.untrusted import OnError, typed

#: ``model.heads.parse_head`` and its twin for dense models say what each of them gives.
_HEAD = re.compile(r"(logits|upsampled)(\+aux)?|labels|softmax|features|tokens|topk:0*[1-9]\d{0,8}")


def read_export(value: Any, on_error: OnError) -> ExportInfo:  # noqa: ANN401 - a parsed file
    """The inverse of ``ExportInfo.as_dict`` after a JSON round trip.

    Raises:
        VimDeployError: what ``on_error`` makes of a sentence, when it is no such record.
    """
    info = typed(value, ExportInfo, on_error)
    try:
        require_usable(info)
    except ValueError as error:
        raise on_error(str(error)) from error
    return info


def require_usable(info: ExportInfo) -> None:
    """ValueError for values of the right type that no export has."""
    check_preparation(info.image)
    if _HEAD.fullmatch(info.head) is None:
        raise ValueError(f"its head is {info.head!r}, which is none")
    if info.opset < 1:
        raise ValueError(f"its opset is {info.opset}")
    if info.dense and info.dense.get("task") not in DENSE_TASKS:
        raise ValueError(f"its dense model is for {info.dense.get('task')!r}, which is no task")
