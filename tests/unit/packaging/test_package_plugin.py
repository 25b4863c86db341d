"""The real plugin library in a package, opened as Triton's backend opens it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.packages import engine
from tests.support.plugins import need_plugin
from vim_deploy.errors import VimDeployError
from vim_deploy.packaging.check import read_package, static_checks
from vim_deploy.stages import package
from vim_deploy.stages.packaging import PackageOptions

pytestmark = pytest.mark.slow


def test_the_library_opens_alone(tmp_path: Path) -> None:
    library = Path(need_plugin().info.path)
    plan = engine(tmp_path, plugin=library)
    made = package(plan, tmp_path / "made", PackageOptions(plugin=library)).folder
    checks = {item.name: item for item in static_checks(made, read_package(made))}
    assert checks["passport"].checked
    # Without TensorRT only the opening can be tried, and that is said.
    assert "opens alone in a fresh process" in checks["plugin"].detail or checks["plugin"].checked


def test_a_library_that_is_none_of_ours(tmp_path: Path) -> None:
    library = tmp_path / "libvim_plugins.so"
    library.write_bytes(b"\x7fELF nothing")
    plan = engine(tmp_path, plugin=library)
    made = package(plan, tmp_path / "made", PackageOptions(plugin=library)).folder
    with pytest.raises(VimDeployError) as caught:
        static_checks(made, read_package(made))
    assert caught.value.code == "VIM-417"
