"""The model of a file with its inner tensors as outputs, for every runtime that takes a graph."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from vim_deploy.artifact import Artifact
from vim_deploy.artifact.marked_tensors import InnerTensor
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.inner_tensors import with_inner_outputs
from vim_deploy.places import Place


def instrumented(artifact: Artifact) -> tuple[ModelProto, Mapping[Place, InnerTensor]]:
    """A copy of the model that gives its inner tensors out, and how each place is read off them.

    VIM-422 for a graph whose names do not say where its tensors are.
    """
    why = "none of its nodes is named after a block"
    if artifact.info is None:
        why = "it holds no vim-deploy metadata"
    else:
        rank = artifact.info.model_config.dt_rank
        try:
            model, tensors = with_inner_outputs(artifact.model, rank)
        except (KeyError, StopIteration) as error:
            why = f"{type(error).__name__}: {error}"
        else:
            if any(where.in_block for where in tensors):
                return model, tensors
    raise VimDeployError(
        "VIM-422",
        f"{artifact.name} does not show its inner tensors",
        why=why,
        fix="give a file made by vim-deploy export, whose node names are unchanged",
    )
