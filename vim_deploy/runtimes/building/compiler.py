"""An engine build in its process, as TensorRT and TensorRT-RTX have it in common."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from vim_deploy.artifact.engine_file import DATA_TYPES
from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.request import BuildJob, Job
from vim_deploy.runtimes.building.worker import CancelledError, Events, WriteError
from vim_deploy.text import storable

_EXPORT_AGAIN = "export the model again with this version: vim-deploy export CHECKPOINT"
_SEE_LOG = "run it again with -v to see the whole log of the runtime"
#: How many refused nodes a message names.
_NODES_SHOWN = 8

#: Part of a build error, and what to do about it. Texts as TensorRT-RTX 1.7.1 writes them.
_BUILD_REMEDIES = (
    (
        "for Turing (SM75)",
        "leave out compute capability 7.5, or export the model with --precision fp16: "
        "TensorRT-RTX has no FP32 matrix products for Turing",
    ),
    (
        "Mismatched number of elements in reshape op",
        "its compiler fails on Unsqueeze, Squeeze and MatMul inside a Scan body; " + _EXPORT_AGAIN,
    ),
    (
        "no optimization profile has been defined",
        "give --minShapes, --optShapes and --maxShapes for every input with dynamic sizes",
    ),
    (
        "CUDA initialization failure",
        "run this on a machine with an NVIDIA GPU and a driver for this runtime's CUDA version",
    ),
    ("emory", "give a smaller --max-batch, or build on a machine with more memory"),
)


#: The builder's words when memory ran out; texts of TensorRT 8.6 to 11.
_OUT_OF_MEMORY = ("OutOfMemory", "out of memory", "Out of memory", "std::bad_alloc")


def _without_driver_noise(text: str) -> str:
    """Drop the lines that only say that there is no GPU, which this build does not need."""
    lines = [line for line in text.splitlines() if "cudaError 35" not in line]
    return "\n".join(lines) or text


def _node_line(error: Mapping[str, Any]) -> str:
    node, op = error.get("node") or "?", error.get("op") or "?"
    text = _without_driver_noise(str(error.get("text", "")))
    if error.get("code") == "UNSUPPORTED_NODE":
        text = f"operator not supported, or not with these inputs ({error.get('check')}: {text})"
    elif "Plugin not found" in text:
        text = "the operator is not known, and the file carries no local function for it"
    elif node == "?" and op == "?":
        return text
    within = error.get("functions") or []
    place = f" in the function of {' > '.join(map(str, within))}" if within else ""
    return f"node {node!r} ({op}){place}: {text}"


def parse_error(errors: Sequence[Mapping[str, Any]], model: str, runtime: str) -> VimDeployError:
    """VIM-601 for what a parser says about nodes that it does not take."""
    lines = [_node_line(error) for error in errors[:_NODES_SHOWN]]
    if len(errors) > _NODES_SHOWN:
        lines.append(f"and {len(errors) - _NODES_SHOWN} more")
    return VimDeployError(
        "VIM-601",
        f"{runtime} cannot take {model}",
        why="\n".join(lines) or "its parser gave no reason",
        fix=_EXPORT_AGAIN,
    )


def build_error(said: Sequence[str], model: str, runtime: str) -> VimDeployError:
    """VIM-603, or VIM-608 when memory ran out, for what a builder says."""
    why = "\n".join(map(_without_driver_noise, said)) or "the runtime gave no reason"
    fix = next((remedy for part, remedy in _BUILD_REMEDIES if part in why), _SEE_LOG)
    if any(words in why for words in _OUT_OF_MEMORY):
        return VimDeployError(
            "VIM-608",
            f"{runtime} ran out of memory while building an engine from {model}",
            why=why,
            fix="give a smaller --max-batch, limit --workspace, or end what else uses the GPU",
        )
    return VimDeployError(
        "VIM-603", f"{runtime} could not build an engine from {model}", why=why, fix=fix
    )


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NODES_SHOWN} more" if len(names) > _NODES_SHOWN else ""
    return ", ".join(names[:_NODES_SHOWN]) + more


def make_logger(module: ModuleType, events: Events, errors: list[str]) -> Any:  # noqa: ANN401
    """A TensorRT logger that forwards to the parent and keeps error texts in ``errors``."""

    class Forwarder(module.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            name = str(severity).rpartition(".")[2].lower()
            if name in ("error", "internal_error"):
                errors.append(message)
            if name != "verbose":
                events.send("log", severity=name, message=message)

    return Forwarder()


def make_monitor(module: ModuleType, events: Events, stop: threading.Event) -> Any:  # noqa: ANN401
    """A progress monitor that forwards to the parent and cancels once ``stop`` is set."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            events.send("phase", name=phase_name, parent=parent_phase, steps=num_steps)

        def phase_finish(self, phase_name: str) -> None:
            events.send("phase_end", name=phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            events.send("step", name=phase_name, step=step + 1)
            return not stop.is_set()

    return Monitor()


def _parser_errors(parser: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        named = hasattr(error, "node_name")
        found.append(
            {
                "code": str(error.code()).rpartition(".")[2],
                "text": error.desc(),
                "check": error.func(),
                # TensorRT 8.6 knows only the node's number.
                "node": error.node_name() if named else f"number {error.node()}",
                "op": error.node_operator() if named else "",
                "functions": list(error.local_function_stack()) if named else [],
            }
        )
    return found


def parse_model(module: ModuleType, network: Any, logger: Any, job: Job) -> None:  # noqa: ANN401
    """Fill ``network`` from the job's ONNX file.

    Raises:
        VimDeployError: VIM-601 with the parser's errors, or VIM-602 when it found nothing: the
            parser takes an empty file and most text files for a model without nodes.
    """
    parser = module.OnnxParser(network, logger)
    model = str(job.model)
    # The parser takes no path with bytes that are no UTF-8.
    is_text = storable(model) == model
    if not (parser.parse_from_file(model) if is_text else parser.parse(job.model.read_bytes())):
        raise parse_error(_parser_errors(parser), job.model_name, job.title)
    if network.num_layers == 0 or network.num_outputs == 0:
        raise VimDeployError(
            "VIM-602",
            f"{job.title} found nothing in {job.model_name}",
            why=f"it parses, and makes {network.num_layers} layers and {network.num_outputs} "
            "outputs: the file is empty, text, or not an ONNX model",
            fix=_EXPORT_AGAIN,
        )


def tensor_facts(tensor: Any) -> dict[str, Any]:  # noqa: ANN401
    """Name, NumPy dtype and shape of a network's tensor."""
    name = tensor.dtype.name
    return {
        "name": tensor.name,
        "dtype": DATA_TYPES.get(name, name.lower()),
        "shape": [int(size) for size in tensor.shape],
    }


def check_interface(network: Any, job: BuildJob, *, has_int64: bool = True) -> None:  # noqa: ANN401
    """Compare names and types of the network's inputs and outputs with those of the ONNX file.

    Args:
        network: as parsed.
        job: what the file has.
        has_int64: whether the runtime knows 64-bit integers; one that does not has int32 in their
            places, which holds every size, class and count that a model has.

    Raises:
        VimDeployError: VIM-601; the parser turns float64 into float32 without a word, for one.
    """
    asked = {"inputs": dict(job.inputs), "outputs": dict(job.outputs)}
    if not has_int64:
        asked = {
            side: {name: "int32" if kind == "int64" else kind for name, kind in types.items()}
            for side, types in asked.items()
        }
    for side, tensors in _interface(network).items():
        made = {tensor["name"]: tensor["dtype"] for tensor in tensors}
        if made != asked[side]:
            raise VimDeployError(
                "VIM-601",
                f"{job.title} would change the {side} of {job.model_name}",
                why=f"the file has {_tensors(asked[side])}; the engine would have {_tensors(made)}",
                fix=f"use float32, float16, bfloat16 or integer types for the model's {side}",
            )


def _interface(network: Any) -> dict[str, list[dict[str, Any]]]:  # noqa: ANN401
    return {
        "inputs": [tensor_facts(network.get_input(i)) for i in range(network.num_inputs)],
        "outputs": [tensor_facts(network.get_output(i)) for i in range(network.num_outputs)],
    }


def _tensors(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in types.items()) or "none"


def mark_debug_tensors(network: Any, job: BuildJob) -> None:  # noqa: ANN401
    """Mark the job's debug tensors; VIM-434 when one was not made by the parser, or is refused."""
    names = job.debug_tensors
    made: dict[str, Any] = {}
    for index in range(network.num_layers if names else 0):
        layer = network.get_layer(index)
        outputs = (layer.get_output(number) for number in range(layer.num_outputs))
        made.update({tensor.name: tensor for tensor in outputs})
    missing = [name for name in names if name not in made or not network.mark_debug(made[name])]
    if missing:
        raise VimDeployError(
            "VIM-434",
            f"TensorRT does not mark {len(missing)} inner tensors of {job.model_name}",
            why=f"not in the network that its parser made, or refused: {some(missing)}",
            fix="report this with the version of TensorRT; verify the ONNX file with --per-block",
        )


def add_profiles(builder: Any, config: Any, job: BuildJob) -> None:  # noqa: ANN401
    """Add the job's optimisation profiles to ``config``; VIM-202 when the runtime refuses one."""
    for shapes in job.profiles:
        profile = builder.create_optimization_profile()
        for name, sizes in shapes.shapes.items():
            try:
                profile.set_shape(name, sizes.min, sizes.opt, sizes.max)
            except (RuntimeError, ValueError, TypeError) as error:
                raise _profile_error(job, name, str(error)) from error
        if config.add_optimization_profile(profile) < 0:
            raise _profile_error(job, "", "the profile is not complete")


def _profile_error(job: Job, name: str, why: str) -> VimDeployError:
    return VimDeployError(
        "VIM-202",
        f"{job.title} refuses the shapes of the input {name!r}",
        why=why,
        fix="compare the shapes with vim-deploy inspect MODEL.onnx",
    )


def peak_memory_bytes() -> int:
    """Largest resident memory of this process, in bytes.

    ``getrusage`` is only the second choice: on Linux its figure starts from the memory of the
    parent that started this process.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def write_plan(plan: Any, path: Path) -> int:  # noqa: ANN401
    """Write a serialised engine; returns its size in bytes, WriteError when that fails."""
    view = memoryview(plan)
    try:
        with path.open("wb") as stream:
            stream.write(view)
    except OSError as error:
        raise WriteError(error.errno, error.strerror) from error
    return view.nbytes


class Compiler:
    """One build, in the runtime's process; a runtime says what it does otherwise.

    Args:
        module: the runtime's Python module.
        job: what to build.
        events: to the parent.
        stop: set once the build is to stop.
    """

    last_phase: ClassVar = "Writing the engine"

    def __init__(
        self, module: ModuleType, job: BuildJob, events: Events, stop: threading.Event
    ) -> None:
        self.module, self.job, self.events, self.stop = module, job, events, stop
        self.errors: list[str] = []
        self.logger = make_logger(module, events, self.errors)

    def network_flags(self) -> int:
        """Bits of NetworkDefinitionCreationFlag to create the network with."""
        raise NotImplementedError

    def check(self, network: Any) -> None:  # noqa: ANN401
        """Look at the parsed network before the minutes of the build."""

    def configure(self, config: Any) -> None:  # noqa: ANN401
        """Set what was decided."""

    def compile(self, builder: Any, network: Any, config: Any) -> Any:  # noqa: ANN401
        """The serialised engine; None when it was not built."""
        # The monitor must outlive the build; the configuration does not keep it alive.
        monitor = make_monitor(self.module, self.events, self.stop)
        config.progress_monitor = monitor
        return builder.build_serialized_network(network, config)

    def describe(self, plan: Any) -> dict[str, Any]:  # noqa: ANN401
        """What the runtime says about the engine it has built."""
        return {}

    def build(self) -> dict[str, Any]:
        """Build the engine into the job's output; the facts of the ``done`` event.

        Raises:
            VimDeployError: anything that is not a fault of this program.
            CancelledError: it was stopped.
        """
        job, events = self.job, self.events
        try:
            builder = self.module.Builder(self.logger)
        # pybind11's word for a null pointer: TensorRT made none, and its log says why.
        except TypeError as error:
            said = [*self.errors, str(error)]
            raise build_error(said, job.model_name, job.title) from error
        network = builder.create_network(self.network_flags())
        with events.phase("Parsing the ONNX model"):
            parse_model(self.module, network, self.logger, job)
            has_int64 = hasattr(self.module.DataType, "INT64")
            check_interface(network, job, has_int64=has_int64)
            self.check(network)
            mark_debug_tensors(network, job)
        config = builder.create_builder_config()
        add_profiles(builder, config, job)
        self.configure(config)
        self.errors.clear()
        plan = self.compile(builder, network, config)
        if self.stop.is_set():
            raise CancelledError
        if plan is None:
            raise build_error(self.errors, job.model_name, job.title)
        with events.phase(self.last_phase):
            write_plan(plan, job.output)
            described = self.describe(plan)
        return {
            "layers": network.num_layers,
            **_interface(network),
            "peak_memory_bytes": peak_memory_bytes(),
            **described,
        }
