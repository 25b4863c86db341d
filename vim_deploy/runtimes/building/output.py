"""What every engine build shares: its source files, its output, what is there already.

An engine that is not known to come from the same settings is never overwritten without being told
to; the record beside it holds what it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vim_deploy.artifact.onnx_file import read_model
from vim_deploy.artifact.onnx_rules import names_of, tensors_of
from vim_deploy.artifact.record import EngineRecord, FileIdentity, read_record, record_path
from vim_deploy.errors import VimDeployError
from vim_deploy.files import output_errors, require_writable_place, settings_hash, sha256_of
from vim_deploy.specs import TensorSpec


def external_data(model_path: Path) -> tuple[FileIdentity, ...]:
    """Files with weights beside the ONNX file; ``load_model`` has read them already."""
    names = names_of(tensors_of(read_model(model_path, outside=False)))
    return tuple(FileIdentity.of(model_path.parent / name, name) for name in names)


def check_output(plan_path: Path, model_path: Path) -> None:
    """VIM-304 or VIM-203 when the plan or its record cannot go there."""
    for path in (plan_path, record_path(plan_path)):
        require_writable_place(path)
        if path.exists() and path.samefile(model_path):
            raise VimDeployError(
                "VIM-203",
                f"the output {path} is the model itself",
                fix="choose another output with -o",
            )


def _other_settings(plan_path: Path, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-204",
        f"{plan_path} exists and is not what this build would make",
        why=why,
        fix="give --force to replace it, or another output with -o",
    )


def existing_record(plan_path: Path, wanted: Mapping[str, Any]) -> EngineRecord | None:
    """The record of an intact engine with the same settings; None when there is no engine.

    Args:
        wanted: settings of the build that is about to begin.

    Raises:
        VimDeployError: VIM-204 when there is another engine, or one nothing is known about.
    """
    if not plan_path.exists():
        return None
    try:
        record = read_record(plan_path)
    except VimDeployError as error:
        raise _other_settings(plan_path, f"{error.message}: {error.why}") from error
    if record is None:
        raise _other_settings(plan_path, f"it has no record {record_path(plan_path).name}")
    found = record.settings()
    different = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    if different or record.settings_hash != settings_hash(wanted):
        raise _other_settings(plan_path, "different: " + (", ".join(different) or "its record"))
    with output_errors(plan_path):
        intact = sha256_of(plan_path) == record.plan.sha256
    if not intact:
        raise _other_settings(plan_path, "it was changed after it was built")
    return record


def engine_tensors(
    specs: Sequence[TensorSpec], facts: Sequence[Mapping[str, Any]]
) -> tuple[TensorSpec, ...]:
    """The engine's tensors, with the ONNX file's names for sizes that are dynamic."""
    symbols = {spec.name: spec.shape for spec in specs}
    tensors = []
    for fact in facts:
        shape: list[int | str] = []
        for axis, size in enumerate(fact["shape"]):
            own = symbols.get(fact["name"], ())
            symbol = own[axis] if axis < len(own) else ""
            shape.append(size if size >= 0 else str(symbol or "?"))
        tensors.append(TensorSpec(fact["name"], fact["dtype"], tuple(shape)))
    return tuple(tensors)
