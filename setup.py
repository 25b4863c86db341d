"""Copies what stands at the top of the repository into the package when a wheel is built.

Recipes, the C++ library and the sources of the native ops live in ``export/``, ``cpp`` and
``plugins``, where people look for them. With two environment variables the wheel carries the native
ops compiled, and is one for a platform (``plugins/cpu/wheel``). Everything else about the build is
in ``pyproject.toml``.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
#: Copied next to each other; ``vim_deploy.recipe.catalog.recipes_folder`` finds them there.
PUBLISHED = Path("vim_deploy", "recipe", "published")
PATTERNS = ("export/*.toml", "export/*.txt", "tests/data/reference/vim_digits.pth")
#: Copied with its folders, without the tests; ``vim_deploy.packaging.cpp.sources_folder`` finds it.
CPP = ROOT / "cpp"
CPP_SOURCES = Path("vim_deploy", "packaging", "cpp_sources")
#: What the native ops of ONNX Runtime on a CPU are compiled from, copied as it lies in ``plugins``.
PLUGINS = ROOT / "plugins"
PLUGIN_SOURCES = Path("vim_deploy", "plugin", "sources")
PLUGIN_PATTERNS = (
    *("cpu/**/*", "onnxruntime/**/*", "include/**/*"),
    *("kernels/*_validate.cpp", "kernels/checks.h", "adapters/op_model.*"),
)
#: Folders among sources that no build needs.
LEFT_OUT = ("tests", "wheel", "bench", "build")
#: The compiled library that the wheel is to carry, and the platform that it is compiled for.
LIBRARY = os.environ.get("VIM_DEPLOY_WHEEL_LIBRARY", "")
PLATFORM = os.environ.get("VIM_DEPLOY_WHEEL_PLATFORM", "")
NATIVE = Path("vim_deploy", "runtimes", "onnxruntime", "native", "libvim_ort_cpu.so")


class BuildWithData(build_py):
    """The usual build, the recipes with their example checkpoint, the C++ library, native ops."""

    def run(self) -> None:
        """Build; an editable install reads everything where it is."""
        super().run()
        if self.editable_mode:
            return
        for pattern in PATTERNS:
            for path in sorted(ROOT.glob(pattern)):
                self.copy(path, PUBLISHED / path.name)
        for path in sorted(CPP.rglob("*")):
            self.copy(path, CPP_SOURCES / path.relative_to(CPP))
        for pattern in PLUGIN_PATTERNS:
            for path in sorted(PLUGINS.glob(pattern)):
                self.copy(path, PLUGIN_SOURCES / path.relative_to(PLUGINS))
        # A build folder is used again, and what it held before is not for this wheel.
        Path(self.build_lib, NATIVE).unlink(missing_ok=True)
        if LIBRARY:
            self.copy(Path(LIBRARY), NATIVE)

    def copy(self, path: Path, inside: Path) -> None:
        """A file to its place below the folder that becomes the wheel."""
        if path.is_file() and not set(LEFT_OUT) & set(inside.parts):
            target = Path(self.build_lib) / inside
            self.mkpath(str(target.parent))
            self.copy_file(str(path), str(target))


class WithLibrary(Distribution):
    """A library is for one platform, as the modules are that Python compiles."""

    def has_ext_modules(self) -> bool:
        """Whether what is built belongs where files of a platform lie."""
        return bool(LIBRARY)


class WheelWithLibrary(bdist_wheel):
    """The usual wheel; one for a platform, and for every Python 3, when it carries a library."""

    def finalize_options(self) -> None:
        """Refuse a library without its platform, and a platform without a library."""
        if bool(LIBRARY) != bool(PLATFORM):
            raise SystemExit("VIM_DEPLOY_WHEEL_LIBRARY and VIM_DEPLOY_WHEEL_PLATFORM go together")
        super().finalize_options()

    def get_tag(self) -> tuple[str, str, str]:
        """Nothing in it depends on the Python that it is built with."""
        return ("py3", "none", PLATFORM) if LIBRARY else super().get_tag()


setup(distclass=WithLibrary, cmdclass={"build_py": BuildWithData, "bdist_wheel": WheelWithLibrary})
