"""The README's tour on a machine that deploys: its commands, without PyTorch and pytest.

    PYTHONPATH=. python -W error -m tests.support.deploying FOLDER

FOLDER holds ``digits.onnx``, exported elsewhere, and ``stored.npz``, what PyTorch gave. Any
interpreter runs it that has the package and what that needs. The commands share a process, as their
imports take longer than they do; the first has one of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURES = REPOSITORY / "tests" / "data" / "digits"
#: In the order of a first day with a file that somebody else has exported.
COMMANDS = {
    "doctor": ["doctor"],
    "recipes": ["recipes", "list"],
    "inspect": ["inspect", "digits.onnx"],
    "run": ["run", "digits.onnx", str(PICTURES)],
    "verify": ["verify", "digits.onnx", "--against", "stored.npz"],
    "bench": ["bench", "digits.onnx", "--batches", "1", "--duration", "0.05",
              "--warmup", "0.05"],
    "package": ["package", "digits.onnx", "--target", "triton", "--runtime", "python",
                "-o", "served"],
    "check": ["package", "--check", "served"],
}  # fmt: skip


def tour(python: str, folder: Path) -> str:
    """What the tour says with another interpreter; a warning is an error.

    Raises:
        AssertionError: something is not as it has to be.
    """
    done = subprocess.run(
        [python, "-m", "tests.support.deploying", str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def answers(folder: Path) -> dict[str, Any]:
    """What each command answers in ``folder``; SystemExit when one fails."""
    name, *others = COMMANDS
    words = [sys.executable, "-m", "vim_deploy", *COMMANDS[name], "--json"]
    found = {name: json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)}

    from vim_deploy.cli.main import run

    os.chdir(folder)
    for name in others:
        stream = io.StringIO()
        with contextlib.redirect_stdout(stream):
            status = run([*COMMANDS[name], "--json"])
        if status:
            sys.exit(f"{name} ends with {status}: {stream.getvalue()}")
        found[name] = json.loads(stream.getvalue())
    return found


def mistakes(said: dict[str, Any]) -> list[str]:
    """What of the answers is not as it has to be."""
    found = {item["subject"]: item for item in said["doctor"]["findings"]}
    classes = [image["top"][0]["label"] for image in said["run"]["images"]]
    checked = {item["name"]: item["checked"] for item in said["check"]["checks"]}
    right = {
        "doctor names this Python": found["vim-deploy"]["detail"].endswith(_python()),
        "doctor finds ONNX Runtime": found["verify: ONNX Runtime"]["ok"],
        "doctor misses PyTorch": not found["export: PyTorch"]["ok"],
        "doctor says what brings it": "[torch]" in found["export: PyTorch"]["fix"],
        "recipes are listed": "vim-tiny" in {item["name"] for item in said["recipes"]["recipes"]},
        "inspect knows the input": "image" in json.dumps(said["inspect"]),
        f"run finds 0, 3 and 7, not {classes}": classes == ["zero", "three", "seven"],
        "verify passes": said["verify"]["passed"] is True,
        "bench has a time": said["bench"]["results"][0]["status"] == "ok",
        "the package's stored outputs are reproduced": checked["golden output"],
    }
    return [sentence for sentence, holds in right.items() if not holds]


def _python() -> str:
    return "Python {}.{}.{}".format(*sys.version_info)


def main(folder: Path) -> None:
    """Say what is wrong, or how many commands were run."""
    wrong = mistakes(answers(folder))
    sys.exit("\n".join(wrong)) if wrong else print(f"{_python()}: {len(COMMANDS)} commands")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
