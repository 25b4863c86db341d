"""Two subjects of a benchmark beside each other: which is which, and B over A."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.bench import bench_report, measured, subject
from vim_deploy.bench.measure import FAILED, Measurement
from vim_deploy.bench.side_by_side import Wanted, side_by_side


def timed(label: str, milliseconds: float, sha256: str, **changes: Any) -> Measurement:
    item = measured(label, milliseconds, **changes)
    item.subject.facts["sha256"] = sha256
    return item


def test_b_over_a_whichever_was_first() -> None:
    report = bench_report(timed("x", 10.0, "1"), timed("y", 20.0, "2"))
    (found,) = side_by_side(report, Wanted("1"), Wanted("2")).batches
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(2)
    assert found.ratio.low <= found.ratio.value <= found.ratio.high
    (turned,) = side_by_side(report, Wanted("2"), Wanted("1")).batches
    assert turned.ratio is not None
    assert turned.ratio.value == pytest.approx(0.5)
    assert turned.ratio.low <= turned.ratio.value <= turned.ratio.high
    assert (turned.a.latency, turned.b.latency) == (found.b.latency, found.a.latency)


def test_copies_of_one_file_are_two_sides() -> None:
    report = bench_report(timed("x", 10.0, "1"), timed("copy", 30.0, "1"))
    (found,) = side_by_side(report, Wanted("1"), Wanted("1")).batches
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(3)


def test_a_module_in_pytorch_and_native_ops_are_told_by_their_runtimes() -> None:
    items = [
        timed("x", 10.0, "1", runner="onnxruntime", source={"ops": "native"}),
        timed("x", 40.0, "1", runner="onnxruntime", source={"ops": "function"}),
        timed("x", 70.0, "", runner="pytorch"),
    ]
    report = bench_report(*items)
    (found,) = side_by_side(report, Wanted(), Wanted("1", native=True)).batches
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(1 / 7)
    (plain,) = side_by_side(report, Wanted("1", native=True), Wanted("1")).batches
    assert plain.ratio is not None
    assert plain.ratio.value == pytest.approx(4)


def test_batches_come_in_order_and_failures_have_reasons() -> None:
    failed = Measurement(subject("y", batch=8, facts={"sha256": "2"}), 0, FAILED, "out of memory")
    items = [
        timed("x", 80.0, "1", batch=8),
        failed,
        timed("x", 10.0, "1", group=1),
        timed("y", 5.0, "2", group=1),
    ]
    found = side_by_side(bench_report(*items), Wanted("1"), Wanted("2"))
    assert [one.batch for one in found.batches] == [1, 8]
    assert found.batches[1].ratio is None
    assert found.batches[1].b.latency is None
    assert found.failures == ("B at batch 8: failed: out of memory",)
    assert side_by_side(bench_report(items[0]), Wanted("1"), Wanted("2")).batches == ()
