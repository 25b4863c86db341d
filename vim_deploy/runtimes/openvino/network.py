"""One model in OpenVINO, compiled for the shapes that come.

For a batch size that it knows OpenVINO makes a faster network than for any: Vim-Ti at 224 px takes
two thirds of the time. So each of the first sizes to come has a network of its own, and all others
share one for any size: a model that is called with whatever number of pictures happens to be there
is not compiled again and again, and does not take the memory of its weights for each of them.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnx import ModelProto

from vim_deploy.artifact.onnx_file import is_large, model_output
from vim_deploy.runtimes.base import Array
from vim_deploy.runtimes.openvino import capability as ov
from vim_deploy.specs import TensorSpec

#: Sizes with a network of their own: a run has its batch, and what is left over at its end.
MOST_FIXED = 2
#: Key of the network for any size.
_ANY: tuple[int, ...] = ()


class Network:
    """A model that takes a batch; threads may run it at the same time.

    Args:
        model: in standard operators. Above 2 GiB its weights are gone from it afterwards.
        inputs: the image first, all with one batch; a str in a shape is a dynamic size.
        outputs: their names.
        name: of the file, for messages.
        threads: for one call; 0 for OpenVINO's own choice.
        integers: compute quantized products in 8 bits; else in float32.

    Raises:
        VimDeployError: VIM-301, VIM-409 (OpenVINO does not take it); of a large model VIM-304 and
            VIM-305, for it is written to a file.
    """

    def __init__(
        self,
        model: ModelProto,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[str],
        name: str,
        threads: int,
        *,
        integers: bool = True,
    ) -> None:
        self._inputs, self._outputs, self._name = tuple(inputs), tuple(outputs), name
        # By itself it may compute in bfloat16, where the processor does.
        self._settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self._settings["NUM_STREAMS"] = "1"
        if not integers:
            # The second: what reads back weights in 8 bits would round activations on its own.
            self._settings["LP_TRANSFORMS_MODE"] = "NO"
            self._settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = str(threads)
        self._lock = threading.Lock()
        self._compiled: dict[tuple[int, ...], _Compiled] = {}
        with _source(model, name) as source:
            self._network = ov.read_network(source, name)

    def compile(self, shape: Sequence[int]) -> _Compiled:
        """What runs images of that shape, which the input takes; VIM-409 as ``Network``."""
        wanted = tuple(shape)
        with self._lock:
            if wanted not in self._compiled:
                fixed = len(self._compiled) < MOST_FIXED
                wanted = wanted if fixed else _ANY
            if wanted not in self._compiled:
                made = ov.compile_network(
                    self._network, self._shapes(wanted), self._settings, self._name
                )
                self._compiled[wanted] = _Compiled(made)
            return self._compiled[wanted]

    def _shapes(self, images: tuple[int, ...]) -> dict[str, Sequence[int]]:
        """Of all inputs, for images of that shape, or of any (``_ANY``)."""
        image, *others = self._inputs
        free = [size if isinstance(size, int) else -1 for size in image.shape]
        batch, *_ = images or free
        tails = {spec.name: [size for size in spec.shape[1:] if isinstance(size, int)]
                 for spec in others}  # fmt: skip
        return {
            image.name: images or free,
            **{name: [batch, *rest] for name, rest in tails.items()},
        }

    def run(self, given: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs by name; VIM-409 when the model fails on arrays that the inputs take."""
        compiled = self.compile(given[self._inputs[0].name].shape)
        with compiled.request() as request:
            return ov.infer(request, given, self._outputs, self._name)


class _Compiled:
    """A compiled network and its requests, of which each serves one call at a time."""

    def __init__(self, compiled: Any) -> None:  # noqa: ANN401 - of an untyped module
        self._compiled = compiled
        self._free: list[Any] = []

    @contextmanager
    def request(self) -> Iterator[Any]:
        """A request that no other thread has; one that has failed is not used again."""
        try:
            found = self._free.pop()
        except IndexError:
            found = self._compiled.create_infer_request()
        yield found
        self._free.append(found)


@contextmanager
def _source(model: ModelProto, name: str) -> Iterator[str | bytes]:
    """What OpenVINO reads: bytes, or a file of a model that is too large for one message."""
    if not is_large(model):
        yield model.SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="vim-deploy-") as folder:
        # OpenVINO maps its weights into memory: they outlive the name.
        path = Path(folder, f"{Path(name).stem}.onnx")
        with model_output(model, path):
            pass
        yield str(path)
