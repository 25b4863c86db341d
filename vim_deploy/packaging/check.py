"""Everything a server would trip over, before it does.

Each check ends as passed or not checked, with a sentence; what fails is a coded error. What this
machine cannot check is said, so that a quiet result never means more than it does.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.record import read_record
from vim_deploy.errors import ExitCode, VimDeployError, missing_package
from vim_deploy.ops import contract
from vim_deploy.packaging.about import CppAbout, TritonAbout, WebAbout, read_about
from vim_deploy.packaging.manifest import Manifest, read_manifest, require_intact
from vim_deploy.packaging.native_ops import check_library, opened_by
from vim_deploy.packaging.plugin_probe import probe_in_process
from vim_deploy.packaging.repository import OPS_PARAMETER, PYTHON, data_type
from vim_deploy.packaging.triton import CONFIG_NAME
from vim_deploy.plugin.describe import describe_plugin
from vim_deploy.specs import TensorSpec
from vim_deploy.untrusted import read_text

TARGET = "triton"
#: What ``packaging.cpp`` makes; its checks are there.
CPP_TARGET = "cpp"
#: And what ``packaging.web`` makes.
WEB_TARGET = "web"


@dataclass(frozen=True)
class Check:
    """One check: its name, whether it was made (and passed), and a sentence."""

    name: str
    checked: bool
    detail: str


@dataclass(frozen=True)
class CheckReport:
    """All checks of a package; reaching the end means that none failed."""

    folder: str
    name: str
    runtime: str
    checks: tuple[Check, ...]


def read_package(folder: Path) -> Manifest:
    """The manifest of an intact package for a known target.

    Raises:
        VimDeployError: VIM-425 and VIM-427 as ``packaging.manifest``; VIM-427 for another target.
    """
    manifest = read_manifest(folder)
    require_intact(folder, manifest)
    if manifest.target not in (TARGET, CPP_TARGET, WEB_TARGET):
        raise VimDeployError(
            "VIM-427",
            f"{folder} is a package for {manifest.target}, which --check does not know",
            fix="check it with the vim-deploy that made it",
        )
    return manifest


def static_checks(folder: Path, manifest: Manifest) -> list[Check]:
    """Files, configuration, artifact and plugin; nothing of the model is run.

    Raises:
        VimDeployError: VIM-427 (the manifest describes no served model), VIM-428 (configuration),
            VIM-902 (engine and record), VIM-409 (ONNX file), VIM-417 and VIM-903 (plugin library).
    """
    about = read_about(folder, manifest, TritonAbout)
    checks = [Check("manifest", True, f"{len(manifest.files)} files have their hashes")]
    checks.append(_config(folder, about))
    artifact = folder / about.artifact.path
    if about.runtime == "tensorrt":
        checks.append(_engine(artifact))
        checks.append(_plugin(folder, artifact, about))
    else:
        checks.append(check_onnx(artifact, about))
        if about.ops is not None:
            checks.append(Check("native ops", True, check_library(folder, about.ops)))
    return checks


def _not_described(why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-428",
        f"{CONFIG_NAME} does not describe the model",
        why=why,
        fix="make the package again: vim-deploy package ARTIFACT",
    )


def _config(folder: Path, about: TritonAbout) -> Check:
    path = folder / about.folder / CONFIG_NAME
    try:
        config = parse_model_config(read_text(path, _not_described))
    except VimDeployError as error:
        if error.exit_code != ExitCode.ENVIRONMENT:
            raise
        return Check("configuration", False, f"{error.message}: {error.fix}")
    wrong = _disagreements(config, about)
    if wrong:
        raise _not_described("\n".join(wrong))
    return Check("configuration", True, f"{CONFIG_NAME} fits Triton's schema and the model")


def _disagreements(config: Any, about: TritonAbout) -> list[str]:  # noqa: ANN401
    wrong = []
    if config.name != about.name:
        wrong.append(f"name {config.name!r}, expected {about.name!r}")
    if config.max_batch_size != about.max_batch:
        wrong.append(f"max_batch_size {config.max_batch_size}, expected {about.max_batch}")
    for found, stored in ((config.input, about.inputs), (config.output, about.outputs)):
        got = [(item.name, item.data_type, tuple(item.dims)) for item in found]
        wanted = [_tensor(config, spec, about.max_batch) for spec in stored]
        if got != wanted:
            wrong.append(f"tensors {got}, expected {wanted}")
    libraries = _ops_of(config, about)
    opened = [] if about.ops is None else [opened_by(about.runtime, about.ops.library)]
    if libraries != opened:
        wrong.append(f"libraries of native ops {libraries}, expected {opened}")
    return wrong


def _ops_of(config: Any, about: TritonAbout) -> list[str]:  # noqa: ANN401
    """The libraries that the backend would load for the model's ops."""
    named = [*config.model_operations.op_library_filename]
    if about.runtime == PYTHON and OPS_PARAMETER in config.parameters:
        named.append(config.parameters[OPS_PARAMETER].string_value)
    return named


def _tensor(
    config: Any,  # noqa: ANN401
    spec: TensorSpec,
    most: int,
) -> tuple[str, int, tuple[int, ...]]:
    image = config.DESCRIPTOR.fields_by_name["input"].message_type
    enum = image.fields_by_name["data_type"].enum_type
    number = enum.values_by_name[data_type(spec.dtype, spec.name)].number
    # One number for each picture is served as one element (``repository.model_config``).
    sizes = (spec.shape[1:] or (1,)) if most else spec.shape
    return spec.name, number, tuple(-1 if isinstance(size, str) else size for size in sizes)


def _engine(artifact: Path) -> Check:
    engine = Artifact.engine(artifact)
    record = engine.record
    if record is None:
        raise VimDeployError(
            "VIM-902", f"{artifact.name} has no record", fix="make the package again"
        )
    engine.require_own_record(record)
    return Check(
        "passport",
        True,
        f"the engine is whole and is the one of its record: TensorRT {record.runtime_version}, "
        f"compute capability {', '.join(record.compute_capabilities) or 'not recorded'}",
    )


def _plugin(folder: Path, artifact: Path, about: TritonAbout) -> Check:
    if about.plugin is None:
        return Check("plugin", True, "the engine needs no library beside it")
    path = folder / about.plugin
    info = describe_plugin(path)
    record = read_record(artifact)
    wanted = record.plugin if record else None
    if wanted is not None and info.contract_version != wanted.contract_version:
        raise VimDeployError(
            "VIM-903",
            f"{path.name} follows contract {info.contract_version}",
            why=f"the engine was built with contract {wanted.contract_version}, this vim-deploy "
            f"has {contract.CONTRACT_VERSION}",
            fix="build the engine again, then package it",
        )
    found = probe_in_process(path, info.ops)
    if found["registered"] is None:
        return Check(
            "plugin",
            False,
            f"{path.name} opens alone in a fresh process; whether it registers its ops was not "
            f"tried: {found['tensorrt']}",
        )
    ops = ", ".join(found["registered"])
    return Check("plugin", True, f"opened as the backend does, TensorRT has {ops}")


def check_onnx(artifact: Path, about: CppAbout | TritonAbout | WebAbout) -> Check:
    """VIM-428 when the ONNX file has other tensors than the manifest says."""
    model = Artifact.open(artifact)
    found = (*model.inputs, *model.outputs)
    # Image and size are told apart by their names.
    if {*model.inputs} != {*about.inputs} or model.outputs != about.outputs:
        raise VimDeployError(
            "VIM-428",
            f"{artifact.name} has other tensors than the manifest says",
            why=f"found {list(found)}",
            fix="make the package again: vim-deploy package ARTIFACT",
        )
    return Check("model", True, f"{artifact.name} holds the tensors that the manifest names")


def has_schema() -> bool:
    """Whether Triton's client package can be found; says nothing about whether it loads."""
    return importlib.util.find_spec("tritonclient") is not None


def parse_model_config(text: str) -> Any:  # noqa: ANN401 - a message of untyped generated code
    """The ``ModelConfig`` message of a ``config.pbtxt``, by the schema of Triton's client package.

    Raises:
        VimDeployError: VIM-301 when ``tritonclient[grpc]`` is not installed; VIM-428 when the text
            is no such message, with the place that the parser names.
    """
    if not has_schema():
        raise missing_package("tritonclient[grpc]", "triton", "parsing a config.pbtxt")
    from google.protobuf import text_format

    try:
        from tritonclient.grpc import model_config_pb2
    # The package raises the latter when it was installed without its extra.
    except (ImportError, RuntimeError) as error:
        raise missing_package("tritonclient[grpc]", "triton", "parsing a config.pbtxt") from error
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise VimDeployError(
            "VIM-428",
            "the model configuration cannot be parsed",
            why=str(error),
            fix="make the package again: vim-deploy package ARTIFACT",
        ) from error
