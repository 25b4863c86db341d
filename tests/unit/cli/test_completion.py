"""Completion as shells ask for it: commands, options, choices, names of recipes, files."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.markdown import PROGRAM
from vim_deploy.cli.main import COMMANDS
from vim_deploy.recipe.catalog import recipe_names

#: What a completion has no use for, and what costs time to import.
HEAVY = ("numpy", "onnx", "onnxruntime", "openvino", "PIL", "rich", "tensorrt_rtx", "torch")
#: Seconds of processor time, of a process that answers.
MOST = 0.3
#: Shell programs that print what is offered for the words after ``$1``, the folder of the program.
BASH = """
PATH="$1:$PATH"; shift
source <(_VIM_DEPLOY_COMPLETE=bash_source vim-deploy)
COMP_WORDS=(vim-deploy "$@"); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
compopt() { echo "compopt:$2"; }
_vim_deploy_completion vim-deploy
printf '%s\\n' "${COMPREPLY[@]}"
complete -p vim-deploy
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program, as an installation makes it."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / PROGRAM
    text = "import sys\nfrom vim_deploy.__main__ import main\nsys.exit(main())\n"
    program.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    program.chmod(0o755)
    return folder


def in_bash(programs: Path, words: Sequence[str], folder: Path) -> list[str]:
    """Lines that bash has after a Tab behind ``words``."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    done = subprocess.run(
        [bash, "--norc", "-c", BASH, "bash", str(programs), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines.pop() == f"complete -o nosort -F _vim_deploy_completion {PROGRAM}"
    return [line for line in lines if line]


def offered(words: Sequence[str], folder: Path) -> list[str]:
    """What the program answers zsh for the last word: the plain values, and ``(file)``."""
    done = subprocess.run(
        [sys.executable, "-m", "vim_deploy"],
        cwd=folder,
        env={
            **os.environ,
            "_VIM_DEPLOY_COMPLETE": "zsh_complete",
            "COMP_WORDS": " ".join([PROGRAM, *words]),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    return [
        value if kind == "plain" else f"({kind})"
        for kind, value in zip(lines[::3], lines[1::3], strict=True)
    ]


def test_bash_completes(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "vim-tiny.pth").touch()
    assert in_bash(programs, ["ver"], tmp_path) == ["verify"]
    assert in_bash(programs, ["export", "vim-ti"], tmp_path) == [
        *("vim-tiny", "vim-tiny-plus"),
        "vim-tiny.pth",
    ]
    assert in_bash(programs, ["export", "x.onnx", "--precision", "b"], tmp_path) == ["bf16"]
    assert in_bash(programs, ["export", "model"], tmp_path) == ["compopt:default"]


def test_what_is_offered(tmp_path: Path) -> None:
    (tmp_path / "v.pth").touch()
    (tmp_path / "v with spaces").touch()
    assert offered([""], tmp_path) == list(COMMANDS)
    assert set(offered(["recipes", "show", "v"], tmp_path)) == {
        *(name for name in recipe_names() if name.startswith("v")),
        "v.pth",
    }
    assert offered(["recipes", "s"], tmp_path) == ["show"]
    assert offered(["export", "m.pth", "--model", "vim-b"], tmp_path) == ["vim-base"]
    assert offered(["export", "m.pth", "--head", "t"], tmp_path) == ["topk", "tokens"]
    assert offered(["verify", "m.onnx", "--against", "vim-d"], tmp_path) == ["vim-digits"]
    assert offered(["run", "m"], tmp_path) == ["(file)"]
    assert offered(["bench", "a.onnx", "no"], tmp_path) == ["(file)"]
    assert {"--per-block", "--plugin"} <= set(offered(["verify", "--p"], tmp_path))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(shell: str, programs: Path) -> None:
    done = subprocess.run(
        [programs / PROGRAM],
        env={**os.environ, "_VIM_DEPLOY_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert PROGRAM in done.stdout
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed: its script was not read by it")
    words = {
        "bash": ["-n"],
        "zsh": ["-n"],
        "fish": ["--no-config", "-c", f"source; complete -C '{PROGRAM} ver'"],
    }
    done = subprocess.run(
        [program, *words[shell]],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        input=done.stdout,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("verify\t") == (shell == "fish")


def test_an_answer_costs_little(tmp_path: Path) -> None:
    """The modules that are imported, and the processor time of the best of three answers."""
    program = """
import json, os, sys
from vim_deploy.__main__ import main
try:
    main()
finally:
    heavy = sorted(set(json.loads(sys.argv[1])) & set(sys.modules))
    print(*heavy, sep=",", file=sys.stderr)
"""
    variables = {"_VIM_DEPLOY_COMPLETE": "zsh_complete", "COMP_WORDS": f"{PROGRAM} export vim"}
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", program, json.dumps(HEAVY)],
            cwd=tmp_path,
            env={**os.environ, **variables, "COMP_CWORD": "2"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "vim-tiny" in done.stdout
        assert done.stderr.strip() == ""
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < MOST, took
