"""The main job on real input, on any machine: what ``make demo`` runs.

1. A trained toy in the official training layout: deployed, and its accuracy on scikit-learn's
   digits measured through PyTorch, ONNX Runtime without and with native ops, and a graph that
   takes bytes.
2. Vim-Ti at 224 x 224 with seeded weights: deployed and verified on a real photograph.

Both at once, each in a process of its own with half of the processors; what is heavy is imported
there. Everything goes to a numbered folder under ``work``.
"""

from __future__ import annotations

import importlib.resources
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

import vim_deploy
from vim_deploy.cli.output import configure_log
from vim_deploy.errors import VimDeployError

if TYPE_CHECKING:
    from vim_deploy.runtimes.base import Runner
    from vim_deploy.stages.deploying import DeployResult

OUT = Path("work")
BATCH = 32
console = Console()
if not console.is_terminal:
    console.width = 120


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """The toy's test split: values in [0, 1], float32 [360, 1, 32, 32], and labels [360].

    Preparation and split are those of its training: 8x8 digits / 16, enlarged bilinearly.
    """
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    _, images, _, labels = train_test_split(
        digits.images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    scaled = torch.tensor(images / 16, dtype=torch.float32)[:, None]
    enlarged = torch.nn.functional.interpolate(
        scaled, size=(32, 32), mode="bilinear", align_corners=False
    )
    return enlarged.numpy(), labels


def scores(runner: Runner, images: np.ndarray) -> tuple[np.ndarray, float]:
    """Logits of all images, and the seconds they took."""
    from vim_deploy.runtimes.base import run_in_batches

    started = time.perf_counter()
    logits = run_in_batches(runner, images, BATCH)["logits"]
    return logits, time.perf_counter() - started


def demo_digits() -> tuple[DeployResult, list[tuple[str, ...]]]:
    """Deploy the toy; rows on its accuracy through three routes."""
    from vim_deploy.model.reference import reference_model
    from vim_deploy.recipe.catalog import checkpoint_of
    from vim_deploy.recipe.schema import ModelRequest
    from vim_deploy.runtimes.onnxruntime.runner import OrtRunner
    from vim_deploy.runtimes.torch.runner import TorchRunner
    from vim_deploy.stages.deploying import deploy
    from vim_deploy.stages.export_options import ExportOptions
    from vim_deploy.stages.exporting import export

    request = ModelRequest("vim-digits")
    result = deploy(request, OUT, options=ExportOptions())
    bytes_file = export(
        request, result.folder / "model.uint8.onnx", ExportOptions(preprocess="uint8")
    ).path

    scaled, labels = digit_images()
    image = result.export.info.image
    mean, std = np.float32(image.mean[0]), np.float32(image.std[0])
    pixels = np.round(scaled * 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()
    reference = TorchRunner(reference_model(checkpoint_of(request.source), result.export.info))
    prepared = (scaled - mean) / std
    native = OrtRunner(result.export.path, ops="auto")
    ops = "without native ops" if native.library is None else native.library.title
    routes = [
        ("PyTorch", reference, prepared),
        ("ONNX Runtime, the file's functions", OrtRunner(result.export.path), prepared),
        (f"ONNX Runtime, {ops}, bytes in", OrtRunner(bytes_file, ops="auto"), pixels),
    ]
    if native.library is not None:
        routes.insert(2, (f"ONNX Runtime, {ops}", native, prepared))
    rows = []
    expected = None
    for name, runner, images in routes:
        logits, seconds = scores(runner, images)
        expected = logits if expected is None else expected
        right = int((logits.argmax(1) == labels).sum())
        same = int((logits.argmax(1) == expected.argmax(1)).sum())
        rows.append(
            (
                name,
                f"{100 * right / len(labels):.2f} % ({right} of {len(labels)})",
                f"{same} of {len(labels)}",
                f"{np.abs(logits - expected).max():.1e}",
                f"{seconds:.2f} s",
            )
        )
    return result, rows


def demo_photograph() -> DeployResult:
    """Deploy Vim-Ti with seeded weights, verified on two photographs."""
    from vim_deploy.recipe.schema import ModelRequest
    from vim_deploy.stages.deploying import deploy

    with importlib.resources.as_file(
        importlib.resources.files("sklearn.datasets.images")
    ) as photographs:
        return deploy(ModelRequest("vim-tiny", random_weights=0), OUT, images=photographs)


def summary(results: list[tuple[str, DeployResult]]) -> Table:
    """What was made, how long each stage took, how far apart the numbers are."""
    table = Table(title="what was made", title_justify="left")
    for column in (
        "model",
        "file",
        "size",
        "export",
        "verify",
        "engine",
        "PyTorch to ONNX Runtime",
    ):
        table.add_column(column, overflow="fold")
    for name, result in results:
        engine = result.engine
        table.add_row(
            name,
            f"{result.folder}/model.onnx\nmodel.plan",
            f"{result.export.path.stat().st_size / 1e6:.1f} MB\n"
            + (f"{engine.plan.bytes / 1e6:.1f} MB" if engine else "-"),
            f"{result.seconds['export']:.1f} s",
            f"{result.seconds['verify']:.1f} s",
            f"{result.seconds['build-engine']:.1f} s" if engine else "-",
            f"max abs {result.parity.worst.max_abs:.1e}\nrel L2 "
            f"{result.parity.worst.relative_l2:.1e}",
        )
    return table


def show_accuracy(rows: list[tuple[str, ...]]) -> None:
    """Print what ``demo_digits`` measured."""
    accuracy = Table(title="accuracy on 360 real digits", title_justify="left")
    for column in ("route", "accuracy", "same as PyTorch", "logits max abs", "time"):
        accuracy.add_column(column)
    for row in rows:
        accuracy.add_row(*row)
    console.print(accuracy)


def only_warnings() -> None:
    """The log of a process that runs a part."""
    configure_log()
    logging.getLogger("vim_deploy").setLevel(logging.WARNING)


def main() -> int:
    """Run both parts; the exit code of the first that fails."""
    console.print(f"vim-deploy {vim_deploy.__version__}")
    # Runtimes that start a thread for every processor beside each other wait for each other's.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    try:
        with ProcessPoolExecutor(2, get_context("spawn"), initializer=only_warnings) as pool:
            photograph, toy = pool.submit(demo_photograph), pool.submit(demo_digits)
            console.rule("1. a trained toy: Vim on 32 x 32 digits")
            digits, rows = toy.result()
            show_accuracy(rows)
            console.rule("2. Vim-Ti at 224 x 224, seeded weights, real photographs")
            tiny = photograph.result()
    except VimDeployError as error:
        console.print(str(error), style="red", markup=False)
        return int(error.exit_code)
    console.print(summary([("vim-digits, trained", digits), ("Vim-Ti, seeded", tiny)]))
    console.print(
        "The engines run on GPUs of compute capability "
        + ", ".join(tiny.engine.compute_capabilities if tiny.engine else ())
        + "; they were built here without one and have not been run.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
