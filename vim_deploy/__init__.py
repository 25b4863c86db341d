"""Deploy vision state-space models: ONNX, engine, proof.

The stages are functions of the same names as the commands: ``export``, ``build_engine``,
``refit``, ``verify``, ``compare``, ``run``, ``inspect``, ``package`` and ``deploy``, and
``benchmark`` for the command ``bench``, whose name the package of its parts has;
``verify_dataset``, ``verify_ladder`` and ``bisect_precision`` are ``verify --dataset``,
``--ladder`` and ``--bisect``, ``check_package`` is ``package --check``; ``load`` gives an exported
file as a function of pictures. The records they take are here too. Everything is resolved on first
use, so that importing the package needs nothing but the standard library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vim_deploy.artifact.profiles import ProfileOptions
    from vim_deploy.errors import VimDeployError
    from vim_deploy.packaging.repository import ServingOptions
    from vim_deploy.parity.metrics import Tolerance
    from vim_deploy.recipe.schema import ModelRequest
    from vim_deploy.runtimes.base import RunnerOptions
    from vim_deploy.runtimes.building.request import TrtOptions
    from vim_deploy.scene.records import DetectionOptions, RunOptions, SceneOptions
    from vim_deploy.stages import (
        benchmark,
        bisect_precision,
        build_engine,
        check_package,
        compare,
        deploy,
        export,
        inspect,
        load,
        package,
        refit,
        run,
        verify,
        verify_dataset,
        verify_ladder,
    )
    from vim_deploy.stages.benchmarking import BenchOptions
    from vim_deploy.stages.comparing import CompareOptions
    from vim_deploy.stages.comparing_report import CompareLimits
    from vim_deploy.stages.export_options import ExportOptions
    from vim_deploy.stages.loading import Model
    from vim_deploy.stages.packaging import PackageOptions
    from vim_deploy.stages.subjects import SubjectOptions
    from vim_deploy.stages.verifying import VerifyOptions
    from vim_deploy.stages.verifying_dataset import DatasetOptions

__version__ = "0.1.0"
__all__ = [
    "BenchOptions",
    "CompareLimits",
    "CompareOptions",
    "DatasetOptions",
    "DetectionOptions",
    "ExportOptions",
    "Model",
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
    "compare",
    "deploy",
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

#: Where a public name comes from.
_HOMES = {
    "BenchOptions": "vim_deploy.stages.benchmarking",
    "CompareLimits": "vim_deploy.stages.comparing_report",
    "CompareOptions": "vim_deploy.stages.comparing",
    "DatasetOptions": "vim_deploy.stages.verifying_dataset",
    "DetectionOptions": "vim_deploy.scene.records",
    "ExportOptions": "vim_deploy.stages.export_options",
    "Model": "vim_deploy.stages.loading",
    "ModelRequest": "vim_deploy.recipe.schema",
    "PackageOptions": "vim_deploy.stages.packaging",
    "ProfileOptions": "vim_deploy.artifact.profiles",
    "RunOptions": "vim_deploy.scene.records",
    "RunnerOptions": "vim_deploy.runtimes.base",
    "SceneOptions": "vim_deploy.scene.records",
    "SubjectOptions": "vim_deploy.stages.subjects",
    "ServingOptions": "vim_deploy.packaging.repository",
    "Tolerance": "vim_deploy.parity.metrics",
    "TrtOptions": "vim_deploy.runtimes.building.request",
    "VerifyOptions": "vim_deploy.stages.verifying",
    "VimDeployError": "vim_deploy.errors",
    "benchmark": "vim_deploy.stages",
    "bisect_precision": "vim_deploy.stages",
    "build_engine": "vim_deploy.stages",
    "check_package": "vim_deploy.stages",
    "compare": "vim_deploy.stages",
    "deploy": "vim_deploy.stages",
    "export": "vim_deploy.stages",
    "inspect": "vim_deploy.stages",
    "load": "vim_deploy.stages",
    "package": "vim_deploy.stages",
    "refit": "vim_deploy.stages",
    "run": "vim_deploy.stages",
    "verify": "vim_deploy.stages",
    "verify_dataset": "vim_deploy.stages",
    "verify_ladder": "vim_deploy.stages",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - functions and records
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vim_deploy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
