"""Other runtimes on this machine: which of them run which form of the files, and how exactly.

    python benchmarks/consumers.py [--only tract,mnn] [--files FOLDER] [--envs FOLDER]

Every reference case in each form, by every runtime of ``ROWS`` that is installed or can be had from
the package index, each in an environment of its own; the outputs are compared with the official
ones. Prints the table of ``docs/runtimes.md`` and writes ``consumers.json``; with --only the other
rows stay as they are there. The files are made by ``python -m tests.support.consumers``.

All of it takes an hour; every consumer runs on one thread, so a busy machine changes no result.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from consumer_runs import LOCKS, NotToBeHadError, install, locked, run_folder
from consumer_table import BOUND, OTHER_SHAPES, table
from scaling_report import write_compact
from spine import about

from vim_deploy.errors import VimDeployError
from vim_deploy.folders import user_cache
from vim_deploy.packaging.web_runtime import PACKAGE, VERSION, runtime_files

REPOSITORY = Path(__file__).resolve().parents[1]
USUAL = ("functions", "scan", "unrolled")
#: Of consumers that take minutes for a file: the digits, two classifiers, a segmentation network.
FEW = ("vim_digits", "A01_middle_cls", "A20_cls_with_pool_max", "D01_seg_fpn")
#: What the results say of how they were made: rows may come from several calls.
_COMMAND = "python benchmarks/consumers.py --only ROW, of each row"
#: Refused cases that are named.
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Row:
    """One release of one consumer.

    Attributes:
        name: what --only takes.
        shown: what the table calls it, without its version.
        consumer: a name of ``consumer_worker.CONSUMERS``.
        lock: a lock of ``requirements/consumers`` with what it needs.
        pins: where there is no lock, what pip is asked for; nothing: it is in the environment.
        module: that is importable where the environment has the consumer, and no pins are needed.
        forms: forms to run.
        cases: what to run of a consumer that takes minutes for a file; nothing: every case.
        exact: its outputs are meant to be those of the float32 model.
    """

    name: str
    shown: str
    consumer: str
    lock: str = ""
    pins: tuple[str, ...] = ()
    module: str = ""
    forms: tuple[str, ...] = USUAL
    cases: tuple[str, ...] = ()
    exact: bool = True


def _onnxruntime(version: str, *pins: str, lock: bool = False) -> Row:
    name = f"onnxruntime-{version}"
    words = () if lock else ("--no-deps", f"onnxruntime=={version}", *pins)
    return Row(name, "ONNX Runtime", "onnxruntime", lock=name if lock else "", pins=words)


#: onnxruntime 1.17 and 1.18 were built for this NumPy.
_OLD_NUMPY = "numpy==1.26.4"
_OPSET_17 = (*USUAL, "unrolled-17")
ROWS = (
    _onnxruntime("1.17.3", _OLD_NUMPY),
    _onnxruntime("1.18.1", lock=True),
    _onnxruntime("1.19.2"),
    _onnxruntime("1.20.1", lock=True),
    _onnxruntime("1.21.1", lock=True),
    _onnxruntime("1.22.1"),
    Row("onnxruntime", "ONNX Runtime", "onnxruntime"),
    Row("onnxruntime-web", "onnxruntime-web, under node", "onnxruntime-web"),
    Row(
        "openvino",
        "OpenVINO",
        "openvino",
        pins=("--no-deps", "openvino==2026.4.1"),
        module="openvino",
    ),
    Row("tract", "tract", "tract", lock="tract"),
    Row("mnn", "MNN", "mnn", lock="mnn"),
    Row("iree", "IREE", "iree", lock="iree"),
    Row(
        "tvm",
        "TVM",
        "tvm",
        pins=("--no-deps", "apache-tvm==0.27.0.post1", "apache-tvm-ffi==0.1.15.post2"),
        cases=FEW,
    ),
    Row(
        "onnx2torch",
        "onnx2torch, in PyTorch",
        "onnx2torch",
        pins=("--no-deps", "onnx2torch==1.5.15", "torchvision==0.28.0"),
        forms=_OPSET_17,
    ),
    Row(
        "onnx2tf",
        "onnx2tf, in TensorFlow Lite",
        "onnx2tf",
        pins=("onnx2tf==1.29.24", "tensorflow==2.19.0", "tf_keras==2.19.0"),
        forms=_OPSET_17,
        cases=FEW,
    ),
    Row(
        "opencv",
        "OpenCV",
        "opencv",
        pins=("--no-deps", "opencv-python-headless==5.0.0.93"),
        forms=_OPSET_17,
    ),
    Row(
        "opencv-singly",
        "OpenCV, one picture at a time",
        "opencv-singly",
        pins=("--no-deps", "opencv-python-headless==5.0.0.93"),
        forms=_OPSET_17,
    ),
    Row(
        "opencv-4",
        "OpenCV",
        "opencv",
        pins=("--no-deps", "opencv-python-headless==4.14.0.94"),
        forms=_OPSET_17,
    ),
    Row(
        "ncnn",
        "ncnn, by pnnx",
        "ncnn",
        pins=(
            *("--no-deps", "ncnn==1.0.20261020", "pnnx==20261020"),
            *("requests==2.34.2", "tqdm==4.70.1", "portalocker==4.4.2"),
        ),
        forms=_OPSET_17,
        cases=FEW,
    ),
    Row("onnx.reference", "onnx, its reference evaluator", "onnx.reference", cases=FEW),
    Row(
        "onnxslim",
        "onnxslim, then ONNX Runtime",
        "onnxslim",
        pins=("--no-deps", "onnxslim==0.1.98", "colorama==0.4.6"),
    ),
    Row(
        "onnxsim",
        "onnxsim, then ONNX Runtime",
        "onnxsim",
        pins=("--no-deps", "onnxsim==0.8.1"),
    ),
    Row(
        "quantize_dynamic",
        "ONNX Runtime, after its `quantize_dynamic`",
        "quantize_dynamic",
        exact=False,
    ),
)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core"
    parser.add_argument("--out", type=Path, default=default, help="folder for consumers.json")
    parser.add_argument("--only", default="", help="rows to run, by name")
    parser.add_argument("--files", type=Path, help="folder that keeps the files of all forms")
    parser.add_argument("--envs", type=Path, help="folder that keeps what is installed")
    parser.add_argument("--seconds", type=int, default=600, help="for one file")
    return parser.parse_args()


def chosen(only: str) -> list[Row]:
    """The rows that are named, or all."""
    names = [name for name in only.split(",") if name]
    unknown = set(names) - {row.name for row in ROWS}
    if unknown:
        known = ", ".join(row.name for row in ROWS)
        raise SystemExit(f"no row {', '.join(sorted(unknown))}; there are {known}")
    return [row for row in ROWS if not names or row.name in names]


def environment_of(row: Row, folder: Path) -> Path | None:
    """A folder with the row's consumer, made where it is not there; None: it is installed here."""
    if row.consumer == PACKAGE:
        if shutil.which("node") is None:
            raise NotToBeHadError("no node on the PATH")
        try:
            runtime_files()
        except VimDeployError as error:
            raise NotToBeHadError(error.message) from error
        return user_cache() / "web" / f"{PACKAGE}-{VERSION}"
    if row.module and importlib.util.find_spec(row.module):
        return None
    what = locked(LOCKS / f"{row.lock}.lock") if row.lock else list(row.pins)
    if not what:
        return None
    place = folder / row.name
    if not place.exists():
        install(what, place)
    return place


def installed_by(row: Row) -> str:
    """What a reader does to have the row's consumer."""
    if row.lock:
        return f"pip install -r requirements/consumers/{row.lock}.lock"
    if row.consumer == PACKAGE:
        return f"npm pack {PACKAGE}@{VERSION}"
    pins = [word for word in row.pins if not word.startswith("-")]
    return f"pip install {' '.join(pins)}" if pins else "make venv"


def summary(results: Mapping[str, Mapping[str, Any]], exact: bool) -> dict[str, Any]:
    """What one consumer made of one form.

    Returns:
        ``cases``, their number; ``within``, how many are within ``BOUND`` of the official outputs,
        of those that are not meant to be exact how many run; ``largest``, the largest difference
        of these (of the others over the largest output); ``wrong``, by case the difference of
        those beyond, or the shapes of outputs that have others; ``refused``, by what was said the
        cases, of many their number.
    """
    found: dict[str, Any] = {"cases": len(results), "within": 0}
    largest, wrong = 0.0, {}
    refused: dict[str, list[str]] = {}
    for name, result in results.items():
        if result.get("refused", "").startswith(OTHER_SHAPES):
            # Nothing was refused: whoever reads the outputs is not told.
            wrong[name] = result["refused"]
            continue
        if "refused" in result:
            refused.setdefault(result["refused"], []).append(name)
            continue
        pairs = list(zip(result["differences"], result["largest"], strict=True))
        worst = _most([one if exact else one / most for one, most in pairs])
        if exact and not worst <= BOUND:
            wrong[name] = float(f"{worst:.3g}") if math.isfinite(worst) else str(worst)
        else:
            found["within"] += 1
            largest = max(largest, worst)
    said = {text: names if len(names) <= _NAMED else len(names) for text, names in refused.items()}
    return {**found, "largest": float(f"{largest:.3g}"), "wrong": wrong, "refused": said}


def _most(values: Sequence[float]) -> float:
    """The largest; not a number where one of them is none."""
    return math.nan if any(map(math.isnan, values)) else max(values)


def measure(row: Row, files: Path, environments: Path, seconds: int) -> dict[str, Any]:
    """A row of the results."""
    place = environment_of(row, environments)
    forms = {}
    version = ""
    for form in row.forms:
        said = run_folder(row.consumer, files / form, place, row.cases, seconds)
        version = said["version"]
        forms[form] = summary(said["results"], row.exact)
        print(row.name, version, form, json.dumps(forms[form]), flush=True)
    return {
        "name": row.name,
        "shown": row.shown,
        "version": version,
        "exact": row.exact,
        "installed_by": installed_by(row),
        "forms": forms,
    }


def merged(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Rows in the order of ``ROWS``, the new ones in the places of the old."""
    found = {row["name"]: row for row in (*old, *new)}
    return [found[row.name] for row in ROWS if row.name in found]


def main() -> None:
    """Make files and environments, run, print, write."""
    options = arguments()
    rows = chosen(options.only)
    path, now = options.out / "consumers.json", about()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        files, environments = options.files or Path(folder), options.envs or Path(folder, "envs")
        environments.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "tests.support.consumers", str(files.absolute())]
        subprocess.run(words, check=True, cwd=REPOSITORY)
        for row in rows:
            try:
                measured = measure(row, files, environments, options.seconds)
            except NotToBeHadError as error:
                print(f"{row.name}: not to be had here: {error}", flush=True)
                continue
            # Of every row itself: they need not be of one day.
            measured |= {"date": now["state"]["date"][:10], "commit": now["state"]["commit"]}
            old = json.loads(path.read_text())["rows"] if path.exists() else []
            found = {"bound": BOUND, "command": _COMMAND, "rows": merged(old, [measured])}
            write_compact(path, {**now, **found})
    print(table(json.loads(path.read_text())["rows"]))


if __name__ == "__main__":
    main()
