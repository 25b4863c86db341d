"""Deploy Vision Mamba checkpoints: ONNX, engine, proof.

The stages are functions of the same names as the commands: ``export``, ``build_engine``,
``refit``, ``verify``, ``run``, ``inspect``, ``package`` and ``deploy``, and ``benchmark`` for the
command ``bench``, whose name the package of its parts has; ``verify_dataset``, ``verify_ladder``
and ``bisect_precision`` are ``verify --dataset``, ``--ladder`` and ``--bisect``, ``check_package``
is ``package --check``; the records they take are here too. Everything is resolved on first use, so
that importing the package needs nothing but the standard library.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vim_deploy.engine.profiles import ProfileOptions
    from vim_deploy.engine.trt_options import TrtOptions
    from vim_deploy.errors import VimDeployError
    from vim_deploy.package.repository import ServingOptions
    from vim_deploy.parity.metrics import Tolerance
    from vim_deploy.pipeline import (
        benchmark,
        bisect_precision,
        build_engine,
        check_package,
        deploy,
        export,
        inspect,
        package,
        refit,
        run,
        verify,
        verify_dataset,
        verify_ladder,
    )
    from vim_deploy.pipeline.benchmarking import BenchOptions
    from vim_deploy.pipeline.exporting import ExportOptions
    from vim_deploy.pipeline.opening import RunnerOptions
    from vim_deploy.pipeline.packaging import PackageOptions
    from vim_deploy.pipeline.run_records import RunOptions, SceneOptions
    from vim_deploy.pipeline.subjects import SubjectOptions
    from vim_deploy.pipeline.verifying import VerifyOptions
    from vim_deploy.pipeline.verifying_dataset import DatasetOptions
    from vim_deploy.recipe.request import ModelRequest

__version__ = "0.1.0"
__all__ = [
    "BenchOptions",
    "DatasetOptions",
    "ExportOptions",
    "ModelRequest",
    "PackageOptions",
    "ProfileOptions",
    "RunOptions",
    "RunnerOptions",
    "SceneOptions",
    "ServingOptions",
    "SubjectOptions",
    "Tolerance",
    "TrtOptions",
    "VerifyOptions",
    "VimDeployError",
    "__version__",
    "benchmark",
    "bisect_precision",
    "build_engine",
    "check_package",
    "deploy",
    "export",
    "inspect",
    "package",
    "refit",
    "run",
    "verify",
    "verify_dataset",
    "verify_ladder",
]

#: Where a public name comes from.
_HOMES = {
    "BenchOptions": "vim_deploy.pipeline.benchmarking",
    "DatasetOptions": "vim_deploy.pipeline.verifying_dataset",
    "ExportOptions": "vim_deploy.pipeline.exporting",
    "ModelRequest": "vim_deploy.recipe.request",
    "PackageOptions": "vim_deploy.pipeline.packaging",
    "ProfileOptions": "vim_deploy.engine.profiles",
    "RunOptions": "vim_deploy.pipeline.run_records",
    "RunnerOptions": "vim_deploy.pipeline.opening",
    "SceneOptions": "vim_deploy.pipeline.run_records",
    "SubjectOptions": "vim_deploy.pipeline.subjects",
    "ServingOptions": "vim_deploy.package.repository",
    "Tolerance": "vim_deploy.parity.metrics",
    "TrtOptions": "vim_deploy.engine.trt_options",
    "VerifyOptions": "vim_deploy.pipeline.verifying",
    "VimDeployError": "vim_deploy.errors",
    "benchmark": "vim_deploy.pipeline",
    "bisect_precision": "vim_deploy.pipeline",
    "build_engine": "vim_deploy.pipeline",
    "check_package": "vim_deploy.pipeline",
    "deploy": "vim_deploy.pipeline",
    "export": "vim_deploy.pipeline",
    "inspect": "vim_deploy.pipeline",
    "refit": "vim_deploy.pipeline",
    "verify": "vim_deploy.pipeline",
    "verify_dataset": "vim_deploy.pipeline",
    "verify_ladder": "vim_deploy.pipeline",
}


class StagePackage(ModuleType):
    """A package of the name of a stage: calling it runs the stage.

    ``vim_deploy.run`` is the package of runners, and has to be the function ``run`` as well;
    likewise ``vim_deploy.package``.
    """

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - the stage's own
        stage = getattr(importlib.import_module("vim_deploy.pipeline"), self.__name__.split(".")[1])
        return stage(*arguments, **keywords)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - functions and records
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in ("package", "run"):
        return importlib.import_module(f"vim_deploy.{name}")
    raise AttributeError(f"module 'vim_deploy' has no attribute {name!r}")
