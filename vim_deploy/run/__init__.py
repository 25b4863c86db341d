"""Runners: one way to call PyTorch, ONNX Runtime and engines.

Called as a function, ``vim_deploy.run(...)`` is the stage of that name (``pipeline.running.run``).
"""

import sys

import vim_deploy

sys.modules[__name__].__class__ = vim_deploy.StagePackage
