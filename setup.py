"""Copies what stands at the top of the repository into the package when a wheel is built.

Recipes, documents, the C++ library and the sources of plugins and native ops live in folders of
their own, where people look for them. A wheel has them in the package's folder ``shipped``, in the
same places, so that links between them hold. With two environment variables the wheel carries the
native ops compiled, and is one for a platform (``plugins/cpu/wheel``). Everything else about the
build is in ``pyproject.toml``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
#: ``vim_deploy.installation.SHIPPED`` is it then.
SHIPPED = Path("vim_deploy", "shipped")
#: What commands read, build from or show, and their example checkpoint.
PATTERNS = (
    *("export/*.toml", "export/*.txt", "tests/data/reference/vim_digits.pth"),
    *("cpp/**/*", "plugins/**/*"),
    *("docs/**/*.md", "docs/**/*.svg", "docs/**/*.png"),
)
#: Folders among them that no command needs.
LEFT_OUT = {"bench", "build", "wheel", "__pycache__"}
#: The compiled library that the wheel is to carry, and the platform that it is compiled for.
LIBRARY = os.environ.get("VIM_DEPLOY_WHEEL_LIBRARY", "")
PLATFORM = os.environ.get("VIM_DEPLOY_WHEEL_PLATFORM", "")
NATIVE = Path("vim_deploy", "runtimes", "onnxruntime", "native", "libvim_ort_cpu.so")
#: Links and pictures of Markdown that are relative: ``](docs/plugin.md)``.
RELATIVE = re.compile(r"(!?)(\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)\)")


def shipped() -> list[Path]:
    """The files that a wheel carries, by their paths in the repository."""
    found = {path for pattern in PATTERNS for path in ROOT.glob(pattern) if path.is_file()}
    inside = sorted(path.relative_to(ROOT) for path in found)
    return [path for path in inside if not _left_out(path)]


def _left_out(path: Path) -> bool:
    # The tests' own data is an example for everybody; their sources are not.
    tests = path.parts[0] != "tests" and "tests" in path.parts
    return tests or bool(LEFT_OUT & set(path.parts))


def absolute(text: str, repository: str) -> str:
    """Markdown whose links and pictures lead to the repository: it is shown elsewhere."""

    def lead(found: re.Match[str]) -> str:
        kind = "raw" if found[1] else "blob"
        return f"{found[1]}{found[2]}({repository}/{kind}/main/{found[3]})"

    return RELATIVE.sub(lead, text)


class BuildWithData(build_py):
    """The usual build, and what commands need of the repository."""

    def run(self) -> None:
        """Build; an editable install reads everything where it is."""
        super().run()
        if self.editable_mode:
            return
        for path in shipped():
            self.copy(ROOT / path, SHIPPED / path)
        # A build folder is used again, and what it held before is not for this wheel.
        Path(self.build_lib, NATIVE).unlink(missing_ok=True)
        if LIBRARY:
            self.copy(Path(LIBRARY), NATIVE)

    def copy(self, path: Path, inside: Path) -> None:
        """A file to its place below the folder that becomes the wheel."""
        target = Path(self.build_lib) / inside
        self.mkpath(str(target.parent))
        self.copy_file(str(path), str(target))


class WithLibrary(Distribution):
    """A library is for one platform, as the modules are that Python compiles."""

    def has_ext_modules(self) -> bool:
        """Whether what is built belongs where files of a platform lie."""
        return bool(LIBRARY)

    def parse_config_files(self, *names: Any, **options: Any) -> None:  # noqa: ANN401
        """Read ``pyproject.toml``; the README's links become those of the repository's page."""
        super().parse_config_files(*names, **options)
        text, addresses = self.metadata.long_description, self.metadata.project_urls
        if text and addresses:
            self.metadata.long_description = absolute(text, addresses["Repository"])


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


if __name__ == "__main__":
    setup(
        distclass=WithLibrary,
        cmdclass={"build_py": BuildWithData, "bdist_wheel": WheelWithLibrary},
    )
