"""Finding TensorRT's headers, and fetching them where there are none."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vim_deploy.errors import VimDeployError
from vim_deploy.plugin import headers
from vim_deploy.plugin.headers import HEADERS_PACKAGE, fetch_headers, find_tensorrt_headers


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No headers anywhere, and an empty cache."""
    monkeypatch.delenv("TensorRT_ROOT", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(headers, "_SYSTEM_HEADERS", ())


OLD = "#define NV_TENSORRT_{0} {1} //!< TensorRT version.\n"
NEW = "#define TRT_{0}_ENTERPRISE {1}\n#define NV_TENSORRT_{0} TRT_{0}_ENTERPRISE //!< version\n"


def write_headers(folder: Path, form: str, version: tuple[int, int, int]) -> Path:
    folder.mkdir(parents=True)
    (folder / "NvInferRuntime.h").touch()
    parts = zip(("MAJOR", "MINOR", "PATCH"), version, strict=True)
    (folder / "NvInferVersion.h").write_text("".join(form.format(*part) for part in parts))
    return folder


@pytest.mark.parametrize(
    ("form", "version"),
    [(OLD, (8, 6, 1)), (OLD, (10, 3, 0)), (NEW, (10, 14, 1)), (NEW, (11, 1, 0))],
)
@pytest.mark.parametrize("inside", ["", "include", "include/x86_64-linux-gnu", "targets/x/include"])
def test_headers(tmp_path: Path, form: str, version: tuple[int, int, int], inside: str) -> None:
    folder = write_headers(tmp_path / "root" / inside, form, version)
    found = find_tensorrt_headers(tmp_path / "root")
    assert found.include == folder
    assert found.version == ".".join(map(str, version))
    assert found.major == version[0]


def test_headers_by_variable_and_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = write_headers(tmp_path / "system", OLD, (10, 3, 0))
    monkeypatch.setattr(headers, "_SYSTEM_HEADERS", (str(system),))
    assert find_tensorrt_headers().source == "system"
    write_headers(tmp_path / "root" / "include", NEW, (11, 1, 0))
    monkeypatch.setenv("TensorRT_ROOT", str(tmp_path / "root"))
    assert find_tensorrt_headers().version == "11.1.0"


@pytest.mark.parametrize("version_text", ["", "#define NV_TENSORRT_MAJOR 10\n"])
def test_no_headers(tmp_path: Path, version_text: str) -> None:
    (tmp_path / "NvInferRuntime.h").touch()
    (tmp_path / "NvInferVersion.h").write_text(version_text)
    with pytest.raises(VimDeployError) as caught:
        find_tensorrt_headers(tmp_path)
    assert caught.value.code == "VIM-308"
    assert "kernel-lens" in caught.value.fix


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for an index, with the package in it."""
    name, version = HEADERS_PACKAGE.split("==")
    folder = tmp_path / "index"
    folder.mkdir()
    archive = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    inside = headers._INSIDE
    about = f"{name.replace('-', '_')}-{version}.dist-info/"
    with zipfile.ZipFile(archive, "w") as made:
        for part in ("NvInferRuntime.h", "sub/NvOther.h", "../../../outside.h", "setup.py"):
            made.writestr(inside + part, "")
        parts = zip(("MAJOR", "MINOR", "PATCH"), (10, 14, 1), strict=True)
        made.writestr(f"{inside}NvInferVersion.h", "".join(OLD.format(*part) for part in parts))
        made.writestr("kernel_lens/__init__.py", "raise SystemExit('it was run')")
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        made.writestr(f"{about}METADATA", f"{text}Requires-Dist: not-to-be-had==9\n")
        text = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        made.writestr(f"{about}WHEEL", text)
        made.writestr(f"{about}RECORD", "")
    monkeypatch.setattr(headers, "_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return archive


needs_pip = pytest.mark.skipif(
    subprocess.run([sys.executable, "-m", "pip", "-V"], capture_output=True).returncode != 0,
    reason="pip is not here",
)


@needs_pip
def test_headers_are_fetched_once_and_nothing_else_of_the_package(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VimDeployError):
        find_tensorrt_headers()
    said: list[str] = []
    found = fetch_headers(said.append)
    assert (found.version, found.major) == ("10.14.1", 10)
    assert HEADERS_PACKAGE in said[0]
    assert sorted(path.name for path in found.include.iterdir()) == [
        "NvInferRuntime.h",
        "NvInferVersion.h",
    ]
    assert list(found.include.parent.iterdir()) == [found.include]
    assert not list(tmp_path.rglob("outside.h"))
    index.unlink()
    assert find_tensorrt_headers() == found


@needs_pip
def test_other_bytes_are_refused(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "_SHA256", "0" * 64)
    with pytest.raises(VimDeployError, match="no TensorRT headers") as caught:
        fetch_headers(lambda _: None)
    assert caught.value.code == "VIM-308"
    assert "Got" in caught.value.why or "hash" in caught.value.why.lower()
    assert not list((headers._cached().parent).iterdir())


def test_without_an_index_or_pip_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(VimDeployError) as caught:
        fetch_headers(lambda _: None)
    assert caught.value.code == "VIM-308"
    assert f"pip did not fetch {HEADERS_PACKAGE}: " in caught.value.why
    assert f"install --no-deps {HEADERS_PACKAGE}" in caught.value.fix
