"""OpenVINO as one more runtime of a benchmark: a runner, and the process that measures it.

OpenVINO neither takes functions of other domains nor finds the size of a Scan's state where that
is worked out inside one. So what it gets is not the exported file but ``standalone``: the functions
inlined and constants folded, in memory. Nodes, weights and the loop over tokens are the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants_ir

from vim_deploy.artifact import Artifact
from vim_deploy.bench import worker
from vim_deploy.runtimes.base import Array, Runner, check_input

#: Name of the runtime in subjects.
OPENVINO = "openvino"
#: Largest tensor that folding reads or makes, in elements: above any weight of Vim-B.
_FOLD_LIMIT = 1 << 24
#: Folding makes more constants to fold; Vim's graphs settle after two rounds.
_ROUNDS = 3


def load(_: str) -> Any:  # noqa: ANN401 - an untyped module
    """The package."""
    return importlib.import_module(OPENVINO)


def standalone(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` in standard operators alone, with constants folded."""
    graph = ir.serde.deserialize_model(onnx.inliner.inline_local_functions(model))
    for _ in range(_ROUNDS):
        fold_constants_ir(graph, input_size_limit=_FOLD_LIMIT, output_size_limit=_FOLD_LIMIT)
    RemoveUnusedNodesPass()(graph)
    return ir.serde.serialize_model(graph)


class OpenVinoRunner(Runner):
    """An exported file in OpenVINO on the CPU, in float32, one request at a time.

    Args:
        path: ONNX file with one image input.
        threads: for one request.
        batch: that it is compiled for. With a dynamic one Vim takes half as long again.
    """

    def __init__(self, path: Path, threads: int, batch: int = 1) -> None:
        openvino = load(OPENVINO)
        artifact = Artifact.open(path)
        (spec,) = artifact.inputs
        self.input = replace(spec, shape=(batch, *spec.shape[1:]))
        self.outputs = tuple(spec.name for spec in artifact.outputs)
        read = openvino.Core().read_model(standalone(artifact.model).SerializeToString())
        artifact.forget_model()
        read.reshape({spec.name: list(self.input.shape)})
        # By itself it may compute in bfloat16, where the processor does.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        settings |= {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads)}
        self._request = openvino.compile_model(read, "CPU", settings).create_infer_request()
        self.name = f"OpenVINO {openvino.__version__.partition('-')[0]} CPU, standalone file"

    def run(self, image: Array) -> Mapping[str, Array]:
        check_input(self.input, image)
        found = self._request.infer({self.input.name: image}).to_dict()
        values = [np.array(value) for value in found.values()]
        return dict(zip(self.outputs, values, strict=True))


def opener(_: str, source: dict[str, Any], threads: int) -> Runner:
    """The runner of a subject."""
    return OpenVinoRunner(Path(source["path"]), threads, int(source["batch"]))


if __name__ == "__main__":
    worker.main(load, opener)
