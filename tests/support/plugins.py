"""Headers, compilers and built libraries for the tests of the plugin library.

The headers and the library that vim-deploy itself builds are made once for a state of the sources,
and kept in pytest's cache folder; all else once per test process, in a folder that goes with it.
What a machine lacks makes the tests skip with the reason, which is why these functions return one.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.locks import alone
from tests.support.source import REPOSITORY
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin import toolchain as cuda_toolkit
from vim_deploy.plugin.build import PluginBuild, PluginSettings, build_plugin
from vim_deploy.plugin.headers import HEADERS_PACKAGE, fetch_headers

PLUGINS = REPOSITORY / "plugins"
HOST_TESTS = PLUGINS / "tests" / "host"
CACHE = REPOSITORY / ".pytest_cache" / "d" / "vim-plugins"

#: The architecture of the library built for these tests: one is enough to load it.
ARCHITECTURE = "80"

#: Sources of the harness's library under both interfaces, and under one each.
_SHARED = (
    "adapters/attributes.cpp",
    "adapters/library_info.cpp",
    "adapters/logging.cpp",
    "adapters/op_model.cpp",
    "adapters/op_node.cpp",
    "adapters/registration.cpp",
    "adapters/tensorrt_lookup.cpp",
    "kernels/c_api.cpp",
    "kernels/conv.cpp",
    "kernels/conv_validate.cpp",
    "kernels/scan.cpp",
    "kernels/scan_validate.cpp",
    "tests/host/adapters_fake_cuda.cpp",
)
_INTERFACES = {
    "v3": ("adapters/v3_creator.cpp", "adapters/v3_plugin.cpp"),
    "v2": ("adapters/v2_creator.cpp", "adapters/v2_fields.cpp", "adapters/v2_plugin.cpp"),
}
#: Programs of the harness, each without its common part.
_CHECKS = {"v3": ("v3", "v3_refusals"), "v2": ("v2",)}
_SANITIZE = "-fsanitize=address,undefined"


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="vim-plugin-tests-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def working_folder() -> Path:
    """The folder that goes with the test process."""
    return _folder()


@functools.cache
def tensorrt_headers() -> Path | str:
    """The headers of TensorRT 10.14 from PyPI, or why there are none."""
    home = CACHE / "headers" / HEADERS_PACKAGE
    with alone(CACHE / "lock"):
        try:
            return home if home.is_dir() else fetch_headers(lambda _: None, home).include
        except VimDeployError as error:
            return f"{HEADERS_PACKAGE} is not to be had: {error.why[-200:]}"


def need_headers() -> Path:
    """TensorRT's headers; skips the test where they cannot be had."""
    headers = tensorrt_headers()
    if isinstance(headers, str):
        pytest.skip(headers)
    return headers


def need_toolkit() -> cuda_toolkit.Toolkit:
    """The CUDA compiler; skips the test where there is none."""
    try:
        return cuda_toolkit.find_toolkit()
    except VimDeployError as error:
        pytest.skip(f"no CUDA compiler: {error.why}")


def need_tool(name: str) -> str:
    """A program on PATH; skips the test where it is not."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not on PATH")
    return path


@functools.cache
def built_plugin() -> PluginBuild | str:
    """The real library for one architecture, built by vim-deploy itself; or why it is not."""
    headers = tensorrt_headers()
    if isinstance(headers, str):
        return headers
    settings = PluginSettings(ARCHITECTURE, "10", tensorrt_root=headers)
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(CACHE)
    try:
        with alone(CACHE / "lock"):
            built = build_plugin(settings, say=lambda _: None)
            for other in built.library.parents[1].iterdir():
                if other != built.library.parent:
                    shutil.rmtree(other)
        return built
    except VimDeployError as error:
        if error.code in ("VIM-301", "VIM-307"):
            return f"{error.message}: {error.why}"
        raise
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


def need_plugin() -> PluginBuild:
    """The built library; skips the test where it cannot be built."""
    built = built_plugin()
    if isinstance(built, str):
        pytest.skip(built)
    return built


@functools.cache
def harness(interface: str) -> tuple[Path, Path, Path]:
    """The harness program, the fake TensorRT and the adapters, under sanitizers."""
    _compile_harness()
    objects = _folder() / "harness"
    program, plugins = objects / interface, objects / f"{interface}.so"
    common = [_object(name) for name in (*_SHARED, *_INTERFACES[interface])]
    parts = [f"tests/host/adapters_{name}.cpp" for name in ("harness", *_CHECKS[interface])]
    _link([*common, "-shared"], plugins)
    _link([*map(_object, parts), "-ldl"], program)
    return program, _fake_tensorrt(), plugins


@functools.cache
def _fake_tensorrt() -> Path:
    library = _folder() / "harness" / "libnvinfer.so.10"
    source = _object("tests/host/adapters_fake_tensorrt.cpp")
    _link([source, "-shared", f"-Wl,-soname,{library.name}"], library)
    return library


def _object(source: str) -> str:
    return str(_folder() / "harness" / (Path(source).name + ".o"))


def _link(parts: list[str], output: Path) -> None:
    subprocess.run(["g++", _SANITIZE, *parts, "-o", str(output)], check=True, capture_output=True)


@functools.cache
def _compile_harness() -> None:
    need_tool("g++")
    cuda = need_toolkit().root / "include"
    headers = need_headers()
    (_folder() / "harness").mkdir()
    sources = [*_SHARED, *_INTERFACES["v3"], *_INTERFACES["v2"]]
    names = ("fake_tensorrt", "harness", *_CHECKS["v2"], *_CHECKS["v3"])
    sources += [f"tests/host/adapters_{name}.cpp" for name in names]
    flags = ["-std=c++17", "-g", "-fPIC", _SANITIZE, "-fno-sanitize-recover=all"]
    # TensorRT 10 declares the old interface as deprecated.
    flags += ["-Wall", "-Wextra", "-Wconversion", "-Werror", "-Wno-deprecated-declarations"]
    flags += [f"-I{PLUGINS / 'include'}", f"-I{PLUGINS / 'kernels'}", f"-I{HOST_TESTS}"]
    flags += [f"-I{PLUGINS / 'adapters'}"]
    flags += ["-isystem", str(headers), "-isystem", str(cuda)]
    texts = {"VERSION": "0", "ARCHITECTURES": "", "INTERFACE": "V3", "KERNEL_HASH": "test"}
    flags += [f'-DVIM_PLUGINS_{name}="{text}"' for name, text in texts.items()]

    def compile_one(source: str) -> None:
        command = ["g++", *flags, "-c", str(PLUGINS / source), "-o", _object(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, sources))
