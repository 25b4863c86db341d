"""Packages: an artifact with everything that serving it needs, and a manifest that proves it whole.

Called as a function, ``vim_deploy.package(...)`` is the stage of that name
(``pipeline.packaging.package``).
"""

import sys

import vim_deploy

sys.modules[__name__].__class__ = vim_deploy.StagePackage
