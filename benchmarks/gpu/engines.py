"""Everything a GPU has to show for engines where Python has TensorRT: vim-deploy's own commands.

    python benchmarks/gpu/engines.py prepare FOLDER [--models vim-tiny,vim-small]
    python benchmarks/gpu/engines.py run FOLDER [--out RESULTS] [--plans FOLDER] [--batches 1,8,32]
        [--tensorrt-root DIR] [--seconds 1800] [--step-seconds 600]

``prepare`` needs PyTorch and no GPU: float32 exports with seeded weights, the trained digits model,
and for each an .npz with inputs and PyTorch's outputs. ``run`` needs a GPU, TensorRT, cuda-bindings
and nvcc, and no PyTorch; Python 3.10 will do, so that it works beside TensorRT 8.6. Each of its
steps is one vim-deploy command in a process of its own, with a limit of its own and one for all
together; a step that fails is kept with its words, the others go on, and the exit code is 1. What
there was no time for is listed under ``left_out``. Results go to RESULTS/engines.json after every
step, so that nothing is lost when the machine is; engines stay in --plans, with what they were
built from.

Limits: relative L2 of an engine's logits to PyTorch's at most 1e-3 in fp32 (TensorRT reorders the
sums; TF32 is off) and 1e-2 in fp16, and at most 1 of the 360 digits with another class.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from vim_deploy.bench import environment  # noqa: E402
from vim_deploy.files import write_json  # noqa: E402

MODELS = ("vim-tiny", "vim-small")
PRECISIONS = ("fp32", "fp16")
#: Relative L2 alone judges: the largest difference that --atol takes, that of float16.
LOOSE = "65504"
RELATIVE_L2 = {"fp32": "1e-3", "fp16": "1e-2"}
DIGITS = "vim-digits"
#: 359 of 360 and not one less.
DIGITS_AGREE = "0.9972"
#: Seconds of all steps together, and of the longest one: an engine of Vim-S.
SECONDS, STEP_SECONDS = 1800.0, 600.0
#: Seconds that are left below which no step begins.
LEAST = 5.0
SEED = "0"


def prepare(folder: Path, models: Sequence[str]) -> None:
    """Exports and stored outputs, made where PyTorch is."""
    import numpy as np

    from vim_deploy.parity.cases import random_case
    from vim_deploy.recipe.catalog import checkpoint_of
    from vim_deploy.recipe.schema import ModelRequest
    from vim_deploy.stages.export_options import ExportOptions
    from vim_deploy.stages.exporting import export

    folder.mkdir(parents=True, exist_ok=True)
    for name in (*models, DIGITS):
        seed = None if name == DIGITS else int(SEED)
        path = folder / f"{name}.onnx"
        request = ModelRequest(name, random_weights=seed)
        export(request, path, ExportOptions(force=True))
        runner = _reference(path, None if seed is not None else checkpoint_of(name))
        if name == DIGITS:
            with np.load(REPOSITORY / "tests/data/reference/vim_digits.npz") as stored:
                image = stored["image"]
        else:
            image = random_case(runner.input, "none", 8).images
        outputs = [runner.run(image[start : start + 8]) for start in range(0, len(image), 8)]
        arrays = {key: np.concatenate([part[key] for part in outputs]) for key in outputs[0]}
        np.savez(folder / f"{name}.npz", image=image, **arrays)
        print(f"{name}: {path.stat().st_size / 1e6:.1f} MB, {len(image)} inputs", flush=True)
    write_json(folder / "prepared.json", {"models": list(models), **environment.state()})


def _reference(path: Path, checkpoint: str | None) -> Any:  # noqa: ANN401 - a torch runner
    from vim_deploy.artifact import Artifact
    from vim_deploy.model.reference import reference_model
    from vim_deploy.runtimes.torch.runner import TorchRunner

    info = Artifact.open(path).info
    assert info is not None
    return TorchRunner(reference_model(checkpoint or info.checkpoint.name, info), threads=1)


class OutOfTimeError(Exception):
    """All steps together have had their time."""


class Run:
    """The steps done so far, and their results on disk.

    Args:
        out: folder for results.
        plans: folder for engines, which are larger than what is taken home.
        seconds: for all steps together.
        longest: for one step.
    """

    def __init__(
        self, out: Path, plans: Path, seconds: float = SECONDS, longest: float = STEP_SECONDS
    ) -> None:
        self.path, self.plans = out / "engines.json", plans
        self._end, self._longest = time.monotonic() + seconds, longest
        state = environment.state()
        about = {key: state[key] for key in ("date", "commit", "versions")}
        self.value: dict[str, Any] = {**about, "command": sys.argv, "steps": {}}

    def step(self, name: str, arguments: Sequence[str]) -> Any:  # noqa: ANN401
        """One command of Python; what it prints as JSON, or None when it fails.

        Raises:
            OutOfTimeError: there is no time left for it; it is noted.
        """
        left = self._end - time.monotonic()
        if left < LEAST:
            self.leave_out(name, "and what follows: the time of all steps was over")
            raise OutOfTimeError
        limit = min(left, self._longest)
        started = time.monotonic()
        try:
            # Of other interpreters too: the checkout is where the package is.
            done = subprocess.run(
                [sys.executable, *arguments],
                capture_output=True,
                text=True,
                timeout=limit,
                check=False,
                env={**os.environ, "PYTHONPATH": _python_path()},
            )
            status, printed, said = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired:
            status, printed, said = -1, "", f"stopped after {limit:.0f} s"
        except OSError as error:
            status, printed, said = -1, "", f"{type(error).__name__}: {error}"
        result = _json(printed)
        ok = status == 0 and result is not None
        self.value["steps"][name] = {
            "command": ["python", *arguments],
            "status": status,
            "seconds": round(time.monotonic() - started, 2),
            "result": result,
            **({} if ok else {"said": said[-4000:]}),
        }
        self.save()
        print(f"{'ok    ' if ok else 'FAILED'} {name}", flush=True)
        if not ok:
            print("       " + "\n       ".join(said.strip().splitlines()[-6:]), flush=True)
        return result if ok else None

    def deploy(self, name: str, *arguments: str) -> Any:  # noqa: ANN401
        """A step that is one vim-deploy command."""
        return self.step(name, ["-m", "vim_deploy", "-q", *arguments, "--json"])

    def require(self, name: str, holds: bool, why: str) -> None:
        """A finding that has to hold, as a step of its own."""
        self.value["steps"][name] = {"status": 0 if holds else 1, "said": why}
        self.save()
        print(f"{'ok    ' if holds else 'FAILED'} {name}: {why}", flush=True)

    def leave_out(self, name: str, why: str) -> None:
        """What was not done, with the reason; never counted as passed."""
        self.value.setdefault("left_out", {})[name] = why
        self.save()
        print(f"left out: {name}: {why}", flush=True)

    @property
    def failed(self) -> list[str]:
        """Names of the steps that failed."""
        return [name for name, step in self.value["steps"].items() if step["status"] != 0]

    def save(self) -> None:
        """Write what is known so far."""
        write_json(self.path, self.value)


def check_engine(run: Run, folder: Path, model: str, precision: str) -> Path | None:
    """Build one engine, count its plugin layers, compare it with PyTorch."""
    plan = run.plans / f"{model}-{precision}.plan"
    name = f"{model} {precision}"
    built = run.deploy(
        f"{name}: build",
        *("build-engine", str(folder / f"{model}.onnx"), "-o", str(plan), "--force"),
        *("--runtime", "tensorrt", "--precision", precision),
        # cuBLAS and cuDNN are separate libraries, and not everywhere TensorRT is.
        *("--tactic-sources", "-CUBLAS,-CUBLAS_LT,-CUDNN"),
    )
    if built is None:
        return None
    depth = (built["export"] or {}).get("model_config", {}).get("depth")
    layers = built["plugin_layers"]
    wanted = {"VimBiCausalConv": depth, "VimBiSelectiveScan": depth}
    run.require(f"{name}: plugin layers", layers == wanted, f"{layers}, expected {wanted}")
    # As the inspector of the finished engine tells them, not as they were asked for.
    found = built["layer_types"]
    half = found.get("float16", 0)
    run.require(
        f"{name}: precision",
        half > 0 if precision == "fp16" else set(found) == {"float32"},
        f"layers by type: {found}",
    )
    limits = ["--relative-l2", RELATIVE_L2[precision], "--atol", LOOSE, "--cosine", "0"]
    if model == DIGITS:
        limits = ["--top1-agree", DIGITS_AGREE, *limits]
    run.deploy(
        f"{name}: against PyTorch",
        *("verify", str(plan), "--against", str(folder / f"{model}.npz"), *limits),
        *("--report", str(plan.parent / f"{plan.stem}-parity")),
    )
    return plan


def look_inside(run: Run, folder: Path, precision: str) -> None:
    """An engine that gives out its inner tensors, part by part against ONNX Runtime."""
    name = f"{DIGITS} {precision}: inner tensors"
    model = folder / f"{DIGITS}.onnx"
    if importlib.util.find_spec("onnxruntime") is None:
        run.leave_out(name, "onnxruntime, which computes the other side, is not installed")
        return
    plan = run.plans / f"{DIGITS}-{precision}-inner.plan"
    built = run.deploy(
        f"{name}: build",
        *("build-engine", str(model), "-o", str(plan), "--force", "--inner-tensors"),
        *("--runtime", "tensorrt", "--precision", precision),
        *("--tactic-sources", "-CUBLAS,-CUBLAS_LT,-CUDNN"),
    )
    if built is not None:
        run.deploy(
            f"{name}: per block",
            *("verify", str(plan), "--against", str(model), "--per-block", "--random", "2"),
            *("--batches", "1", "--relative-l2", RELATIVE_L2[precision], "--atol", LOOSE),
            *("--cosine", "0", "--report", str(plan.parent / f"{plan.stem}-parity")),
        )


def run_all(folder: Path, run: Run, batches: str, tensorrt_root: str | None) -> int:
    """All steps on the GPU; the exit code."""
    from vim_deploy.cuda import driver as cuda_driver
    from vim_deploy.errors import VimDeployError

    try:
        gpu = cuda_driver.gpu()
        models = json.loads((folder / "prepared.json").read_text())["models"]
    except VimDeployError as error:
        print(f"{error.code}: {error.message}: {error.why}", file=sys.stderr)
        return int(error.exit_code)
    except (OSError, ValueError, KeyError) as error:
        print(f"{folder} is not prepared (engines.py prepare {folder}): {error}", file=sys.stderr)
        return 4
    for place in (run.path.parent, run.plans):
        place.mkdir(parents=True, exist_ok=True)
    run.value["gpu"] = {"name": gpu.name, "compute_capability": f"{gpu.major}.{gpu.minor}"}
    in_time = True
    try:
        _all_steps(run, folder, models, batches, tensorrt_root)
    except OutOfTimeError:
        in_time = False
    for name in run.failed:
        print(f"failed: {name}", file=sys.stderr)
    print(f"wrote {run.path}")
    return 1 if run.failed or not in_time else 0


def _all_steps(
    run: Run, folder: Path, models: Sequence[str], batches: str, tensorrt_root: str | None
) -> None:
    run.deploy("doctor", "doctor")
    root = () if tensorrt_root is None else ("--tensorrt-root", tensorrt_root)
    generation = ("--tensorrt", "8.6") if _is_86() else ()
    built = run.deploy("plugin: build", "plugin", "build", *generation, *root)
    if built is not None:
        os.environ["VIM_DEPLOY_PLUGIN"] = str(Path(built["library"]).resolve())
    run.deploy("plugin: test on the GPU", "plugin", "test")
    for model in (DIGITS, *models):
        plans = [check_engine(run, folder, model, precision) for precision in PRECISIONS]
        kept = [str(plan) for plan in plans if plan is not None]
        if kept and model != DIGITS:
            bench(run, model, kept, batches)
    for precision in PRECISIONS:
        look_inside(run, folder, precision)


def bench(run: Run, model: str, plans: list[str], batches: str) -> None:
    """Percentiles and memory of the engines in turns, without and with CUDA graphs."""
    for graph in ((), ("--cuda-graph",)):
        name = f"{model}: bench{' with CUDA graphs' if graph else ''}"
        report = run.path.parent / name.replace(": ", "-").replace(" ", "-")
        run.deploy(
            name,
            *("bench", *plans, "--batches", batches, "--duration", "2", "--force"),
            *("--report", str(report), *graph),
        )


def _is_86() -> bool:
    from vim_deploy.errors import VimDeployError
    from vim_deploy.runtimes.tensorrt import capability as trt

    try:
        return str(trt.load().__version__).startswith("8.")
    except VimDeployError as error:
        # Every engine's build will fail with the same words; the kernels are still worth a test.
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return False


def _json(text: str) -> Any:  # noqa: ANN401
    """The JSON object a command printed; None when there is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _python_path() -> str:
    before = os.environ.get("PYTHONPATH")
    return str(REPOSITORY) if not before else f"{REPOSITORY}{os.pathsep}{before}"


def main() -> int:
    """Parse and do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("prepare")
    first.add_argument("folder", type=Path)
    first.add_argument("--models", default=",".join(MODELS))
    second = commands.add_parser("run")
    second.add_argument("folder", type=Path)
    second.add_argument("--out", type=Path, default=Path("gpu-results"))
    second.add_argument("--plans", type=Path, help="folder for engines, OUT/plans by default")
    second.add_argument("--seconds", type=float, default=SECONDS, help="for all steps together")
    second.add_argument("--step-seconds", type=float, default=STEP_SECONDS, help="for one step")
    second.add_argument("--batches", default="1,8,32")
    second.add_argument("--tensorrt-root", help="headers of TensorRT 8.6, for its plugin library")
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        prepare(arguments.folder, [name for name in arguments.models.split(",") if name])
        return 0
    out = arguments.out.resolve()
    plans = out / "plans" if arguments.plans is None else arguments.plans.resolve()
    run = Run(out, plans, arguments.seconds, arguments.step_seconds)
    return run_all(arguments.folder.resolve(), run, arguments.batches, arguments.tensorrt_root)


if __name__ == "__main__":
    sys.exit(main())
