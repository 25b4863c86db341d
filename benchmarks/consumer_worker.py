"""Runs a folder of ONNX files with one consumer, and says how far its outputs are from the wanted.

    PYTHONPATH=FOLDER_WITH_THE_CONSUMER python consumer_worker.py CONSUMER FOLDER

FOLDER holds for every NAME.onnx a NAME.npz with the input ``image`` and the outputs that are
wanted, ``output_0``, ``output_1`` and so on, in the order of the graph. Prints a JSON object: the
consumer's version, and for every name either ``differences`` and ``largest``, one number an output
(max |found - wanted| and max |wanted|), or ``refused`` with the first line of what was said.

It needs NumPy and the consumer alone, so that any interpreter can run it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Outputs = Sequence[Array]


def run_onnxruntime(path: Path, image: Array) -> Outputs:
    """ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})


def run_tract(path: Path, image: Array) -> Outputs:
    """tract, told the shape of the input: its compiler wants to know it."""
    import tract

    model = tract.onnx().load(str(path))
    axes = ",".join(map(str, image.shape))
    model.set_input_fact(0, f"{axes},f32")
    model.analyse()
    return [np.array(value.to_numpy()) for value in model.into_model().into_runnable().run([image])]


def run_mnn(path: Path, image: Array) -> Outputs:
    """MNN: the file is converted, then run by its Python interface."""
    from MNN import nn, numpy
    from MNN.tools import mnnconvert

    with tempfile.TemporaryDirectory() as folder:
        made = f"{folder}/model.mnn"
        words = ["mnnconvert", "-f", "ONNX", "--modelFile", str(path), "--MNNModel", made]
        stored, sys.argv = sys.argv, [*words, "--bizCode", "vim"]
        try:
            mnnconvert.main()
        finally:
            sys.argv = stored
        if not os.path.exists(made):
            raise RuntimeError("the converter made no file")
        network = nn.load_module_from_file(made, [], [])
        found = network.forward([numpy.array(image)])
        found = found if isinstance(found, (list, tuple)) else [found]
        return [np.array(value.read()) for value in found]


def run_iree(path: Path, image: Array) -> Outputs:
    """IREE: imported, compiled for the CPU, run."""
    import iree.compiler.tools.import_onnx.__main__ as importer
    from iree import compiler, runtime

    with tempfile.TemporaryDirectory() as folder:
        text = f"{folder}/model.mlir"
        importer.main(importer.parse_arguments([str(path), "-o", text]))
        flags = ["--iree-llvmcpu-target-cpu=generic"]
        code = compiler.compile_file(
            text, input_type="onnx", target_backends=["llvm-cpu"], extra_args=flags
        )
    configured = runtime.Config("local-task")
    module = runtime.VmModule.copy_buffer(configured.vm_instance, code)
    context = runtime.SystemContext(config=configured)
    context.add_vm_module(module)
    (name,) = [item for item in module.function_names if "$" not in item and item != "__init"]
    found = context.modules[module.name][name](image)
    found = found if isinstance(found, (list, tuple)) else [found]
    return [np.asarray(value) for value in found]


#: By name: the package whose version is told, and how a file is run.
CONSUMERS = {
    "onnxruntime": ("onnxruntime", run_onnxruntime),
    "tract": ("tract", run_tract),
    "mnn": ("MNN", run_mnn),
    "iree": ("iree-base-compiler", run_iree),
}


def answer(run: Callable[[Path, Array], Outputs], path: Path) -> dict[str, Any]:
    """What one file came to."""
    with np.load(path.with_suffix(".npz")) as stored:
        image = stored["image"]
        wanted = [stored[f"output_{number}"] for number in range(len(stored.files) - 1)]
    try:
        found = run(path, image)
    except Exception as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        return {"refused": f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]}
    shapes = [list(value.shape) for value in found]
    if shapes != [list(value.shape) for value in wanted]:
        return {"refused": f"outputs of shapes {shapes}"}
    pairs = list(zip(found, wanted, strict=True))
    return {
        "differences": [float(np.abs(np.float64(one) - two).max()) for one, two in pairs],
        "largest": [float(np.abs(two).max()) for two in wanted],
    }


def main() -> None:
    """Run every file of the folder."""
    package, run = CONSUMERS[sys.argv[1]]
    # Converters talk on standard output; the answer has it to itself.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    results = {path.stem: answer(run, path) for path in sorted(Path(sys.argv[2]).glob("*.onnx"))}
    version = importlib.metadata.version(package)
    json.dump({"version": version, "results": results}, answers)
    answers.close()


if __name__ == "__main__":
    main()
