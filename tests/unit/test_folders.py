"""Where caches go for users with and without a home."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from vim_deploy import folders
from vim_deploy.errors import VimDeployError

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX users")


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)


def test_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert folders.user_cache() == tmp_path / ".cache" / "vim-deploy"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert folders.user_cache() == tmp_path / ".cache" / "vim-deploy"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert folders.user_cache() == Path("/elsewhere/vim-deploy")


@posix
@pytest.mark.parametrize("home", [None, "/", "/nonexistent/home"])
def test_a_user_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    if home is None:
        homeless(monkeypatch)
    else:
        monkeypatch.setattr(Path, "home", lambda: Path(home))
    found = folders.user_cache()
    assert found == tmp_path / f"vim-deploy-{os.getuid()}"
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert folders.user_cache() == found


@posix
@pytest.mark.parametrize("trap", ["link", "file", "writable by others"])
def test_what_somebody_else_put_there_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    """Libraries are loaded from the cache."""
    homeless(monkeypatch)
    place = tmp_path / f"vim-deploy-{os.getuid()}"
    if trap == "link":
        (tmp_path / "theirs").mkdir()
        place.symlink_to(tmp_path / "theirs")
    elif trap == "file":
        place.write_text("")
    else:
        place.mkdir()
        place.chmod(0o777)
    with pytest.raises(VimDeployError) as caught:
        folders.user_cache()
    assert caught.value.code == "VIM-304"
    assert "XDG_CACHE_HOME" in caught.value.fix


def test_no_place_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(VimDeployError) as caught:
        folders.temporary_place()
    assert caught.value.code == "VIM-313"
