"""Copies recipes and the C++ library's sources into the package when a wheel is built.

They live in ``export/`` and ``cpp`` at the top of the repository, where people look for
them, and not in the package. Everything else about the build is in ``pyproject.toml``.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
#: Copied next to each other; ``vim_deploy.recipe.catalog.recipes_folder`` finds them there.
PUBLISHED = Path("vim_deploy", "recipe", "published")
PATTERNS = ("export/*.toml", "export/*.txt", "tests/data/reference/vim_digits.pth")
#: Copied with its folders, without the tests; ``vim_deploy.packaging.cpp.sources_folder`` finds it.
CPP = ROOT / "cpp"
CPP_SOURCES = Path("vim_deploy", "packaging", "cpp_sources")


class BuildWithData(build_py):
    """The usual build, the recipes with their example checkpoint, and the C++ library."""

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
        for path in sorted(CPP.rglob("*")):
            inside = path.relative_to(CPP)
            if path.is_file() and inside.parts[0] != "tests":
                copy = Path(self.build_lib) / CPP_SOURCES / inside
                self.mkpath(str(copy.parent))
                self.copy_file(str(path), str(copy))


setup(cmdclass={"build_py": BuildWithData})
