"""The newcomer's commands of docs/triton.md, run as they stand there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import plugins, traces
from tests.support.markdown import PROGRAM, blocks, console_commands
from tests.support.source import REPOSITORY
from tests.support.triton import STOP_LIMIT, environment_of, free_ports, prepare

pytestmark = [pytest.mark.triton, pytest.mark.slow]
PAGE = REPOSITORY / "docs" / "triton.md"


def start(words: list[str], folder: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
    """One command line, with this Python in the place of the programs it names."""
    if words[0] == PROGRAM:
        words = [sys.executable, "-m", "vim_deploy", *words[1:]]
    elif words[0] == "python":
        words = [sys.executable, *words[1:]]
    return subprocess.Popen(
        words,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_from_a_checkpoint_to_a_running_server(
    tmp_path: Path, request: pytest.FixtureRequest, folder_of_traces: Path
) -> None:
    pytest.importorskip("torch")
    plugins.need_tool("curl")
    first, second = [block for block in blocks(PAGE) if block.language == "console"][:2]
    commands = console_commands(first) + console_commands(second)
    *before, made, serve, wait, ask = commands
    assert made[-1] == "--prepare"
    assert serve[-1] == "&"
    assert wait[-1].startswith("127.0.0.1:8000/")

    (tmp_path / "tests").symlink_to(REPOSITORY / "tests")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIM_")}
    ports = dict(zip(("HTTP", "GRPC", "METRICS"), map(str, free_ports(3)), strict=True))
    environment = environment_of(request.config)
    variables = {
        **kept,
        **{f"VIM_{name}_PORT": port for name, port in ports.items()},
        "VIM_SERVER_VENV": str(environment),
        "PYTHON": sys.executable,
        **traces.variables(folder_of_traces),
    }

    for words in before:
        run(words, tmp_path, variables)
    prepare(tmp_path / "work" / "triton", environment)
    run(made, tmp_path, variables)
    server = start(serve[:-1], tmp_path, variables)
    try:
        run([*wait[:-1], wait[-1].replace("8000", ports["HTTP"])], tmp_path, variables)
        said = run(ask, tmp_path, variables)
        assert "7 seven" in said
        assert "the server's answers are the stored ones" in said
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=STOP_LIMIT)
        assert server.returncode == 0
    finally:
        if server.poll() is None:
            server.kill()
            server.communicate()


def run(words: list[str], folder: Path, variables: dict[str, str]) -> str:
    """What a command said; it must end well."""
    command = start(words, folder, variables)
    said, _ = command.communicate(timeout=200)
    assert command.returncode == 0, f"{' '.join(words)}\n{said}"
    return said


def test_ports_of_the_page_are_those_of_the_scripts() -> None:
    from vim_deploy.packaging.scripts import template

    text = PAGE.read_text(encoding="utf-8")
    for name in ("VIM_ADDRESS", "VIM_HTTP_PORT", "VIM_GRPC_PORT", "VIM_METRICS_PORT"):
        assert name in text
        assert name in template("run_local.sh")
        assert name in template("run_container.sh")
