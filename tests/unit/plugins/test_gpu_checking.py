"""``benchmarks/gpu/kernels.py`` on the kernels that are compiled for the CPU."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import plugins
from tests.support.source import REPOSITORY
from vim_deploy.plugin.kernels import Params, ScanLibrary

sys.path.insert(0, str(plugins.HOST_TESTS))
import kernel_library

torch = pytest.importorskip("torch")

whole = pytest.mark.skipif(not os.environ.get("VIM_TEST_ALL"), reason="VIM_TEST_ALL=1 runs these")
CPU = torch.device("cpu")
#: Fast tactics that run each of the ops below.
TACTICS = {
    "bi": {"serial", "chunked4", "chunked8", "chunked16"},
    "eight": {"serial", "chunked4", "chunked8"},
    "one": {"serial", "chunked4"},
    "conv": {"vector"},
}


@pytest.fixture(scope="module", autouse=True)
def _scripts() -> Iterator[None]:
    sys.path.insert(0, str(REPOSITORY / "benchmarks" / "gpu"))
    yield
    sys.path.remove(str(REPOSITORY / "benchmarks" / "gpu"))


@pytest.fixture(scope="module")
def path() -> Path:
    if reason := kernel_library.missing_host_tools():
        pytest.skip(reason)
    return Path(kernel_library.host_library().c._name)


@pytest.fixture(scope="module")
def library(path: Path) -> ScanLibrary:
    return ScanLibrary(path)


def tiny(op: str, dtype: Any) -> Any:
    import problems

    if op == "conv":
        return problems.conv(dtype, 1, 5, 16, device=CPU)
    if op == "bi":
        return problems.bi_scan(dtype, 1, 5, 16, 2, low_rank=True, device=CPU)
    states = {"eight": 8, "one": 1}[op]
    way = {"before": 3, "gated": False, "reverse": True}
    return problems.scan(dtype, 2, 5, 16, states, device=CPU, **way)


@pytest.mark.parametrize("op", TACTICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_tactic(library: ScanLibrary, op: str, dtype: Any) -> None:
    from checking import check_problem

    rows = list(check_problem(library, tiny(op, dtype)))
    assert all(row["ok"] for row in rows), rows
    names = {row["tactic"] for row in rows}
    assert names >= {"generic"} | TACTICS[op]


class Faulty:
    """The library with a fault of one kind after each launch."""

    def __init__(self, library: ScanLibrary, fault: str) -> None:
        self._library, self._fault = library, fault
        self._launches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def launch(self, params: Params, **given: Any) -> None:
        import ctypes

        self._launches += 1
        if self._fault == "nothing":
            return
        self._library.launch(params, **given)
        address = params.u2
        if self._fault == "outside":
            ctypes.memset(address - 1, 0, 1)
        elif self._fault == "bits" and self._launches % 2:
            ctypes.memset(address, 1, 1)  # the last bits of the first value
        elif self._fault == "value":
            ctypes.memset(address + 40, 0x3F, 8)


@pytest.mark.parametrize("fault", ["none", "nothing", "outside", "bits", "value"])
def test_what_is_wrong_is_found(library: ScanLibrary, fault: str) -> None:
    from checking import check_problem

    rows = list(check_problem(Faulty(library, fault), tiny("conv", torch.float32)))
    assert [row["ok"] for row in rows] == [fault == "none"] * 2
    row = rows[0]
    assert row["guards_intact"] == (fault != "outside")
    assert row["same_bits"] == (fault != "bits")
    if fault == "nothing":
        assert row["errors"] == [None, None]
    json.dumps(rows, allow_nan=False)


@whole
def test_the_whole_rehearsal(path: Path, tmp_path: Path) -> None:
    import kernels

    given = ["--device", "cpu", "--quick"]
    assert kernels.main(["check", str(path), str(tmp_path / "check.json"), *given]) == 0
    checked = json.loads((tmp_path / "check.json").read_text())
    assert checked["complete"]
    assert checked["failures"] == 0
    assert {row["op"] for row in checked["rows"]} == {
        "VimBiSelectiveScan",
        "VimSelectiveScan",
        "VimBiCausalConv",
    }
    assert {row["tactic"] for row in checked["rows"]} >= {
        *("generic", "serial", "chunked4", "chunked8", "chunked16", "vector"),
    }
    assert kernels.main(["time", str(path), str(tmp_path / "times.json"), *given]) == 0
    times = json.loads((tmp_path / "times.json").read_text())
    assert [row["form"] for row in times["rows"]] == ["dt", "low-rank dt", "conv", "one direction"]
    assert all(row["best_us"] > 0 for row in times["rows"])
