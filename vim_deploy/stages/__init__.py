"""The stages as functions: the only package that knows all of them.

Each function does what the command of the same name does and returns the record it prints. torch
is imported inside the stages that read checkpoints, so that the deploying side works without it.
"""

from vim_deploy.stages.benchmarking import benchmark
from vim_deploy.stages.bisecting import bisect_precision
from vim_deploy.stages.building import build_engine
from vim_deploy.stages.comparing import compare
from vim_deploy.stages.deploying import deploy
from vim_deploy.stages.describing import describe_from
from vim_deploy.stages.exporting import export
from vim_deploy.stages.inspecting import inspect
from vim_deploy.stages.laddering import verify_ladder
from vim_deploy.stages.loading import load
from vim_deploy.stages.packaging import check_package, package
from vim_deploy.stages.refitting import refit
from vim_deploy.stages.running import run
from vim_deploy.stages.verifying import verify
from vim_deploy.stages.verifying_dataset import verify_dataset

__all__ = [
    "benchmark",
    "bisect_precision",
    "build_engine",
    "check_package",
    "compare",
    "deploy",
    "describe_from",
    "export",
    "inspect",
    "load",
    "package",
    "refit",
    "run",
    "verify",
    "verify_dataset",
    "verify_ladder",
]
