"""Triton's own schema of a model's configuration, from its client package: the only importer."""

from __future__ import annotations

import importlib.util
from typing import Any

from vim_deploy.errors import VimDeployError, missing_package

_MODULE = "tritonclient"


def is_installed() -> bool:
    """Whether the package can be found; says nothing about whether it loads."""
    return importlib.util.find_spec(_MODULE) is not None


def parse_model_config(text: str) -> Any:  # noqa: ANN401 - a message of untyped generated code
    """The ``ModelConfig`` message of a ``config.pbtxt``.

    Raises:
        VimDeployError: VIM-301 when ``tritonclient[grpc]`` is not installed; VIM-428 when the text
            is no such message, with the place that the parser names.
    """
    if not is_installed():
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
