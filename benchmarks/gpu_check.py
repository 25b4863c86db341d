"""Everything a GPU has to show for the engines: kernels, builds, parity, speed, memory.

    gpu_check.sh prepare FOLDER [--models vim-tiny,vim-small]
    gpu_check.sh run FOLDER [--out RESULTS] [--batches 1,8,32] [--tensorrt-root DIR]

``prepare`` needs PyTorch and no GPU: float32 exports with seeded weights, the trained digits model,
and for each an .npz with inputs and PyTorch's outputs. ``run`` needs a GPU, TensorRT, cuda-bindings
and nvcc, and no PyTorch; Python 3.10 will do, so that it works beside TensorRT 8.6. Each of its
steps is one vim-deploy command in a process of its own; a step that fails is kept with its words,
the others go on, and the exit code is 1. Results go to RESULTS/gpu_check.json after every step, so
that nothing is lost when the machine is.

Limits: relative L2 of an engine's logits to PyTorch's at most 1e-3 in fp32 (TensorRT reorders the
sums; TF32 is off) and 1e-2 in fp16, and at most 1 of the 360 digits with another class.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = ("vim-tiny", "vim-small")
PRECISIONS = ("fp32", "fp16")
#: Relative L2 alone judges: the largest difference that --atol takes, that of float16.
LOOSE = "65504"
RELATIVE_L2 = {"fp32": "1e-3", "fp16": "1e-2"}
DIGITS = "vim-digits"
#: 359 of 360 and not one less.
DIGITS_AGREE = "0.9972"
#: Longest step: an engine of Vim-S on a slow machine.
TIMEOUT = 1500
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
    write(folder / "prepared.json", {"models": list(models), **versions()})


def _reference(path: Path, checkpoint: str | None) -> Any:  # noqa: ANN401 - a torch runner
    from vim_deploy.artifact import Artifact
    from vim_deploy.model.reference import reference_model
    from vim_deploy.runtimes.torch.runner import TorchRunner

    info = Artifact.open(path).info
    assert info is not None
    return TorchRunner(reference_model(checkpoint or info.checkpoint.name, info), threads=1)


class Run:
    """The steps done so far, and their results on disk."""

    def __init__(self, out: Path) -> None:
        self.path = out / "gpu_check.json"
        out.mkdir(parents=True, exist_ok=True)
        self.value: dict[str, Any] = {**versions(), "command": sys.argv, "steps": {}}

    def step(self, name: str, arguments: Sequence[str], python: str = sys.executable) -> Any:  # noqa: ANN401
        """One command; what it prints as JSON, or None when it fails."""
        started = time.monotonic()
        try:
            done = subprocess.run(
                [python, *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
            status, printed, said = done.returncode, done.stdout, done.stderr
        except (subprocess.TimeoutExpired, OSError) as error:
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
        write(self.path, self.value)


def check_engine(run: Run, folder: Path, model: str, precision: str) -> Path | None:
    """Build one engine, count its plugin layers, compare it with PyTorch."""
    plan = run.path.parent / "engines" / f"{model}-{precision}.plan"
    plan.parent.mkdir(exist_ok=True)
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
    plan = run.path.parent / "engines" / f"{DIGITS}-{precision}-inner.plan"
    plan.parent.mkdir(exist_ok=True)
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


def run_all(folder: Path, out: Path, batches: str, tensorrt_root: str | None) -> int:
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
        print(f"{folder} is not prepared (gpu_check.sh prepare {folder}): {error}", file=sys.stderr)
        return 4
    run = Run(out)
    run.value["gpu"] = {"name": gpu.name, "compute_capability": f"{gpu.major}.{gpu.minor}"}
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
            torch_module(run, folder / f"{model}.onnx", kept, batches, built)
    for precision in PRECISIONS:
        look_inside(run, folder, precision)
    for name in run.failed:
        print(f"failed: {name}", file=sys.stderr)
    print(f"wrote {run.path}")
    return 1 if run.failed else 0


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


def torch_module(
    run: Run, model: Path, plans: list[str], batches: str, library: dict[str, Any] | None
) -> None:
    """The PyTorch module on the GPU with our kernels (and mamba_ssm's), engines beside it."""
    python = os.environ.get("TORCH_PYTHON")
    if not python or library is None:
        why = "no plugin library" if python else "TORCH_PYTHON names no Python with CUDA PyTorch"
        run.leave_out(f"{model.stem}: PyTorch module on the GPU", why)
        return
    script = REPOSITORY / "benchmarks" / "torch_cuda.py"
    mamba = os.environ.get("MAMBA_CHECKOUT")
    extra = [] if mamba is None else ["--mamba", mamba]
    if mamba is None:
        run.leave_out(f"{model.stem}: mamba_ssm's kernel", "MAMBA_CHECKOUT names no checkout of it")
    arguments = [str(script), str(model), "--library", library["library"], "--batches", batches]
    for plan in plans:
        arguments += ["--engine", plan]
    run.step(
        f"{model.stem}: PyTorch module on the GPU",
        [*arguments, "--engine-python", sys.executable, *extra],
        python,
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


def versions() -> dict[str, Any]:
    """Date, commit and versions."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "numpy", "onnx", "tensorrt", "cuda-bindings"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    git = ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=False)
        commit = done.stdout.strip() or None
    except OSError:
        commit = None
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "python": platform.python_version(),
        "versions": found,
    }


def write(path: Path, value: Any) -> None:  # noqa: ANN401 - anything JSON
    """Write JSON so that a reader never sees half of it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)


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
    second.add_argument("--out", type=Path, default=Path("gpu-check-results"))
    second.add_argument("--batches", default="1,8,32")
    second.add_argument("--tensorrt-root", help="headers of TensorRT 8.6, for its plugin library")
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        prepare(arguments.folder, [name for name in arguments.models.split(",") if name])
        return 0
    return run_all(
        arguments.folder.resolve(),
        arguments.out.resolve(),
        arguments.batches,
        arguments.tensorrt_root,
    )


if __name__ == "__main__":
    sys.exit(main())
