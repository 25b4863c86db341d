"""Runs a folder of ONNX files with one consumer, and says how far its outputs are from the wanted.

    PYTHONPATH=FOLDER_WITH_THE_CONSUMER python consumer_worker.py CONSUMER FOLDER SECONDS [NAME ...]

FOLDER holds for every NAME.onnx a NAME.npz with the input ``image`` and the outputs that are
wanted, ``output_0``, ``output_1`` and so on, in the order of the graph. Prints JSON objects, one a
line: the consumer's version, and then for every file (those that are named, or all) its name with
either ``differences`` and ``largest``, one number an output (max |found - wanted| and
max |wanted|), or ``refused`` with what was said. A file that takes longer than SECONDS ends the
process with SIGALRM.

It needs NumPy and the consumer alone, so that any interpreter can run it. ``consumer_runs.py``
starts it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
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
    # Not MNN.tools.mnnconvert around it: its import has pip install another package, in any version
    # and environment, and by that MNN's makers are told of every conversion.
    import _tools
    from MNN import nn, numpy

    with tempfile.TemporaryDirectory() as folder:
        made = f"{folder}/model.mnn"
        words = ["mnnconvert", "-f", "ONNX", "--modelFile", str(path), "--MNNModel", made]
        _tools.mnnconvert([*words, "--bizCode", "vim"])
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


def run_web(path: Path, image: Array) -> Outputs:
    """onnxruntime-web under node, one process a file; PYTHONPATH is the folder of its runtime."""
    with tempfile.TemporaryDirectory() as folder:
        image.tofile(f"{folder}/image")
        job = {"model": str(path), "dims": image.shape, "input": f"{folder}/image"}
        Path(f"{folder}/job.json").write_text(json.dumps({**job, "to": f"{folder}/output"}))
        script = str(Path(__file__).with_name("consumer_web.mjs"))
        words = ["node", script, os.environ["PYTHONPATH"], f"{folder}/job.json"]
        shapes = json.loads(_said_by(words, folder))
        return [
            np.fromfile(f"{folder}/output.{number}", np.float32).reshape(shape)
            for number, shape in enumerate(shapes)
        ]


def run_openvino(path: Path, image: Array) -> Outputs:
    """OpenVINO on the CPU, in float32."""
    # Without this package, which its wheel asks for, nobody is told of a run.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
    found = compiled(image)
    return [np.array(found[number]) for number in range(len(compiled.outputs))]


def run_reference(path: Path, image: Array) -> Outputs:
    """The reference evaluator of the onnx package."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))
    return list(evaluator.run(None, {evaluator.input_names[0]: image}))


def run_onnxslim(path: Path, image: Array) -> Outputs:
    """ONNX Runtime with what onnxslim makes of the file."""
    import onnxslim

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "model.onnx")
        onnxslim.slim(str(path), str(made))
        return run_onnxruntime(made, image)


def run_onnxsim(path: Path, image: Array) -> Outputs:
    """ONNX Runtime with what onnxsim makes of the file, which checks it itself."""
    import onnx
    import onnxsim

    made, good = onnxsim.simplify(onnx.load(str(path)))
    if not good:
        raise RuntimeError("the simplified model does not pass the simplifier's own check")
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(made, f"{folder}/model.onnx")
        return run_onnxruntime(Path(folder, "model.onnx"), image)


def run_quantized(path: Path, image: Array) -> Outputs:
    """ONNX Runtime with the weights in 8 bits, by its own ``quantize_dynamic``."""
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        quantize_dynamic(str(path), f"{folder}/model.onnx")
        return run_onnxruntime(Path(folder, "model.onnx"), image)


def run_onnx2torch(path: Path, image: Array) -> Outputs:
    """onnx2torch, then PyTorch."""
    import onnx2torch
    import torch

    with torch.inference_mode():
        found = onnx2torch.convert(str(path)).eval()(torch.tensor(image))
    return [value.numpy() for value in (found if isinstance(found, (list, tuple)) else [found])]


def run_opencv(path: Path, image: Array) -> Outputs:
    """OpenCV's dnn module."""
    import cv2

    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(image)
    found: Outputs = network.forward(network.getUnconnectedOutLayersNames())
    return found


def run_opencv_singly(path: Path, image: Array) -> Outputs:
    """OpenCV's dnn module, one picture after the other."""
    import cv2

    network = cv2.dnn.readNetFromONNX(str(path))
    names = network.getUnconnectedOutLayersNames()
    found = []
    for number in range(len(image)):
        network.setInput(image[number : number + 1])
        found.append([np.array(value) for value in network.forward(names)])
    return [np.concatenate(values) for values in zip(*found, strict=True)]


def run_tvm(path: Path, image: Array) -> Outputs:
    """TVM: imported with the shape of the input, compiled for the CPU, run."""
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    model = onnx.load(str(path))
    module = from_onnx(model, shape_dict={model.graph.input[0].name: list(image.shape)})
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    found = machine["main"](tvm.runtime.tensor(image))
    return [value.numpy() for value in ([found] if hasattr(found, "numpy") else found)]


def run_onnx2tf(path: Path, image: Array) -> Outputs:
    """onnx2tf, told the shape of the input and to leave its axes; then TensorFlow Lite."""
    import onnx2tf
    import tensorflow

    name = "image"
    with tempfile.TemporaryDirectory() as folder:
        axes = ",".join(map(str, image.shape))
        onnx2tf.convert(
            input_onnx_file_path=str(path),
            output_folder_path=folder,
            overwrite_input_shape=[f"{name}:{axes}"],
            keep_shape_absolutely_input_names=[name],
            copy_onnx_input_output_names_to_tflite=True,
            non_verbose=True,
        )
        made = Path(folder, f"{path.stem}_float32.tflite").read_bytes()
    network = tensorflow.lite.Interpreter(model_content=made, num_threads=1)
    network.allocate_tensors()
    network.set_tensor(network.get_input_details()[0]["index"], image)
    network.invoke()
    return [network.get_tensor(item["index"]) for item in network.get_output_details()]


def run_ncnn(path: Path, image: Array) -> Outputs:
    """ncnn: converted by pnnx for one picture, which are run one after the other."""
    import ncnn
    import pnnx

    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, f"{folder}/model.onnx")
        axes = ",".join(map(str, (1, *image.shape[1:])))
        tool = str(Path(pnnx.__file__).with_name("pnnx"))
        _said_by([tool, "model.onnx", f"inputshape=[{axes}]"], folder)
        network = ncnn.Net()
        if network.load_param(f"{folder}/model.ncnn.param"):
            raise RuntimeError("ncnn does not load what pnnx makes of it")
        network.load_model(f"{folder}/model.ncnn.bin")
    found = []
    for picture in image:
        extractor = network.create_extractor()
        extractor.input("in0", ncnn.Mat(np.ascontiguousarray(picture)).clone())
        found.append(np.array(extractor.extract("out0")[1]))
    return [np.stack(found)]


def _said_by(words: Sequence[str], folder: str) -> str:
    """Standard output of a program; RuntimeError with its last words when it fails."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        raise RuntimeError(f"{Path(words[0]).name} ends by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"exit status {done.returncode}")
    return done.stdout


#: By name: the package whose version is told, and how a file is run. onnxruntime-web is none of
#: Python's: its folder's name ends with its version.
CONSUMERS = {
    "onnxruntime": ("onnxruntime", run_onnxruntime),
    "onnxruntime-web": ("", run_web),
    "openvino": ("openvino", run_openvino),
    "tract": ("tract", run_tract),
    "mnn": ("MNN", run_mnn),
    "iree": ("iree-base-compiler", run_iree),
    "onnx.reference": ("onnx", run_reference),
    "onnxslim": ("onnxslim", run_onnxslim),
    "onnxsim": ("onnxsim", run_onnxsim),
    "quantize_dynamic": ("onnxruntime", run_quantized),
    "onnx2torch": ("onnx2torch", run_onnx2torch),
    "onnx2tf": ("onnx2tf", run_onnx2tf),
    "tvm": ("apache-tvm", run_tvm),
    "opencv": ("opencv-python-headless", run_opencv),
    "opencv-singly": ("opencv-python-headless", run_opencv_singly),
    "ncnn": ("ncnn", run_ncnn),
}

#: What a line that says why looks like; others say where.
_TELLING = re.compile(r"(?:\bnot\b|n't\b|\b[Nn]o\b|[Uu]nsupported|[Ii]nconsistent|failed to)")
_MOST_WORDS = 200


def why(error: Exception) -> str:
    """Kind of an error, and the words in it that say what was refused."""
    lines = [line.strip(" >-") for line in str(error).splitlines() if line.strip(" >-")] or [""]
    # Reasons come last, after who was asked.
    line = next((line for line in reversed(lines) if _TELLING.search(line)), lines[0])
    line = re.sub(r"^/\S+: ", "", line)
    found = _TELLING.search(line)
    if found and found.end() > _MOST_WORDS // 2:
        # What stands before it is a path, or the way to a node.
        line = line[line.rindex(" ", 0, found.end()) + 1 :]
    return f"{type(error).__name__}: {line}"[:_MOST_WORDS]


def version_of(package: str) -> str:
    """The release that is run."""
    if package:
        return importlib.metadata.version(package)
    return Path(os.environ["PYTHONPATH"]).name.rpartition("-")[2]


def answer(run: Callable[[Path, Array], Outputs], path: Path) -> dict[str, Any]:
    """What one file came to."""
    with np.load(path.with_suffix(".npz")) as stored:
        image = stored["image"]
        wanted = [stored[f"output_{number}"] for number in range(len(stored.files) - 1)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            # onnx2tf writes what it simplifies in the place of what it was given.
            found = run(Path(shutil.copy(path, folder)), image)
    except Exception as error:
        return {"refused": why(error)}
    shapes = [list(value.shape) for value in found]
    if shapes != [list(value.shape) for value in wanted]:
        return {"refused": f"outputs of shapes {shapes}"}
    pairs = list(zip(found, wanted, strict=True))
    return {
        "differences": [float(np.abs(np.float64(one) - two).max()) for one, two in pairs],
        "largest": [float(np.abs(two).max()) for two in wanted],
    }


def main() -> None:
    """Run the files of the folder."""
    consumer, folder, seconds, *names = sys.argv[1:]
    package, run = CONSUMERS[consumer]
    # Converters talk on standard output; the answer has it to itself.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        print(json.dumps({"version": version_of(package)}), file=answers, flush=True)
        for name in names or sorted(path.stem for path in Path(folder).glob("*.onnx")):
            signal.alarm(int(seconds))
            found = {"name": name, **answer(run, Path(folder, f"{name}.onnx").absolute())}
            signal.alarm(0)
            print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
