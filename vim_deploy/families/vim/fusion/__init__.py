"""The passes that fuse the bidirectional mixers of a traced graph."""

from __future__ import annotations

from vim_deploy.families.vim.fusion.run import PASSES, run_passes

__all__ = ["PASSES", "run_passes"]
