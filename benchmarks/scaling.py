"""How time and memory grow with the image in ONNX Runtime, on this machine, DeiT beside Vim.

    python benchmarks/scaling.py [--models vim-tiny,vim-small,vim-base] [--sizes 224,512,...]
                                 [--threads 1,2] [--minutes 20] [--out FOLDER]

Vim with native ops and with the function bodies, and the DeiT of the same width in every form of
its attention (PyTorch as well at the smallest size), all of one size and number of threads in one
run of ``vim-deploy bench``. In order of importance: the first model at all sizes on the fewest
threads, at the smallest and the largest size on more, then the other models from the smallest size
up, then the rest. ``--stages`` adds verify and the TensorRT-RTX build.

Every step has a process of its own and is stopped where memory ends; what would not fit into
``--minutes`` any more is left out. Both is said in the results. Run it again to go on: what the
results have already is kept.

The machine has to be quiet: the script does not begin under load, and a step that other work
disturbed is repeated once and then left out, unless --busy says that the figures do not count (then
nothing is written outside a temporary folder).
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling_report import write_compact, write_report
from scaling_steps import (
    DISTURBED,
    FAILED,
    LEFT_OUT,
    OK,
    Step,
    Task,
    command_of,
    kept_values,
    run_step,
)

from vim_deploy.bench import environment
from vim_deploy.codec import encode
from vim_deploy.installation import extra_command
from vim_deploy.plugin.ort_library import describe_ort_library, find_ort_library

MODELS = ("vim-tiny", "vim-small", "vim-base")
SIZES = (224, 512, 1024, 1248)
STAGES = ("export", "inference", "verify", "build")
#: What is measured unless more is asked for.
USUAL_STAGES = STAGES[:2]
#: Load average per processor above which the machine is not quiet.
MOST_LOAD = 0.25
#: For the estimate whether a step still fits, where only one size is known: its time grows with
#: tokens to this power. Tracing and building hardly depend on them.
_GROWTH = {"export": 0.5, "verify": 1.0, "build": 0.5}
#: Calls of a runtime in one step, at least: two to load, one to warm up, three rounds.
_CALLS = 6
#: A step of the next larger model, whose width is twice as much, over that of the smaller.
_NEXT_MODEL = 3.5


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}-core" / "scaling"
    parser.add_argument("--out", type=Path, default=default, help="folder for the results")
    parser.add_argument("--models", default=",".join(MODELS), help="variants to measure")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="image sizes")
    parser.add_argument("--threads", default="1,2", help="threads, the fewest first")
    parser.add_argument("--stages", default=",".join(USUAL_STAGES), help="of " + ",".join(STAGES))
    parser.add_argument("--minutes", type=float, default=20.0, help="when to end, about")
    parser.add_argument("--duration", type=float, default=4.0, help="timed seconds per runtime")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before the clock")
    parser.add_argument("--force", action="store_true", help="replace results of other versions")
    parser.add_argument("--busy", action="store_true", help="only try it; the figures do not count")
    return parser.parse_args()


def tasks_of(
    models: Sequence[str], sizes: Sequence[int], stages: Sequence[str], threads: Sequence[int]
) -> list[Task]:
    """In order of importance; what does not depend on threads is done once at a place."""
    first, few = models[0], threads[0]
    places = [(first, size, few) for size in sizes]
    places += [(first, size, more) for more in threads[1:] for size in (sizes[0], sizes[-1])]
    places += [(model, size, few) for size in sizes for model in models[1:]]
    places += [(model, size, more) for more in threads[1:] for size in sizes for model in models]
    tasks = []
    for model, size, count in dict.fromkeys(places):
        for stage in stages:
            if stage == "inference" or count == few:
                tasks.append(Task(model, size, stage, count if stage == "inference" else few))
    return tasks


def predicted(task: Task, done: Sequence[Mapping[str, Any]], models: Sequence[str]) -> float:
    """About how many seconds ``task`` will take, from what was measured; 0 when not known."""
    alike = [entry for entry in done if entry["stage"] == task.stage and entry["status"] == OK]
    here = [entry for entry in alike if (entry["model"], entry["size"]) == (task.model, task.size)]
    if here:
        # More threads make it shorter, fewer hardly longer than all of them alone.
        return max(float(entry["seconds"]) for entry in here)
    same = [entry for entry in alike if entry["threads"] == task.threads]
    own = [entry for entry in same if entry["model"] == task.model]
    if own:
        return _from_smaller(task, sorted(own, key=lambda entry: int(entry["size"])))
    place = models.index(task.model)
    below = [e for e in same if place and e["model"] == models[place - 1]]
    at = [entry for entry in below if entry["size"] == task.size]
    return float(at[0]["seconds"]) * _NEXT_MODEL if at else 0.0


def _from_smaller(task: Task, own: Sequence[Mapping[str, Any]]) -> float:
    """The step's time at smaller sizes, carried on to the tokens of ``task``."""
    last = own[-1]
    seconds, ratio = float(last["seconds"]), max(task.tokens / last["tokens"], 1.0)
    if task.stage == "inference":
        for result in last["results"]:
            if result["status"] == OK and result["runner"] != "pytorch":
                growth = 2.0 if result["label"].startswith("DeiT") else 1.0
                call = result["ms"]["value"] / 1e3
                seconds += _CALLS * call * (ratio**growth - 1)
        return seconds
    if len(own) == 1:
        return seconds * ratio ** _GROWTH[task.stage]
    before = own[-2]
    slope = (seconds - before["seconds"]) / (last["tokens"] - before["tokens"])
    return seconds + max(slope, 0.0) * (task.tokens - last["tokens"])


def measure(
    task: Task,
    run: Callable[[], Step],
    own_seconds: Callable[[], float] = lambda: sum(os.times()[:2]),
) -> dict[str, Any]:
    """Run a step and see what else ran meanwhile: an entry of the results."""
    before, own = environment.cpu_times(), own_seconds()
    step = run()
    mine = step.cpu_seconds + own_seconds() - own
    other = environment.disturbance(before, environment.cpu_times(), mine)
    entry = {**_place(task), "status": step.status, "reason": step.reason, **other}
    entry["date"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    if step.status == OK:
        entry |= {"seconds": step.seconds, "peak_bytes": step.peak_bytes}
        entry |= kept_values(task.stage, step.value)
    return entry


def _place(task: Task) -> dict[str, Any]:
    """What an entry is of."""
    where = {"model": task.model, "size": task.size, "tokens": task.tokens}
    return {**where, "stage": task.stage, "threads": task.threads}


def _key(entry: Mapping[str, Any]) -> Task:
    return Task(entry["model"], entry["size"], entry["stage"], entry["threads"])


def disturbed(entry: Mapping[str, Any]) -> bool:
    """Whether other work took too much of the processors; what is not known counts not."""
    shares = (entry["other_share"], entry["stolen_share"])
    return any((share or 0.0) > environment.BUSY_SHARE for share in shares)


def run_tasks(
    tasks: Sequence[Task],
    kept: Sequence[Mapping[str, Any]],
    step_of: Callable[[Task, float], Callable[[], Step]],
    *,
    seconds: float,
    models: Sequence[str],
    busy: bool,
    tell: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Entries of all tasks that ``kept`` does not have, in order, as long as there is time."""
    end = time.monotonic() + seconds
    done = [dict(entry) for entry in kept]
    have = set(map(_key, kept))
    for task in tasks:
        if task in have:
            continue
        place = f"{task.model} {task.size} {task.stage}"
        place += f" on {task.threads}" if task.stage == "inference" else ""
        reason = _no_reason_to_begin(task, done, end - time.monotonic(), models)
        entry: dict[str, Any]
        if reason:
            entry = {**_place(task), "status": LEFT_OUT, "reason": reason}
        else:
            tell(place)
            entry = measure(task, step_of(task, end - time.monotonic()))
            if disturbed(entry) and not busy and entry["status"] == OK:
                tell(f"{place}: disturbed, again")
                entry = measure(task, step_of(task, end - time.monotonic()))
                if disturbed(entry) and entry["status"] == OK:
                    share = max(entry["other_share"] or 0.0, entry["stolen_share"] or 0.0)
                    entry["reason"] = f"others took {share:.0%} of the processors"
                    entry["status"] = DISTURBED
        tell(f"{place}: {entry['status']} {entry['reason']}")
        done.append(entry)
        yield entry


def _no_reason_to_begin(
    task: Task, done: Sequence[Mapping[str, Any]], left: float, models: Sequence[str]
) -> str:
    """Why ``task`` is not tried; empty when it is."""
    before = [e for e in done if e["model"] == task.model]
    smaller = [e for e in before if e["stage"] == task.stage and e["status"] in (LEFT_OUT, FAILED)]
    ended = next((e for e in smaller if e["reason"].startswith("memory ended")), None)
    if ended is not None:
        return f"memory ended at {ended['size']} already"
    here = [e for e in before if e["size"] == task.size and e["stage"] == "export"]
    if task.stage != "export" and not any(e["status"] in (OK, DISTURBED) for e in here):
        return "there is no exported file"
    needed = predicted(task, done, models)
    if needed > left or left <= 0:
        return f"about {needed:.0f} s more, and {max(left, 0):.0f} s of the time were left"
    return ""


def earlier(path: Path, about: Mapping[str, Any], *, force: bool = False) -> list[dict[str, Any]]:
    """Entries of an earlier run on the same machine with the same versions; what to try again out.

    SystemExit where the results are others': they are replaced with ``force`` only.
    """
    if not path.exists():
        return []
    value = json.loads(path.read_text())
    changed = [key for key in about if value.get(key) != about[key]]
    if changed and force:
        return []
    if changed:
        why = f"{path} is of another {', '.join(changed)}"
        raise SystemExit(f"{why}: choose another --out, or replace it with --force")
    return [entry for entry in value["entries"] if entry["status"] == OK]


def whole(entries: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Entries that need not be made again: an export counts where nothing needs its file."""
    have = set(map(_key, entries))
    open_places = {(task.model, task.size) for task in tasks if task not in have}
    return [
        dict(entry)
        for entry in entries
        if entry["stage"] != "export" or (entry["model"], entry["size"]) not in open_places
    ]


def _require_packages(stages: Sequence[str]) -> None:
    """What the steps need, before the first of them."""
    needs = {"torch": "export", "transformers": "inference", "tensorrt_rtx": "build"}
    for package, stage in needs.items():
        if stage in stages and importlib.util.find_spec(package) is None:
            raise SystemExit(f"{stage} needs {package}: {extra_command('torch,deit,rtx')}")


def library() -> dict[str, Any]:
    """What the library of native ops says of itself; without one there is nothing to compare."""
    path = find_ort_library("cpu")
    if path is None:
        raise SystemExit("no native ops: vim-deploy plugin build --target onnxruntime")
    info = describe_ort_library(path)
    return {**encode(info), "path": path.name, "sentence": info.sentence}


def main() -> None:
    """Measure what is missing; keep the results when the machine was quiet."""
    options = arguments()
    load, processors = os.getloadavg()[0], environment.available_cpus()
    if not options.busy and load > MOST_LOAD * processors:
        raise SystemExit(f"the machine is not quiet (load {load:.2f}): try later")
    models, stages = options.models.split(","), options.stages.split(",")
    sizes = sorted(int(size) for size in options.sizes.split(","))
    threads = [int(count) for count in options.threads.split(",")]
    _require_packages(stages)
    machine, state = environment.machine(), environment.state()
    about = {
        "machine": json.loads(json.dumps(machine)),
        "versions": state["versions"],
        "settings": {"duration": options.duration, "warmup": options.warmup, "batch": 1},
        "library": library(),
    }
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        out = work if options.busy else options.out
        out.mkdir(parents=True, exist_ok=True)
        path = out / "scaling.json"
        tasks = tasks_of(models, sizes, stages, threads)
        entries = whole(earlier(path, about, force=options.force), tasks)
        value = {**about, "state": state, "command": ["python", "benchmarks/scaling.py"]}
        value["command"] += sys.argv[1:]

        def step_of(task: Task, seconds: float) -> Callable[[], Step]:
            command = command_of(task, work, options, sizes[0])
            return lambda: run_step(command, work, seconds)

        for entry in run_tasks(
            tasks,
            tuple(entries),
            step_of,
            seconds=60 * options.minutes,
            models=models,
            busy=options.busy,
            tell=lambda text: print(text, flush=True),
        ):
            entries.append({**entry, "commit": state["commit"]})
            # After every step: nothing is lost when the run is ended.
            write_compact(path, {**value, "entries": entries})
        write_report(value, entries, out)
        print((out / "scaling.md").read_text())
    print("the figures do not count: --busy" if options.busy else f"wrote {out}")


if __name__ == "__main__":
    main()
