"""Deploy Vision Mamba checkpoints: ONNX, engine, proof.

The stages are functions of the same names as the commands: ``export``, ``build_engine``,
``verify``, ``inspect`` and ``deploy``. They are resolved on first use, so that importing the
package needs nothing but the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vim_deploy.pipeline import build_engine, deploy, export, inspect, verify

__version__ = "0.1.0"
__all__ = ["__version__", "build_engine", "deploy", "export", "inspect", "verify"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the stages have different types
    if name in __all__:
        from vim_deploy import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'vim_deploy' has no attribute {name!r}")
