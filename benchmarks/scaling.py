"""Vim against DeiT from 224 to 1248 px on this machine, as in figure 1 of the Vim paper.

    python benchmarks/scaling.py [--out FOLDER] [--model vim-tiny] [--sizes 224,512,...]

Runs ``vim-deploy bench`` with DeiT and PyTorch beside the model and writes its report and the
figure. The machine has to be quiet: the script does not begin under load, and ends with an error
when other work took more than a tenth of the processors meanwhile, unless --busy says that the
figures do not count (then nothing is written outside a temporary folder).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from vim_deploy.bench.environment import BUSY_SHARE, available_cpus
from vim_deploy.bench.report import BenchReport
from vim_deploy.errors import VimDeployError
from vim_deploy.pipeline import benchmark
from vim_deploy.pipeline.benchmarking import BenchOptions

SIZES = (224, 512, 640, 738, 1024, 1248)
#: Load average per processor above which the machine is not quiet.
MOST_LOAD = 0.25


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core" / "scaling"
    parser.add_argument("--out", type=Path, default=default, help="folder for the report")
    parser.add_argument("--model", default="vim-tiny", help="variant to measure")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="image sizes")
    parser.add_argument("--batch", type=int, default=1, help="images in one call")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds per measurement")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before the clock")
    parser.add_argument("--exports", type=Path, help="folder that keeps the exported files")
    parser.add_argument("--busy", action="store_true", help="only try it; the figures do not count")
    return parser.parse_args()


def quiet_before() -> bool:
    """Whether little runs on this machine now."""
    return os.getloadavg()[0] <= MOST_LOAD * available_cpus()


def quiet_during(report: BenchReport) -> bool:
    """Whether little else ran during the measurement; what the system does not tell counts not."""
    return all((share or 0.0) <= BUSY_SHARE for share in report.disturbance.values())


def run(options: argparse.Namespace, folder: Path) -> BenchReport:
    """Measure into ``folder``."""
    sizes = tuple(int(size) for size in options.sizes.split(","))
    chosen = BenchOptions(
        batches=(options.batch,),
        image_sizes=sizes,
        baselines=("pytorch", "deit"),
        warmup=options.warmup,
        duration=options.duration,
        random_weights=0,
        export_dir=options.exports,
        output=folder,
        plot=folder / "scaling.svg",
        force=True,
    )
    command = ("python", "benchmarks/scaling.py", *sys.argv[1:])
    return benchmark([options.model], chosen, command, lambda text: print(text, flush=True))


def main() -> None:
    """Measure in a temporary folder; keep the report only when the machine was quiet."""
    options = arguments()
    if not options.busy and not quiet_before():
        raise SystemExit(f"the machine is not quiet (load {os.getloadavg()[0]:.2f}): try later")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            report = run(options, folder)
        except VimDeployError as error:
            raise SystemExit(str(error)) from error
        print((folder / "bench.md").read_text())
        if options.busy:
            return
        if not quiet_during(report):
            raise SystemExit(f"the machine was not quiet: {dict(report.disturbance)}")
        options.out.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            (options.out / path.name).write_bytes(path.read_bytes())
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
