"""The process that builds with TensorRT-RTX: ``python -m vim_deploy.runtimes.tensorrt_rtx.worker``.

The plugin library is never loaded here: TensorRT-RTX aborts when a node becomes a plugin. The
timing cache is left alone: touching it makes TensorRT-RTX ask for a GPU.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from vim_deploy.errors import VimDeployError
from vim_deploy.runtimes.building.compiler import Compiler
from vim_deploy.runtimes.building.request import BuildJob
from vim_deploy.runtimes.building.worker import Events, serve
from vim_deploy.runtimes.tensorrt_rtx import capability as trt_rtx


class RtxCompiler(Compiler):
    """A build with TensorRT-RTX."""

    def network_flags(self) -> int:
        """Strongly typed, where that has to be said."""
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def configure(self, config: Any) -> None:  # noqa: ANN401
        """Name the GPUs; VIM-202 for one that TensorRT-RTX does not build for."""
        if self.job.named:
            config.num_compute_capabilities = len(self.job.named)
        for index, capability in enumerate(self.job.named):
            name = "SM" + capability.replace(".", "")
            member = getattr(self.module.ComputeCapability, name, None)
            if member is None or not config.set_compute_capability(member, index):
                raise VimDeployError(
                    "VIM-202",
                    f"{self.job.title} does not build for compute capability {capability}",
                    fix="vim-deploy doctor lists those it builds for",
                )


def build(job: BuildJob, events: Events, stop: threading.Event) -> dict[str, Any]:
    """Build one engine; facts and errors as ``Compiler.build``."""
    return RtxCompiler(trt_rtx.load(), job, events, stop).build()


def main() -> int:
    """Run one job from standard input; the exit status."""
    return serve(build, BuildJob)


if __name__ == "__main__":
    sys.exit(main())
