"""The real library in a real registry, TensorRT-RTX's, and what it shows to the outside."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from fnmatch import fnmatch

import pytest

from tests.support import plugins
from vim_deploy.ops import PLUGIN_OPS

#: All that the library may export.
WHITELIST = (
    "getCreators",
    "setLoggerFinder",
    "vim_plugins_*",
    "vim_selective_scan_*",
    "vim_bi_causal_conv_*",
    "vim_bi_selective_scan_*",
)

# Runs in a process of its own: TensorRT's registry belongs to the process.
REGISTRY = """
import ctypes, json, os, sys
import numpy as np
import tensorrt_rtx as trt

steps, library = json.loads(sys.argv[1]), sys.argv[2]
messages = []

class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
    def log(self, severity, text):
        messages.append((severity.name, text))

logger = Logger()
runtime = trt.Runtime(logger)
registry = trt.get_plugin_registry()
seen = []
for step in steps:
    answer = None
    if step == "dlopen":
        ctypes.CDLL(library, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    elif step == "load":
        handle = registry.load_library(library)
        answer = handle is not None
    elif step == "unload":
        registry.deregister_library(handle)
    elif step == "create":
        fields = trt.PluginFieldCollection(
            [trt.PluginField("x_off", np.array([3], np.int32), trt.PluginFieldType.INT32)])
        creator = registry.get_creator("VimBiCausalConv", "1", "")
        plugin = creator.create_plugin("node", fields, trt.TensorRTPhase.BUILD)
        build = plugin.get_capability_interface(trt.PluginCapabilityType.BUILD)
        answer = [build.num_outputs, build.timing_cache_id]
    elif step == "misspell":
        fields = trt.PluginFieldCollection(
            [trt.PluginField("y_off", np.array([3], np.int32), trt.PluginFieldType.INT32)])
        creator = registry.get_creator("VimBiCausalConv", "1", "")
        answer = creator.create_plugin("node", fields, trt.TensorRTPhase.BUILD) is None
    creators = [c for c in registry.all_creators if c.name.startswith("Vim")]
    seen.append([answer, [[c.name, c.plugin_version, c.plugin_namespace] for c in creators]])
# Errors about the missing CUDA driver say nothing about the plugins.
errors = [text for severity, text in messages if severity == "ERROR" and "Cuda" not in text]
print(json.dumps({"seen": seen, "errors": errors}))
"""


def in_registry(*steps: str) -> dict:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed")
    library = plugins.need_plugin().library
    done = subprocess.run(
        [sys.executable, "-c", REGISTRY, json.dumps(steps), str(library)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def creators() -> list[list[str]]:
    return [[op, "1", ""] for op in PLUGIN_OPS]


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps",
    [
        ("dlopen",),
        ("load",),
        ("dlopen", "load"),
        ("load", "dlopen"),
        ("dlopen", "dlopen", "load", "dlopen"),
    ],
    ids=" ".join,
)
def test_creators_are_registered_once(steps: tuple[str, ...]) -> None:
    told = in_registry(*steps)
    for step, (answer, listed) in zip(steps, told["seen"], strict=True):
        assert listed == creators()
        assert answer is (True if step == "load" else None)
    assert told["errors"] == []


@pytest.mark.slow
def test_unloaded_and_loaded_again() -> None:
    told = in_registry("dlopen", "load", "unload", "load")
    assert [listed for _, listed in told["seen"]] == [creators(), creators(), [], creators()]
    assert told["errors"] == []


@pytest.mark.slow
@pytest.mark.parametrize("first", ["dlopen", "load"])
def test_plugins_are_made_and_errors_reach_the_logger(first: str) -> None:
    told = in_registry(first, "create", "misspell")
    outputs, timing = told["seen"][1][0]
    assert outputs == 1
    assert timing.startswith("op=VimBiCausalConv;contract=1;x_off=3;kernels=")
    assert told["seen"][2][0] is True
    assert [text for text in told["errors"] if "y_off is not known" in text]


@pytest.mark.slow
def test_only_the_whitelist_is_exported() -> None:
    nm = plugins.need_tool("nm")
    library = plugins.need_plugin().library
    listed = subprocess.run(
        [nm, "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    ).stdout
    names = [line.split()[-1] for line in listed.splitlines()]
    assert [n for n in names if not any(fnmatch(n, known) for known in WHITELIST)] == []
    for needed in ("getCreators", "setLoggerFinder", "vim_plugins_build_info"):
        assert needed in names
    for prefix in ("vim_selective_scan", "vim_bi_causal_conv", "vim_bi_selective_scan"):
        assert f"{prefix}_launch" in names


@pytest.mark.slow
def test_no_link_to_tensorrt_or_cuda() -> None:
    readelf = plugins.need_tool("readelf")
    library = plugins.need_plugin().library
    text = subprocess.run(
        [readelf, "-d", str(library)], capture_output=True, text=True, check=True
    ).stdout
    needed = [line.split("[")[1].rstrip("]") for line in text.splitlines() if "(NEEDED)" in line]
    assert needed
    allowed = (
        "libc.",
        "libm.",
        "libdl.",
        "librt.",
        "libpthread.",
        "libgcc_s.",
        "libstdc++.",
        "ld-",
    )
    assert [name for name in needed if not name.startswith(allowed)] == []
