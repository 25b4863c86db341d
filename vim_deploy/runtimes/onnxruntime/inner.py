"""Models in memory in ONNX Runtime, and the inner tensors of a graph by place."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx

from vim_deploy.artifact.onnx_file import model_output
from vim_deploy.errors import VimDeployError
from vim_deploy.graph.inner_tensors import with_inner_outputs
from vim_deploy.places import Place
from vim_deploy.runtimes.base import Array, PartSource
from vim_deploy.runtimes.onnxruntime.runner import CPU, OrtRunner


@contextmanager
def memory_runner(
    model: onnx.ModelProto, name: str, provider: str = CPU, threads: int = 0
) -> Iterator[OrtRunner]:
    """A runner for a model in memory. Over 2 GiB, its weights are gone from ``model`` afterwards.

    A file, not a message: ONNX Runtime takes no message above 2 GiB.

    Args:
        model: with the local functions of its ops.
        name: of the file that is made, for messages.
        provider, threads: as for ``OrtRunner``.

    Raises:
        VimDeployError: VIM-304, VIM-305 (no room for the file); as ``OrtRunner``.
    """
    with tempfile.TemporaryDirectory(prefix="vim-deploy-") as folder:
        path = Path(folder) / name
        with model_output(model, path):
            pass
        yield OrtRunner(path, provider, threads)


@contextmanager
def onnx_parts(
    model: onnx.ModelProto, dt_rank: int, name: str, provider: str = CPU
) -> Iterator[PartSource]:
    """The inner tensors of an exported graph, as a function of images.

    Args:
        model: base or fused, in any precision.
        dt_rank: of the model.
        name: file name, for messages.
        provider: ``cpu`` or ``cuda``; TensorRT fuses differently once tensors are given out.

    Raises:
        VimDeployError: VIM-422 when the graph's names do not say where its tensors are.
    """
    try:
        instrumented, tensors = with_inner_outputs(model, dt_rank)
    except (KeyError, StopIteration) as error:
        raise unreadable(name, f"{type(error).__name__}: {error}") from error
    if not any(where.in_block for where in tensors):
        raise unreadable(name, "none of its nodes is named after a block")
    with memory_runner(instrumented, name, provider) as runner:

        def parts(images: Array) -> Mapping[Place, Array]:
            values = runner.run(images)
            return {where: tensor.read(values[tensor.name]) for where, tensor in tensors.items()}

        yield parts


def unreadable(name: str, why: str) -> VimDeployError:
    """VIM-422 for an ONNX file."""
    return VimDeployError(
        "VIM-422",
        f"{name} does not show its inner tensors",
        why=why,
        fix="give a file made by vim-deploy export, whose node names are unchanged",
    )
