"""Puts exported files through tools of others.

    PYTHONPATH=FOLDER_WITH_THE_TOOLS python tool_worker.py FOLDER TOOL...

Every NAME.onnx of FOLDER goes through each TOOL, which writes FOLDER/TOOL/NAME.onnx. Prints a JSON
object: for every tool its version, and under ``failed`` the first line of what it said of a file.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx


def _saved(change: Callable[[onnx.ModelProto], onnx.ModelProto], source: str, target: str) -> None:
    onnx.save(change(onnx.load(source)), target)


def _polygraphy(words: list[str]) -> None:
    program = "import sys; from polygraphy.tools import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program, *words], check=False)
    if done.returncode:
        raise RuntimeError(f"polygraphy ended with {done.returncode}")


def sanitize(source: str, target: str) -> None:
    _polygraphy(["surgeon", "sanitize", "--fold-constants", source, "-o", target])


def extract_by_polygraphy(source: str, target: str) -> None:
    _polygraphy(["surgeon", "extract", source, "--inputs", "image:auto:auto", "-o", target])


def slim(source: str, target: str) -> None:
    import onnxslim

    onnxslim.slim(source, target)


def graphsurgeon(source: str, target: str) -> None:
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(onnx.load(source))
    onnx.save(gs.export_onnx(graph.cleanup().toposort()), target)


def simplify(source: str, target: str) -> None:
    import onnxsim

    model, same = onnxsim.simplify(onnx.load(source))
    if not same:
        raise RuntimeError("its own check failed")
    onnx.save(model, target)


def optimizer(source: str, target: str) -> None:
    import onnxoptimizer

    _saved(onnxoptimizer.optimize, source, target)


def float16(source: str, target: str) -> None:
    from onnxconverter_common import float16 as converter

    model = converter.convert_float_to_float16(onnx.load(source), keep_io_types=True)
    onnx.save(model, target)


def extract(source: str, target: str) -> None:
    graph = onnx.load(source).graph
    names = ([item.name for item in side] for side in (graph.input, graph.output))
    onnx.utils.extract_model(source, target, *names)


def convert_version(source: str, target: str) -> None:
    from onnx import version_converter

    _saved(lambda model: version_converter.convert_version(model, 21), source, target)


def infer_shapes(source: str, target: str) -> None:
    _saved(onnx.shape_inference.infer_shapes, source, target)


def inline(source: str, target: str) -> None:
    from onnx import inliner

    _saved(inliner.inline_local_functions, source, target)


def add_prefix(source: str, target: str) -> None:
    from onnx import compose

    def prefixed(model: onnx.ModelProto) -> onnx.ModelProto:
        kept = {"rename_inputs": False, "rename_outputs": False}
        return compose.add_prefix(model, "part_", **kept)

    _saved(prefixed, source, target)


def optimized_by_onnxruntime(source: str, target: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = target
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.graph_optimization_level = level
    onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])


def fix_shape(source: str, target: str) -> None:
    module = "onnxruntime.tools.make_dynamic_shape_fixed"
    words = ["--dim_param", "batch", "--dim_value", "2", source, target]
    subprocess.run([sys.executable, "-m", module, *words], check=True)


def quantize(source: str, target: str) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source, target)


def prepare_quantizing(source: str, target: str) -> None:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(source, target, skip_symbolic_shape=True)


def onnxscript(source: str, target: str) -> None:
    from onnxscript import optimizer as onnxscript_optimizer

    _saved(onnxscript_optimizer.optimize, source, target)


#: By the name in docs/tools.md: the package whose version is told, and how a file goes through it.
TOOLS: dict[str, tuple[str, Callable[[str, str], None]]] = {
    "onnxslim": ("onnxslim", slim),
    "polygraphy surgeon sanitize": ("polygraphy", sanitize),
    "polygraphy surgeon extract": ("polygraphy", extract_by_polygraphy),
    "onnx_graphsurgeon": ("onnx-graphsurgeon", graphsurgeon),
    "onnx.utils.extract_model": ("onnx", extract),
    "onnx.version_converter": ("onnx", convert_version),
    "onnx.shape_inference": ("onnx", infer_shapes),
    "onnx.inliner": ("onnx", inline),
    "onnx.compose.add_prefix": ("onnx", add_prefix),
    "optimized_model_filepath": ("onnxruntime", optimized_by_onnxruntime),
    "make_dynamic_shape_fixed": ("onnxruntime", fix_shape),
    "quantize_dynamic": ("onnxruntime", quantize),
    "quant_pre_process": ("onnxruntime", prepare_quantizing),
    "onnxscript.optimizer": ("onnxscript", onnxscript),
    "onnxsim": ("onnxsim", simplify),
    "onnxoptimizer": ("onnxoptimizer", optimizer),
    "onnxconverter_common.float16": ("onnxconverter-common", float16),
}


def main() -> None:
    """Put every file through every tool that is named."""
    # Tools talk on standard output; the answer has it to itself.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folder, said = Path(sys.argv[1]), {}
    for name in sys.argv[2:]:
        package, change = TOOLS[name]
        (folder / name).mkdir()
        failed: dict[str, Any] = {}
        for source in sorted(folder.glob("*.onnx")):
            try:
                change(str(source), str(folder / name / source.name))
            except Exception as error:
                failed[source.stem] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        said[name] = {"version": importlib.metadata.version(package), "failed": failed}
    json.dump(said, answers)
    answers.close()


if __name__ == "__main__":
    main()
