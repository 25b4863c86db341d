"""``python -m tests.fuzz [TARGET...]``: run damaged and hostile files through the commands."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.fuzz.cases import Target, mutated
from tests.fuzz.judge import Finding, judge, write
from tests.fuzz.targets import TARGETS


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--count", type=int, default=2000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=0, help="other inputs for another seed")
    parser.add_argument("--only", type=int, metavar="K", help="input number K alone")
    parser.add_argument("--minutes", type=float, default=1e9, help="end after so long")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the files of findings here")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    asked = parser.parse_args()
    if unknown := set(asked.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    return asked


def _print(findings: list[Finding], asked: argparse.Namespace) -> None:
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    for kind, group in sorted(kinds.items()):
        first = group[0]
        print(f"  {kind}: {len(group)} times; first with: {first.command}")
        print(
            f"    python -m tests.fuzz {first.target} --seed {asked.seed} --only {first.number}"
            " --keep DIR"
        )
        print("".join(f"    | {line}\n" for line in first.detail.splitlines()[-12:]), end="")


def _keep(target: Target, findings: list[Finding], asked: argparse.Namespace) -> None:
    seeds = target.seeds()
    for number in {finding.number for finding in findings}:
        files = seeds[-1 - number] if number < 0 else mutated(target, seeds, asked.seed, number)
        write(files, asked.keep / f"{target.name}-{asked.seed}-{number}")


def main() -> int:
    """Run what the command line asks for; 1 when there are findings."""
    asked = _arguments()
    until = time.monotonic() + 60 * asked.minutes
    any_found = False
    for name in asked.targets or TARGETS:
        target = TARGETS[name]
        valid = range(-1, -1 - len(target.seeds()), -1)
        numbers = [*valid, *range(asked.count)] if asked.only is None else [asked.only]
        findings, done = judge(target, numbers, seed=asked.seed, jobs=asked.jobs, until=until)
        print(f"{name}: {done} inputs, {len(findings)} findings", flush=True)
        _print(findings, asked)
        if asked.keep is not None and findings:
            _keep(target, findings, asked)
        any_found = any_found or bool(findings)
    return int(any_found)


if __name__ == "__main__":
    sys.exit(main())
