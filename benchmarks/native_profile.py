"""What ONNX Runtime's own profiler says of one file: time by kind of operator, products by shape.

Durations are wall time of single nodes. Of several runs the shortest of each node counts, which
other work disturbs least; the sum over all nodes is what remains of a call without the gaps.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vim_deploy.artifact import Artifact
from vim_deploy.ops import OPS, contract
from vim_deploy.runtimes.onnxruntime import capability as ort

#: The operators that are products of matrices, by what ONNX Runtime calls them after its fusions.
PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm")
_SUFFIX = "_kernel_time"
#: Microseconds, in which the profiler counts.
_IN_MS = 1e3


def profile(path: Path, library: Path | None, threads: int, runs: int) -> dict[str, Any]:
    """Rows of kinds of operator, the longest first: count, milliseconds, share, GFLOP/s.

    Args:
        path: exported file; one image of seeded values goes through it.
        library: of native ops; None runs the function bodies.
        threads: of one operator.
        runs: of which the shortest time of each node counts.
    """
    runtime = ort.load()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        if library is not None:
            options.register_custom_ops_library(str(library))
        session = runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        (spec,) = Artifact.open(path).inputs
        shape = (1, *(int(size) for size in spec.shape[1:]))
        image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        for _ in range(runs + 1):
            session.run(None, {spec.name: image})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    rows = list(rows_of(events))
    return {"threads": threads, "runs": runs, "ms": sum(row["ms"] for row in rows), "rows": rows}


def rows_of(events: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row a kind of operator from the profiler's events, the longest first."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    work: dict[str, float] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(_SUFFIX):
            continue
        kind, operations = kind_of(event["args"])
        work[kind] = operations
        times[kind][event["name"]].append(float(event["dur"]) / _IN_MS)
    sums = {kind: sum(map(min, nodes.values())) for kind, nodes in times.items()}
    whole = sum(sums.values())
    for kind in sorted(sums, key=lambda kind: -sums[kind]):
        row = {"kind": kind, "nodes": len(times[kind]), "ms": sums[kind]}
        row["share"] = sums[kind] / whole if whole else 0.0
        if work[kind] and sums[kind]:
            row["gflops"] = work[kind] * row["nodes"] / sums[kind] / 1e6
        yield row


def kind_of(arguments: Mapping[str, Any]) -> tuple[str, float]:
    """What a node counts as, and its floating-point operations where it is a product, else 0."""
    name = str(arguments["op_name"])
    if name in PRODUCTS:
        # Weights that were packed beforehand are no inputs any more: the shapes beside them tell.
        (left,), (made,) = (
            [*shapes[0].values()]
            for shapes in (arguments["input_type_shape"], arguments["output_type_shape"])
        )
        text = " to ".join("x".join(map(str, shape)) for shape in (left, made))
        return f"{name} {text}", 2.0 * math.prod(made) * left[-1]
    return f"{contract.DOMAIN}.{name}" if name in OPS else name, 0.0
