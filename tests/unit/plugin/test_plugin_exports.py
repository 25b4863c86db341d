"""What the real library shows to the outside, and what it links to."""

from __future__ import annotations

import subprocess
from fnmatch import fnmatch

import pytest

from tests.support import plugins

#: All that the library may export.
WHITELIST = (
    "getCreators",
    "setLoggerFinder",
    "vim_plugins_*",
    "vim_selective_scan_*",
    "vim_bi_causal_conv_*",
    "vim_bi_selective_scan_*",
)


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
