"""A build process on the fake: ``python -m tests.support.fake_tensorrt.worker 10.14 '{}'``."""

from __future__ import annotations

import importlib
import json
import sys

from tests.support.fake_tensorrt import personality
from vim_deploy.runtimes.tensorrt import capability as trt


def command(version: str, module: str = "worker", **behaviour: object) -> list[str]:
    """The command line of a build process with that TensorRT."""
    this = "tests.support.fake_tensorrt.worker"
    return [sys.executable, "-m", this, version, module, json.dumps(behaviour)]


def main() -> int:
    """Run one job on the fake."""
    version, name, behaviour = sys.argv[1:4]
    tensorrt = personality(version, **json.loads(behaviour))
    trt.load = lambda: tensorrt
    worker = importlib.import_module(f"vim_deploy.runtimes.tensorrt.{name}")
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
