"""What a process that a test starts does first: it takes the traces of this run.

Python imports this by its name when this folder is on its path; ``traces.variables`` puts it there.
Nothing is imported before a command asks for the exporter, and the commands stay as they are.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_EXPORTER = "vim_deploy.graph.export_graph"


class _Sharing:
    """Finds the exporter as Python does, and has what it makes kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None, _: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The exporter's; of every other module None, which leaves it to the next finder."""
        if name != _EXPORTER:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_share(module: ModuleType) -> None:
            execute(module)
            from tests.support import traces

            for name, kept in traces.replaced(module, self._folder).items():
                setattr(module, name, kept)

        spec.loader.exec_module = execute_and_share  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Sharing(Path(os.environ["VIM_TEST_TRACES"])))
