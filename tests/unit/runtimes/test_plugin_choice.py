"""Which plugin library a build takes by itself."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from tests.support.fake_tensorrt import personality
from tests.support.fake_tensorrt.registry import write_library
from tests.support.trt_builds import H200, describe_fake
from vim_deploy.errors import VimDeployError
from vim_deploy.plugin.describe import LIBRARY_NAME, cache_folder
from vim_deploy.runtimes.tensorrt import capability as trt
from vim_deploy.runtimes.tensorrt import plugins
from vim_deploy.runtimes.tensorrt.plugins import (
    choose_plugin,
    is_registered,
    load_plugins,
    why_unfit,
)

OPS = frozenset({"VimBiCausalConv"})


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Put libraries into the user's cache, older first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("VIM_DEPLOY_PLUGIN", raising=False)
    monkeypatch.setattr(plugins, "describe_plugin", describe)
    monkeypatch.setattr(plugins, "build_plugin", lambda *_, **__: pytest.fail("built"))
    count = 0

    def put(interface: str, text: str = "") -> str:
        nonlocal count
        count += 1
        path = cache_folder() / str(count) / LIBRARY_NAME
        path.parent.mkdir(parents=True)
        write_library(path, interface)
        if text:
            path.write_text(text)
        os.utime(path, (count, count))
        return str(path)

    return put


def describe(path):
    try:
        return describe_fake(path)
    except json.JSONDecodeError as error:
        raise VimDeployError("VIM-417", "not ours") from error


def capabilities(version: str) -> trt.Capabilities:
    return trt.capabilities_of(personality(version))


def test_the_newest_that_fits(cache):
    cache("V3")
    fits = cache("V3")
    old = cache("V2")
    cache("V3", "damaged")
    assert choose_plugin("auto", capabilities("10.3"), H200, OPS).path == fits
    assert choose_plugin("auto", capabilities("11"), H200, OPS).path == fits
    assert choose_plugin("auto", capabilities("8.6"), H200, OPS).path == old


@pytest.mark.parametrize(("version", "generation"), [("8.6", "8.6"), ("10.14", "10"), ("11", "11")])
def test_one_is_built_for_this_tensorrt_when_none_fits(cache, monkeypatch, tmp_path, version,
                                                       generation):  # fmt: skip
    cache("V3" if version == "8.6" else "V2")
    asked = []
    info = describe_fake(write_library(tmp_path / "new.so"))

    def build(settings, say):
        asked.append(settings)
        return type("Build", (), {"info": info})

    monkeypatch.setattr(plugins, "build_plugin", build)
    assert choose_plugin("auto", capabilities(version), H200, OPS) is info
    assert [settings.tensorrt for settings in asked] == [generation]
    assert asked[0].arch == "native"


def test_why_a_library_does_not_fit(tmp_path):
    info = describe_fake(write_library(tmp_path / "a.so"))
    here = capabilities("10.14")
    assert why_unfit(info, here, H200, OPS) == ""
    assert "sm_75" in why_unfit(info, here, replace(H200, major=7, minor=5), OPS)
    assert "interface V3" in why_unfit(info, capabilities("8.6"), H200, OPS)
    assert "VimUnheardOf" in why_unfit(info, here, H200, frozenset({"VimUnheardOf"}))


@pytest.mark.parametrize("version", ["8.6", "10.3", "10.14", "11"])
def test_one_way_into_every_release(tmp_path, version):
    """TensorRT loads the library itself; asked again, it answers None and has the ops."""
    module = personality(version)
    library = write_library(tmp_path / "a.so", "V2" if version == "8.6" else "V3")
    for _ in range(2):
        load_plugins(module, describe_fake(library))
    assert module.fake.arguments("IPluginRegistry.load_library") == [(str(library),)] * 2
    assert is_registered(module, "VimBiCausalConv")
    assert not is_registered(module, "VimUnheardOf")


@pytest.mark.parametrize(("version", "interface"), [("8.6", "V3"), ("10.3", "V2"), ("11", "V2")])
def test_a_library_of_another_generation_is_not_even_loaded(tmp_path, version, interface):
    module = personality(version)
    with pytest.raises(VimDeployError, match="is made for TensorRT") as caught:
        load_plugins(module, describe_fake(write_library(tmp_path / "a.so", interface)))
    assert caught.value.code == "VIM-903"
    assert not module.fake.names()
