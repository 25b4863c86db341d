"""Copies the recipes into the package when a wheel is built.

Recipes live in ``export/`` at the top of the repository, where people look for them, and not in
the package. Everything else about the build is in ``pyproject.toml``.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
#: Copied next to each other; ``vim_deploy.recipe.catalog.recipes_folder`` finds them there.
PUBLISHED = Path("vim_deploy", "recipe", "published")
PATTERNS = ("export/*.toml", "export/*.txt", "tests/data/reference/vim_digits.pth")


class BuildWithRecipes(build_py):
    """The usual build, and the recipes with their example checkpoint."""

    def run(self) -> None:
        """Build; an editable install reads the recipes where they are."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / PUBLISHED
        self.mkpath(str(target))
        for pattern in PATTERNS:
            for path in sorted(ROOT.glob(pattern)):
                self.copy_file(str(path), str(target / path.name))


setup(cmdclass={"build_py": BuildWithRecipes})
