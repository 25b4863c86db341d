"""Load a served model: requests a second and latency for 1 to 32 clients at once.

    python benchmarks/serve.py [--output FILE.json] [--model MODEL.onnx] [--perf-analyzer]

Packages the model for the python runtime twice, with dynamic batching and without, serves each
with the package's own run.sh on 127.0.0.1, and asks with the package's own client from threads,
over HTTP and gRPC. ``--perf-analyzer`` adds NVIDIA's load generator, the binary of the wheel
tritonclient 2.50.0. Figures count from a quiet machine only: the script does not begin under load
unless --busy says that they do not count. About two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import json
import os
import platform
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import vim_deploy
from vim_deploy.packaging.repository import ServingOptions
from vim_deploy.stages import export, package
from vim_deploy.stages.export_options import ExportOptions
from vim_deploy.stages.packaging import PackageOptions

CONCURRENCY = (1, 2, 4, 8, 16, 32)
PROTOCOLS = ("http", "grpc")
#: Load average per processor above which the machine is not quiet.
MOST_LOAD = 0.25
START_SECONDS, STOP_SECONDS, ANALYZER_SECONDS = 240.0, 60.0, 60.0
ANALYZER_WHEEL = "tritonclient==2.50.0"


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core" / "serve.json"
    parser.add_argument("--output", type=Path, default=default, help="file for the figures")
    parser.add_argument("--model", type=Path, help="exported file  [the digits toy]")
    parser.add_argument("--seconds", type=float, default=3.0, help="of every measurement")
    parser.add_argument("--concurrency", default=",".join(map(str, CONCURRENCY)), help="clients")
    parser.add_argument("--queue-delay-us", type=int, default=500, help="of the batcher")
    parser.add_argument("--perf-analyzer", action="store_true", help="NVIDIA's generator as well")
    parser.add_argument("--busy", action="store_true", help="begin under load; write nothing")
    return parser.parse_args()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[dict[str, int]]:
    """Ports of the server of a package, for as long as the block lasts."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        numbers = [item.getsockname()[1] for item in sockets]
    ports = dict(zip(("http", "grpc", "metrics"), numbers, strict=True))
    variables = {f"VIM_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    environment = {**os.environ, **variables, "PYTHON": sys.executable}
    log = folder.with_suffix(".log")
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [folder / "run.sh"], env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        await_ready(server, ports["http"], log)
        yield ports
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()


def await_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the server answers; SystemExit with its log when it does not."""
    end = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2).close()
            return
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the server did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def picture(facts: dict[str, Any]) -> Any:  # noqa: ANN401
    """One picture of noise, as the model takes it."""
    shape = [1, *facts["input"]["shape"][1:]]
    return np.random.default_rng(0).random(shape).astype(facts["input"]["dtype"])


def measure(
    client: SimpleNamespace, protocol: str, port: int, clients: int, seconds: float
) -> dict[str, Any]:
    """Ask with so many threads for so long; every answer is compared with the first one."""
    facts = client.load_model_facts()
    kind = client.HttpModel if protocol == "http" else client.GrpcModel
    image = picture(facts)
    name = facts["outputs"][0]["name"]
    spans: list[tuple[float, float]] = []
    wrong: list[str] = []
    gate = threading.Barrier(clients)
    reference = kind(facts, f"127.0.0.1:{port}")
    wanted = reference.infer(image)[name]
    reference.close()

    def ask() -> None:
        model = kind(facts, f"127.0.0.1:{port}")
        model.infer(image)
        gate.wait()
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            try:
                if not np.allclose(model.infer(image)[name], wanted, atol=1e-4):
                    wrong.append("another answer")
            except (OSError, client.ServerError) as error:
                wrong.append(str(error))
            spans.append((started, time.perf_counter()))
        model.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    starts, ends = np.array(spans).T
    p50, p99 = np.percentile(ends - starts, [50, 99]) * 1e3
    return {
        "protocol": protocol,
        "clients": clients,
        "requests": len(spans),
        "failed": len(wrong),
        "per_second": round(float(len(spans) / (ends.max() - starts.min())), 1),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
    }


def counters(client: SimpleNamespace, port: int) -> tuple[int, int]:
    """Pictures and executions that the server has counted."""
    model = client.HttpModel(client.load_model_facts(), f"127.0.0.1:{port}")
    found = model.statistics()
    model.close()
    return int(found["inference_count"]), int(found["execution_count"])


def load(folder: Path, options: argparse.Namespace, analyzer: Analyzer | None) -> dict[str, Any]:
    """Every measurement of one package."""
    client = SimpleNamespace(**runpy.run_path(str(folder / "client.py")))
    concurrency = [int(part) for part in options.concurrency.split(",")]
    rows: list[dict[str, Any]] = []
    with serving(folder) as ports:
        for protocol in PROTOCOLS:
            for clients in concurrency:
                before = counters(client, ports["http"])
                row = measure(client, protocol, ports[protocol], clients, options.seconds)
                after = counters(client, ports["http"])
                pictures, runs = (b - a for a, b in zip(before, after, strict=True))
                row["pictures_per_execution"] = round(pictures / runs, 2)
                print(json.dumps(row), file=sys.stderr)
                rows.append(row)
        generated = (
            []
            if analyzer is None
            else analyzer.run(
                client.load_model_facts(), ports["grpc"], concurrency, options.seconds
            )
        )
    return {"client": rows, "perf_analyzer": generated}


class Analyzer:
    """NVIDIA's perf_analyzer out of a wheel, with the libraries it looks for."""

    def __init__(self, folder: Path, libraries: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--platform", "manylinux1_x86_64", "--only-binary=:all:"]
        subprocess.run([*command, "--dest", str(folder), ANALYZER_WHEEL], check=True)
        (wheel,) = folder.glob("tritonclient-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = [name for name in archive.namelist() if name.endswith("/perf_analyzer")]
            self.program = Path(archive.extract(member, folder))
        self.program.chmod(0o755)
        self.libraries = folder / "libraries"
        self.libraries.mkdir()
        for name in ("libb64.so.0d", "libcudart.so.12"):
            stem = name.partition(".")[0]
            (found,) = libraries.glob(f"{stem}-*")
            (self.libraries / name).symlink_to(found)

    def run(
        self, facts: dict[str, Any], port: int, concurrency: list[int], seconds: float
    ) -> list[dict[str, Any]]:
        """Over gRPC: throughput and latency for each number of clients."""
        rows: list[dict[str, Any]] = []
        # By itself it sends random bytes, as floating-point numbers mostly NaN: refused, rightly.
        data = self.libraries.parent / "input.json"
        image = picture(facts)
        sent = {"content": image.ravel().tolist(), "shape": list(image.shape[1:])}
        data.write_text(json.dumps({"data": [{facts["input"]["name"]: sent}]}))
        for clients in concurrency:
            table = self.libraries.parent / "out.csv"
            table.unlink(missing_ok=True)
            words = [str(self.program), "-m", facts["name"]]
            words += ["-i", "grpc", "-u", f"127.0.0.1:{port}"]
            words += ["--concurrency-range", f"{clients}:{clients}", "-f", str(table)]
            # Windows of time, until three in a row agree. With a fixed number of requests it
            # divides by whole windows, so that fast servers look slower than they are.
            words += ["-p", str(round(1000 * seconds)), "-r", "8", "-s", "50"]
            words += ["--percentile", "99", "--input-data", str(data)]
            try:
                done = subprocess.run(
                    words,
                    env={**os.environ, "LD_LIBRARY_PATH": str(self.libraries)},
                    capture_output=True,
                    text=True,
                    timeout=ANALYZER_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                rows.append({"clients": clients, "failed": f"no end in {ANALYZER_SECONDS:.0f} s"})
                continue
            if done.returncode or not table.exists():
                said = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
                rows.append({"clients": clients, "failed": said[-1]})
                continue
            with table.open() as stream:
                (row,) = list(csv.DictReader(stream))
            rows.append(
                {
                    "clients": clients,
                    "per_second": float(row["Inferences/Second"]),
                    "p50_ms": float(row["p50 latency"]) / 1e3,
                    "p99_ms": float(row["p99 latency"]) / 1e3,
                }
            )
        return rows


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """Machine, versions, commit, command and date."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - git of the PATH
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    packages = ("onnxruntime", "numpy", "tritonclient")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "command": "python benchmarks/serve.py " + " ".join(sys.argv[1:]),
        "cpu_count": os.cpu_count(),
        "load_average_before": round(os.getloadavg()[0], 2),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {
            "vim-deploy": vim_deploy.__version__,
            **{name: version(name) for name in packages},
        },
        "server": "Triton 2.51.0 of nvidia-pytriton 0.7.0, python backend; versions of its "
        "environment are in the package's requirements-server.txt",
        "seconds_each": options.seconds,
        "queue_delay_us": options.queue_delay_us,
    }


def server_libraries() -> Path:
    """Folder of the libraries in the wheel of nvidia-pytriton, which run.sh has installed."""
    named = os.environ.get("VIM_SERVER_VENV")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vim-deploy"
    places = [Path(named)] if named else sorted(cache.glob("triton-*"))
    found = [path for place in places for path in place.glob("lib/*/site-packages/*.libs")]
    wanted = [path for path in found if path.name == "nvidia_pytriton.libs"]
    if not wanted:
        raise SystemExit("start a package's run.sh once, or set VIM_SERVER_VENV")
    return wanted[-1].resolve()


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    if not options.busy and os.getloadavg()[0] > MOST_LOAD * (os.cpu_count() or 1):
        raise SystemExit("the machine is busy: figures would not count (--busy measures anyway)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about = environment(options)
        model = options.model
        if model is None:
            settings = ExportOptions(check=False)
            model = export("vim-digits", folder / "digits.onnx", settings).path
        figures: dict[str, Any] = {**about, "model": model.name}
        analyzer = None
        for batching in (True, False):
            serving_options = ServingOptions(
                runtime="python",
                dynamic_batching=batching,
                queue_delay_us=options.queue_delay_us,
            )
            kind = "dynamic_batching" if batching else "single_requests"
            made = package(model, folder / kind, PackageOptions(serving_options)).folder
            if options.perf_analyzer and analyzer is None:
                subprocess.run([made / "run.sh", "--prepare"], check=True)
                place = folder / "perf_analyzer"
                place.mkdir()
                analyzer = Analyzer(place, server_libraries())
            figures[kind] = load(made, options, analyzer)
    print(json.dumps(figures, indent=2))
    if options.busy:
        print("nothing written: measured on a busy machine", file=sys.stderr)
        return
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(figures, separators=(",", ":")) + "\n")
    print(f"wrote {options.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
