"""Pairs of blocks: on which devices and shapes they run, and what the CPU shim sees of clusters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOST = Path(__file__).parents[3] / "plugins" / "tests" / "host"
sys.path.insert(0, str(HOST))

import kernel_library  # noqa: E402 - lives beside the shim it compiles
from kernel_calls import empty_params  # noqa: E402
from kernel_library import (  # noqa: E402
    TACTICS,
    BiSelectiveScanParams,
    Params,
    SelectiveScanParams,
)

CLUSTERS = {TACTICS["cluster4"], TACTICS["cluster8"]}


@pytest.fixture(scope="module")
def library() -> kernel_library.KernelLibrary:
    if reason := kernel_library.missing_host_tools():
        pytest.skip(reason)
    return kernel_library.host_library()


@pytest.fixture
def old_gpu(library: kernel_library.KernelLibrary) -> Iterator[kernel_library.KernelLibrary]:
    """The library on a device without thread block clusters."""
    library.c.vim_shim_set_clusters(0)
    yield library
    library.c.vim_shim_set_clusters(1)


def vim(op: type[Params], batch: int, channels: int) -> Params:
    """A scan of Vim's, both directions or one; the pointers are aligned but lead nowhere."""
    params = next(p for p in empty_params() if isinstance(p, op))
    for name, kind in params._fields_:
        if kind is kernel_library.ctypes.c_void_p:
            setattr(params, name, 1 << 20)
    params.batch, params.length, params.channels = batch, 197, channels
    if isinstance(params, BiSelectiveScanParams):
        params.z_off, params.xz_columns = channels, 2 * channels
    return params


@pytest.mark.parametrize(
    ("batch", "channels", "with_clusters", "without"),
    [
        (1, 384, "cluster4", "chunked4"),  # 192 blocks, 96 without
        (1, 768, "cluster8", "chunked4"),
        (2, 768, "cluster8", "chunked8"),  # 384 blocks: all at once on 132 multiprocessors
        (2, 800, "chunked8", "chunked8"),  # 400
        (16, 384, "chunked16", "chunked16"),
    ],
)
def test_taken_while_all_blocks_run_at_once(
    library: kernel_library.KernelLibrary,
    batch: int,
    channels: int,
    with_clusters: str,
    without: str,
) -> None:
    params = vim(BiSelectiveScanParams, batch, channels)
    assert library.default_tactic(params) == TACTICS[with_clusters]
    library.c.vim_shim_set_clusters(0)
    try:
        assert library.default_tactic(params) == TACTICS[without]
    finally:
        library.c.vim_shim_set_clusters(1)


def test_a_device_without_clusters_is_offered_and_runs_none(
    old_gpu: kernel_library.KernelLibrary,
) -> None:
    params = vim(BiSelectiveScanParams, 1, 384)
    assert not CLUSTERS & set(old_gpu.tactics(params, sm_count=1))
    for tactic in CLUSTERS:
        assert old_gpu.launch(params, tactic, 1 << 20) == 1  # cudaErrorInvalidValue
        # A plan's workspace is the same on every device.
        assert old_gpu.workspace_bytes(params, tactic) == 0


def test_other_scans_have_no_pairs(library: kernel_library.KernelLibrary) -> None:
    one_direction = vim(SelectiveScanParams, 1, 384)
    eight_states = vim(BiSelectiveScanParams, 1, 384)
    eight_states.c_off = eight_states.states = 8
    for params in (one_direction, eight_states):
        assert not CLUSTERS & set(library.tactics(params, sm_count=1))
        for tactic in CLUSTERS:
            assert library.launch(params, tactic, 1 << 20) == 1


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of kernels that misuse a cluster."""
    if reason := kernel_library.missing_host_tools():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("faults")
    sources = [kernel_library.SHIM / "fibers.cpp", HOST / "cluster_faults.cpp"]
    objects = kernel_library.compile_host(sources, folder, ("-O1",))
    subprocess.run(["g++", "-o", folder / "faults", *objects], check=True)
    return folder / "faults"


def test_shim_runs_the_blocks_of_a_cluster_together(faults: Path) -> None:
    done = subprocess.run([faults, "good"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("early", "reaches for a block that no barrier has shown to have started"),
        ("ended", "reaches for a block that has ended"),
        ("twice", "arrives at the cluster's barrier again without having waited there"),
        ("unarrived", "waits at the cluster's barrier without having arrived there"),
        ("stuck", "threads wait for each other for ever"),
    ],
)
def test_shim_sees_the_misuse_of_a_cluster(faults: Path, kind: str, words: str) -> None:
    done = subprocess.run([faults, kind], capture_output=True, text=True)
    assert done.returncode != 0
    assert words in done.stderr
