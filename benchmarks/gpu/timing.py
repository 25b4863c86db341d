"""Times of the ops at the shapes of models, bounds, and mamba_ssm beside: ``kernels.py time``.

Each row is one op at one shape: the time of a launch with every fast tactic, the tactic that the
library takes by itself, and two bounds of the work, both at what was measured in the same run. The
special-function unit gives 16 results a clock and multiprocessor (CUDA C++ Programming Guide, table
of arithmetic throughput); the memory bound is all tensors read or written once, at the bandwidth of
a copy. Launches rotate over several sets of buffers; small ones stay in the L2 cache, as in
a network, where the op before has just written them (``working_set_mib``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from checking import ALL_TACTICS, GENERIC
from clocks import Replay, SmClock, copy_bandwidth
from launches import TACTIC_NAMES, Problem
from mamba import AGREEMENT, Extensions, TheirScan, agrees, their_conv
from problems import bi_scan, conv, scan

from vim_deploy.files import write_json
from vim_deploy.plugin.kernels import DEFAULT_TACTIC, ScanLibrary

MUFU_PER_CLOCK = 16
#: Launches of one graph, fewer where they would move more bytes than that; and the sets of buffers
#: that they rotate over.
LAUNCHES, MOVED, MOST_SETS = 24, 1 << 30, 16
#: Rotate over this many bytes where the sets suffice: more than twice the L2 cache of an H100.
ROTATED = 128 << 20
REPLAYS = 15
#: A rehearsal: model, B, L and channels for the kernels compiled for the CPU, which are slow.
_QUICK = (("Vim-Ti", 1, 5, 64),)
#: Channels of a block's scan by model; the rank of dt is a 32nd of them.
CHANNELS = {"Vim-Ti": 384, "Vim-S": 768, "Vim-B": 1536}
#: Model, B and L, the telling ones first, as time may run out. L is that of 224, 432 (730 tokens),
#: 512 and 1248 px, and 2048, which suits kernels for powers of two.
VIM = (
    ("Vim-Ti", 1, 197),
    ("Vim-Ti", 64, 197),
    ("Vim-Ti", 128, 197),
    ("Vim-Ti", 8, 197),
    ("Vim-Ti", 1, 6085),
    ("Vim-Ti", 32, 6085),
    ("Vim-S", 64, 197),
    ("Vim-Ti", 24, 197),
    ("Vim-Ti", 8, 1025),
    ("Vim-S", 1, 197),
    ("Vim-B", 64, 197),
    ("Vim-Ti", 128, 730),
    ("Vim-S", 8, 1025),
    ("Vim-B", 1, 197),
    ("Vim-Ti", 64, 2048),
    ("Vim-B", 8, 6085),
)
#: The rest of Vim's models, batches and lengths, with the tactic that the library takes and
#: mamba_ssm's launches alone: 4097 is 1024 px.
TABLE = tuple(
    (model, batch, length)
    for length in (197, 730, 1025, 4097, 6085)
    for batch in (1, 8, 64, 128)
    for model in CHANNELS
    if (model, batch, length) not in VIM
)
#: Model, B, L, D, N and columns before B: scans of other families, without a gate.
PLAIN = (
    ("MambaVision-T", 64, 196, 160, 8, 20),
    ("MambaVision-L", 64, 196, 392, 8, 49),
    ("VMamba-T", 64, 3136, 96, 1, 6),
)
#: What is aimed at: the share of the MUFU bound at large batches of 224 px, and how many times our
#: launch is to be faster than mamba_ssm's two, everywhere.
LEAST_SHARE, LEAST_RATIO = 0.7, 3.0
_LARGE_BATCH = 64


@dataclass
class Session:
    """What all rows are measured with."""

    library: ScanLibrary
    device: torch.device
    multiprocessors: int
    bytes_per_second: float
    clock: SmClock | None
    extensions: Extensions
    end: float
    quick: bool

    def over(self) -> bool:
        """Whether the time for all of it has passed."""
        return time.monotonic() > self.end


def measure(
    session: Session,
    model: str,
    form: str,
    make: Callable[..., Problem],
    *,
    default_only: bool = False,
) -> tuple[dict[str, Any], Problem]:
    """One row, and the first of the problems that it was measured on.

    Args:
        session: what it is measured with.
        model, form: what the row is called.
        make: the problem of a seed.
        default_only: time the tactic that the library takes by itself, and no other.
    """
    first = make(seed=0)
    sets = 2 if session.quick else max(2, min(MOST_SETS, ROTATED // first.traffic + 1))
    every = [first, *(make(seed=seed) for seed in range(1, sets))]
    launches = min(LAUNCHES, MOVED // first.traffic)
    copies = 1 if session.quick else max(1, launches // sets)
    default = session.library.tactics(first.params(), session.multiprocessors)[0]
    offered = set(session.library.tactics(first.params(), ALL_TACTICS)) - {GENERIC}
    timed = [default] if default_only or not offered else sorted(offered)
    row: dict[str, Any] = {
        "model": model,
        "op": first.op.name,
        "form": form,
        "shape": first.label,
        **{name: first.sizes[name] for name in ("batch", "length", "channels")},
        "default": TACTIC_NAMES[default],
        "sets": sets,
        "working_set_mib": round(sets * first.traffic / 2**20, 1),
        "us": {},
    }
    replays = {}
    for tactic in timed:
        if row["us"] and session.over():
            row["incomplete"] = "out of time"
            break
        replay = Replay(
            [one.launch(session.library, tactic) for one in every] * copies, session.device
        )
        row["us"][TACTIC_NAMES[tactic]] = replay.microseconds(1 if session.quick else REPLAYS)
        replays[TACTIC_NAMES[tactic]] = replay
    best = min(row["us"], key=row["us"].__getitem__)
    row |= {"best": best, "best_us": row["us"][best]}
    row["bound_memory_us"] = 1e6 * first.traffic / session.bytes_per_second
    row["share_of_memory_bound"] = row["bound_memory_us"] / row["best_us"]
    if session.clock is not None:
        hertz = session.clock.hertz(replays[best], row["best_us"] * sets * copies)
        row["sm_clock_hz"] = hertz
        rate = session.multiprocessors * MUFU_PER_CLOCK * hertz
        row["bound_mufu_us"] = 1e6 * first.mufu / rate
        row["share_of_mufu_bound"] = row["bound_mufu_us"] / row["best_us"]
    return row, first


def beside_mamba(session: Session, row: dict[str, Any], problem: Problem, *, mixer: bool) -> None:
    """Their two launches for the work of a row, whether both results agree, and, with ``mixer``,
    what the official module does around them."""
    if session.extensions.scan is None or session.over():
        return
    problem.launch(session.library, DEFAULT_TACTIC)()
    try:
        theirs = TheirScan(session.extensions.scan, problem)
        distance = theirs.distance(problem.result)
        row["mamba_agrees"] = agrees(distance)
        row["mamba_relative_l2"] = distance if math.isfinite(distance) else None
        row["mamba_scans_us"] = Replay([theirs.scans] * 2, session.device).microseconds(8)
        row["mamba_scans_ratio"] = row["mamba_scans_us"] / row["best_us"]
        if mixer:
            row["mamba_mixer_us"] = Replay([theirs.mixer] * 2, session.device).microseconds(8)
    except (RuntimeError, TypeError) as error:  # their code's; ours goes on
        row["mamba_error"] = str(error)[:300]


def beside_causal_conv1d(session: Session, row: dict[str, Any], problem: Problem) -> None:
    """Twice their launch for one direction."""
    if session.extensions.conv is None or session.over():
        return
    try:
        launch = their_conv(session.extensions.conv, problem)
        single = Replay([launch] * 4, session.device).microseconds(8)
    except (RuntimeError, TypeError) as error:  # another release takes other arguments
        row["causal_conv1d_error"] = str(error)[:300]
        return
    row["causal_conv1d_twice_us"] = 2 * single
    row["causal_conv1d_ratio"] = 2 * single / row["best_us"]


def rows(session: Session) -> Iterator[dict[str, Any]]:
    """A row for every op of every shape, until time is over."""
    half = torch.float16
    whole = [(model, batch, length, CHANNELS[model]) for model, batch, length in VIM]
    for model, batch, length, channels in _QUICK if session.quick else whole:
        sizes = {"batch": batch, "length": length, "channels": channels}
        shape: dict[str, Any] = {**sizes, "device": session.device}
        both = partial(bi_scan, half, **shape, rank=channels // 32)
        forms = {
            "dt": partial(both, low_rank=False),
            "low-rank dt": partial(both, low_rank=True),
            "conv": partial(conv, half, **shape),
        }
        for form, make in forms.items():
            if session.over():
                return
            row, problem = measure(session, model, form, make)
            if form == "dt":
                beside_mamba(session, row, problem, mixer=True)
            elif form == "conv":
                beside_causal_conv1d(session, row, problem)
            yield row
    for model, batch, length, channels, states, before in PLAIN[:1] if session.quick else PLAIN:
        if session.over():
            return
        size = (1, 5) if session.quick else (batch, length)
        fixed: dict[str, Any] = {"before": before, "gated": False, "reverse": False}
        make = partial(scan, half, *size, channels, states, device=session.device, **fixed)
        yield measure(session, model, "one direction", make)[0]
    for model, batch, length in () if session.quick else TABLE:
        if session.over():
            return
        width = CHANNELS[model]
        both = partial(bi_scan, half, batch, length, width, width // 32, low_rank=False)
        try:
            row, problem = measure(
                session, model, "dt", partial(both, device=session.device), default_only=True
            )
            beside_mamba(session, row, problem, mixer=False)
        except torch.cuda.OutOfMemoryError:
            print(f"{model} B={batch} L={length}: does not fit", flush=True)
            continue
        yield row


def targets(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is aimed at, what was reached at worst, and where."""
    judged = []
    large = [
        (row["share_of_mufu_bound"], row["shape"])
        for row in found
        if row["form"] == "dt" and row["length"] == 197 and row["batch"] >= _LARGE_BATCH
        if "share_of_mufu_bound" in row
    ]
    ratios = [
        (row["mamba_scans_ratio"], row["shape"]) for row in found if "mamba_scans_ratio" in row
    ]
    differing = [row["shape"] for row in found if row.get("mamba_agrees") is False]
    compared = any("mamba_agrees" in row for row in found)
    aims = (
        (f"share of the MUFU bound at L=197, B >= {_LARGE_BATCH}", large, LEAST_SHARE),
        ("mamba_ssm's two launches over ours", ratios, LEAST_RATIO),
    )
    for what, values, least in aims:
        worst = min(values, default=None)
        met = None if worst is None else worst[0] >= least
        judged.append({"what": what, "at_least": least, "worst": worst, "met": met})
    same = {"what": "results as mamba_ssm's", "at_most": AGREEMENT, "differing": differing}
    return [*judged, {**same, "met": not differing if compared else None}]


def say(row: dict[str, Any]) -> str:
    """A row in one line."""
    text = f"{row['model']} {row['form']} {row['shape']}: {row['best']} {row['best_us']:.1f} us"
    for name, key in (("MUFU", "share_of_mufu_bound"), ("memory", "share_of_memory_bound")):
        text += f", {100 * row[key]:.0f} % of {name}" if key in row else ""
    for key in ("mamba_scans_ratio", "causal_conv1d_ratio"):
        text += f", {key} {row[key]:.1f}" if key in row else ""
    for key in ("mamba_error", "causal_conv1d_error"):
        text += f", {key}: {row[key]}" if key in row else ""
    text += ", NOT AS MAMBA_SSM'S" if row.get("mamba_agrees") is False else ""
    others = ", ".join(f"{name} {us:.1f}" for name, us in row["us"].items() if name != row["best"])
    return f"{text}; default {row['default']}" + (f"; {others}" if others else "")


def time_all(
    library: ScanLibrary,
    device: torch.device,
    output: Path,
    *,
    clock: Path | None,
    extensions: Path | None,
    seconds: float,
    quick: bool,
) -> None:
    """Measure every row that fits into ``seconds``; the file is written after each."""
    end = time.monotonic() + seconds
    on_gpu = device.type == "cuda"
    count = torch.cuda.get_device_properties(device).multi_processor_count if on_gpu else 1
    counter, how = None, "not counted: no --clock was given, or no GPU"
    if clock is not None and on_gpu:
        try:
            counter = SmClock(clock)
            how = "clock64 against globaltimer, in a thread beside the replayed launches"
        except (OSError, AttributeError) as error:  # the times are worth having without it
            how = f"not counted: {error}"
    session = Session(
        library,
        device,
        count,
        copy_bandwidth(device),
        counter,
        Extensions(extensions),
        end,
        quick,
    )
    about = {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "torch": torch.__version__,
        "multiprocessors": count,
        "copy_bytes_per_second": session.bytes_per_second,
        "sm_clock": how,
        "extensions_missing": session.extensions.missing,
        "dtype": "float16",
    }
    found: list[dict[str, Any]] = []
    for row in rows(session):
        found.append(row)
        print(say(row), flush=True)
        write_json(output, {**about, "targets": targets(found), "rows": found})
        if on_gpu:
            torch.cuda.empty_cache()
    wanted = 4 if quick else 3 * len(VIM) + len(PLAIN) + len(TABLE)
    print(f"{len(found)} of {wanted} rows")
    for aim in targets(found):
        print(aim)
